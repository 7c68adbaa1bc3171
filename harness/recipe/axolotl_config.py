"""From a recipe to the config that Axolotl gets: what gpu-setup adds, and the swap of the reference's model for a
small one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from harness.recipe.loader import SAMPLES, Recipe

PLUGIN = "gpu_setup_worker.plugin.Telemetry"

Method = Literal["full", "lora", "qlora"]

# the only keys that may change when the reference's model is swapped for the tiny one
SWAPPABLE = frozenset(
    {
        "base_model",
        "sequence_len",
        "max_steps",
        "datasets",
        "bf16",
        "fp16",
        "tf32",
        "attn_implementation",
        "lora_mlp_kernel",
        "lora_qkv_kernel",
        "lora_o_kernel",
        "lora_embedding_kernel",
    }
)


def run_config(
    recipe: Recipe, base_model: str, folder: Path, data: Path | None, overrides: dict[str, Any]
) -> dict[str, Any]:
    """The recipe's config with local paths, our plugin and the run's folders. `overrides` are applied last; a None in
    them removes the key.

    The user's own `data` replaces the datasets, and a tenth of it is held out.
    """
    config = dict(recipe.config)
    if base_model != config.get("base_model"):
        # a local folder has no revisions: the recipe's revision was downloaded into it
        config.pop("revision_of_model", None)
    config["base_model"] = base_model
    config["datasets"] = [_with_local_path(entry, recipe) for entry in recipe.config.get("datasets") or []]
    if data is not None:
        config["datasets"] = [{"path": str(data.absolute()), "ds_type": "json", "type": "alpaca"}]
        config["val_set_size"] = config.get("val_set_size") or 0.1
    config["plugins"] = [*(recipe.config.get("plugins") or []), PLUGIN]
    config["output_dir"] = str(folder / "adapter")
    config["dataset_prepared_path"] = str(folder / "prepared")
    config.setdefault("seed", 42)
    config.update(overrides)
    return {key: value for key, value in config.items() if value is not None or key not in overrides}


def find_dataset(name: str, recipe: Recipe) -> Path | None:
    """The file of a dataset in the recipe's folder or among the samples; None for a dataset on the hub."""
    for folder in (Path(recipe.path).parent, SAMPLES):
        if (folder / name).is_file():
            return (folder / name).resolve()
    return None


def local_datasets(recipe: Recipe) -> dict[Path, dict[str, Any]]:
    """The recipe's datasets that are local files, each with its entry in the config."""
    found = ((find_dataset(entry["path"], recipe), entry) for entry in recipe.config.get("datasets") or [])
    return {file: entry for file, entry in found if file is not None}


def local_inputs(recipe: Recipe) -> tuple[Path, ...]:
    """What this recipe reads of this machine: data files, also those by absolute path, and a model's folder."""
    named = [
        word
        for key in ("datasets", "test_datasets", "pretraining_dataset")
        for entry in recipe.config.get(key) or []
        if isinstance(entry, dict)
        for value in (entry.get("path"), entry.get("data_files"))
        for word in (value if isinstance(value, list) else [value])
        if isinstance(word, str)
    ]
    places = [Path(word) for word in named if word.startswith("/")]
    model = Path(str(recipe.config["base_model"]))
    found = [*local_datasets(recipe), *(place for place in places if place.exists())]
    return tuple(dict.fromkeys([*found, *([model.resolve()] if model.is_dir() else [])]))


def _with_local_path(entry: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    file = find_dataset(entry["path"], recipe)
    return {**entry, "path": str(file)} if file else dict(entry)


def method_of(config: dict[str, Any]) -> Method:
    """What the config trains: every weight, LoRA's matrices, or LoRA's matrices on a 4-bit base."""
    if not config.get("adapter"):
        return "full"
    return "qlora" if config.get("load_in_4bit") else "lora"


def swap_model(reference: dict[str, Any], small: dict[str, Any]) -> dict[str, Any]:
    """The reference recipe with the small recipe's values for the swappable keys; all other keys are unchanged."""
    return {**reference, **{key: small[key] for key in SWAPPABLE if key in small}}


def difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ, with both values (None where absent)."""
    keys = sorted(set(one) | set(other))
    return {key: (one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)}
