"""What a report measured: the work, which must be equal in two reports, and the conditions, which may differ.

Work is what was computed: model, method, data, tokens. Conditions are how and on what: GPU, driver, kernels, power. An
RTX 3090 and an RX 7900 XTX do the same work under different conditions; comparing them is the purpose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from harness.recipe.axolotl_config import Method

# with another order of the rows the counts of a step differ by up to this much: still the same work
COUNT_TOLERANCE = 0.05


AdapterKind = Literal["lora", "dora", "none"]
TrainedOn = Literal["answers", "everything"]


class ModelUsed(msgspec.Struct, frozen=True):
    """Shapes are None where the architecture is not known. `window` None: attention covers the whole document."""

    name: str
    revision: str | None = None
    layers: int | None = None
    hidden: int | None = None
    intermediate: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    vocab: int | None = None
    window: int | None = None

    @property
    def shaped(self) -> bool:
        return self.layers is not None


class QuantisationUsed(msgspec.Struct, frozen=True):
    """`kind`: nf4, fp4 or int8. `blocksize`: weights per scale; `double`: the scales are quantised too."""

    kind: str
    blocksize: int | None = None
    double: bool | None = None


class AdapterUsed(msgspec.Struct, frozen=True):
    """`targets` are sorted; the seven matrices of a Llama layer are `all-linear`.

    `trained_whole`: modules trained in full beside the adapter; `parameters`: all trained ones, counted by the worker.
    """

    kind: AdapterKind
    r: int | None
    targets: tuple[str, ...]
    dropout: float
    trained_whole: tuple[str, ...] = ()
    parameters: int | None = None


class DataUsed(msgspec.Struct, frozen=True):
    """The training data. `digest`: sha256 of the files' content; None for data from a hub.

    `trained_on`: which tokens have labels. Lengths in tokens: `mean_length` of a document; `seen_length`, the length of
    a token's document, averaged over tokens (Σℓ²/Σℓ); None where the worker did not record them. `kind` exact: every
    document fills its sequence, so that its content makes no difference and there is no digest.
    """

    name: str
    digest: str | None
    kind: str
    trained_on: TrainedOn
    mean_length: float | None = None
    seen_length: float | None = None


class Work(msgspec.Struct, frozen=True):
    """What must be equal in reports that are compared.

    Tokens without padding: `tokens_per_step`, the mean per optimizer step; `tokens` of all planned steps.
    """

    model: ModelUsed
    method: Method
    quantisation: QuantisationUsed | None
    adapter: AdapterUsed | None
    precision: str
    data: DataUsed
    sequence: int | None
    tokens_per_step: float | None
    tokens: int | None


class Conditions(msgspec.Struct, frozen=True):
    """How and on what the work was done; the report's digest covers all of it. None: not known or not set.

    `recipe` and `recorder`: digests of the recipe's text and of our own code inside the training process; `measured`:
    how it was measured, in a few words (launches, soaked or not).
    """

    card: str | None = None
    cards: int | None = None
    power_limit_watts: float | None = None
    driver: str | None = None
    cpu: str | None = None
    cores: int | None = None
    threads: int | None = None
    os: str | None = None
    kernel: str | None = None
    stack: str | None = None
    lock: str | None = None
    image: str | None = None
    python: str | None = None
    torch: str | None = None
    runtime: str | None = None
    axolotl: str | None = None
    transformers: str | None = None
    peft: str | None = None
    bitsandbytes: str | None = None
    accelerate: str | None = None
    attention: str | None = None
    attention_kernels: tuple[str, ...] = ()
    checkpointing: str | None = None
    compile: bool | None = None
    packing: bool | None = None
    micro_batch: int | None = None
    accumulation: int | None = None
    optimizer: str | None = None
    kernels: tuple[str, ...] = ()
    weights: Literal["real", "random"] | None = None
    seed: int | None = None
    recipe: str | None = None
    recorder: str | None = None
    measured: str | None = None


class Difference(msgspec.Struct, frozen=True):
    """One key, and its value in each report."""

    key: str
    values: tuple[Any, ...]


def digest_of(work: Work, conditions: Conditions, config: dict[str, Any]) -> str:
    """sha256 over everything that shapes the figures: the work, every setting, and the config without its folders.

    With equal digests only noise, temperature and other programs can make a difference.
    """
    plain = {key: value for key, value in config.items() if key not in _FOLDERS}
    parts = msgspec.json.encode([work, conditions, plain], order="deterministic")
    return hashlib.sha256(parts).hexdigest()


# paths differ between machines and do not change the figures
_FOLDERS = ("base_model", "datasets", "output_dir", "dataset_prepared_path", "plugins")


def differences(works: tuple[Work, ...]) -> tuple[Difference, ...]:
    """The keys in which the work differs; empty: the reports can be compared."""
    names = [dict(_flat(work)) for work in works]
    shaped = all(work.model.shaped for work in works)
    found = []
    for key in dict.fromkeys(key for flat in names for key in flat):
        values = tuple(flat.get(key) for flat in names)
        if key == "model" and shaped:
            # the shapes decide what is computed, not the name of the model
            continue
        if key == "data" and all(work.data.digest for work in works):
            # the digest of the content decides, not the file name
            continue
        if key in _WHERE_KNOWN and None in values:
            continue
        if not _is_same(key, values):
            found.append(Difference(key, values))
    return tuple(found)


# compared only where every report has them: the digest of the content covers the lengths, and the revision of a model
# that is not pinned is not known
_WHERE_KNOWN = frozenset({"revision", "mean length", "length seen"})
_COUNTED = frozenset({"tokens", "tokens a step", "mean length", "length seen"})


def _is_same(key: str, values: tuple[Any, ...]) -> bool:
    if key in _COUNTED and None not in values:
        return bool(max(values) <= min(values) * (1 + COUNT_TOLERANCE))
    return len(set(values)) == 1


def _flat(work: Work) -> Iterator[tuple[str, Any]]:
    """Every key of the work under its display name."""
    model, data = work.model, work.data
    yield "model", model.name
    yield "revision", model.revision
    for name in ("layers", "hidden", "intermediate", "heads", "kv_heads", "head_dim", "vocab"):
        yield f"model's {name.replace('_', ' ')}", getattr(model, name)
    yield "attention window", model.window
    yield "method", work.method
    quantisation = work.quantisation or QuantisationUsed("none")
    yield "quantisation", quantisation.kind
    yield "quantisation's block size", quantisation.blocksize
    yield "double quantisation", quantisation.double
    adapter = work.adapter or AdapterUsed("none", None, (), 0.0)
    yield "adapter", adapter.kind
    yield "LoRA r", adapter.r
    yield "LoRA targets", ", ".join(adapter.targets) or None
    yield "LoRA dropout", adapter.dropout
    yield "fully trained modules", ", ".join(adapter.trained_whole) or None
    yield "trained parameters", adapter.parameters
    yield "precision", work.precision
    yield "data", data.name
    yield "data's digest", data.digest[:12] if data.digest else None
    yield "kind of data", data.kind
    yield "trained on", data.trained_on
    yield "mean length", data.mean_length
    yield "length seen", data.seen_length
    yield "sequence", work.sequence
    yield "tokens a step", work.tokens_per_step
    yield "tokens", work.tokens


def describe_work(work: Work) -> tuple[tuple[str, Any], ...]:
    """The work as names and values; what is not known is left out."""
    return tuple((key, value) for key, value in _flat(work) if value is not None)


def list_conditions(conditions: Conditions) -> tuple[tuple[str, Any], ...]:
    """The conditions under their display names, the most important first."""
    return tuple(
        (LABELS.get(name, name), ", ".join(value) or None if isinstance(value, tuple) else value)
        for name, value in msgspec.structs.asdict(conditions).items()
    )


LABELS = {
    "cards": "number of cards",
    "power_limit_watts": "power limit (W)",
    "cpu": "CPU",
    "os": "system",
    "lock": "package lock",
    "python": "Python",
    "runtime": "CUDA or ROCm",
    "axolotl": "Axolotl",
    "attention_kernels": "attention kernels seen",
    "micro_batch": "micro batch",
    "kernels": "LoRA and loss kernels",
    "recorder": "recorder's code",
}
