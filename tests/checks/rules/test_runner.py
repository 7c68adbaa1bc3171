"""The runner: which checks run, what a crash becomes, in which order results are listed, and what explains what."""

from __future__ import annotations

import pytest

from checks.catalogue import Catalogue, catalogue
from checks.facts.host import Host
from checks.model import Check, Evidence, Finding, Need, Ok, Severity, Skip, Status, Unknown, Verdict
from checks.registry import ALL
from checks.runner import exit_code, judge, result, run, select
from machine.errors import BadUsage
from tests.checks.rules.cases_card import said
from tests.checks.rules.cases_driver import DKMS, FRESH, REFUSED
from tests.checks.rules.cases_software import OLD_SESSION
from tests.checks.rules.hosts import built, but, healthy_nvidia, nvidia_card, two_vendors


def check(id: str, verdict: Verdict | Exception, causes: tuple[str, ...] = ()) -> Check:
    """A check that always answers so."""

    def rule(host: Host, catalogue: Catalogue) -> Verdict:
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    return Check(id, id, id.partition(".")[0], rule, causes=causes)


def finding(severity: Severity, subject: str = "apt") -> Finding:
    return Finding("x", severity, subject, f"{severity} about {subject}", "why", (Evidence("file", "value"),))


ERROR, WARNING, INFO = (finding(severity) for severity in Severity)
HOST = healthy_nvidia()


def answers(*checks: Check) -> list[tuple[str, str]]:
    return [(row.id, row.status.value) for row in run(HOST, catalogue(), checks).results]


def test_a_crash_is_a_result_and_the_other_checks_run() -> None:
    report = run(HOST, catalogue(), (check("a.breaks", ZeroDivisionError("1/0")), check("a.works", Ok("fine"))))
    broken, fine = report.results
    assert (broken.id, broken.status) == ("a.breaks", Status.UNKNOWN)
    assert "ZeroDivisionError: 1/0" in broken.reason
    assert fine.status is Status.PASS


def test_a_check_that_lacks_what_it_needs_is_skipped_with_the_first_reason() -> None:
    def need(reason: str | None) -> Need:
        return Need("something", lambda host, catalogue: reason)

    def rule(host: Host, catalogue: Catalogue) -> Verdict:
        return Ok("asked")

    def answer(*needs: Need) -> tuple[Status, str]:
        row = judge(Check("a.b", "", "a", rule, needs=needs), HOST, catalogue())
        return row.status, row.reason

    assert answer(need(None), need("no card"), need("no driver")) == (Status.SKIP, "no card")
    assert answer(need(None)) == (Status.PASS, "asked")


def test_ctrl_c_is_no_crash_of_a_check() -> None:
    def rule(host: Host, catalogue: Catalogue) -> Verdict:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(HOST, catalogue(), (Check("a.slow", "", "a", rule),))


def test_the_status_comes_from_the_worst_finding() -> None:
    some = check("a.b", ())
    assert result(some, (INFO, ERROR, WARNING)).status is Status.FAIL
    assert result(some, (INFO, ERROR, WARNING)).reason == ERROR.summary
    assert result(some, (INFO, WARNING)).status is Status.WARN
    assert result(some, (INFO,)).status is Status.PASS
    assert result(some, Skip("none")).status is Status.SKIP
    assert result(some, Unknown("?")).status is Status.UNKNOWN


def test_worst_first_then_in_the_registrys_order() -> None:
    assert answers(
        check("a.skip", Skip("")),
        check("a.ok", Ok("")),
        check("a.unknown", Unknown("")),
        check("a.warn", (WARNING,)),
        check("a.fail", (ERROR,)),
        check("a.fail-too", (ERROR,)),
    ) == [
        ("a.fail", "fail"),
        ("a.fail-too", "fail"),
        ("a.warn", "warn"),
        ("a.unknown", "unknown"),
        ("a.ok", "pass"),
        ("a.skip", "skip"),
    ]


def test_a_cause_is_listed_before_its_consequence_even_if_it_is_milder() -> None:
    first, second, third = run(
        HOST,
        catalogue(),
        (
            check("a.end", (ERROR,), causes=("a.middle",)),
            check("a.middle", (ERROR,), causes=("a.root",)),
            check("a.root", (WARNING,)),
        ),
    ).results
    assert [first.id, second.id, third.id] == ["a.root", "a.middle", "a.end"]
    assert [row.findings[0].caused_by for row in (first, second, third)] == [None, "a.root", "a.middle"]


