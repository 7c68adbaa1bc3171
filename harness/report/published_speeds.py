"""Published training speeds: what they imply of the card, whether that is possible, and the best of the same work.

A speed times the FLOPs of a token is a rate, and no card passes its peak. Where a source leaves the documents' lengths
open, attention counts as nothing, so that the implied share is a lower bound and "impossible" is never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from checks.catalogue import Catalogue
from harness.recipe.flops import DocumentSums, hardware_flops, sizes_of, sum_documents, training_flops
from harness.recipe.shapes import LINEARS, shapes_of
from harness.report.comparison_key import Conditions, Work

_TABLE = Path(__file__).with_name("records.toml")

# cards run up to this far above the clock that their tabled rate is for
CLOCKS_ABOVE = 1.15
# matrix products of a real step reach no more of the peak than this
REACHABLE = 0.85

Mark = Literal["impossible", "implausible", "plausible", "unknown"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One published speed of one card; records.toml tells the fields. None: the source does not say."""

    id: str
    card: str
    cards: int = 1
    model: str
    method: str
    quantisation: str | None = None
    blocksize: int | None = None
    double: bool | None = None
    lora_r: int | None = None
    lora_targets: tuple[str, ...] = ()
    lora_dropout: float | None = None
    precision: str | None = None
    sequence: int | None = None
    documents: Literal["filled", "packed", "padded", "unknown"]
    trained_on: str | None = None
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


