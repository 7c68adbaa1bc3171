"""What a report's figures are figures of: the work, which two reports must share, and the conditions, which are shown.

Work is what was computed: model, method, data, tokens. Conditions are how and on what: card, driver, kernels, power. A
3090 and a 7900 do the same work under other conditions, and comparing them is the point.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

# rows in another order fall into other steps: this much in what was counted is the same work
COUNT_TOLERANCE = 0.05


class Model(msgspec.Struct, frozen=True):
    """Shapes are None where the model's plan is not known; `window` None: attention sees the whole document."""

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


class Quantisation(msgspec.Struct, frozen=True):
    """`kind`: nf4, fp4 or int8; `blocksize`: weights that share a scale; `double`: the scales are quantised too."""

    kind: str
    blocksize: int | None = None
    double: bool | None = None


class Adapter(msgspec.Struct, frozen=True):
    """`kind`: lora or dora. `targets` are sorted; the seven matrices of a Llama layer are `all-linear`.

    `trained_whole`: modules trained beside the adapter; `parameters`: all that is trained, as the worker counted it.
    """

    kind: str
    r: int | None
    targets: tuple[str, ...]
    dropout: float
    trained_whole: tuple[str, ...] = ()
    parameters: int | None = None


class Data(msgspec.Struct, frozen=True):
    """What is trained on. `digest`: sha256 of the files' content; None where they lie on a hub.

    `trained_on`: answers or everything (the mask). Lengths in tokens: `mean_length` of a document, and `seen_length` of
    the document that a token stands in, on average (Σℓ²/Σℓ); None where the worker did not record them. `kind` exact:
    every document fills its sequence, so that what stands in it makes no difference and there is no digest.
    """

    name: str
    digest: str | None
    kind: str
    trained_on: str
    mean_length: float | None = None
    seen_length: float | None = None


class Work(msgspec.Struct, frozen=True):
    """The key of a comparison. `method`: full, lora or qlora.

    Tokens are without padding: `tokens_per_step` of an optimizer step on average, `tokens` of all planned steps.
    """

    model: Model
    method: str
    quantisation: Quantisation | None
    adapter: Adapter | None
    precision: str
    data: Data
    sequence: int | None
    tokens_per_step: float | None
    tokens: int | None


class Conditions(msgspec.Struct, frozen=True):
    """How and on what the work was done: settings, all of them in the report's digest. None: not known or not set.

    `weights`: real or random; `recipe` and `recorder` are digests, of the recipe's text and of our own code inside the
    training; `measured`: how, in a few words (launches, soaked or not).
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
    weights: str | None = None
    seed: int | None = None
    recipe: str | None = None
    recorder: str | None = None
    measured: str | None = None


class Difference(msgspec.Struct, frozen=True):
    """One key and what each side has there."""

    key: str
    values: tuple[Any, ...]


def digest_of(work: Work, conditions: Conditions, config: dict[str, Any]) -> str:
    """sha256 over everything that shaped the number: the work, every setting, and the config without its folders.

    Equal digests mean that only chance, heat and other programs can have made a difference.
    """
    plain = {key: value for key, value in config.items() if key not in _FOLDERS}
    parts = msgspec.json.encode([work, conditions, plain], order="deterministic")
    return hashlib.sha256(parts).hexdigest()


# where things lie differs from machine to machine and shapes nothing
_FOLDERS = ("base_model", "datasets", "output_dir", "dataset_prepared_path", "plugins")


def differences(works: tuple[Work, ...]) -> tuple[Difference, ...]:
    """The keys in which these are not the same work; empty: they compare."""
    names = [dict(_flat(work)) for work in works]
    shaped = all(work.model.shaped for work in works)
    found = []
    for key in dict.fromkeys(key for flat in names for key in flat):
        values = tuple(flat.get(key) for flat in names)
        if key == "model" and shaped:
            # the shapes decide what is computed, whatever a mirror calls the model
            continue
        if key == "data" and all(work.data.digest for work in works):
            # the content's digest decides, whatever the file is called
            continue
        if key in _WHERE_KNOWN and None in values:
            continue
        if not _same(key, values):
            found.append(Difference(key, values))
    return tuple(found)


# compared only where every report has them: the content's digest stands for the lengths, and an unpinned model's
# revision is not known
_WHERE_KNOWN = frozenset({"revision", "mean length", "length seen"})
_COUNTED = frozenset({"tokens", "tokens a step", "mean length", "length seen"})


def _same(key: str, values: tuple[Any, ...]) -> bool:
    if key in _COUNTED and None not in values:
        return bool(max(values) <= min(values) * (1 + COUNT_TOLERANCE))
    return len(set(values)) == 1


def _flat(work: Work) -> Iterator[tuple[str, Any]]:
    """Every key of the work under the name that a person reads."""
    model, data = work.model, work.data
    yield "model", model.name
    yield "revision", model.revision
    for name in ("layers", "hidden", "intermediate", "heads", "kv_heads", "head_dim", "vocab"):
        yield f"model's {name.replace('_', ' ')}", getattr(model, name)
    yield "attention window", model.window
    yield "method", work.method
    quantisation = work.quantisation or Quantisation("none")
    yield "quantisation", quantisation.kind
    yield "quantisation's block size", quantisation.blocksize
    yield "double quantisation", quantisation.double
    adapter = work.adapter or Adapter("none", None, (), 0.0)
    yield "adapter", adapter.kind
    yield "LoRA r", adapter.r
    yield "LoRA targets", ", ".join(adapter.targets) or None
    yield "LoRA dropout", adapter.dropout
    yield "trained whole", ", ".join(adapter.trained_whole) or None
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


def described(work: Work) -> tuple[tuple[str, Any], ...]:
    """The work for a person: name and value, what is not known or not there left out."""
    return tuple((key, value) for key, value in _flat(work) if value is not None)


def listed(conditions: Conditions) -> tuple[tuple[str, Any], ...]:
    """The conditions under the names that a person reads, in the order of weight."""
    return tuple(
        (LABELS.get(name, name), ", ".join(value) or None if isinstance(value, tuple) else value)
        for name, value in msgspec.structs.asdict(conditions).items()
    )


LABELS = {
    "cards": "number of cards",
    "power_limit_watts": "power limit (W)",
    "cpu": "processor",
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
