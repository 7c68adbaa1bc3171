"""Does it train rightly? Each criterion judged by itself, from the worker's log and the examination."""

from __future__ import annotations

import msgspec

from harness.examine import Examination
from harness.measure import losses
from harness.recipe import Traits
from harness.worker_log import WorkerLog


class Criterion(msgspec.Struct, frozen=True):
    """`passed` is None where the recipe gives nothing to judge; `seen` is the figure behind it."""

    id: str
    question: str
    passed: bool | None
    seen: str


class Smoke(msgspec.Struct, frozen=True):
    passed: bool
    criteria: tuple[Criterion, ...]
    held_out_before: float | None = None
    held_out_after: float | None = None
    marked_before: int | None = None
    marked_after: int | None = None
    questions: int = 0


def judge(log: WorkerLog, examination: Examination, traits: Traits) -> Smoke:
    """Smoke passes only when every criterion that can be judged holds, and the held-out loss could be judged."""
    criteria = (
        _finite(log),
        _falls(examination, traits.must_fall),
        _keeps_pairing(examination, traits.keeps_pairing),
        _answers(examination),
    )
    before, after = examination.before, examination.after
    marked = [
        (traits.marker in answer.before, traits.marker in answer.after) if traits.marker else (False, False)
        for answer in examination.answers
    ]
    return Smoke(
        passed=all(criterion.passed is not False for criterion in criteria) and criteria[1].passed is True,
        criteria=criteria,
        held_out_before=before.held_out_loss if before else None,
        held_out_after=after.held_out_loss if after else None,
        marked_before=sum(one for one, _ in marked) if traits.marker else None,
        marked_after=sum(other for _, other in marked) if traits.marker else None,
        questions=len(examination.answers),
    )


def _finite(log: WorkerLog) -> Criterion:
    bad = [step.step for step in log.steps if not isinstance(step.loss, float)]
    text = f"not finite at steps {bad[:5]}" if bad else f"{len(losses(log))} finite losses"
    return Criterion("loss-finite", "Is the loss finite at every step?", bool(log.steps) and not bad, text)


def _falls(examination: Examination, share: float) -> Criterion:
    question = f"Does the loss on held-out answers fall by {share:.0%} or more?"
    before, after = examination.before, examination.after
    if before is None or after is None:
        return Criterion("held-out-falls", question, None, "no held-out rows")
    seen = f"{before.held_out_loss:.3f} → {after.held_out_loss:.3f} nats a token"
    return Criterion("held-out-falls", question, after.held_out_loss <= (1 - share) * before.held_out_loss, seen)


def _keeps_pairing(examination: Examination, share: float | None) -> Criterion:
    question = "Does the model still prefer the right answer to another question's?"
    before, after = examination.before, examination.after
    if share is None or before is None or after is None:
        return Criterion("keeps-pairing", question, None, "not judged for this recipe")
    seen = f"{before.pairing:.3f} → {after.pairing:.3f} nats a token"
    return Criterion("keeps-pairing", question, after.pairing >= share * before.pairing, seen)


def _answers(examination: Examination) -> Criterion:
    written = sum(1 for answer in examination.answers if answer.after)
    seen = f"{written} of {len(examination.answers)} answers written by the reloaded adapter"
    return Criterion("generates", "Does the saved adapter reload and generate?", written > 0, seen)
