"""Recipes: plain Axolotl YAML, and what gpu-setup must know about each of them (recipes.toml)."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from harness.recipe.safe_yaml import LARGEST, load_yaml
from machine.errors import BadUsage, reason
from machine.input_file import read_input

SHIPPED = Path(str(resources.files("harness"))) / "recipes"
SAMPLES = Path(str(resources.files("harness"))) / "dataset" / "samples"


class LossBand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The expected range of the mean training loss over the last `steps` steps, for the recipe as written, any seed."""

    low: float
    high: float
    steps: int


class Traits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model`: hub, smollm2, tiny or synthetic-NAME. `held_out`: a file of the samples, `split` (Axolotl's validation
    split) or none.

    For the smoke test: `must_fall` is the share by which the held-out loss must fall; `keeps_pairing` the share of the
    base model's preference for the right answer that must remain; `marker` a text that a trained answer contains.
    `loss_band`: for benchmarks, and only where nothing but the seed is changed. `throughput_only`: nothing is learnt,
    so only the speed is judged. `vram_gb`: the card's VRAM in GiB that the recipe is made for. `preset_of`: the recipe
    that this is a preset of.
    """

    title: str
    model: str = "hub"
    needs_gpu: bool = False
    download_bytes: int | None = None
    held_out: str | None = "split"
    marker: str | None = None
    warmup_steps: int = 3
    must_fall: float = 0.02
    keeps_pairing: float | None = None
    loss_band: LossBand | None = None
    throughput_only: bool = False
    vram_gb: int | None = None
    preset_of: str | None = None

    def on_other_data(self) -> Traits:
        """For the user's own data: limits that were measured with the shipped data do not hold for them."""
        return Traits(
            self.title, self.model, self.needs_gpu, self.download_bytes, warmup_steps=self.warmup_steps,
            throughput_only=self.throughput_only, vram_gb=self.vram_gb, preset_of=self.preset_of,
        )  # fmt: skip


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A recipe's changes for another VRAM size: `changes` is key → (value, reason)."""

    of: tuple[str, ...]
    vram_gb: int
    because: str
    changes: dict[str, tuple[int | bool, str]] = {}


class BuiltInAttention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The cards, by compute capability or gfx name, that PyTorch's own kernel for packed documents supports."""

    targets: tuple[str, ...]
    source: str
    date: str


class TritonFloor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The oldest compute capability that Triton compiles for, and the recipe keys that switch on kernels of it."""

    oldest: str
    keys: tuple[str, ...]
    source: str
    date: str


class RecipeTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """recipes.toml: the traits of each recipe, the presets by VRAM size, and where sdpa_varlen works."""

    recipes: dict[str, Traits]
    presets: dict[str, Preset]
    sdpa_varlen: BuiltInAttention
    triton: TritonFloor


class Recipe(msgspec.Struct, frozen=True):
    """`config` is the YAML as written; `text` its source; `digest` the sha256 of the text."""

    name: str
    path: str
    text: str
    config: dict[str, Any]
    traits: Traits

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@cache
def _recipe_table() -> RecipeTable:
    import tomllib

    return msgspec.convert(tomllib.loads((SHIPPED / "recipes.toml").read_text(encoding="utf-8")), RecipeTable)


def recipe_names() -> tuple[str, ...]:
    """The shipped recipes, the reference first; then the presets for other VRAM sizes."""
    return (*_recipe_table().recipes, *_presets())


def recipe_files(given: Sequence[str], gpu: bool) -> tuple[Path, ...]:
    """The files of the recipes that are named, else of all shipped ones that can run with or without a GPU."""
    loaded = [load_recipe(name) for name in given or recipe_names()]
    usable = [recipe for recipe in loaded if given or gpu or not recipe.traits.needs_gpu]
    return tuple(Path(recipe.path).absolute() for recipe in usable)


def _presets() -> dict[str, tuple[str, Preset]]:
    """Each preset's name, the recipe that it is made from, and what it changes."""
    table = _recipe_table().presets
    return {f"{base}-{size}": (base, preset) for size, preset in table.items() for base in preset.of}


def presets_of(base: str) -> tuple[str, ...]:
    """The names of a recipe's presets, the smallest card first."""
    return tuple(name for name, (of, _) in _presets().items() if of == base)


def load_recipe(name: str) -> Recipe:
    """A shipped recipe by name, or any Axolotl YAML by path. Raises BadUsage with what is wrong and where."""
    if name in _recipe_table().recipes:
        return read_recipe(SHIPPED / f"{name}.yaml", name, _recipe_table().recipes[name])
    if name in _presets():
        return preset_recipe(name, *_presets()[name])
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return user_recipe(Path(name))
    near = difflib.get_close_matches(name, recipe_names(), n=1, cutoff=0.4)
    raise BadUsage(
        "recipe.unknown",
        f"There is no recipe “{name}”." + (f" Did you mean {near[0]}?" if near else ""),
        f"The recipes are {', '.join(recipe_names())}; a path to an Axolotl YAML file works too.",
        f"gpu-setup smoke --recipe {near[0] if near else 'smollm2-135m-qlora'}",
    )


def user_recipe(path: Path) -> Recipe:
    """The user's recipe. With a shipped recipe's base_model it trains the same model (without the hub where the shipped
    one needs none); with its datasets too, it is judged by the same held-out questions.
    """
    read = read_recipe(path, path.stem, Traits(title=f"your recipe {path}"))
    for name in _recipe_table().recipes:
        shipped = load_recipe(name)
        if shipped.config["base_model"] == read.config.get("base_model"):
            traits = msgspec.structs.replace(shipped.traits, title=read.traits.title, loss_band=None, vram_gb=None)
            if shipped.config["datasets"] != read.config.get("datasets"):
                traits = traits.on_other_data()
            return msgspec.structs.replace(read, traits=traits)
    return read


def preset_recipe(name: str, base: str, preset: Preset) -> Recipe:
    """A recipe's text with a preset's values, each with its reason, below a header that names the changes."""
    recipe = load_recipe(base)
    text = recipe.text
    for key, (value, because) in preset.changes.items():
        written = "true" if value is True else "false" if value is False else str(value)
        line = f"# {preset.vram_gb} GB: {because}. {base}: \\g<1>\n{key}: {written}"
        text, found = re.subn(rf"^{key}: (.*)$", line, text, flags=re.MULTILINE)
        assert found == 1, f"{base} has no line for {key}"
    changed = ", ".join(preset.changes) or "nothing"
    words = f"{preset.because} Changed: {changed}. Everything else is as in {base}, whose header follows."
    header = f"# {name}: {base} for a card with {preset.vram_gb} GB.\n#\n{_as_comment(words)}\n#\n"
    traits = msgspec.structs.replace(
        recipe.traits,
        title=f"{base} for a card with {preset.vram_gb} GB",
        vram_gb=preset.vram_gb,
        preset_of=base,
        loss_band=None,
    )
    result = read_recipe(Path(recipe.path), name, traits, header + text)
    assert result.config == {**recipe.config, **{key: value for key, (value, _) in preset.changes.items()}}
    return result


def _as_comment(text: str) -> str:
    import textwrap

    return textwrap.fill(text, 120, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def overrides_for_card(recipe: Recipe, target: str | None) -> dict[str, Any]:
    """The changes that a card of this target needs: without PyTorch's kernel for packed documents, a mask separates
    them, slower and with the same result; without Triton, PyTorch's own operations compute the adapters. `target`
    None: no card, nothing to change.
    """
    if not target:
        return {}
    table = _recipe_table()
    changes: dict[str, Any] = {}
    if recipe.config.get("sdpa_varlen") and target not in table.sdpa_varlen.targets:
        changes["sdpa_varlen"] = False
    if recipe.config.get("adapter") and target[0].isdigit() and float(target) < float(table.triton.oldest):
        # Axolotl switches them on by itself where they are not set
        changes |= dict.fromkeys(table.triton.keys, False)
    return changes


def read_recipe(path: Path, name: str, traits: Traits, text: str | None = None) -> Recipe:
    """Read one Axolotl YAML file; `text` replaces its content (for presets)."""
    import yaml

    try:
        text = text or read_input(path, LARGEST).decode("utf-8")
        config = load_yaml(text)
    except FileNotFoundError as error:
        raise BadUsage("recipe.missing", f"The recipe {path} does not exist.", "", "Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadUsage(
            "recipe.unreadable", f"The recipe {path} cannot be read.", reason(error), "Check the file."
        ) from error
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}, column {place.column + 1}" if place else ""
        raise BadUsage(
            "recipe.broken",
            f"The recipe {path} is not valid YAML{where}.",
            str(getattr(error, "problem", error)) + ".",
            "Correct that line; `gpu-setup recipe NAME` prints a shipped recipe to compare with.",
        ) from error
    except (ValueError, RecursionError) as error:
        # a date that does not exist, brackets nested a thousand deep, a number with thousands of digits
        raise BadUsage(
            "recipe.broken",
            f"The recipe {path} has a value that cannot be read.",
            f"{error}.",
            "Quote the value or remove it; `gpu-setup recipe NAME` prints a shipped recipe to compare with.",
        ) from error
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise BadUsage(
            "recipe.broken",
            f"The recipe {path} is not an Axolotl config.",
            "A config is a mapping of keys to values, such as `base_model: …`.",
            "`gpu-setup recipe smollm2-135m-qlora` prints one that works.",
        )
    _check_shape(path, config)
    _check_numbers(path, config)
    return Recipe(name, str(path), text, config, traits)


def _check_shape(path: Path, config: dict[str, Any]) -> None:
    """Check the shape of the keys that gpu-setup reads; Axolotl checks everything else."""
    datasets, plugins = config.get("datasets"), config.get("plugins")
    if datasets is not None and not (
        isinstance(datasets, list)
        and all(isinstance(entry, dict) and isinstance(entry.get("path"), str) for entry in datasets)
    ):
        raise BadUsage(
            "recipe.datasets",
            f"`datasets` in the recipe {path} is not a list of datasets.",
            "Each entry is a mapping with a path, for example: - {path: mine.json, ds_type: json, type: alpaca}",
            f"Correct it in {path}; `gpu-setup recipe smollm2-135m-qlora` shows one that works.",
        )
    if plugins is not None and not isinstance(plugins, list):
        raise BadUsage(
            "recipe.plugins",
            f"`plugins` in the recipe {path} is not a list.",
            "Axolotl expects a list of classes, for example: - my_package.MyPlugin",
            f"Correct it in {path}.",
        )


# the smallest and largest value that can make sense for the numbers that gpu-setup computes with
_LIMITS = {
    "sequence_len": (1, 1 << 24),
    "micro_batch_size": (1, 1 << 16),
    "gradient_accumulation_steps": (1, 1 << 20),
    "lora_r": (1, 1 << 16),
    # -1: num_epochs decides
    "max_steps": (-1, (1 << 31) - 1),
    "num_epochs": (0, 1_000_000),
    "val_set_size": (0, 1 << 31),
    "seed": (0, (1 << 32) - 1),
}


def _check_numbers(path: Path, config: dict[str, Any]) -> None:
    """Check the numbers that gpu-setup computes with before anything is built for them."""
    for key, (low, high) in _LIMITS.items():
        value = config.get(key)
        if isinstance(value, int | float) and not low <= value <= high:
            raise BadUsage(
                "recipe.value",
                f"{key} in the recipe {path} is {value}.",
                f"It must be from {low:,} to {high:,}.",
                f"Correct it in {path}.",
            )


def check_keys(recipe: Recipe, known: frozenset[str]) -> None:
    """Refuse a key that Axolotl does not have: Axolotl would ignore it silently, and train something else."""
    for key in recipe.config:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise BadUsage(
                "recipe.unknown-key",
                f"The recipe {recipe.name} has a key that Axolotl does not know: {key}.",
                "Axolotl would ignore it." + (f" Did you mean {near[0]}?" if near else ""),
                f"Correct or remove the key in {recipe.path}.",
            )
    require_model(recipe)


def require_model(recipe: Recipe) -> None:
    """Raises BadUsage for a recipe without a model's name."""
    name = recipe.config.get("base_model")
    if not name or not isinstance(name, str):
        raise BadUsage(
            "recipe.no-model", f"The recipe {recipe.name} has no base_model.", "", f"Add base_model to {recipe.path}."
        )
