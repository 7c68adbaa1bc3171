"""Against an earlier report: a regression beyond the noise, and what may have caused it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from click import unstyle

from gpu_setup.render.compare import baseline_lines
from harness.report.baseline import BaselineComparison, compare_with_baseline
from machine.errors import Refused
from tests.harness.report.examples import card, small

BEFORE = "2026-11-01T10:00:00Z"


def held_against(tokens_per_second: float, **changed: Any) -> BaselineComparison:
    return compare_with_baseline(card(tokens_per_second=tokens_per_second, **changed), card(started_at=BEFORE))


def test_this_driver_update_cost_you_4_percent() -> None:
    found = held_against(960.0, host={"driver": "590.12"})
    assert found.verdict == "regression"
    assert found.sentence.startswith("4.0% slower than the baseline (0.9")
    assert found.sentence.endswith(
        "This driver update cost you 4.0%: nothing else has changed (driver 580.95.05 → 590.12)."
    )
    assert [(each.name, each.before, each.now) for each in found.changed] == [("driver", "580.95.05", "590.12")]


@pytest.mark.parametrize(
    ("tokens_per_second", "spread", "verdict"),
    [
        (1000.0, 0.004, "same"),
        (995.0, 0.004, "same"),
        (1005.0, 0.004, "same"),
        (985.0, 0.004, "regression"),
        (1040.0, 0.004, "better"),
        (950.0, 0.05, "inconclusive"),
        (960.0, 0.5, "inconclusive"),
    ],
)
def test_beyond_the_noise_or_within(tokens_per_second: float, spread: float, verdict: str) -> None:
    one = card(tokens_per_second=tokens_per_second, spread=spread)
    assert compare_with_baseline(one, card(started_at=BEFORE, spread=spread)).verdict == verdict


def test_several_changes_are_all_named_and_none_is_blamed() -> None:
    found = held_against(900.0, host={"driver": "590.12", "kernel": "6.14.0-1"})
    assert "One or several of these changes are the cause: driver 580.95.05 → 590.12; kernel" in found.sentence
    assert "cost you" not in found.sentence


def test_nothing_recorded_has_changed() -> None:
    assert "No recorded condition has changed" in held_against(900.0).sentence


def test_a_setting_is_called_a_change_and_a_gain_a_gain() -> None:
    found = held_against(1100.0, host={"power_limit_watts": 420.0})
    assert found.sentence.endswith(
        "This change of power limit (W) gave you 10.0%: nothing else has changed (power limit (W) 350 → 420)."
    )


def test_a_consequence_is_not_the_cause() -> None:
    found = held_against(900.0, overrides={"torch_compile": True})
    assert "This change of compile cost you 10.0%" in found.sentence


def test_other_work_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        held_against(900.0, overrides={"lora_r": 8})
    assert (caught.value.exit_code, caught.value.why) == (3, "LoRA r: baseline 32, new 8.")


def test_an_old_baseline_is_refused() -> None:
    old = msgspec.structs.replace(card(started_at=BEFORE), work=None)
    with pytest.raises(Refused) as caught:
        compare_with_baseline(card(), old)
    assert "The baseline does not record what work was measured." in caught.value.what


def test_a_failed_training_is_a_regression_at_any_speed() -> None:
    wrong = msgspec.structs.replace(card(tokens_per_second=2000.0), verdict="fail")
    found = compare_with_baseline(wrong, card(started_at=BEFORE))
    assert found.verdict == "regression" and "training itself failed" in found.sentence


@pytest.mark.parametrize("verdict", ["inconclusive", "fail"])
def test_a_failed_baseline_is_inconclusive(verdict: str) -> None:
    before = msgspec.structs.replace(card(started_at=BEFORE), verdict=verdict)
    assert compare_with_baseline(card(tokens_per_second=500.0), before).verdict == "inconclusive"


def test_on_a_cpu_less_than_5_percent_is_no_difference() -> None:
    assert compare_with_baseline(small(1.04), small(1.0, BEFORE)).verdict == "same"
    assert compare_with_baseline(small(1.08), small(1.0, BEFORE)).verdict == "regression"


@pytest.mark.parametrize("tokens_per_second", [900.0, 1000.0, 1100.0])
def test_its_lines_fit_80_columns(tokens_per_second: float) -> None:
    found = held_against(tokens_per_second, host={"driver": "590.12", "kernel": "6.14.0-1", "cpu": "another " * 9})
    assert all(len(unstyle(line)) <= 80 for line in baseline_lines(found))
