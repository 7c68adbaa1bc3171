"""No sentence that its own evidence or the machine contradicts: of recordings, faults, reports, and mixtures.

Mixed machines have combinations that nobody thought of: a key that is enrolled beside a module that was rejected, a
group that is missing beside a device that may be opened. Their findings must be true as well.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import msgspec
import pytest

from checks.catalogue import catalogue
from checks.facts.host import Host
from checks.facts.read import read_host
from checks.facts.software import Package
from checks.model import Evidence, Finding, Fix, FixKind, Severity
from checks.registry import ALL
from checks.runner import run
from tests.checks.faults.edits import apply
from tests.checks.faults.overlay import Overlay
from tests.checks.faults.scoreboard import healthy, machines, places
from tests.checks.rules.hosts import but, healthy_nvidia
from tests.checks.rules.sentences import CLAIMS, SMALLER, sentences, untrue_sentences
from tests.recorded_machines import load, names
from tests.reports.ask import machine
from tests.reports.table import reports

SEED = 15
# each comes from one machine whole: what DKMS built, its packages and who may open a device only make sense together
PARTS = (
    ("cards", "kernel", "nvidia", "amd", "apt", "python", "person"),
    ("firmware",),
    ("os",),
    ("docker",),
    ("resources",),
    ("hub",),
)
FORGOTTEN = 4


def recorded() -> list[Host]:
    return [read_host(load(name)) for name in names()]


@cache
def with_faults() -> list[Host]:
    """Each fault in each of its wordings, on one machine that can have it."""
    found, seen = [], set()
    for fault, turn, name in places():
        if (fault.id, turn) not in seen:
            seen.add((fault.id, turn))
            machine = Overlay(machines()[name])
            apply(machine, healthy()[name], fault.wordings[turn].edits)
            found.append(read_host(machine))
    return found


@cache
def reported() -> list[Host]:
    return [read_host(machine(report)) for report in reports()]


def mixed(hosts: list[Host], number: int) -> Iterator[Host]:
    """Machines of which each part is another's, and some facts are not known."""
    chance = random.Random(SEED)
    for _ in range(number):
        made = hosts[0]
        for fields in PARTS:
            giver = chance.choice(hosts)
            made = msgspec.structs.replace(made, **{field: getattr(giver, field) for field in fields})
        for _ in range(FORGOTTEN):
            part = chance.choice([field for fields in PARTS for field in fields if field not in ("cards", "python")])
            facts = getattr(made, part)
            fact = chance.choice([field.name for field in msgspec.structs.fields(facts) if field.default is None])
            made = msgspec.structs.replace(made, **{part: msgspec.structs.replace(facts, **{fact: None})})
        yield made


def untrue(hosts: Iterable[Host]) -> Counter[str]:
    known = catalogue()
    return Counter(
        f"{finding.check}: {finding.summary!r}: {why}"
        for host in hosts
        for row in run(host, known, ALL).results
        for finding in row.findings
        for why in untrue_sentences(finding, host, known)
    )


def test_the_findings_of_the_recorded_machines_are_true() -> None:
    assert not untrue(recorded())


@pytest.mark.long
def test_the_findings_about_each_fault_are_true() -> None:
    assert not untrue(with_faults())


@pytest.mark.long
def test_the_findings_about_reported_machines_are_true() -> None:
    assert not untrue(reported())


@pytest.mark.long
def test_the_findings_of_mixed_machines_are_true() -> None:
    assert not untrue(mixed([*recorded(), *with_faults()], 600))


def problem(summary: str, seen: str = "", fix: Fix | None = None, subject: str = "0000:01:00.0 RTX 3090") -> Finding:
    return Finding("a.b", Severity.ERROR, subject, summary, "", (Evidence("file", seen),), fix)


def run_this(*argv: str, verify: tuple[str, ...] = ()) -> Fix:
    return Fix(FixKind.COMMAND, "Do it.", argv, verify=verify)


NO_APT = {"packages": None, "broken": None, "sources": None}
DKMS = {"packages": (Package(name="dkms", version="3.0", state="installed"),)}


@pytest.mark.parametrize(
    ("finding", "changed", "why"),
    [
        (problem("The key that signed it is not enrolled."), {"firmware": {"mok_key_enrolled": True}}, "by the facts"),
        (problem("The key is not enrolled.", "mokutil --test-key: enrolled"), {}, "by its evidence"),
        (problem("alex may not (not in group render)."), {"person": {"groups": ("render",)}}, "by the facts"),
        (problem("The card did not wake up from D3cold.", "from D3hot to D0"), {}, "names D3cold"),
        (problem("Driver 999.12.34 is too old."), {}, "names 999.12.34"),
        (problem("ROCm does not see it."), {}, "of another vendor: ROCm"),
        (problem("No dkms.", fix=run_this("apt-get", "install", "dkms")), {"apt": DKMS}, "cannot help"),
        (problem("No dkms.", fix=run_this("apt-get", "install", "dkms")), {"apt": NO_APT}, "no dpkg"),
        (problem("Not loaded.", fix=run_this("modprobe", "nvidia")), {}, "cannot help"),
        (problem("NVML fails.", fix=run_this("true", verify=("nvidia-smi",))), {}, "verified today already"),
        (problem("The loaded driver has version 1.2, its libraries 1.2."), {}, "by the facts"),
        (problem("It is lost.", "NVML: 2 of 2 cards"), {}, "by the facts"),
    ],
)
def test_a_sentence_that_is_not_true_is_noticed(finding: Finding, changed: dict[str, Any], why: str) -> None:
    assert any(why in said for said in untrue_sentences(finding, but(healthy_nvidia(), **changed), catalogue()))


@pytest.mark.long
def test_each_form_of_words_is_used_by_a_finding() -> None:
    known = catalogue()
    said = {
        text
        for host in (*recorded(), *with_faults(), *reported())
        for row in run(host, known, ALL).results
        for finding in row.findings
        for text in sentences(finding)
    }
    assert [words for words in (*CLAIMS, *SMALLER) if not any(re.search(words, text) for text in said)] == []
