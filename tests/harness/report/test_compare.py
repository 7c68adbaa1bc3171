"""Reports beside each other: ratios and their words, refusals, and every form that a person gets."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import msgspec
import pytest

from gpu_setup.envelope import Answer, encode
from gpu_setup.render.compare import comparison_text
from gpu_setup.render.compare_page import comparison_page
from gpu_setup.render.compare_table import comparison_csv, comparison_markdown, plain
from gpu_setup.terminal import as_shown
from harness.measure.measurement import Measurement
from harness.report.baseline import compare_with_baseline
from harness.report.compare import Comparison, compare, different_work_refusal, letter
from harness.report.run_report import Report
from machine.errors import REFUSED, BadUsage, Refused
from tests.harness.report.examples import card, small
from tests.harness.report.test_report import HOSTILE, Page, loads
from tests.schemas import validated

pytestmark = pytest.mark.long

LATER = "2026-11-25T10:00:00Z"


def three() -> list[Report]:
    return [
        card("RTX 3090", 1000.0),
        card("Radeon RX 7900 XTX", 880.0, LATER, host={"driver": "7.2.1", "power_limit_watts": 339.0}),
        card("RTX 4090", 2100.0, "2026-11-26T10:00:00Z"),
    ]


def comparison() -> Comparison:
    return compare(three(), ())


def hostile() -> Comparison:
    """Reports from a stranger, with markup, formulas and control characters wherever there is text."""
    changed = []
    for number, report in enumerate(three()):
        assert report.conditions and report.work
        bad = msgspec.structs.replace(
            report.conditions, card=f"=1+1 {HOSTILE}", driver=f"@SUM(A1) {number}", cpu="|a|b|"
        )
        work = msgspec.structs.replace(
            report.work, model=msgspec.structs.replace(report.work.model, name=f"+{HOSTILE}")
        )
        recipe = msgspec.structs.replace(report.recipe, name=f"-{HOSTILE}\n# heading")
        changed.append(msgspec.structs.replace(report, conditions=bad, work=work, recipe=recipe, digest=HOSTILE))
    return compare(changed, ())


def bare(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_the_first_is_what_the_others_are_measured_against() -> None:
    found = comparison()
    assert found.comparable and found.differences == ()
    assert [run.letter for run in found.runs] == ["A", "B", "C"]
    assert found.runs[0].ratio is None
    slower, faster = found.runs[1].ratio, found.runs[2].ratio
    assert slower and (slower.verdict, round(slower.value, 2)) == ("slower", 0.88)
    assert faster and (faster.verdict, round(faster.value, 1)) == ("faster", 2.1)
    assert [each.key for each in found.changed] == ["card", "power limit (W)", "driver", "CUDA or ROCm"]
    assert found.work.precision == "bf16" and found.same["system"] == "Ubuntu 24.04.3 LTS"


def test_two_runs_of_one_setting_are_equal_within_their_intervals() -> None:
    found = compare([card(spread=0.05), card(tokens_per_second=1012.0, started_at=LATER, spread=0.05)], ())
    assert found.runs[1].ratio and found.runs[1].ratio.verdict == "equal"
    assert "equal to A within the noise" in bare(comparison_text(found))
    assert any("equal digests" in note for note in found.notes)


def test_other_work_is_refused_and_every_key_is_named() -> None:
    found = compare([card(), card(overrides={"lora_r": 8, "micro_batch_size": 1}, started_at=LATER)], ())
    assert not found.comparable
    assert [each.key for each in found.differences] == ["LoRA r"]
    assert [run.ratio for run in found.runs] == [None, None]
    assert "LoRA r" in bare(comparison_text(found)) and "A 32; B 8" in bare(comparison_text(found))
    refusal = different_work_refusal(found.differences, ("A", "B"))
    assert (refusal.exit_code, refusal.code, refusal.why) == (REFUSED, "compare.different-work", "LoRA r: A 32, B 8.")


def test_another_number_of_tokens_says_how_to_get_the_same() -> None:
    more = card(started_at=LATER)
    assert more.work and more.work.tokens
    work = msgspec.structs.replace(more.work, tokens=more.work.tokens * 4)
    found = compare([card(), msgspec.structs.replace(more, work=work)], ())
    assert [each.key for each in found.differences] == ["tokens"]
    assert "--steps" in different_work_refusal(found.differences, ("A", "B")).next
    assert "--steps" in comparison_text(found)


def test_a_small_model_and_a_large_one_differ_in_more_than_the_name() -> None:
    found = compare([small(), card()], ())
    keys = [each.key for each in found.differences]
    assert {"sequence", "precision", "trained on", "tokens a step"} <= set(keys)


def test_an_old_report_says_what_is_missing() -> None:
    with pytest.raises(Refused, match="does not record what work was measured") as caught:
        compare([msgspec.structs.replace(card(), work=None), card(started_at=LATER)], (), ["old.json", "new.json"])
    assert caught.value.what.startswith("old.json") and "gpu-setup bench" in caught.value.next


def test_the_same_run_twice_is_no_comparison() -> None:
    with pytest.raises(BadUsage, match="copy is the same run as it"):
        compare([card(), card()], (), ["it", "copy"])


def test_a_failed_run_is_shown_and_not_compared() -> None:
    wrong = msgspec.structs.replace(card(started_at=LATER, tokens_per_second=9000.0), verdict="fail")
    found = compare([card(), wrong], ())
    assert found.runs[1].ratio is None
    assert "The training of B failed, so its speed is not compared." in found.notes
    assert compare([wrong, card()], ()).runs[1].ratio is None


def test_notes_on_stand_ins_and_mixed_reports() -> None:
    assert "A GPU is compared with a CPU." in compare([small(), small_on_a_card()], ()).notes
    stub = card(started_at=LATER, host={"stub": True})
    assert any("stand-in" in note for note in compare([card(), stub], ()).notes)
    coarse = compare([card(spread=0.5), card(spread=0.5, started_at=LATER)], ())
    assert any("would not be seen" in note for note in coarse.notes)


def small_on_a_card() -> Report:
    start = {"device": "NVIDIA GeForce RTX 3090", "device_type": "gpu"}
    return small(seconds=0.05, started_at=LATER, start=start, host={"cards": ("RTX 3090",)})


def test_letters_after_z() -> None:
    assert [letter(number) for number in (0, 25, 26, 51, 52, 702)] == ["A", "Z", "AA", "AZ", "BA", "AAA"]


def many() -> Comparison:
    reports = [card("RTX 3090", 900.0 + number, f"2026-11-{number + 1:02}T10:00:00Z") for number in range(30)]
    return compare(reports, ())


@pytest.mark.parametrize(
    "found", [comparison(), many(), compare([card()], ()), compare([small(), small_on_a_card()], ())]
)
def test_the_text_fits_80_columns(found: Comparison) -> None:
    for line in bare(comparison_text(found)).splitlines():
        assert len(line) <= 80, line


def test_the_text_shows_the_speeds_the_ratios_and_what_differs() -> None:
    text = bare(comparison_text(comparison()))
    assert re.search(r"^A  RTX 3090 +1,000 +\S+ to \S+$", text, re.MULTILINE)
    assert re.search(r"^B  Radeon RX 7900 XTX +880 +\S+ to \S+ +0\.880 +0\.8\d\d to 0\.8\d\d$", text, re.MULTILINE)
    assert re.search(r"^  driver +A 580\.95\.05; B 7\.2\.1; C 580\.95\.05$", text, re.MULTILINE)
    assert "12.0% slower than A" in text and "trained on everything" in text


def test_the_document_is_valid_and_holds_no_raw_values() -> None:
    document = validated(encode(Answer("comparison", comparison(), 0, str)), "comparison")
    assert document["data"]["runs"][0]["figures"]["non_padding"]["raw"] == []


def test_no_document_contains_paths() -> None:
    found = comparison()
    for text in (
        msgspec.json.encode(found).decode(),
        comparison_text(found),
        comparison_page(found, "0.1.0"),
        comparison_csv(found, "0.1.0"),
        comparison_markdown(found, "0.1.0"),
    ):
        assert "/home" not in text and "ada/" not in text


def test_the_table_is_one_line_a_run() -> None:
    rows = list(csv.DictReader(io.StringIO(comparison_csv(comparison(), "0.1.0").removeprefix("\ufeff"))))
    assert [row["letter"] for row in rows] == ["A", "B", "C"]
    assert float(rows[0]["non_padding"]) == pytest.approx(1000.0)
    assert float(rows[0]["non_padding_low"]) < 1000.0 < float(rows[0]["non_padding_high"])
    assert (rows[0]["to_first"], rows[1]["to_first_verdict"]) == ("", "slower")
    assert (rows[1]["condition: card"], rows[1]["work: sequence"], rows[1]["gpu-setup"]) == (
        "Radeon RX 7900 XTX",
        "2048",
        "0.1.0",
    )


def test_no_cell_of_the_table_is_a_formula() -> None:
    table = comparison_csv(hostile(), "0.1.0").removeprefix("\ufeff")
    for row in csv.reader(io.StringIO(table)):
        assert [cell for cell in row if cell[:1] in ("=", "+", "-", "@", "\t", "\r") and not is_number(cell)] == []
    assert "\x1b" not in table


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_the_table_for_a_forum() -> None:
    text = comparison_markdown(comparison(), "0.1.0")
    assert "| B | Radeon RX 7900 XTX | 880 |" in text
    assert "| driver | 580.95.05 | 7.2.1 | 580.95.05 |" in text
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| ") and "tokens/s" in line}
    rows = {line.count(" | ") for line in text.splitlines() if re.match(r"\| [ABC] \|", line)}
    assert widths == rows


def test_a_report_cannot_put_markup_into_the_forum_table() -> None:
    text = comparison_markdown(hostile(), "0.1.0")
    assert not re.search(r"(?<!\\)<(script|img)", text)
    assert not re.search(r"^#+ heading|^# ", text, re.MULTILINE)
    assert "@SUM" not in text
    for line in text.splitlines():
        if re.match(r"\| [ABC] \|", line):
            assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", text.splitlines()[4]))
    assert (
        plain("@ada *bold* [x](y) `c` | $5") == "@\N{ZERO WIDTH NON-JOINER}ada \\*bold\\* \\[x\\](y) \\`c\\` \\| \\$5"
    )


def test_the_page_loads_nothing_and_says_everything() -> None:
    text = comparison_page(comparison(), "0.1.0")
    assert loads(text) == []
    words = " ".join(Page(text).words)
    for expected in (
        "3 runs of the same work",
        "Radeon RX 7900 XTX",
        "0.880",
        "slower",
        "Conditions that differ",
        "7.2.1",
    ):
        assert expected in words
    figures = [attributes["id"] for tag, attributes in Page(text).tags if tag == "figure"]
    assert figures == ["chart-speed", "chart-memory"]
    assert text == comparison_page(comparison(), "0.1.0"), "the same each time"


def test_the_page_and_the_text_escape_what_a_report_says() -> None:
    text = comparison_page(hostile(), "0.1.0")
    assert loads(text) == []
    assert "<script" not in text and "<img" not in text and "\x1b" not in text
    assert not re.search(r"\x1b(?!\[[0-9;]*m)|\x07|\x9b", as_shown(comparison_text(hostile())))


def test_a_chart_draws_names_that_no_font_has() -> None:
    odd = card(started_at=LATER)
    assert odd.conditions
    odd = msgspec.structs.replace(odd, conditions=msgspec.structs.replace(odd.conditions, card="グラボ $x^2$ \x00"))
    assert "chart-speed" in comparison_page(compare([card(), odd], ()), "0.1.0")


@pytest.mark.parametrize(
    "odd",
    [
        Measurement("tokens/s", 0.0, (0.0, 0.0), 20),
        Measurement("tokens/s", -5.0, (-9.0, -1.0), 20),
        Measurement("tokens/s", 1e300, (1e-300, 1e308), 20),
        Measurement("tokens/s", 1000.0, (2000.0, 500.0), 20),
        Measurement("tokens/s", None, (1.0, 2.0), 0),
        Measurement("", 5e-324, None, -3),
    ],
)
def test_a_report_with_impossible_figures_breaks_nothing(odd: Measurement) -> None:
    report = card(started_at=LATER)
    speed = msgspec.structs.replace(report.measurements.tokens_per_second, non_padding=odd)
    made_up = msgspec.structs.replace(
        report, measurements=msgspec.structs.replace(report.measurements, tokens_per_second=speed)
    )
    for found in (compare([card(), made_up], ()), compare([made_up, card()], ())):
        assert comparison_text(found) and comparison_csv(found, "") and comparison_markdown(found, "")
        assert "chart-speed" in comparison_page(found, "")
    compare_with_baseline(made_up, card()) if odd.median and odd.median > 0 else None


def test_reports_are_read_back_as_they_were_compared(tmp_path: Path) -> None:
    from harness.report.run_report import read_report

    paths = []
    for number, report in enumerate(three()):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_bytes(encode(Answer("report", report, 0, str)))
    assert compare([read_report(path) for path in paths], ()) == comparison()
