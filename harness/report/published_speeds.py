"""Published training speeds: the share of the GPU's peak that each implies, whether it is possible, and the best one.

A speed times the FLOPs per token is a rate, and no GPU exceeds its peak. Where a source does not give the lengths of
the documents, attention counts as 0, so that the implied share is a lower bound and "impossible" is never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from checks.catalogue import Catalogue
from harness.recipe.axolotl_config import Method
from harness.recipe.flops import DocumentSums, hardware_flops, sizes_of, sum_documents, training_flops
from harness.recipe.shapes import LINEARS, shapes_of
from harness.report.comparison_key import Conditions, TrainedOn, Work

_TABLE = Path(__file__).with_name("records.toml")

# GPUs run up to this far above the clock of their published rate
CLOCKS_ABOVE = 1.15
# the matrix products of a real step reach at most this share of the peak
REACHABLE = 0.85

Plausibility = Literal["impossible", "implausible", "plausible", "unknown"]


class PublishedSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """One published speed of one GPU; records.toml explains the fields. None: the source does not give it."""

    id: str
    card: str
    cards: int = 1
    model: str
    method: Method
    quantisation: str | None = None
    blocksize: int | None = None
    double: bool | None = None
    lora_r: int | None = None
    lora_targets: tuple[str, ...] = ()
    lora_dropout: float | None = None
    precision: str | None = None
    sequence: int | None = None
    documents: Literal["filled", "packed", "padded", "unknown"]
    trained_on: TrainedOn | None = None
    tokens_per_step: int | None = None
    micro_batch: int | None = None
    accumulation: int | None = None
    checkpointing: bool | None = None
    attention: str | None = None
    tokens_per_second: float | None = None
    counts: Literal["processed", "non-padding", "trainable", "unknown"]
    bound: Literal["exact", "at-least", "at-most"] = "exact"
    basis: str
    memory_gib: float | None = None
    conditions: str | None = None
    stack: str
    source: str
    published: str
    read: str
    checked: bool
    note: str | None = None


class _Row(PublishedSpeed, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A record of our own table, where an unknown key is an error; in documents unknown keys are allowed."""


class RatedSpeed(msgspec.Struct, frozen=True):
    """A published speed and what it implies. `mfu`: the model's FLOP/s as a share of the GPU's peak; `hardware`: all
    computed FLOP/s, where checkpointing is known. `at_least`: a lower bound, as not all lengths or tokens are given.
    """

    record: PublishedSpeed
    mark: Plausibility
    why: str
    flops_per_token: float | None = None
    mfu: float | None = None
    hardware: float | None = None
    at_least: bool = False


class PublishedSpeeds(msgspec.Struct, frozen=True):
    """Published speeds and what each implies, the highest share of the GPU's peak first."""

    records: tuple[RatedSpeed, ...]


class OtherWork(msgspec.Struct, frozen=True):
    """A published speed of the same GPU for other work: the keys that differ, and the keys that it does not give."""

    judged: RatedSpeed
    differs: tuple[str, ...]
    not_given: tuple[str, ...]


class PublishedMatch(msgspec.Struct, frozen=True):
    """A report and the published speeds: `best` of the same work on the same GPU, and the report's `share` of it.

    `others`: plausible speeds of the same GPU for other work.
    """

    card: str | None
    best: RatedSpeed | None
    share: float | None
    sentence: str
    others: tuple[OtherWork, ...] = ()


@cache
def published_speeds() -> tuple[PublishedSpeed, ...]:
    import tomllib

    return parse_speeds(tomllib.loads(_TABLE.read_text(encoding="utf-8")))


def parse_speeds(table: object) -> tuple[PublishedSpeed, ...]:
    """The speeds of a decoded table; raises msgspec.ValidationError for an invalid one."""
    return tuple(msgspec.convert(table, dict[str, list[_Row]])["records"])


def peak_tflops(card: str, catalogue: Catalogue) -> float | None:
    """Dense TFLOP/s of the GPU; for a family (`A100`) where all its members have the same rate. None: not known."""
    exact = {each.tflops for each in catalogue.cards if each.name == card}
    rates = exact or {each.tflops for each in catalogue.cards if _family(card, each.name)}
    (rate,) = rates if len(rates) == 1 else (None,)
    return rate


