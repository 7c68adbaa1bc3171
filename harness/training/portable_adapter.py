"""A trained folder that loads on any machine and can be published: no folder of this machine in it.

Axolotl writes absolute paths into adapter_config.json, its model card and debug.log.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec

from harness.atomic_files import disk_errors, write_atomic
from harness.environment.model_download import read_source
from harness.recipe.loader import Recipe

BASES = Path(__file__).with_name("bases.toml")
# in the run's folder instead
DEBUG_LOG = "axolotl-debug.log"
# tokenizer.json may have megabytes, and names no folder
_LARGEST = 1 << 20


class BaseModel(msgspec.Struct, frozen=True):
    """The base model as the model card names it; `licence` None: not known."""

    name: str
    revision: str | None = None
    licence: str | None = None
    from_hub: bool = False


@cache
def _bundled_models() -> dict[str, dict[str, str]]:
    import tomllib

    return tomllib.loads(BASES.read_text(encoding="utf-8"))


def find_base_model(recipe: Recipe, base_model: str) -> BaseModel:
    """The base model as the hub describes it, or from bases.toml."""
    source = read_source(Path(base_model))
    if source is not None:
        return BaseModel(source.repo, source.revision, source.licence, from_hub=True)
    row = _bundled_models().get(recipe.traits.model)
    if row is not None:
        return BaseModel(row["name"], row["revision"], row["licence"] or None)
    return BaseModel(public_name(recipe))


def public_name(recipe: Recipe) -> str:
    """The recipe's base_model; of a folder of this machine only its last part."""
    name = str(recipe.config["base_model"])
    return Path(name).name if name.startswith(("/", "~", ".")) else name


def make_portable(folder: Path, recipe: Recipe, base_model: str) -> None:
    """Take what names this machine's folders out of the run's adapter, or its model where every weight was trained.

    Axolotl's model card (the whole configuration) and the trainer's pickled arguments go; `train` writes a card of its
    own. Raises OutsideFailed.
    """
    adapter = folder / "adapter"
    for name in ("README.md", "training_args.bin"):
        with disk_errors(adapter):
            (adapter / name).unlink(missing_ok=True)
    with disk_errors(adapter), suppress(FileNotFoundError):
        (adapter / "debug.log").replace(folder / DEBUG_LOG)
    base = find_base_model(recipe, base_model)
    for file in adapter.glob("*.json"):
        if file.stat().st_size <= _LARGEST and base_model.encode() in (text := file.read_bytes()):
            write_atomic(file, text.replace(base_model.encode(), public_name(recipe).encode()))
    if (adapter / "adapter_config.json").is_file():
        write_base_name(adapter, base, recipe)


def write_base_name(adapter: Path, base: BaseModel, recipe: Recipe) -> None:
    """Write the base's public name into the adapter, instead of a folder of this machine."""
    file = adapter / "adapter_config.json"
    config = msgspec.json.decode(file.read_bytes())
    config["base_model_name_or_path"] = base.name if base.from_hub else public_name(recipe)
    config["revision"] = base.revision if base.from_hub else None
    write_atomic(file, msgspec.json.format(msgspec.json.encode(config), indent=2))
