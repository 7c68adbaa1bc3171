"""Names, reports and data from a stranger through every way out: no character of them steers a terminal."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_setup.cli import run
from gpu_setup.envelope import Answer, encode
from gpu_setup.render.page import report_page
from gpu_setup.terminal import echo, style
from harness.report.run_report import Report, read_report
from machine.errors import Refused
from machine.plain_text import change_strings
from tests.harness.examples import log
from tests.harness.report.examples import card
from tests.recorded_machines import tree

pytestmark = pytest.mark.long

# title and clear of a terminal, hidden text (an escape sequence that the tool itself never makes), C1, DEL,
# bidirectional overrides, isolates and marks, zero-width characters, line and paragraph separators
EVIL = (
    "\x1b]0;owned\x07\x1b[2J\x1b[8m\x08\r\x0b\x0c\x9b31m\x85\x7f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    "\u200e\u200f\u061c\u200b\u200c\u200d\u2060\ufeff\u2028\u2029"
)


def harmless(text: str, source: object) -> None:
    """Neither a control nor a format character, but newlines and tabs."""
    found = {sign for sign in text if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n", "\t"}
    assert not found, f"{source}: {sorted(map(ascii, found))}"


def harmless_document(text: str, source: object) -> Any:
    document = json.loads(text)
    harmless(text, source)
    strings: list[str] = []
    change_strings(document, lambda each: strings.append(each) or each)  # type: ignore[func-returns-value]
    for each in strings:
        harmless(each, source)
    return document


def poisoned(name: str, folder: Path, everywhere: bool) -> str:
    """The recorded machine with EVIL in its names, or at the end of every line and every string."""
    found = tree(name)
    files = dict(found.files)
    lines = re.compile(r"(?m)(?<=.)$" if everywhere else r'(?<=NAME=")|(?<=^Description: )|(?<=^model name\t: )')
    for path, data in files.items():
        if path.startswith("sysroot/") and b"\0" not in data:
            files[path] = lines.sub(EVIL.replace("\\", ""), data.decode("utf-8", "replace")).encode()
        elif path in ("nvml.json", "amdsmi.json"):
            files[path] = json.dumps(named(json.loads(data), everywhere)).encode()
        elif path == "commands.json" and everywhere:
            rows = json.loads(data)
            for row in rows:
                row["stdout"], row["stderr"] = lines.sub(EVIL, row["stdout"]), EVIL
            files[path] = json.dumps(rows).encode()
    # a card that no table lists has the name that its driver reports
    files = {path: b"0x22fe\n" if data.strip() == b"0x2204" else data for path, data in files.items()}
    files[f"sysroot/etc/modprobe.d/{EVIL}.conf"] = b"blacklist nvidia\n"
    files[f"sysroot/etc/apt/sources.list.d/{EVIL}.list"] = f"deb http://example.org/{EVIL} x main\n".encode()
    files["machine.json"] = json.dumps({"name": f"box{EVIL}"}).encode()
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    for path, target in found.links.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(target)
    return str(folder)


def named(value: Any, everywhere: bool) -> Any:
    if isinstance(value, dict):
        return {
            key: held + EVIL if isinstance(held, str) and (everywhere or "name" in key) else named(held, everywhere)
            for key, held in value.items()
        }
    return [named(each, everywhere) for each in value] if isinstance(value, list) else value


def poisoned_report(report: Report, folder: Path) -> str:
    """report.json with EVIL in every string that its reader accepts."""
    folder.mkdir()
    document = json.loads(encode(Answer("report", report, 0, str)))

    def places(value: Any) -> Iterator[tuple[Any, Any]]:
        for key, held in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(held, str):
                yield value, key
            elif isinstance(held, dict | list):
                yield from places(held)

    changed = 0
    for holder, key in places(document["data"]):
        before = holder[key]
        holder[key] = before + EVIL
        (folder / "report.json").write_text(json.dumps(document))
        try:
            read_report(folder)
            changed += 1
        except Exception:  # an enumeration, a number written as text
            holder[key] = before
    assert changed > 20
    (folder / "report.json").write_text(json.dumps(document))
    return str(folder)


@pytest.fixture
def shown(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`shown("doctor", …)`: stdout, after it and stderr were found harmless."""

    def call(*words: str) -> str:
        capfd.readouterr()
        run(words)
        said = capfd.readouterr()
        harmless(said.err, words)
        (harmless_document if {"--json", "--sarif"} & set(words) else harmless)(said.out, words)
        return said.out

    return call


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("name", ["rtx3090-healthy", "rx7900xtx-healthy"])
def test_a_machine(name: str, everywhere: bool, shown: Callable[..., str], tmp_path: Path) -> None:
    machine = ("--machine", poisoned(name, tmp_path / "box", everywhere))
    for words in (("doctor", "-v"), ("facts",), ("plan", "-v"), ("image", "render")):
        for form in ((), ("--json",)):
            said = shown(*words, *form, *machine)
            assert "�" in said or everywhere or words[0] == "plan" or name.startswith("rx"), words
    shown("plan", "--out", str(tmp_path / "plan.json"), *machine)
    harmless_document((tmp_path / "plan.json").read_text(encoding="utf-8"), "plan --out")


