"""`gpu-setup compare` as a person calls it: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpu_setup.cli import run
from gpu_setup.envelope import Answer, encode
from harness.report.run_report import Report
from tests.harness.report.examples import card

LATER = "2026-11-25T10:00:00Z"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def compare(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`compare(a, b, "--json")` in an empty folder: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run(["compare", *map(str, arguments)])
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return saved(tmp_path, card(), "one"), saved(tmp_path, card("Radeon RX 7900 XTX", 880.0, LATER), "other")


def saved(folder: Path, report: Report, name: str) -> Path:
    """The report in a folder of its own, as a run leaves it."""
    place = folder / name
    place.mkdir()
    (place / "report.json").write_bytes(encode(Answer("report", report, 0, str)))
    return place


def error(said: str) -> dict[str, Any]:
    document = json.loads(said)
    (found,) = document["errors"]
    assert isinstance(found, dict) and all(found[part] for part in ("code", "what", "next"))
    return {**found, "exit_code": document["exit_code"], "schema": document["schema"], "data": document["data"]}


def test_two_folders(compare: Call, pair: tuple[Path, Path]) -> None:
    code, out, _ = compare(*pair)
    assert code == 0
    assert out.startswith("2 runs of the same work\n") and "12.0% slower than A" in out


def test_files_and_folders_make_one_document(compare: Call, pair: tuple[Path, Path]) -> None:
    code, out, err = compare(pair[0], pair[1] / "report.json", "--json")
    document = json.loads(out)
    assert (code, err, document["schema"]) == (0, "", "gpu-setup/comparison/1")
    assert document["data"]["comparable"] and document["data"]["runs"][1]["ratio"]["verdict"] == "slower"


def test_every_form_at_once(compare: Call, pair: tuple[Path, Path], tmp_path: Path) -> None:
    code, out, _ = compare(*pair, "--html", "c.html", "--csv", "c.csv", "--markdown", "c.md")
    assert code == 0 and out.startswith("2 runs")
    assert (tmp_path / "c.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "c.csv").read_text(encoding="utf-8-sig").startswith("letter,machine,")
    assert (tmp_path / "c.md").read_text().startswith("### 2 runs of the same work")
    assert not list(tmp_path.glob("*.part*"))


def test_markdown_alone_on_stdout(compare: Call, pair: tuple[Path, Path]) -> None:
    code, out, err = compare(*pair, "--markdown", "-")
    assert (code, err) == (0, "") and out.startswith("### 2 runs of the same work\n")


def test_one_report_and_the_published_figures(compare: Call, pair: tuple[Path, Path]) -> None:
    code, out, _ = compare(pair[0])
    assert code == 0 and out.startswith("1 run\n")
    assert "published figures for the RTX 3090, none of the same work: not comparable." in " ".join(out.split())


def test_different_work_exits_with_3_and_writes_nothing(compare: Call, pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = saved(tmp_path, card(overrides={"lora_r": 8}, started_at=LATER), "r8")
    code, out, _ = compare(pair[0], other, "--html", "c.html")
    assert code == 3 and "LoRA r" in out and "A 32; B 8" in out
    assert not (tmp_path / "c.html").exists()
    code, out, _ = compare(pair[0], other, "--json")
    found = error(out)
    assert (code, found["exit_code"], found["code"]) == (3, 3, "compare.different-work")
    assert found["schema"] == "gpu-setup/comparison/1" and found["why"] == "LoRA r: A 32, B 8."
    assert found["data"]["differences"] == [{"key": "LoRA r", "values": [32, 8]}]


def test_an_old_report_exits_with_3(compare: Call, pair: tuple[Path, Path], tmp_path: Path) -> None:
    old = saved(
        tmp_path, msgspec.structs.replace(card(started_at=LATER), work=None, conditions=None, digest=None), "old"
    )
    code, out, _ = compare(pair[0], old, "--json")
    assert code == 3 and error(out)["code"] == "compare.no-work" and str(old) in error(out)["what"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "report.missing"),
        (b"", "report.unreadable"),
        (b"not json", "report.unreadable"),
        (b'{"schema": "gpu-setup/doctor/1", "data": {"results": []}}', "report.unreadable"),
        (b"\xff\xfe\x00", "report.unreadable"),
        (b"[" * 5000, "report.unreadable"),
    ],
)
def test_a_file_that_is_no_report_exits_with_2(
    compare: Call, pair: tuple[Path, Path], tmp_path: Path, content: bytes | None, code: str
) -> None:
    bad = tmp_path / "bad.json"
    if content is not None:
        bad.write_bytes(content)
    ended, out, _ = compare(pair[0], bad, "--json")
    assert ended == 2 and error(out)["code"] == code and str(bad) in error(out)["what"]


def test_a_folder_without_a_report(compare: Call, pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, out, _ = compare(pair[0], tmp_path / "empty", "--json")
    assert (code, error(out)["code"]) == (2, "report.missing")


def test_one_report_twice(compare: Call, pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(pair[0])
    for again in (pair[0], pair[0] / "report.json", tmp_path / "link"):
        code, out, _ = compare(pair[0], again, "--json")
        assert (code, error(out)["code"]) == (2, "compare.same-file")
    copy = tmp_path / "copy.json"
    copy.write_bytes((pair[0] / "report.json").read_bytes())
    code, out, _ = compare(pair[0], copy, "--json")
    assert (code, error(out)["code"]) == (2, "compare.same-run")


@pytest.mark.parametrize("option", ["--html", "--csv", "--markdown"])
def test_an_output_that_cannot_be_written_exits_with_4_first(
    compare: Call, pair: tuple[Path, Path], tmp_path: Path, option: str
) -> None:
    for place in (tmp_path / "nowhere" / "c.html", tmp_path, Path("/proc/c.html")):
        code, out, _ = compare(*pair, option, place, "--json")
        assert (code, error(out)["code"]) == (4, "paths.unwritable"), out


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_of_somebody_else(compare: Call, pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o555)
    code, out, _ = compare(*pair, "--html", tmp_path / "theirs" / "c.html", "--json")
    assert (code, error(out)["code"]) == (4, "paths.unwritable")


def test_a_report_is_never_overwritten(compare: Call, pair: tuple[Path, Path]) -> None:
    before = (pair[1] / "report.json").read_bytes()
    code, out, _ = compare(*pair, "--csv", pair[1] / "report.json", "--json")
    assert (code, error(out)["code"]) == (2, "compare.overwrites")
    assert (pair[1] / "report.json").read_bytes() == before
    code, out, _ = compare(*pair, "--csv", "c", "--html", "c", "--json")
    assert (code, error(out)["code"]) == (2, "compare.same-place")


def test_a_link_is_written_through_and_a_device_into(compare: Call, pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "real.md").write_text("before")
    (tmp_path / "link.md").symlink_to(tmp_path / "real.md")
    assert compare(*pair, "--markdown", "link.md")[0] == 0
    assert (tmp_path / "link.md").is_symlink() and (tmp_path / "real.md").read_text().startswith("###")
    assert compare(*pair, "--csv", "/dev/null")[0] == 0
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize(
    "arguments", [(), ("--card", "RTX 3090"), ("x", "--markdown", "-", "--json"), ("--published", "x")]
)
def test_wrong_usage(compare: Call, arguments: tuple[str, ...]) -> None:
    assert compare(*arguments)[0] == 2


def test_the_published_figures(compare: Call) -> None:
    code, out, _ = compare("--published", "--card", "RTX 3090")
    assert code == 0 and "impossible" in out and "2 × RTX 3090, each" in out
    code, out, _ = compare("--published", "--json")
    document = json.loads(out)
    assert (code, document["schema"]) == (0, "gpu-setup/records/1")
    assert {each["mark"] for each in document["data"]["records"]} >= {"impossible", "plausible", "unknown"}
    for name in ("Radeon RX 7900 XTX", "rx 7900 xtx"):
        assert compare("--published", "--card", name)[1] == "No figures are published for that card.\n"
    family = json.loads(compare("--published", "--card", "A100", "--json")[1])["data"]["records"]
    assert {each["record"]["card"] for each in family} == {"A100", "A100 SXM4 40GB", "A100 SXM4 80GB"}
    assert compare("--published", "--card", "rtx 3090")[1] == compare("--published", "--card", "RTX 3090")[1] != ""
    code, out, _ = compare("--published", "--card", "RTX 3900", "--json")
    assert code == 2 and "RTX 3090" in error(out)["why"]
