"""docs/style.md: no word of its *not* column in what a user reads, and none in the name of a function or class."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.tool import ROOT

STYLE = ROOT / "docs" / "style.md"
ROOMS = ("gpu_setup", "harness", "containers", "provision", "checks", "machine", "benchmarks")
# words as data: what other people write
WORD_LISTS = ("phrases.toml", "person_names.toml", "people.toml", "places.toml", "stopwords.toml", "mail_text.toml")
# what other tools print, quoted
QUOTED = ("nobody is there",)
# values of the JSON contract
VALUES = ("mend",)


@cache
def avoided() -> dict[str, re.Pattern[str]]:
    """Each entry of the *not* column and where it matches: whole words, any case, any white space; N is a number."""
    table = STYLE.read_text(encoding="utf-8").partition("## Say, not")[2]
    entries = [
        word for row in re.findall(r"^\|[^|]+\|([^|]+)\|$", table, re.M) for word in re.findall(r"`([^`]+)`", row)
    ]
    return {
        entry: re.compile(
            r"(?<![\w-])" + r"\s+".join(r"\d+" if w == "N" else re.escape(w) for w in entry.split()) + r"(?![\w-])",
            re.I,
        )
        for entry in entries
    }


def bad_words(text: str) -> list[str]:
    for quote in (*QUOTED, *(f'"{value}"' for value in VALUES)):
        text = text.replace(quote, "")
    return [entry for entry, pattern in avoided().items() if pattern.search(text)]


def strings(source: str) -> Iterator[tuple[int, str]]:
    """Every string of a module, docstrings too, with its line; patterns for other programs' output are not ours."""
    tree = ast.parse(source)
    patterns = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("re.", "lazy_pattern"))
        for argument in node.args[:1]
        for inner in ast.walk(argument)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in patterns:
            yield node.lineno, node.value


def files(room: str) -> list[Path]:
    kinds = {".py", ".toml", ".yaml", ".j2", ".sh"}
    return sorted(
        place
        for place in (ROOT / room).rglob("*")
        if place.suffix in kinds and place.name not in WORD_LISTS and "__pycache__" not in place.parts
    )


def found_in(place: Path) -> list[str]:
    text = place.read_text(encoding="utf-8")
    parts = strings(text) if place.suffix == ".py" else enumerate(text.splitlines(), 1)
    return [
        f"{place.relative_to(ROOT)}:{line}: {word}"
        for line, part in parts
        if part not in VALUES
        for word in bad_words(part)
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_says(room: str) -> None:
    found = [each for place in files(room) for each in found_in(place)]
    assert not found, f"{len(found)} words to replace (docs/style.md):\n" + "\n".join(found)


def test_what_documents_say() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "gpu-setup", ROOT / "test"]
    found = [each for place in sorted(pages) if place != STYLE for each in found_in(place)]
    assert not found, f"{len(found)} words to replace (docs/style.md):\n" + "\n".join(found)


@pytest.mark.parametrize("room", (*ROOMS, "tests"))
def test_what_functions_and_classes_are_called(room: str) -> None:
    found = []
    for place in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(place.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", node.name).replace("_", " ")
                found += [f"{place.relative_to(ROOT)}:{node.lineno}: {node.name}" for _ in bad_words(words)]
    assert not found, f"{len(found)} names to replace (docs/style.md):\n" + "\n".join(found)


def test_the_table_is_read() -> None:
    assert len(avoided()) > 50
    assert bad_words("The processor ends with 0 and goes\non.") == ["processor", "ends with N", "goes on"]
    assert bad_words("Multiprocessors, processes, standing, a stand-in, the CPU") == []
