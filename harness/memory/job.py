"""One training job, reduced to what its memory depends on, and how to read it from a recipe's config."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.recipe.axolotl_config import Method, method_of
from harness.recipe.shapes import LINEARS, Shapes
from machine.errors import BadUsage

METHODS: tuple[Method, ...] = ("full", "lora", "qlora")

Dtype = Literal["bf16", "fp16", "fp32"]
LossKind = Literal["whole", "shifted", "fused"]

WIDTH: dict[Dtype, int] = {"bf16": 2, "fp16": 2, "fp32": 4}

_TABLE = Path(str(resources.files("harness"))) / "memory" / "constants.toml"


class Optimizer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes of optimizer state per trainable parameter. `like_weights`: that many times the parameter's own width.

    `step_like_weights`: what the optimizer step allocates temporarily (PyTorch's foreach loops), in the same widths.
    """

    bytes: float = 0.0
    like_weights: float = 0.0
    step_like_weights: float = 0.0


class AllocatorSlack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The only figures that are fitted: the same for every model, card and method.

    `slack`: memory that the allocator reserves and cannot use, as a share of the temporary memory of a step, where all
    batches have one shape; `slack_varied`: the same where batches have many shapes.
    """

    slack: float
    slack_varied: float


class Constants(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes. `context`: the driver's context and kernels. `cublas`: the workspace that PyTorch gives cuBLAS. `reserve`:
    free memory that a job leaves unused.
    """

    fitted: AllocatorSlack
    context: int
    cublas: int
    reserve: int
    optimizers: dict[str, Optimizer]


@cache
def constants() -> Constants:
    import tomllib

    return msgspec.convert(tomllib.loads(_TABLE.read_text(encoding="utf-8")), Constants)


class MemoryJob(msgspec.Struct, frozen=True, kw_only=True):
    """One training job on one card.

    `weights`: the precision that the base model is loaded in (except quantised matrices). `autocast`: the Trainer
    computes in 16 bit whatever the weights are. `float32`: the norms are in 32 bit (`norms`, TRL), or embedding and
    head too (`ends`, PEFT's prepare_model_for_kbit_training); both make the whole residual stream 32 bit. Axolotl
    converts them back: `none`.
    `attention`: `fused` for any kernel that keeps no score matrix, `math` for one that does.
    `loss`: `whole` logits in 32 bit; `shifted`, which copies them once more (transformers before 4.50); `fused`, which
    never holds all of them (cut cross entropy, Liger). `keeps_logits`: the training loop keeps the output until the
    backward pass is over. `varied`: batches have many lengths (no packing, no padding to one length).
    `lora_kernels`: Axolotl's fused LoRA kernels.
    """

    shapes: Shapes
    method: Method
    seq: int
    batch: int
    accumulation: int = 1
    rank: int = 0
    targets: tuple[str, ...] = ()
    dropout: float = 0.0
    checkpointing: bool = True
    optimizer: str = "adamw_torch"
    weights: Dtype = "bf16"
    adapter: Dtype = "fp32"
    double_quant: bool = False
    autocast: bool = True
    float32: Literal["none", "norms", "ends"] = "none"
    attention: Literal["fused", "math"] = "fused"
    loss: LossKind = "whole"
    keeps_logits: bool = False
    varied: bool = False
    lora_kernels: bool = False

    @property
    def tokens(self) -> int:
        """Token slots of one micro-batch, padding included."""
        return self.seq * self.batch

    @property
    def quantised(self) -> bool:
        return self.method == "qlora"

    @property
    def stream(self) -> int:
        """Bytes per element of the residual stream."""
        return 4 if self.float32 != "none" else WIDTH[self.weights]


def find_optimizer(name: str) -> Optimizer:
    """The optimizer's memory figures; raises BadUsage with similar names for an unknown one."""
    table = constants().optimizers
    if name not in table:
        near = difflib.get_close_matches(name, table, n=2, cutoff=0.4)
        raise BadUsage(
            "fit.optimizer",
            f"The memory of the optimizer “{name}” is not known."
            + (f" Did you mean {' or '.join(near)}?" if near else ""),
            f"Known optimizers: {', '.join(table)}.",
            "Give one of these, or set one of these in the recipe.",
        )
    return table[name]


def job_from_config(config: dict[str, Any], shapes: Shapes) -> MemoryJob:
    """The job that an Axolotl config describes, for a model of these shapes. Raises BadUsage for a value that makes no
    sense.

    Axolotl computes under autocast (`bf16`, `fp16`), keeps PEFT's adapters in 32 bit and converts embedding, head and
    norms back to 16 bit: axolotl/loaders/model.py of 0.19.0.
    """
    method = method_of(config)
    half: tuple[Dtype, ...] = ("bf16", "fp16")
    sixteen = next((name for name in half if config.get(name)), None)
    quantisation = config.get("bnb_config_kwargs")
    plugins = " ".join(str(name) for name in config.get("plugins") or ())
    packed = bool(config.get("sample_packing") or config.get("pad_to_sequence_len"))
    job = MemoryJob(
        shapes=shapes,
        method=method,
        seq=_count(config, "sequence_len", 2048),
        batch=_count(config, "micro_batch_size", 1),
        accumulation=_count(config, "gradient_accumulation_steps", 1),
        rank=_count(config, "lora_r", 8) if method != "full" else 0,
        targets=_targets(config) if method != "full" else (),
        dropout=_share(config, "lora_dropout"),
        checkpointing=bool(config.get("gradient_checkpointing")),
        optimizer=str(config.get("optimizer") or "adamw_torch_fused"),
        weights=sixteen or "fp32",
        # Axolotl switches bitsandbytes' double quantisation on by default
        double_quant=not isinstance(quantisation, dict) or bool(quantisation.get("bnb_4bit_use_double_quant", True)),
        autocast=sixteen is not None,
        attention="math" if config.get("attn_implementation") == "eager" else "fused",
        loss="fused" if "CutCrossEntropy" in plugins or config.get("liger_fused_linear_cross_entropy") else "whole",
        varied=not packed,
        lora_kernels=bool(config.get("lora_mlp_kernel")),
    )
    find_optimizer(job.optimizer)
    return job


def _targets(config: dict[str, Any]) -> tuple[str, ...]:
    named = config.get("lora_target_modules")
    if config.get("lora_target_linear") or not named:
        return LINEARS
    if isinstance(named, str):
        # a pattern: every linear layer that it can match
        return tuple(name for name in LINEARS if name.removesuffix("_proj") in named) or LINEARS
    return tuple(str(name) for name in named)


def _count(config: dict[str, Any], key: str, default: int) -> int:
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadUsage("fit.value", f"{key} is {value!r}, not a whole number of 1 or more.", "", f"Correct {key}.")
    return value


def _share(config: dict[str, Any], key: str) -> float:
    value = config.get(key) or 0.0
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise BadUsage("fit.value", f"{key} is {value!r}, not a number from 0 to 1.", "", f"Correct {key}.")
    return float(value)