def test_reports(shown: Callable[..., str], tmp_path: Path) -> None:
    first = poisoned_report(card(), tmp_path / f"one{EVIL}")
    other = poisoned_report(card(started_at="2026-11-25T10:00:00Z"), tmp_path / "other")
    for words in (("report", first), ("compare", first, other)):
        assert "�" in shown(*words)
        assert "�" in shown(*words, "--json")
    harmless(report_page(read_report(Path(first)), log().steps, 3, "0.1.0"), "report.html")
    page, table, forum = (tmp_path / name for name in ("page.html", "table.csv", "forum.md"))
    shown("compare", first, other, "--html", str(page), "--csv", str(table), "--markdown", str(forum))
    for file in (page, table, forum):
        text = file.read_bytes().decode("utf-8")
        assert "�" in text, file.name
        # a table for spreadsheets has their mark and their line ends
        harmless(text.removeprefix("\ufeff").replace("\r\n", "\n"), file.name)


def test_data(shown: Callable[..., str], tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {EVIL}", "input": "", "output": f"It{EVIL}"}] * 3
    data, page, table = tmp_path / f"rows{EVIL}.json", tmp_path / "page.html", tmp_path / "table.csv"
    data.write_text(json.dumps(rows), encoding="utf-8")
    for form in ((), ("--json",), ("--sarif",), ("--html", str(page), "--csv", str(table))):
        assert "�" in shown("data", "check", str(data), *form)
    for file in (page, table):
        harmless(file.read_bytes().decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n"), file.name)
    shown("data", "clean", "--dry-run", str(data))
    shown("data", "clean", "--dry-run", "--json", str(data))


def test_arguments_and_a_recipe(shown: Callable[..., str], tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f'base_model: "x\\e[2J\\u202E"\n# {EVIL[-20:-2]}\n', encoding="utf-8")
    for words in ((f"doc{EVIL}",), ("recipe", f"x{EVIL}"), ("recipe", str(recipe)), ("fit", "--recipe", str(recipe))):
        for form in ((), ("--json",)):
            shown(*words, *form)


def test_our_own_styling_is_shown_and_a_strangers_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    echo(f"{style(f'red{EVIL}', fg='red')} \x1b[31mplain")
    said = capsys.readouterr().out
    assert said.startswith("\x1b[31mred�") and said.endswith("�\x1b[0m �[31mplain\n")


def test_bytes_that_are_no_text_in_a_problem(capfd: pytest.CaptureFixture[str]) -> None:
    """A path that is not UTF-8 arrives with lone surrogates, which no JSON document can hold."""
    assert json.loads(encode(Answer("x", {"path": "a\udcff"}, 0, str)))["data"] == {"path": "a�"}
    assert str(Refused("x", "a\udcff"))
    assert run(["doctor", "--machine", "/\udcff", "--json"]) == 2
    harmless_document(capfd.readouterr().out, "doctor")
