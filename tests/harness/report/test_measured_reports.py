"""Reports of benchmarks: one launch and several, as document, in 80 columns, as a page; and against a baseline."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpu_setup.envelope import Answer, encode
from gpu_setup.render.page import report_page
from gpu_setup.render.report import report_text
from harness.measure.gpu_processes import CardUse
from harness.measure.run_context import MeasuringMethod, RunContext
from harness.measure.telemetry import CardSample, HostSample, Telemetry
from harness.measure.workload import exact_workload
from harness.process.worker_log import WorkerLog
from harness.recipe.loader import LossBand, load_recipe
from harness.report.baseline import is_bad, with_baseline
from harness.report.run_report import FinishedRun, Report, build_report, combine_launches
from machine.errors import Refused
from tests.harness.examples import ENVIRONMENT, HOST, log, run_of, step
from tests.harness.measure.test_speed import ceiling, training
from tests.schemas import validated

RECIPE = load_recipe("mistral-7b-qlora")
METHOD = MeasuringMethod("record", "3 launches, soaked", exact_workload(RECIPE, {}, 1 << 19))
GPU = msgspec.structs.replace(HOST, cards=("RTX 3090",), driver="595.84")
BEGIN = 1_000_000.0


def timed(seconds: float) -> WorkerLog:
    """Twenty steps of a 3090 that end one after the other from BEGIN on."""
    recorded = training(seconds)
    steps = tuple(
        msgspec.structs.replace(each, ended_at=BEGIN + each.step * seconds, cpu_seconds=seconds)
        for each in recorded.steps
    )
    return msgspec.structs.replace(recorded, steps=steps)


def telemetry(seconds: float, **facts: Any) -> Telemetry:
    usual: dict[str, Any] = {
        "power": 280.0, "clock_sm": 1740, "temperature": 71.0, "memory_used": 15 << 30, "power_enforced": 280.0,
        "power_default": 350.0, "throttle_reasons": 0x4,
    }  # fmt: skip
    moments = [BEGIN + each for each in range(int(20 * seconds) + 10)]
    return Telemetry(
        card=tuple(CardSample(at, energy=280 * (at - BEGIN), **{**usual, **facts}) for at in moments),
        host=tuple(HostSample(at, busy=1.05 * (at - BEGIN), processors=16) for at in moments),
    )


def report(
    seconds: float = 16.384, band: LossBand | None = None, method: MeasuringMethod | None = METHOD, **facts: Any
) -> Report:
    around = RunContext(
        telemetry(seconds, **facts),
        ceiling(62.5, 62.0),
        ceiling(62.0, 61.5),
        CardUse(memory_used=500 << 20),
        71.0,
        "8.6",
        method,
    )
    run = FinishedRun(RECIPE, run_of(RECIPE, seconds=20 * seconds), timed(seconds), Path("/runs/1"))
    return build_report(run, ENVIRONMENT, GPU, around, band=band)


THREE = combine_launches((report(16.384), report(16.4), report(16.45)))
SEVERAL = {"one": report(), "three": THREE}


@pytest.mark.parametrize("name", SEVERAL)
def test_the_document_is_valid(name: str) -> None:
    document = validated(encode(Answer("report", SEVERAL[name], 0, str)), "report")
    assert "NaN" not in json.dumps(document)


@pytest.mark.parametrize("name", SEVERAL)
def test_the_text_fits_80_columns(name: str) -> None:
    for line in re.sub(r"\x1b\[[0-9;]*m", "", report_text(SEVERAL[name])).splitlines():
        assert len(line) <= 80, line


def test_a_record_of_three_launches() -> None:
    speed = THREE.measurements.tokens_per_second.non_padding
    assert THREE.verdict == "pass" and THREE.reasons == ()
    assert speed.n == 3 and speed.ci95 == (min(speed.raw), max(speed.raw))
    assert [launch.step_seconds for launch in THREE.launches] == [pytest.approx(each) for each in (16.384, 16.4, 16.45)]
    assert THREE.seconds == pytest.approx(20 * (16.384 + 16.4 + 16.45))
    assert not any("One run, one seed" in note for note in THREE.notes)
    assert any("3 launches, each with its own seed" in note for note in THREE.notes)


def test_what_a_reader_finds_in_the_text() -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", report_text(THREE))
    for words in (
        "share of the peak (MFU)",
        "joules per token",
        "power limit (W)",
        "launch    seed",
    ):
        assert words in text, words
    assert "3 launches, soaked" in " ".join(text.split())
    assert re.search(r"share of that ceiling +49\.\d %", text)
    assert re.search(r"card: peak less before +14\.51 GiB", text)
    assert "clock was reduced in 100% of the samples. Reason: power limit" in " ".join(text.split())


def test_energy_is_over_the_measured_steps() -> None:
    found = report().measurements.joules_per_token
    assert found.median == pytest.approx(280 / 1000, rel=0.01)
    assert found.note and "energy counter over 279 s" in found.note


def test_launches_that_differ_widely_are_inconclusive() -> None:
    found = combine_launches((report(16.0), report(17.0), report(18.0)))
    assert found.verdict == "inconclusive"
    assert "± 5." in found.reasons[0] or "± 6." in found.reasons[0]


def test_two_launches_give_no_interval() -> None:
    found = combine_launches((report(), report()))
    assert (found.verdict, found.reasons) == (
        "inconclusive",
        ("2 launches are too few for an interval; 3 are needed.",),
    )


def test_one_launch_that_failed_fails_all() -> None:
    wrong = report(band=LossBand(0.1, 0.2, 5))
    assert wrong.verdict == "fail"
    found = combine_launches((report(), wrong, report()))
    assert found.verdict == "fail" and "outside the recipe's band" in found.reasons[0]


def test_more_than_physics_allows_fails() -> None:
    """A 3090 that was never seen above 300 MHz cannot have done 45 TFLOP/s."""
    found = report(clock_sm=300)
    assert found.verdict == "fail" and "highest clock seen" in found.reasons[0]


def test_another_program_that_joins_in_is_noticed() -> None:
    found = report(computing=2)
    assert found.verdict == "inconclusive" and "2 programs computed on the GPU at once" in found.reasons[0]
    assert report(computing=1).verdict == "pass"


def test_the_page_shows_launches_ceiling_and_sensors() -> None:
    page = report_page(THREE, timed(16.384).steps, 3, "0.1.0", telemetry(16.384))
    for part in ('id="possible"', 'id="launches"', 'id="chart-power"', 'id="chart-heat"', 'id="chart-clock"'):
        assert part in page, part
    assert "documents of exactly 2048 tokens" in page and "3 launches, soaked" in page
    assert 'id="launches"' not in report_page(report(), timed(16.384).steps, 3, "0.1.0")


def test_slower_than_the_baseline_exits_with_status_1() -> None:
    slower = combine_launches(tuple(report(seconds * 1.1) for seconds in (16.384, 16.4, 16.45)))
    found = with_baseline(slower, THREE)
    assert found.baseline is not None and found.baseline.verdict == "regression"
    assert is_bad(found, strict=False)
    assert found.baseline.sentence in " ".join(re.sub(r"\x1b\[[0-9;]*m", "", report_text(found)).split())
    same = with_baseline(THREE, THREE)
    assert same.baseline is not None and same.baseline.verdict == "same" and not is_bad(same, strict=True)


def test_other_work_cannot_be_a_baseline() -> None:
    run = FinishedRun(RECIPE, run_of(RECIPE), log(*(step(n) for n in range(1, 20))), Path("/x"))
    other = build_report(run, ENVIRONMENT, HOST)
    with pytest.raises(Refused):
        with_baseline(THREE, other)