def rate_speed(record: PublishedSpeed, catalogue: Catalogue) -> RatedSpeed:
    """What the speed implies, and whether the GPU can reach it."""
    shapes, peak = shapes_of(record.model), peak_tflops(record.card, catalogue)
    missing = [
        words
        for value, words in (
            (record.tokens_per_second, "the number of tokens"),
            (shapes, "the model's shapes"),
            (peak, "the GPU's peak"),
        )
        if value is None
    ]
    if shapes is None or peak is None or record.tokens_per_second is None:
        return RatedSpeed(record, "unknown", f"not known: {' and '.join(missing)}")
    targets = LINEARS if record.lora_targets == ("all-linear",) else record.lora_targets
    sizes = sizes_of(shapes, record.lora_r or 0 if targets else 0, targets)
    known = record.documents == "filled" and record.sequence is not None
    seen = sum_documents([record.sequence], shapes.window) if known and record.sequence else DocumentSums(1, 0, 0)
    flops = training_flops(sizes, seen) / seen.tokens
    mfu = flops * record.tokens_per_second / (peak * 1e12)
    hardware = None
    if record.checkpointing is not None:
        computed = hardware_flops(sizes, seen, record.checkpointing) / seen.tokens
        hardware = computed * record.tokens_per_second / (peak * 1e12)
    mark, why = _plausibility(record, mfu, hardware)
    return RatedSpeed(record, mark, why, flops, mfu, hardware, not known or record.bound == "at-least")


def _plausibility(record: PublishedSpeed, mfu: float, hardware: float | None) -> tuple[Plausibility, str]:
    share = max(mfu, hardware or 0.0)
    what = "with checkpointing the GPU computed" if hardware is not None and hardware > mfu else "it implies"
    if record.bound == "at-most" and share > REACHABLE:
        return "unknown", "the tokens are an upper bound, and so is the implied rate"
    if share > CLOCKS_ABOVE:
        return "impossible", f"{what} {share:.0%} of the GPU's peak"
    if share > REACHABLE:
        return "implausible", f"{what} {share:.0%} of the peak, and real steps reach {REACHABLE:.0%} at most"
    if share < 0.1:
        return "plausible", f"{what} {share:.1%} of the peak: that software uses little of the GPU"
    return "plausible", f"{what} {share:.0%} of the peak"


def rate_speeds(catalogue: Catalogue, card: str | None = None) -> tuple[RatedSpeed, ...]:
    """All published speeds, or those of a GPU or a family, the highest share of the peak first; unknown ones last."""
    chosen = [each for each in published_speeds() if card is None or _of_card(each, card) or _family(card, each.card)]
    found = [rate_speed(record, catalogue) for record in chosen]
    return tuple(sorted(found, key=lambda each: (each.mfu is None, -(each.mfu or 0.0))))


def match_published(
    work: Work, conditions: Conditions, tokens_per_second: float | None, known: tuple[RatedSpeed, ...]
) -> PublishedMatch:
    """A measured speed and the published ones: a share only for the same work on the same GPU."""
    card = conditions.card
    if card is None:
        return PublishedMatch(None, None, None, "Trained on a CPU: there are no published speeds to compare with.")
    here = [each for each in known if _of_card(each.record, card)]
    believable = [each for each in here if each.mark == "plausible"]
    apart = [OtherWork(each, *other_work(work, each.record)) for each in believable]
    same = [each.judged for each in apart if not each.differs and not each.not_given]
    same = [each for each in same if each.record.bound == "exact"]
    others = tuple(each for each in apart if each.differs or each.not_given)
    hidden = len(here) - len(believable)
    left_out = f" {hidden} more {'is' if hidden == 1 else 'are'} implausible or incomplete." if hidden else ""
    if not same or tokens_per_second is None:
        count = f"{len(others)} published figure{'s' if len(others) != 1 else ''} for the {card}" if others else ""
        said = f"{count}, none of the same work: not comparable." if others else f"Nothing is published for the {card}."
        return PublishedMatch(card, None, None, f"{said}{left_out}", others)
    best = max(same, key=lambda each: each.record.tokens_per_second or 0.0)
    assert best.record.tokens_per_second is not None
    share = tokens_per_second / best.record.tokens_per_second
    return PublishedMatch(card, best, share, f"Your {card}: {share:.0%} of the best published.{left_out}", others)


