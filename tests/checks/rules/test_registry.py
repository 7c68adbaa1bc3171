"""The registry: stable ids, a text for every check, causes that exist; and it is quick to import and to run."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from checks.catalogue import catalogue
from checks.docs import page
from checks.model import Check
from checks.registry import ALL
from checks.runner import run
from tests.checks.rules.hosts import two_vendors
from tests.subjects import for_each
from tests.tool import ROOT

IDS = Path(__file__).with_name("ids.txt").read_text(encoding="utf-8").split()
PAGE = ROOT / "docs" / "reference" / "checks.md"


def test_ids_are_stable() -> None:
    """People and scripts rely on them: an id may be added to the list, never renamed or taken out."""
    assert sorted(check.id for check in ALL) == sorted(IDS)
    assert len(set(IDS)) == len(IDS)


@for_each("check", ALL, ids=lambda check: check.id)
def test_every_check_explains_itself(check: Check) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z0-9]+(-[a-z0-9]+)*", check.id)
    assert check.group == check.id.partition(".")[0]
    assert 10 < len(check.title) < 72
    assert check.about.endswith(".") and len(check.about.split()) >= 15
    assert check.by_hand.endswith(".")
    assert all(need.name for need in check.needs)
    assert set(check.causes) <= set(IDS) - {check.id}


def test_causes_make_no_circle() -> None:
    causes = {check.id: check.causes for check in ALL}

    def above(id: str, below: tuple[str, ...]) -> None:
        assert id not in below, " → ".join((*below, id))
        for cause in causes[id]:
            above(cause, (*below, id))

    for id in causes:
        above(id, ())


def test_the_page_in_docs_is_the_registrys() -> None:
    """Write it anew with `python -m checks.docs`."""
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
