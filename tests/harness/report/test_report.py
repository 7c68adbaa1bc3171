"""The report: what it says of a run, as a document, in 80 columns, and as a page that loads nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checks.catalogue import catalogue
from checks.facts.read import read_host
from gpu_setup.envelope import Answer as Envelope
from gpu_setup.envelope import encode
from gpu_setup.render.page import report_page
from gpu_setup.render.report import report_text
from gpu_setup.terminal import as_shown
from harness.process.worker_log import WorkerLog
from harness.recipe.loader import load_recipe
from harness.report.run_report import FinishedRun, Report, build_report, read_report, summarise_host, write_report
from harness.training.examination import AnswerPair
from machine.errors import BadUsage
from machine.recording import RecordedMachine
from tests.harness.examples import ENVIRONMENT, HOST, examination, log, run_of, step
from tests.schemas import validated

pytestmark = pytest.mark.long

RECIPE = load_recipe("smollm2-135m-qlora")
HOSTILE = '<script src="http://evil.example/x.js">alert(1)</script><img src=x onerror=alert(2)>\x1b[31m{{ 7*7 }}&amp;'


def report(recorded: WorkerLog | None = None, seen: Any = "usual", folder: Path = Path("/runs/1")) -> Report:
    judged = examination(before=None, after=None) if seen is None else examination() if seen == "usual" else seen
    return build_report(FinishedRun(RECIPE, run_of(RECIPE), recorded or log(), folder, judged), ENVIRONMENT, HOST)


def bench(recorded: WorkerLog) -> Report:
    return build_report(FinishedRun(RECIPE, run_of(RECIPE), recorded, Path("/runs/1")), ENVIRONMENT, HOST)


def page(shown: Report, recorded: WorkerLog | None = None) -> str:
    return report_page(shown, (recorded or log()).steps, 3, "0.1.0")


def test_what_it_says() -> None:
    found = report()
    assert (found.verdict, found.recipe.name, found.recipe.base_model) == (
        "pass",
        RECIPE.name,
        RECIPE.config["base_model"],
    )
    assert (found.recipe.seed, found.recipe.lora_r, found.recipe.warmup_steps) == (42, 32, 3)
    assert found.measurements.step_seconds.n == 7
    assert found.smoke and found.smoke.passed
    assert found.environment.worker and found.environment.worker.axolotl == "0.19.0"
    assert any("Trained on the CPU" in note for note in found.notes)


def test_overrides_are_what_was_run() -> None:
    made = run_of(RECIPE, overrides={"seed": 7, "micro_batch_size": 1})
    found = build_report(FinishedRun(RECIPE, made, log(), Path("/runs/1")), ENVIRONMENT, HOST)
    assert (found.recipe.seed, found.recipe.micro_batch_size) == (7, 1)


def test_verdicts() -> None:
    few = log(step(1), step(2), step(3), step(4))
    assert report(few).verdict == "inconclusive"
    assert bench(few).verdict == "inconclusive"
    assert any("are needed for a speed" in note for note in bench(few).notes)
    assert bench(log()).verdict == "pass"
    assert report(seen=None).verdict == "fail"


@pytest.mark.parametrize("recorded", [log(), log(steps=(), start=None, begin=None, end=None)])
def test_the_document_is_valid(recorded: WorkerLog) -> None:
    for found in (report(recorded), bench(recorded)):
        document = validated(encode(Envelope("report", found, 0, str)), "report")
        assert document["data"]["measurements"]["mfu"]["median"] is None


def test_it_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    made = report(folder=tmp_path)
    path = write_report(tmp_path, encode(Envelope("report", made, 0, str)), "<html></html>")
    assert (tmp_path / "report.html").read_text() == "<html></html>"
    assert read_report(path) == read_report(tmp_path) == made
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xfe", b'{"data": 3}', b"[" * 5000])
def test_what_is_no_report(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(BadUsage) as caught:
        read_report(tmp_path)
    assert caught.value.code == "report.unreadable"


def test_the_hosts_names_stay_out(machine: Callable[[str], RecordedMachine]) -> None:
    recorded = machine("rtx3090-healthy")
    host = read_host(recorded)
    found = summarise_host(host, catalogue())
    assert [card for card in found.cards if "RTX 3090" in card]
    assert found.driver
    text = msgspec.json.encode(found).decode()
    for private in {recorded.session().user, *re.findall(r"GPU-[0-9a-f-]{36}", repr(host))}:
        assert private not in text or private == "root"


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


LONG = "Why " + "does a rather long question about nothing in particular " * 4 + "matter?"


@pytest.mark.parametrize(
    "shown",
    [
        report(),
        report(seen=None),
        report(seen=examination(answers=(AnswerPair(LONG, LONG, LONG),) * 5)),
        bench(log(*(step(n, seconds=0.00012345, processed=987654) for n in range(1, 20)))),
        bench(log(steps=(), start=None, begin=None, end=None)),
        msgspec.structs.replace(
            report(), recipe=msgspec.structs.replace(report().recipe, title="your recipe " + "a/b " * 30)
        ),
    ],
)
def test_the_text_fits_80_columns(shown: Report) -> None:
    for line in plain(report_text(shown)).splitlines():
        assert len(line) <= 80, line


def test_the_text_shows_the_verdict_the_speeds_and_the_answers() -> None:
    text = plain(report_text(report()))
    assert text.startswith("PASS  smollm2-135m-qlora: ")
    for words in (
        *("processed tokens/s", "non-padding tokens/s", "trainable tokens/s", "95 % interval", "2.00 GiB"),
        *("✓ Is the loss finite", "1 of 1 answers use the trained style", "? How do I make tea?", "before  Boil"),
    ):
        assert words in text


def test_a_failed_criterion_says_what_to_do() -> None:
    text = plain(report_text(report(log(step(1), step(2, loss="inf")))))
    assert text.startswith("FAIL")
    assert "✗ Is the loss finite at every step? not finite at steps [2]\n  next: Lower learning_rate" in text


def test_a_models_output_cannot_control_the_terminal() -> None:
    text = as_shown(report_text(report(seen=examination(answers=(AnswerPair("\x1b]0;x\x07", "\x1b[2J", "\x9b31m"),)))))
    assert not re.search(r"\x1b(?!\[[0-9;]*m)|\x07|\x9b", text)


class Page(HTMLParser):
    """Tags with their attributes, and the text outside style and title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def loads(text: str) -> list[str]:
    """Everything in the page that would make a browser fetch something."""
    found = []
    for tag, attributes in Page(text).tags:
        if tag in ("script", "link", "iframe", "img", "object", "embed", "base", "audio", "video", "source"):
            found.append(tag)
        for name, value in attributes.items():
            reference = name in ("src", "srcset", "href", "xlink:href", "data", "action", "poster") or name.startswith(
                "on"
            )
            if reference and not (value or "").startswith("#"):
                found.append(f"{tag} {name}={value}")
    return found + re.findall(r"url\((?!#)[^)]*\)|@import[^;]*", text)