def other_work(work: Work, record: PublishedSpeed) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys in which the published work differs, with its values, and the keys that it does not give."""
    quantisation, adapter = work.quantisation, work.adapter
    targets = record.lora_targets
    if tuple(sorted(targets)) == tuple(sorted(LINEARS)):
        targets = ("all-linear",)
    pairs: list[tuple[str, object, object]] = [
        ("method", work.method, record.method),
        ("quantisation", quantisation.kind if quantisation else "none", record.quantisation),
        ("LoRA r", adapter.r if adapter else None, record.lora_r),
        ("LoRA targets", adapter.targets if adapter else (), targets or None),
        ("LoRA dropout", adapter.dropout if adapter else 0.0, record.lora_dropout),
        ("precision", work.precision, record.precision),
        ("sequence", work.sequence, record.sequence),
        ("mask", work.data.trained_on, record.trained_on),
    ]
    if quantisation is not None:
        pairs[2:2] = [
            ("block size", quantisation.blocksize, record.blocksize),
            ("double quantisation", quantisation.double, record.double),
        ]
    differs = [*_other_model(work, record)]
    differs += [
        f"{name} {_format_value(theirs)}" for name, ours, theirs in pairs if theirs is not None and ours != theirs
    ]
    not_given = [name for name, _, theirs in pairs if theirs is None]
    if record.documents in ("packed", "padded"):
        differs.append(f"{record.documents} documents")
    elif record.documents == "unknown":
        not_given.append("document lengths")
    elif not _near(work.data.seen_length, record.sequence):
        differs.append(f"documents of {record.sequence:,} tokens")
    if record.tokens_per_step is None:
        not_given.append("tokens a step")
    elif not _near(work.tokens_per_step, record.tokens_per_step):
        differs.append(f"{record.tokens_per_step:,} tokens a step")
    if record.counts == "trainable":
        differs.append("trainable tokens counted")
    elif record.counts == "unknown":
        not_given.append("which tokens count")
    return tuple(differs), tuple(not_given)


def _other_model(work: Work, record: PublishedSpeed) -> Iterator[str]:
    shapes, model = shapes_of(record.model), work.model
    name = record.model.rpartition("/")[2]
    if shapes is None or not model.shaped:
        if model.name != record.model:
            yield f"model {name}"
        return
    keys = ("layers", "hidden", "intermediate", "heads", "kv_heads", "head_dim", "vocab")
    if any(getattr(model, key) != getattr(shapes, key) for key in keys):
        yield f"model {name}"
        return
    windows = [each for each in (model.window, shapes.window) if each is not None]
    if model.window != shapes.window and (record.sequence or 0) > min(windows):
        yield f"attention window {shapes.window or 'none'}"


def _near(ours: float | None, theirs: float | None) -> bool:
    return ours is not None and theirs is not None and abs(ours - theirs) <= 0.05 * theirs


def _format_value(value: object) -> str:
    if isinstance(value, tuple):
        return "+".join(str(each).removesuffix("_proj") for each in value)
    return f"{value:,g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _of_card(record: PublishedSpeed, card: str) -> bool:
    """Whether the speed is of this GPU, or of its family (`A100 SXM4 80GB` is in the family `A100`)."""
    return card == record.card or _family(record.card, card)


def _family(family: str, card: str) -> bool:
    """Memory sizes and board types belong to the family; a Ti or a D is another GPU."""
    rest = card.removeprefix(f"{family} ")
    return rest != card and all(word[0].isdigit() or word.startswith(("SXM", "PCIe", "NVL")) for word in rest.split())
