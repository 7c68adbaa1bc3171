"""Merges an adapter into its base: a plain model folder that gives the same answers as the adapter on its base.

`python -m gpu_setup_worker.merge --base DIR --adapter DIR --out DIR [--dtype bfloat16|float16|float32] [--four-bit]`
With --four-bit the adapter was trained on the base in NF4, and learnt to compensate its rounding errors. So it is added
to the base's weights as dequantised from NF4, and only those that were quantised. (Axolotl 0.19.0's own merge also
rounds the embedding and the head, which training does not.) One tensor at a time: the host holds the base in 4 bit and
one file of the result.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gpu_setup_worker.parent import end_with_parent

FILE_BYTES = 2 << 30
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
# PEFT options that a sum of two small matrices cannot express; each of these keys must be empty
PLAIN_ONLY = ("use_dora", "alpha_pattern", "rank_pattern", "fan_in_fan_out", "lora_bias", "target_parameters")
PREFIX = "base_model.model."


class LoraAdapter(NamedTuple):
    """`low` has (A, B) by module, `whole` the fully trained weights, by key. scale x B A is added to the base."""

    low: dict[str, tuple[torch.Tensor, torch.Tensor]]
    whole: dict[str, torch.Tensor]
    scale: float


class ResultTensor(NamedTuple):
    """A tensor of the result: its key, the base's file that has it (None: only the adapter), and its elements."""

    key: str
    file: Path | None
    elements: int


def read_adapter(folder: Path) -> LoraAdapter:
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    special = [key for key in PLAIN_ONLY if config.get(key)]
    if config.get("peft_type") != "LORA" or special:
        sys.exit(f"merge-kind: only plain LoRA can be merged, this is {config.get('peft_type')} {' '.join(special)}")
    low: dict[str, dict[str, torch.Tensor]] = {}
    whole = {}
    for key, value in load_file(folder / "adapter_model.safetensors").items():
        name = key.removeprefix(PREFIX)
        module, _, kind = name.rpartition(".lora_")
        if module:
            low.setdefault(module, {})[kind[0]] = value
        else:
            whole[name.replace(".modules_to_save", "")] = value
    root = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
    pairs = {module: (pair["A"], pair["B"]) for module, pair in low.items()}
    return LoraAdapter(pairs, whole, config["lora_alpha"] / root)


def quantised_layers(base: Path) -> dict[str, Any]:
    """The layers in NF4, by name: the base loaded as in training and examination."""
    from bitsandbytes.nn import Linear4bit

    from gpu_setup_worker.examine import load_base

    return {name: layer for name, layer in load_base(str(base)).named_modules() if isinstance(layer, Linear4bit)}


def result_tensors(base: Path, adapter: LoraAdapter) -> list[ResultTensor]:
    """Every tensor of the result, in the order of the base's files."""
    found = []
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            found += [ResultTensor(key, file, math.prod(tensors.get_slice(key).get_shape())) for key in tensors.keys()]  # noqa: SIM118
    known = {tensor.key for tensor in found}
    absent = {f"{module}.weight" for module in adapter.low} - known
    if absent:
        sys.exit(f"merge-names: the adapter changes tensors that the base lacks: {', '.join(sorted(absent)[:3])}")
    return found + [ResultTensor(key, None, value.numel()) for key, value in adapter.whole.items() if key not in known]


def merge_tensor(place: ResultTensor, adapter: LoraAdapter, layers: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
    """One tensor of the result, computed in float32."""
    from bitsandbytes.functional import dequantize_4bit

    if place.key in adapter.whole:
        return adapter.whole[place.key].to(dtype)
    module = place.key.removesuffix(".weight")
    layer = layers.get(module) if place.key.endswith(".weight") else None
    if layer is not None:
        value = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float().cpu()
    else:
        with safe_open(place.file, "pt") as tensors:
            value = tensors.get_tensor(place.key)
        if module not in adapter.low:
            return value.to(dtype) if value.is_floating_point() else value
        value = value.float()
    if module in adapter.low:
        a, b = adapter.low[module]
        value += adapter.scale * (b.float() @ a.float())
    return value.to(dtype)


def split_into_files(found: list[ResultTensor], width: int) -> Iterator[list[ResultTensor]]:
    """The tensors of each file, at most FILE_BYTES unless one tensor alone is larger."""
    part: list[ResultTensor] = []
    for place in found:
        if part and width * (place.elements + sum(other.elements for other in part)) > FILE_BYTES:
            yield part
            part = []
        part.append(place)
    if part:
        yield part


def write(base: Path, folder: Path, out: Path, dtype_name: str, four_bit: bool) -> None:
    dtype = DTYPES[dtype_name]
    adapter = read_adapter(folder)
    found = result_tensors(base, adapter)
    width = dtype.itemsize
    needed = width * sum(place.elements for place in found)
    free = shutil.disk_usage(out.parent).free
    if free < 1.02 * needed:
        sys.exit(
            f"merge-no-room: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free: No space left on device"
        )
    layers = quantised_layers(base) if four_bit else {}
    out.mkdir()
    parts = list(split_into_files(found, width))
    index, done = {}, 0
    for number, part in enumerate(parts, 1):
        name = "model.safetensors" if len(parts) == 1 else f"model-{number:05}-of-{len(parts):05}.safetensors"
        tensors = {place.key: merge_tensor(place, adapter, layers, dtype).contiguous() for place in part}
        save_file(tensors, out / name, metadata={"format": "pt"})
        index |= {place.key: name for place in part}
        done += sum(place.elements for place in part)
        print(f"merged {done * width} of {needed}", flush=True)
    if len(parts) > 1:
        listed = {"metadata": {"total_size": needed}, "weight_map": index}
        (out / "model.safetensors.index.json").write_text(json.dumps(listed, indent=1), encoding="utf-8")
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    config.pop("torch_dtype", None)
    config["dtype"] = dtype_name
    if "lm_head.weight" in adapter.whole:
        config["tie_word_embeddings"] = False
    (out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    for file in out.glob("*.safetensors"):
        # safetensors makes files readable by their owner only, but this folder is made to be shared
        file.chmod((out / "config.json").stat().st_mode)
    copy_other_files(base, folder, out)


def copy_other_files(base: Path, adapter: Path, out: Path) -> None:
    """Tokenizer (the adapter's, where it has one), generation settings and licence."""
    names = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.jinja")
    source = adapter if list(adapter.glob("tokenizer*")) else base
    copies = [file for name in names for file in source.glob(name)]
    copies += [file for name in ("generation_config.json", "LICENSE*", "NOTICE*") for file in base.glob(name)]
    for file in copies:
        if file.is_file():
            shutil.copyfile(file, out / file.name)


def remove_stale(folder: Path) -> None:
    """Remove the incomplete models of merges that were killed: gigabytes that nobody would look for."""
    for stale in folder.glob(".gpu-setup.*.merge.part"):
        if not Path("/proc", stale.name.split(".")[2]).exists():
            shutil.rmtree(stale, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="gpu_setup_worker.merge")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", choices=list(DTYPES), default="bfloat16")
    parser.add_argument("--four-bit", action="store_true")
    given = parser.parse_args()
    end_with_parent()
    remove_stale(given.out.parent)
    # written to a temporary folder and renamed: an incomplete model must never be read as complete
    partial = given.out.with_name(f".gpu-setup.{os.getpid()}.merge.part")
    try:
        write(given.base, given.adapter, partial, given.dtype, given.four_bit)
        os.replace(partial, given.out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    main()
