"""Does it train rightly? Every criterion can fail alone, and says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from harness.measure.smoke_criteria import Smoke, judge_smoke
from harness.process.worker_log import WorkerLog
from harness.recipe.loader import Traits
from harness.training.examination import AnswerPair, Examination, HeldOutLosses
from tests.harness.examples import examination, log, step

TRAITS = Traits(title="x", held_out="held-out.json", marker="Ahoy", must_fall=0.05, keeps_pairing=0.9)


def failing(smoke: Smoke) -> list[str]:
    return [criterion.id for criterion in smoke.criteria if criterion.passed is False]


def test_a_run_that_learnt() -> None:
    smoke = judge_smoke(log(), examination(), TRAITS)
    assert smoke.passed
    assert [criterion.passed for criterion in smoke.criteria] == [True] * 4
    assert not any(criterion.next for criterion in smoke.criteria)
    assert (smoke.held_out_before, smoke.held_out_after) == (4.0, 2.0)
    assert (smoke.marked_before, smoke.marked_after, smoke.questions) == (0, 1, 1)


def losses(before: tuple[float | None, float | None], after: tuple[float | None, float | None]) -> dict[str, Any]:
    return {"before": HeldOutLosses(*before), "after": HeldOutLosses(*after)}


@pytest.mark.parametrize(
    ("recorded", "seen", "criterion"),
    [
        (log(step(1), step(2, loss="nan")), examination(), "loss-finite"),
        (log(steps=()), examination(), "loss-finite"),
        (log(), examination(**losses((4.0, 4.4), (3.9, 4.4))), "held-out-falls"),
        (log(), examination(**losses((4.0, 4.4), (2.0, 2.3))), "keeps-pairing"),
        (log(), examination(answers=(AnswerPair("q", "b", ""),)), "generates"),
        (log(), examination(answers=()), "generates"),
    ],
)
def test_each_criterion_fails_alone(recorded: WorkerLog, seen: Examination, criterion: str) -> None:
    smoke = judge_smoke(recorded, seen, TRAITS)
    assert not smoke.passed
    assert failing(smoke) == [criterion]
    assert all(bool(found.next) == (found.passed is False) for found in smoke.criteria)


def test_held_out_losses_that_are_not_finite() -> None:
    smoke = judge_smoke(log(), examination(**losses((4.0, 4.4), (None, None))), TRAITS)
    assert failing(smoke) == ["held-out-falls", "keeps-pairing"]
    assert "not finite" in smoke.criteria[1].seen


def test_the_edge_is_enough() -> None:
    assert judge_smoke(log(), examination(**losses((4.0, 5.0), (3.8, 4.7))), TRAITS).passed


def test_without_held_out_rows_smoke_does_not_pass() -> None:
    smoke = judge_smoke(log(), examination(before=None, after=None), TRAITS)
    assert not smoke.passed
    assert smoke.criteria[1].passed is None
    assert "val_set_size" in smoke.criteria[1].next


def test_a_recipe_that_does_not_ask_for_pairing_or_a_marker() -> None:
    smoke = judge_smoke(log(), examination(**losses((4.0, 4.4), (2.0, 2.0))), Traits(title="x"))
    assert smoke.passed
    assert smoke.criteria[2].passed is None
    assert (smoke.marked_before, smoke.marked_after) == (None, None)
