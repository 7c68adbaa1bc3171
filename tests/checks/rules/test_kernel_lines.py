"""Lines that real machines logged: those of a fault lead to a finding that quotes them, the others to none."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from checks.allowed.kernel import log
from checks.catalogue import catalogue
from checks.facts.host import Host
from checks.facts.kernel import parse_log, reduce_log
from checks.model import Severity
from checks.registry import ALL
from checks.runner import judge, run
from machine.identities import Identities
from tests.checks.rules.hosts import amd_card, but, healthy_amd, healthy_nvidia, nvidia_card
from tests.subjects import for_each

TABLE: dict[str, Any] = tomllib.loads(Path(__file__).with_name("kernel_lines.toml").read_text(encoding="utf-8"))
CHECKS = {check.id: check for check in ALL}
FAULTS = [
    (driver, row["check"], row["on"], line)
    for driver in ("amdgpu", "nvidia")
    for row in TABLE[driver]
    for line in row["lines"]
]
CALM = [(row["driver"], line) for row in TABLE["calm"] for line in row["lines"]]


def machine(driver: str, on: str) -> Host:
    """A healthy machine whose driver has the card, let go of it, or lists none."""
    host, card = (healthy_amd(), amd_card) if driver == "amdgpu" else (healthy_nvidia(), nvidia_card)
    if on == "unbound":
        return but(host, cards=(card(driver=None),), nvidia={"nvml": ()} if driver == "nvidia" else {})
    return but(host, nvidia={"nvml": ()}) if on == "silent" else host


def logged(line: str) -> tuple[str, ...]:
    """The line as the facts hold it after journalctl printed it."""
    first, *rest = line.split("\n")
    return parse_log("\n".join([f"[ 1234.567890] host kernel: {first}", *(f"              {more}" for more in rest)]))


@for_each(("driver", "check", "on", "line"), FAULTS)
def test_a_line_of_a_fault_is_found_and_quoted(driver: str, check: str, on: str, line: str) -> None:
    result = judge(CHECKS[check], but(machine(driver, on), kernel={"log": logged(line)}), catalogue())
    bad = [finding for finding in result.findings if finding.severity is not Severity.INFO]
    assert bad, result.reason
    quoted = " ".join(row.value for finding in bad for row in finding.evidence)
    assert line.split("\n")[0].strip()[:120] in quoted
    assert all(finding.fix and finding.fix.text for finding in bad)


@for_each(("driver", "line"), CALM)
def test_a_line_of_a_working_machine_is_not_found(driver: str, line: str) -> None:
    host = but(machine(driver, "running"), kernel={"log": logged(line)})
    report = run(host, catalogue(), ALL, only=("gpu", "driver", "kernel"))
    assert [row.id for row in report.results if row.status in ("fail", "warn")] == []


FORMS = (
    "[ 1234.567890] {}",
    "[ 1234.567890] host kernel: {}",
    "[ 1234.567890] [  T53331] {}",
    "[Mon Nov 30 14:22:03 2026] {}",
    "Nov 30 14:22:03 host kernel: {}",
    "Nov  3 04:02:03 host kernel: [ 1234.567890] {}",
)


@for_each("form", FORMS)
def test_a_line_is_read_in_each_form_of_dmesg_and_journalctl(form: str) -> None:
    for _, _, _, line in FAULTS:
        if "\n" not in line:
            content = f"{form.format('Linux version 6.17')}\n{form.format(line)}\n"
            assert [kept.partition("] ")[2] for kept in parse_log(content)] == [line]
            assert parse_log(reduce_log(content.encode()).decode()) == parse_log(content)


def test_there_are_sixty_wordings_with_their_source() -> None:
    assert len(FAULTS) >= 60
    assert all(row["source"] for table in TABLE.values() for row in table)


def test_every_row_of_the_catalogue_says_where_it_was_seen_and_what_to_do() -> None:
    for row in catalogue().log_lines:
        assert row.source and row.words and all(words == words.lower() for words in row.words)
        assert [bool(row.harmless), bool(row.check), bool(row.means and row.severity)].count(True) >= 1
        assert bool(row.means) == bool(row.why) == bool(row.kind) == bool(row.fix)


def test_one_finding_a_card_names_the_cause_first_and_quotes_each_kind_once() -> None:
    flood = [
        f"[ {n}.0] amdgpu 0000:03:00.0: amdgpu: ring gfx_0.0.0 timeout, signaled seq={n}, emitted seq={n + 2}"
        for n in range(30)
    ]
    smu = "[ 99.0] amdgpu 0000:03:00.0: amdgpu: SMU: I'm not done with your previous command!"
    host = but(machine("amdgpu", "running"), kernel={"log": (*flood, smu)})
    (finding,) = judge(CHECKS["gpu.amdgpu-errors"], host, catalogue()).findings
    assert "power controller (SMU) does not respond, a ring timed out" in finding.summary
    assert [row.value for row in finding.evidence] == [flood[0], smu, "(31 such lines)"]


def test_a_flood_does_not_displace_the_line_that_explains_it() -> None:
    cause = "[    5.000000] amdgpu 0000:03:00.0: amdgpu: SMU: I'm not done with your previous command!"
    flood = "".join(
        f"[{n}.000000] pcieport 0000:00:01.0: AER: Corrected error received: 0000:00:01.0\n" for n in range(10, 5000)
    )
    kept = parse_log(f"{cause}\n{flood}")
    assert kept[0] == cause and len(kept) == 41 and kept[-1].startswith("[4999")


@for_each(("driver", "check", "on", "line"), FAULTS)
def test_a_recording_keeps_what_the_line_says(driver: str, check: str, on: str, line: str) -> None:
    first, *rest = line.split("\n")
    journal = "\n".join(
        ["[    1.000000] box kernel: Linux version 6.17", f"[ 1234.567890] box kernel: {first}"]
        + [f"              {more}" for more in rest]
    )
    kept = parse_log(log(f"{journal}\n", Identities(users=("alice",), host="box", salt=b"salt")))
    bad = judge(CHECKS[check], but(machine(driver, on), kernel={"log": kept}), catalogue()).findings
    assert any(finding.severity is not Severity.INFO for finding in bad)