class _Row(Record, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A record as the table must have it: there, a key that nobody knows is a mistake; in a document it is growth."""


class Judged(msgspec.Struct, frozen=True):
    """A record and what follows from it. `mfu` and `hardware` are shares of the peak: of the model's FLOPs, and of what
    the card computed where checkpointing is known. `at_least`: lengths or tokens were not all given.
    """

    record: Record
    mark: Mark
    why: str
    flops_per_token: float | None = None
    mfu: float | None = None
    hardware: float | None = None
    at_least: bool = False


class Published(msgspec.Struct, frozen=True):
    """Published speeds with what each implies, the highest share of a card's peak first."""

    records: tuple[Judged, ...]


class Other(msgspec.Struct, frozen=True):
    """A record of the same card, not of the report's work: keys with other values, and keys that it does not give."""

    judged: Judged
    differs: tuple[str, ...]
    not_given: tuple[str, ...]


class Beside(msgspec.Struct, frozen=True):
    """A report beside the records: `best` of the same work on the same card and the report's `share` of it (1 = equal).

    `others` are the card's believable records of other work.
    """

    card: str | None
    best: Judged | None
    share: float | None
    sentence: str
    others: tuple[Other, ...] = ()


@cache
def records() -> tuple[Record, ...]:
    import tomllib

    return read_records(tomllib.loads(_TABLE.read_text(encoding="utf-8")))


def read_records(table: object) -> tuple[Record, ...]:
    """Records from a decoded table; raises msgspec.ValidationError for what is none."""
    return tuple(msgspec.convert(table, dict[str, list[_Row]])["records"])


def peak_tflops(card: str, catalogue: Catalogue) -> float | None:
    """Dense TFLOP/s of the card; of a family (`A100`) where all of its cards have the same rate. None: not known."""
    exact = {each.tflops for each in catalogue.cards if each.name == card}
    rates = exact or {each.tflops for each in catalogue.cards if _family(card, each.name)}
    (rate,) = rates if len(rates) == 1 else (None,)
    return rate


def judge(record: Record, catalogue: Catalogue) -> Judged:
    """What the record implies, and whether a card can do it."""
    shapes, peak = shapes_of(record.model), peak_tflops(record.card, catalogue)
    missing = [
        words
        for value, words in (
            (record.tokens_per_second, "the number of tokens"),
            (shapes, "the model's shapes"),
            (peak, "the card's peak"),
        )
        if value is None
    ]
    if shapes is None or peak is None or record.tokens_per_second is None:
        return Judged(record, "unknown", f"not known: {' and '.join(missing)}")
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
    mark, why = _mark(record, mfu, hardware)
    return Judged(record, mark, why, flops, mfu, hardware, not known or record.bound == "at-least")


def _mark(record: Record, mfu: float, hardware: float | None) -> tuple[Mark, str]:
    share = max(mfu, hardware or 0.0)
    what = "with checkpointing the card computed" if hardware is not None and hardware > mfu else "it implies"
    if record.bound == "at-most" and share > REACHABLE:
        return "unknown", "the tokens are an upper bound, and so is the rate that follows"
    if share > CLOCKS_ABOVE:
        return "impossible", f"{what} {share:.0%} of the card's peak"
    if share > REACHABLE:
        return "implausible", f"{what} {share:.0%} of the peak, and real steps reach {REACHABLE:.0%} at most"
    if share < 0.1:
        return "plausible", f"{what} {share:.1%} of the peak: that stack leaves most of the card idle"
    return "plausible", f"{what} {share:.0%} of the peak"


def judged(catalogue: Catalogue, card: str | None = None) -> tuple[Judged, ...]:
    """Every record, or those of a card or a family, the highest share of the peak first; unknown ones last."""
    chosen = [each for each in records() if card is None or _of_card(each, card) or _family(card, each.card)]
    found = [judge(record, catalogue) for record in chosen]
    return tuple(sorted(found, key=lambda each: (each.mfu is None, -(each.mfu or 0.0))))


def beside(work: Work, conditions: Conditions, tokens_per_second: float | None, known: tuple[Judged, ...]) -> Beside:
    """A measured speed beside the published ones: a share only of the same work on the same card."""
    card = conditions.card
    if card is None:
        return Beside(None, None, None, "Trained on a processor: nothing is published to set it beside.")
    here = [each for each in known if _of_card(each.record, card)]
    believable = [each for each in here if each.mark == "plausible"]
    apart = [Other(each, *other_work(work, each.record)) for each in believable]
    same = [each.judged for each in apart if not each.differs and not each.not_given]
    same = [each for each in same if each.record.bound == "exact"]
    others = tuple(each for each in apart if each.differs or each.not_given)
    hidden = len(here) - len(believable)
    left_out = f" {hidden} more {'is' if hidden == 1 else 'are'} not believable or not complete." if hidden else ""
    if not same or tokens_per_second is None:
        count = f"{len(others)} published figure{'s' if len(others) != 1 else ''} for the {card}" if others else ""
        said = f"{count}, none of the same work: not comparable." if others else f"Nothing is published for the {card}."
        return Beside(card, None, None, f"{said}{left_out}", others)
    best = max(same, key=lambda each: each.record.tokens_per_second or 0.0)
    assert best.record.tokens_per_second is not None
    share = tokens_per_second / best.record.tokens_per_second
    return Beside(card, best, share, f"Your {card}: {share:.0%} of the best published.{left_out}", others)


def other_work(work: Work, record: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys in which the record is other work, with its values, and those that it does not give."""
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
    differs += [f"{name} {_shown(theirs)}" for name, ours, theirs in pairs if theirs is not None and ours != theirs]
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


def _other_model(work: Work, record: Record) -> Iterator[str]:
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


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "+".join(str(each).removesuffix("_proj") for each in value)
    return f"{value:,g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _of_card(record: Record, card: str) -> bool:
    """Whether the record is of this card, or of the family that it belongs to (`A100` holds `A100 SXM4 80GB`)."""
    return card == record.card or _family(record.card, card)


def _family(family: str, card: str) -> bool:
    """Memory sizes and boards belong to a family; a Ti or a D is another card."""
    rest = card.removeprefix(f"{family} ")
    return rest != card and all(word[0].isdigit() or word.startswith(("SXM", "PCIe", "NVL")) for word in rest.split())
