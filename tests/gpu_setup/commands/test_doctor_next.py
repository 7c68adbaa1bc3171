"""What the doctor's reader sees first and is sent to next: causes, one command for several findings, `apply` if the
plan does it, and no `up` while something is to fix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import pytest

from checks.catalogue import Catalogue, catalogue
from checks.facts.host import Host, Unread
from checks.facts.read import read_host
from checks.model import Check, Evidence, Finding, Fix, FixKind, Severity
from checks.registry import ALL
from checks.rules.finding import by_hand, command, install, provision, reboot
from checks.runner import run
from gpu_setup.render.doctor import doctor_text, summary_text
from gpu_setup.render.next_step import is_planned
from provision.model import Plan
from provision.plan.planner import make_plan
from provision.target import PlanTarget
from tests.checks.faults.overlay import Overlay
from tests.checks.faults.scoreboard import machines
from tests.checks.rules.hosts import but, healthy_nvidia
from tests.checks.rules.test_sentences import recorded, reported, with_faults
from tests.recorded_machines import load, machine_path
from tests.tool import answered

ERROR, WARNING, INFO = Severity


def problem(
    severity: Severity, fix: Fix | None, subject: str = "a card", summary: str = "", seen: str = "x"
) -> Finding:
    return Finding("", severity, subject, summary or f"{severity} about something.", "", (Evidence("file", seen),), fix)


def check(id: str, *findings: Finding, permanent: bool = False) -> Check:
    named = tuple(msgspec.structs.replace(finding, check=id) for finding in findings)
    return Check(id, id, id.partition(".")[0], lambda host, catalogue: named, permanent=permanent)


def causes_of(id: str) -> tuple[str, ...]:
    return next(check.causes for check in ALL if check.id == id)


def lines(*checks: Check, host: Host | None = None, whole: bool = True, verbose: bool = False) -> list[str]:
    seen, known = host or healthy_nvidia(), catalogue()
    text = doctor_text(run(seen, known, checks), seen, known, verbose, whole, lambda: _plan(seen, known))
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


def _plan(host: Host, known: Catalogue) -> Plan:
    return make_plan(host, known, PlanTarget())


def next_of(found: Sequence[str]) -> list[str]:
    return list(found[next(number for number, line in enumerate(found) if line.startswith("Next: ")) :])


def next_on(capfd: pytest.CaptureFixture[str], name: str, *options: str) -> str:
    """What is printed from `Next:` on for this recorded machine, as one line."""
    _, out = answered(capfd, "doctor", "--machine", machine_path(name), *options)
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", out[out.index("Next: ") :]).split())


def test_apply_is_next_where_the_plan_has_the_steps(capfd: pytest.CaptureFixture[str]) -> None:
    assert next_on(capfd, "rtx3090ti-fresh") == (
        "Next: gpu-setup apply (shows its plan and asks first; fixes driver.present, python.compiler, python.headers, "
        "python.venv)"
    )
    assert next_on(capfd, "rx7900xt-fresh").startswith(
        "Next: gpu-setup apply (shows its plan and asks first; fixes rocm."
    )


def test_where_the_plan_refuses_its_reason_is_next(capfd: pytest.CaptureFixture[str]) -> None:
    said = next_on(capfd, "two-vendors")
    assert said.startswith("Next: There are GPUs of both vendors")
    assert "gpu-setup plan --vendor nvidia" in said
    assert said.endswith("$ sudo apt-get install build-essential python3-dev python3-venv")
    assert "gpu-setup apply" not in said


def test_what_a_person_must_do_comes_before_apply(capfd: pytest.CaptureFixture[str]) -> None:
    said = next_on(capfd, "rtx3090-library-mismatch")
    assert re.search(r"^Next: .* \$ sudo systemctl reboot then: gpu-setup apply \(.*python\.compiler", said)


def test_nothing_is_promised_of_a_plan_that_does_not_do_it() -> None:
    """The plan for this machine installs only a builder for images."""
    found = lines(check("apt.b", problem(ERROR, provision("The plan writes the pin."))))
    assert next_of(found) == ["Next: The plan writes the pin. (apt.b)"]
    found = lines(check("container.b", problem(ERROR, provision("The plan installs it."))))
    assert next_of(found) == ["Next: gpu-setup apply (shows its plan and asks first; fixes container.b)"]


def test_a_missing_key_of_the_containers_repository_is_a_step_of_the_plan() -> None:
    key = "/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg"
    machine = Overlay(machines()["rtx4090-healthy"])
    machine.remove(key)
    host = read_host(machine)
    assert host.apt.missing_keys == (key,)
    assert next_of(lines(*ALL, host=host))[0].startswith("Next: gpu-setup apply (shows its plan")


def test_several_packages_are_one_command() -> None:
    found = lines(
        check("a.compiler", problem(ERROR, install("Install the compiler.", "build-essential"))),
        check("a.headers", problem(ERROR, install("Install the headers.", "python3-dev"))),
        check("a.firmware", problem(ERROR, install("Install the firmware.", "--reinstall", "linux-firmware"))),
    )
    assert next_of(found) == [
        "Next: Install what is missing. (a.compiler, a.headers)",
        "      $ sudo apt-get install build-essential python3-dev",
        "then: Install the firmware. (a.firmware)",
        "      $ sudo apt-get install --reinstall linux-firmware",
    ]


def test_the_same_fix_of_several_findings_is_said_once() -> None:
    same = by_hand("Start the container with --device=/dev/kfd.")
    checks = (check("a.kfd", problem(ERROR, same)), check("a.render", problem(ERROR, same, subject="a node")))
    assert next_of(lines(*checks)) == ["Next: Start the container with --device=/dev/kfd. (a.kfd, a.render)"]


def test_up_is_next_only_where_nothing_is_to_fix() -> None:
    fix = command("Install PyTorch for the card.", "pip", "install", "torch")
    assert next_of(lines()) == ["Next: gpu-setup up"]
    assert next_of(lines(check("a.b", problem(WARNING, fix)))) == [
        "Next: Install PyTorch for the card. (a.b)",
        "      $ pip install torch",
        "then: gpu-setup up",
    ]
    assert next_of(lines(check("a.b", problem(ERROR, fix))))[-1] == "      $ pip install torch"
    assert next_of(lines(check("a.b", problem(INFO, fix)))) == ["Next: gpu-setup up"]


def test_after_some_checks_only_the_others_are_next(capfd: pytest.CaptureFixture[str]) -> None:
    assert next_on(capfd, "rtx3090-healthy", "--only", "driver") == "Next: gpu-setup doctor (all checks)"
    assert next_on(capfd, "rtx3090-healthy") == "Next: gpu-setup up"


def test_a_card_that_no_stack_supports_is_no_next_step(capfd: pytest.CaptureFixture[str]) -> None:
    assert next_on(capfd, "radeonvii") == "Next: gpu-setup up"


def test_what_nobody_can_change_is_no_next_step_and_comes_last() -> None:
    small = check("gpu.vram", problem(WARNING, command("Show what fits.", "gpu-setup", "fit")), permanent=True)
    disk = check("z.disk", problem(WARNING, by_hand("Free some space."), summary="The disk is full."))
    assert next_of(lines(small)) == ["Next: gpu-setup up"]
    found = lines(small, disk)
    assert found.index("! The disk is full.") < found.index("! warning about something.")
    assert next_of(found) == ["Next: Free some space. (z.disk)", "then: gpu-setup up"]


def test_packages_wait_for_a_dpkg_that_is_incomplete() -> None:
    compiler = check(
        "a.compiler", problem(ERROR, install("Install the compiler.", "build-essential"), summary="No cc.")
    )
    dpkg = check("apt.dpkg", problem(ERROR, by_hand("Repair it."), summary="dpkg is incomplete."))
    assert next_of(lines(compiler, dpkg))[0] == "Next: Repair it. (apt.dpkg)"
    assert next_of(lines(compiler))[0] == "Next: Install the compiler. (a.compiler)"


def test_an_explanation_names_the_checks_to_look_at_first(capfd: pytest.CaptureFixture[str]) -> None:
    _, out = answered(capfd, "doctor", "--explain", "driver.init")
    assert " ".join(out.split()).endswith("Possible causes: " + ", ".join(causes_of("driver.init")) + ".")
    assert max(map(len, out.splitlines())) <= 80


def test_the_same_finding_about_several_cards_is_one() -> None:
    cards = [
        problem(ERROR, by_hand("Reseat them."), f"0000:0{number}:00.0", "It is lost.", f"lost {number}")
        for number in range(9)
    ]
    found = lines(check("a.b", *cards))
    assert found.count("✗ It is lost.") == 1
    assert "  seen   file: lost 0" in found and "         … and 1 more (-v shows all)" in found
    about = " ".join(found)
    assert all(card.subject in about for card in cards)
    assert "         file: lost 8" in lines(check("a.b", *cards), verbose=True)


def test_notes_are_one_line_each_and_none_is_about_the_hub() -> None:
    note = problem(INFO, by_hand("Switch it on."), summary="Resizable BAR is off.")
    found = lines(
        check("gpu.rebar", note, msgspec.structs.replace(note, subject="another card")), check("hub.token", note)
    )
    assert [line for line in found if line.startswith("i ")] == ["i Resizable BAR is off. (gpu.rebar)"]


def test_a_kernel_log_that_was_not_read_is_said_with_what_makes_it_readable() -> None:
    host, known = but(healthy_nvidia(), kernel={"log": None}), catalogue()
    text = " ".join(doctor_text(run(host, known, ALL), host, known, False).split())
    assert "The kernel log was not read, so errors in it are not known. To make the kernel log readable: sudo" in text
    silent = but(host, unread=(Unread(source="kernel log", reason="journalctl timed-out"),))
    assert "make the kernel log readable" not in doctor_text(run(silent, known, ALL), silent, known, False)
    host = healthy_nvidia()
    assert "kernel log" not in doctor_text(run(host, known, ALL), host, known, False)


def test_a_reboot_is_asked_for_once_and_root_needs_no_sudo() -> None:
    restart = check("a.b", problem(ERROR, reboot("Load the new module.")))
    asked = [line for line in lines(restart) if "reboot" in line.lower()]
    assert asked == ["         $ sudo systemctl reboot", "      $ sudo systemctl reboot"]
    as_root = but(healthy_nvidia(), person={"uid": 0, "user": "root"})
    assert "         $ systemctl reboot" in lines(restart, host=as_root)
    after = check("a.b", problem(ERROR, command("Install it.", "make", reboot=True)))
    assert "         Then reboot." in lines(after)


def test_the_summary_has_a_line_for_each_finding_and_one_for_what_is_the_same() -> None:
    host, known = healthy_nvidia(), catalogue()
    two = check("a.b", problem(ERROR, None, summary="One."), problem(WARNING, None, summary="Another."))
    report = run(
        host, known, (two, check("c.d", problem(ERROR, None, "x", "Same."), problem(ERROR, None, "y", "Same.")))
    )
    found = re.sub(r"\x1b\[[0-9;]*m", "", summary_text(report, host, known)).splitlines()
    assert found[1:-1] == ["✗ One. (a.b)", "! Another. (a.b)", "✗ Same. (c.d)"]


def test_a_report_of_many_findings_leads_to_one_command() -> None:
    """Each check of a fresh machine, on a machine where much else is wrong too: the last lines stay few."""
    host, known = read_host(load("rtx3090ti-fresh")), catalogue()
    more = [check(f"z.{number}", problem(ERROR, install("Install it.", f"package{number}"))) for number in range(25)]
    found = doctor_text(run(host, known, (*ALL, *more)), host, known, False, True, lambda: _plan(host, known))
    assert len(next_of(re.sub(r"\x1b\[[0-9;]*m", "", found).splitlines())) <= 12


@pytest.mark.long
def test_on_every_machine_each_finding_is_shown_and_the_next_step_can_be_taken() -> None:
    """Recordings, faults in each wording, and reported machines."""
    known, wrong = catalogue(), []
    for host in (*recorded(), *with_faults(), *reported()):
        report, plan = run(host, known, ALL), _plan(host, known)
        text = re.sub(r"\x1b\[[0-9;]*m", "", doctor_text(report, host, known, False, True, lambda made=plan: made))
        body, _, step = text.partition("\nNext: ")
        shown = " ".join(body.split())
        hidden = [
            finding.check
            for row in report.results
            for finding in row.findings
            if finding.severity is not INFO and " ".join(finding.summary.split()) not in shown
        ]
        unplanned = [
            finding.check
            for row in report.results
            for finding in row.findings
            if finding.severity is not INFO and finding.fix and finding.fix.kind is FixKind.PROVISION
            if not plan.refusals and not is_planned(finding, plan)
        ]
        promised = "gpu-setup apply (" in step and not plan.open_steps()
        trains = "gpu-setup up" in step and report.summary.fail > 0
        wide = [line for line in text.splitlines() if len(line) > 80 and "$ " not in line and " " in line.strip()[60:]]
        if hidden or unplanned or promised or trains or wide or not step:
            wrong.append((host.machine, hidden, unplanned, promised, trains, wide))
    assert wrong == []
