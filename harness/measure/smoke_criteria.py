"""Did training work? Each criterion is judged separately, from the worker's log and the examination."""

from __future__ import annotations

import msgspec

from harness.measure.metrics import losses
from harness.process.worker_log import WorkerLog
from harness.recipe.loader import Traits
from harness.training.examination import Examination


class Criterion(msgspec.Struct, frozen=True):
    """`passed` is None where there is nothing to judge. `seen`: the figure that was judged; `next`: what to do."""

    id: str
    question: str
    passed: bool | None
    seen: str
    next: str = ""


class Smoke(msgspec.Struct, frozen=True):
    passed: bool
    criteria: tuple[Criterion, ...]
    held_out_before: float | None = None
    held_out_after: float | None = None
    marked_before: int | None = None
    marked_after: int | None = None
    questions: int = 0


def judge_smoke(log: WorkerLog, examination: Examination, traits: Traits) -> Smoke:
    """Smoke passes when no criterion fails and the held-out loss could be judged.

    Without the worker's log there is nothing to judge; training/launch.py has refused such a run before.
    """
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
    return _criterion(
        "loss-finite", "Is the loss finite at every step?", bool(log.steps) and not bad, text,
        "Lower learning_rate in the recipe, for example to a tenth.",
    )  # fmt: skip


def _falls(examination: Examination, share: float) -> Criterion:
    question = f"Does the loss on held-out answers fall by {100 * share:.0f} % or more?"
    before, after = examination.before, examination.after
    if before is None or after is None:
        return Criterion(
            "held-out-falls", question, None, "no held-out rows", "Set val_set_size in the recipe, for example 0.1."
        )
    one, other = before.held_out_loss, after.held_out_loss
    return _criterion(
        "held-out-falls", question, one is not None and other is not None and other <= (1 - share) * one,
        f"loss {_figure(one)} → {_figure(other)}",
        "Check that learning_rate is not 0 or far too high, that each answer belongs to its question, and max_steps.",
    )  # fmt: skip


def _keeps_pairing(examination: Examination, share: float | None) -> Criterion:
    question = "Does the model still prefer the correct answer to the answer of another question?"
    before, after = examination.before, examination.after
    if share is None or before is None or after is None:
        return Criterion("keeps-pairing", question, None, "not judged for this recipe")
    one, other = before.pairing, after.pairing
    return _criterion(
        "keeps-pairing", question, one is not None and other is not None and other >= share * one,
        f"loss difference {_figure(one)} → {_figure(other)}",
        "Check that each answer belongs to its question: columns may have been shuffled or shifted.",
    )  # fmt: skip


def _answers(examination: Examination) -> Criterion:
    written = sum(1 for answer in examination.answers if answer.after)
    seen = f"{written} of {len(examination.answers)} answers written by the reloaded adapter"
    return _criterion(
        "generates", "Does the saved adapter reload and generate?", written > 0, seen,
        "See examine.log in the run's folder.",
    )  # fmt: skip


def _criterion(name: str, question: str, passed: bool, seen: str, following: str) -> Criterion:
    return Criterion(name, question, passed, seen, "" if passed else following)


def _figure(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3f}"