def test_a_check_that_passes_explains_nothing() -> None:
    (row,) = run(
        HOST, catalogue(), (check("a.end", (ERROR,), causes=("a.fine", "a.gone")), check("a.fine", (INFO,)))
    ).results[:1]
    assert row.findings[0].caused_by is None


def test_a_fault_of_one_card_does_not_explain_that_of_another() -> None:
    one, other = finding(Severity.ERROR, "0000:01:00.0 RTX 3090"), finding(Severity.ERROR, "0000:41:00.0 RTX 4090")
    rows = run(HOST, catalogue(), (check("a.root", (one,)), check("a.end", (one, other), causes=("a.root",)))).results
    assert [found.caused_by for found in rows[1].findings] == ["a.root", None]


def test_a_cycle_of_causes_ends() -> None:
    a, b = check("a.a", (ERROR,), causes=("a.b",)), check("a.b", (ERROR,), causes=("a.a",))
    assert sorted(answers(a, b)) == [("a.a", "fail"), ("a.b", "fail")]


def test_only_and_skip_take_ids_and_groups() -> None:
    groups = {check.group for check in select(ALL, only=("apt", "gpu.xid"))}
    assert groups == {"apt", "gpu"}
    assert [check.id for check in select(ALL, only=("gpu.xid", "gpu.aer"), skip=("gpu.aer",))] == ["gpu.xid"]
    assert not [check for check in select(ALL, skip=("apt",)) if check.group == "apt"]
    assert select(ALL) == ALL


def test_an_unknown_word_is_refused_with_suggestions() -> None:
    with pytest.raises(BadUsage) as caught:
        select(ALL, only=("driver.to-old",))
    assert caught.value.exit_code == 2
    assert "'driver.to-old'" in caught.value.what
    assert "driver.too-old" in caught.value.why
    assert "--list" in caught.value.next
    with pytest.raises(BadUsage, match="nonsense"):
        select(ALL, skip=("nonsense",))


def test_the_summary_counts_and_the_exit_code_follows() -> None:
    report = run(HOST, catalogue(), (check("a.a", (ERROR,)), check("a.b", Ok("")), check("a.c", Skip(""))))
    assert (report.summary.fail, report.summary.passed, report.summary.skip) == (1, 1, 1)
    assert exit_code(report) == 1
    mild = run(HOST, catalogue(), (check("a.a", (WARNING,)),))
    assert (exit_code(mild), exit_code(mild, strict=True)) == (0, 1)
    blind = run(HOST, catalogue(), (check("a.a", Unknown("")),))
    assert (exit_code(blind), exit_code(blind, strict=True)) == (0, 1)
    assert exit_code(run(HOST, catalogue(), (check("a.a", Ok("")),)), strict=True) == 0


def causes(host: Host) -> dict[str, str | None]:
    rows = run(host, catalogue(), ALL).results
    return {row.id: row.findings[0].caused_by for row in rows if row.status in (Status.FAIL, Status.WARN)}


def test_other_faults_are_consequences_of_a_module_that_secure_boot_refuses() -> None:
    assert causes(but(said(DKMS, REFUSED), firmware={"mok_key_enrolled": False})) == {
        "secureboot.module": None,
        "driver.bound": "secureboot.module",
        "driver.nvml": "secureboot.module",
    }


def test_a_fresh_machine_has_one_finding_for_its_missing_driver() -> None:
    assert causes(FRESH) == {"driver.present": None}


def test_access_denied_to_an_old_session_is_explained_by_it() -> None:
    assert causes(OLD_SESSION) == {
        "rocm.render-group": None,
        "rocm.kfd-access": "rocm.render-group",
        "rocm.render-access": "rocm.render-group",
    }


def test_missing_headers_explain_the_whole_chain() -> None:
    host = but(
        DKMS,
        kernel={"headers": (), "modules": (), "dkms": (built("nvidia", "610.43.02", None, "added"),)},
        firmware={"secure_boot": False},
    )
    assert causes(host) == {
        "kernel.headers": None,
        "driver.dkms": "kernel.headers",
        "driver.module": "driver.dkms",
        "driver.bound": "driver.module",
        "driver.nvml": "driver.module",
    }


def test_the_two_vendors_do_not_explain_each_other() -> None:
    nvidia, amd = two_vendors().cards or ()
    host = but(
        two_vendors(),
        cards=(nvidia_card(revision="ff", driver=nvidia.driver), amd),
        amd={"kfd": None},
    )
    found = causes(host)
    assert found["gpu.fell-off-bus"] is None
    assert found["rocm.kfd-access"] is None