def test_the_page_loads_nothing_and_says_everything() -> None:
    text = page(report())
    assert loads(text) == []
    words = " ".join(Page(text).words)
    for expected in (
        *("pass", "processed tokens/s", "Training loss", "Step time", "Speed", "How do I make tea?"),
        *("Ahoy from the workbench", "What was run", RECIPE.config["base_model"], "unverified", "0.1.0"),
    ):
        assert expected in words
    assert [attributes["id"] for tag, attributes in Page(text).tags if tag == "figure"] == [
        *("chart-loss", "chart-step", "chart-tokens"),
    ]


def test_the_page_escapes_what_a_model_or_a_machine_says() -> None:
    hostile = report(seen=examination(answers=(AnswerPair(HOSTILE, HOSTILE, HOSTILE),)))
    hostile = msgspec.structs.replace(
        hostile,
        host=msgspec.structs.replace(hostile.host, cpu=HOSTILE, cards=(HOSTILE,), kernel=HOSTILE),
        recipe=msgspec.structs.replace(hostile.recipe, name=HOSTILE, title=HOSTILE, base_model=HOSTILE),
        notes=(HOSTILE,),
    )
    text = page(hostile)
    assert loads(text) == []
    assert "<script" not in text and "<img" not in text
    assert "{{ 7*7 }}" in "".join(Page(text).words), "shown, not computed"
    assert "\x1b" not in text


@pytest.mark.parametrize(
    "recorded",
    [
        log(steps=()),
        log(step(1)),
        log(step(1, loss="nan"), step(2, loss="inf")),
        log(step(1, seconds=0.0)),
        log(*(step(n) for n in range(1, 2001))),
    ],
    ids=["no-steps", "one-step", "not-finite", "no-time", "two-thousand"],
)
def test_the_page_of_an_odd_run(recorded: WorkerLog) -> None:
    text = page(bench(recorded), recorded)
    assert loads(text) == []
    assert len(text) < 2_000_000


def test_the_page_is_the_same_each_time() -> None:
    assert page(report()) == page(report())
