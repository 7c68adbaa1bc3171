"""The registry: stable ids, a text for every check, causes that exist; and it is quick to import and to run."""

from __future__ import annotations

import re
import subprocess
import sys
import time

from checks.catalogue import catalogue
from checks.check_ids import IDS
from checks.docs import page
from checks.model import Check
from checks.registry import ALL, MODULES, checks_in
from checks.runner import run
from tests.checks.rules.hosts import two_vendors
from tests.generate import ids_text, with_new
from tests.subjects import for_each
from tests.tool import ROOT

PAGE = ROOT / "docs" / "reference" / "checks.md"


def test_ids_are_stable() -> None:
    """`python -m tests.generate` adds a new id to the list; none is ever renamed or removed."""
    assert [check.id for check in ALL] == list(IDS)
    assert len(set(IDS)) == len(IDS)


def test_a_new_id_follows_the_check_before_it_in_its_file() -> None:
    assert with_new(["a.x", "a.y", "b.x"], [["a.x", "a.new", "a.newer"], ["c.x"], ["b.x"]]) == [
        *("a.x", "a.new", "a.newer", "a.y", "b.x", "c.x")
    ]
    source = 'X = (\n    "a.x",\n)\n'
    assert ids_text(source, ["a.x"]) == source
    assert ids_text(source, ["a.x", "a.y"]) == 'X = (\n    "a.x",\n    "a.y",\n)\n'


def test_the_prefix_of_an_id_names_the_folder_or_the_file_of_its_rule() -> None:
    for module in MODULES:
        place = module.__name__.removeprefix("checks.rules.").partition(".")[0]
        assert {check.group for check in checks_in(module)} == {place}


@for_each("check", ALL, ids=lambda check: check.id)
def test_every_check_explains_itself(check: Check) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z0-9]+(-[a-z0-9]+)*", check.id)
    assert check.group == check.id.partition(".")[0]
    assert 10 < len(check.title) < 72
    assert check.about.endswith(".") and len(check.about.split()) >= 15
    assert check.by_hand.endswith(".")
    assert all(need.name for need in check.needs)
    assert set(check.causes) <= set(IDS) - {check.id}


def test_causes_have_no_cycle() -> None:
    causes = {check.id: check.causes for check in ALL}

    def above(id: str, below: tuple[str, ...]) -> None:
        assert id not in below, " → ".join((*below, id))
        for cause in causes[id]:
            above(cause, (*below, id))

    for id in causes:
        above(id, ())


def test_the_page_in_docs_is_up_to_date() -> None:
    """`python -m tests.generate` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page(ALL)


def test_no_rule_imports_anything_heavy() -> None:
    code = (
        "import sys, msgspec; before = set(sys.modules); import checks.registry, checks.runner;"
        "print(*(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    added = {name for name in out.stdout.split() if not name.startswith(("checks", "machine"))}
    heavy = {
        "asyncio",
        "urllib.request",
        "inspect",
        "tempfile",
        "shutil",
        "json",
        "difflib",
        "subprocess",
        "dataclasses",
        "tomllib",
    }
    assert not added & heavy


def test_all_rules_together_take_a_few_milliseconds() -> None:
    """Of CPU time; measured 1 ms at 2.5 GHz, and the bound leaves room for a busy machine's cold caches."""
    host, known = two_vendors(), catalogue()
    best = min(_seconds(lambda: run(host, known, ALL)) for _ in range(5))
    assert best < 0.015


def _seconds(call: object) -> float:
    begin = time.thread_time()
    assert callable(call)
    call()
    return time.thread_time() - begin
