"""Running a plan: each step checked, done and verified, recorded in the journal, and stopped where it must."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from machine.errors import Refused
from machine.events import Event
from provision.apply import executor
from provision.apply.executor import new_run, run_plan
from provision.apply.journal import ApplyRequest, ApplyRun, Journal, JournalEntry
from provision.apply_context import ApplyContext
from provision.model import AnyAction, KernelModule, MokEnroll, Plan, Reboot, Service, State, Step, WriteFile, seal
from provision.plan.plan_file import check_digest, load_plan
from provision.root.approval import exit_code
from provision.target import PlanTarget
from tests.provision.hosts import Nowhere


def _is_by_hand(action: AnyAction) -> bool:
    return isinstance(action, KernelModule) and action.change == "allow"


def plan_of(*actions: AnyAction) -> Plan:
    steps = tuple(
        Step(
            id=f"s{number}" if not isinstance(action, Reboot) else "reboot",
            title=f"Step {number}",
            action=action,
            state=State.MANUAL if isinstance(action, MokEnroll) or _is_by_hand(action) else State.TODO,
            because="",
        )
        for number, action in enumerate(actions)
    )
    bare = Plan(
        machine="m", vendor=None, target=PlanTarget(), steps=steps, reboots=0, download_bytes=0, download_note="",
        refusals=(), notes=(), host_digest="",
    )  # fmt: skip
    return seal(bare)


def carried(
    tmp_path: Path, plan: Plan, stop: threading.Event | None = None, kind: str = "apply"
) -> tuple[ApplyRun, Journal, list[Event]]:
    told: list[Event] = []
    context = ApplyContext(Nowhere(), told.append, tmp_path / "state")
    journal = Journal(tmp_path / "state")
    journal.open()
    request = ApplyRequest(kind=kind, plan=plan)
    return run_plan(request, context, journal, new_run(request, context, "r1"), stop), journal, told


@pytest.fixture(autouse=True)
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' machine may have a read-only /usr: these steps write only into the test's own folder."""
    monkeypatch.setattr(executor, "_check_system", lambda context: None)


def test_a_step_is_done_verified_and_kept(tmp_path: Path) -> None:
    run, journal, told = carried(tmp_path, plan_of(WriteFile(path=str(tmp_path / "a"), content="x\n")))
    assert (run.standing, [step.outcome for step in run.steps]) == ("done", ["done"])
    assert [entry.phase for entry in journal.entries()] == ["begin", "done"]
    assert [event.kind for event in told] == ["start", "end"]
    assert journal.file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state" / "state.json").stat().st_mode & 0o777 == 0o644


def test_what_is_done_already_is_not_done_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x\n")
    run, journal, told = carried(tmp_path, plan_of(WriteFile(path=str(tmp_path / "a"), content="x\n")))
    assert [step.outcome for step in run.steps] == ["already"]
    assert journal.entries() == ()
    assert told == []


def test_a_failure_stops_the_rest_and_says_which_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bad = WriteFile(path=str(tmp_path / "file" / "a"), content="x")
    run, _, _ = carried(tmp_path, plan_of(bad, WriteFile(path=str(tmp_path / "b"), content="y")))
    assert run.standing == "failed"
    assert [step.outcome for step in run.steps] == ["failed", "waiting"]
    assert run.problem is not None and run.problem.exit_code in (3, 4)
    assert not (tmp_path / "b").exists()


def test_a_step_that_did_not_do_what_it_should_is_no_success(tmp_path: Path) -> None:
    run, _, _ = carried(tmp_path, plan_of(Service(unit="x.service", change="enable")))
    assert run.standing == "failed"


def test_a_restart_is_where_it_stops(tmp_path: Path) -> None:
    run, _, _ = carried(tmp_path, plan_of(WriteFile(path=str(tmp_path / "a"), content=""), Reboot()))
    assert run.standing == "restart"
    assert "gpu-setup resume" in run.next


def test_what_a_person_changes_first_is_named_before_the_reboot(tmp_path: Path) -> None:
    setting = KernelModule(name="amdgpu", change="allow", file="/etc/default/grub")
    run, _, _ = carried(tmp_path, plan_of(setting, Reboot()))
    assert (run.standing, exit_code(run)) == ("person", 5)
    assert run.next.startswith("First by hand: ")


def test_a_key_to_enrol_is_named_before_the_reboot_and_its_password_is_nowhere(tmp_path: Path) -> None:
    run, _, _ = carried(tmp_path, plan_of(MokEnroll(certificate="/var/lib/shim-signed/mok/MOK.der"), Reboot()))
    assert run.standing == "person"
    assert "sudo mokutil --import /var/lib/shim-signed/mok/MOK.der" in run.next
    assert "Enroll MOK" in run.next
    assert "--password" not in run.next and "hash-file" not in run.next


def test_a_rollback_that_waits_for_an_older_kernel_says_how_to_finish_it(tmp_path: Path) -> None:
    stays = Step(
        id="kernel-stays",
        title="",
        action=KernelModule(name="linux-image-7.0.0-31-generic", change="keep", file=""),
        state=State.MANUAL,
        because="Start the older kernel; then gpu-setup rollback.",
    )
    plan = seal(msgspec.structs.replace(plan_of(), steps=(stays,)))
    run, _, _ = carried(tmp_path, plan, kind="rollback")
    assert (run.standing, run.next) == ("person", "Start the older kernel; then gpu-setup rollback.")
    assert exit_code(run) == 5


def test_asked_to_stop_it_stops_between_two_steps(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    run, _, _ = carried(tmp_path, plan_of(WriteFile(path=str(tmp_path / "a"), content="")), stop)
    assert (run.standing, run.problem and run.problem.exit_code) == ("failed", 130)
    assert not (tmp_path / "a").exists()


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    journal.open()
    with journal.lock(), pytest.raises(Refused) as refused, Journal(tmp_path / "state").lock():
        pass
    assert refused.value.code == "apply.running"


def test_an_incomplete_line_is_skipped_and_the_next_line_is_complete(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(JournalEntry(time="1", run="r", kind="apply", phase="begin"))
    with journal.file.open("ab") as file:
        file.write(b'{"time":"2","run":"r","ki')
    journal.write(JournalEntry(time="3", run="r", kind="apply", phase="begin"))
    assert [entry.time for entry in journal.entries()] == ["1", "3"]


def test_a_step_with_a_start_and_no_end_was_interrupted(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for phase, step in (("begin", "a"), ("done", "a"), ("begin", "b"), ("begin", "c"), ("failed", "c"), ("begin", "c")):
        journal.write(JournalEntry(time="1", run="r", kind="apply", phase=phase, step=step))
    assert [step for step in "abcd" if journal.is_interrupted(step)] == ["b", "c"]


def test_an_interrupted_step_that_is_found_done_is_recorded_as_done(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    plan = plan_of(WriteFile(path=str(tmp_path / "a"), content="x\n"))
    (tmp_path / "a").write_text("x\n")
    (tmp_path / "a").chmod(0o644)
    Journal(tmp_path / "state").write(JournalEntry(time="1", run="r0", kind="apply", phase="begin", step="s0"))
    run, journal, _ = carried(tmp_path, plan)
    assert [step.outcome for step in run.steps] == ["already"]
    assert [entry.phase for entry in journal.entries()] == ["begin", "done"]
    assert not journal.is_interrupted("s0")


def test_after_a_finished_rollback_the_journal_starts_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(JournalEntry(time="1", run="r", kind="apply", phase="begin"))
    journal.write(JournalEntry(time="2", run="r", kind="rollback", phase="end"))
    assert journal.entries() == ()


def test_somebody_elses_folder_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "state").symlink_to("real")
    with pytest.raises(Refused) as refused:
        Journal(tmp_path / "state").open()
    assert refused.value.code == "journal.foreign"


def test_a_changed_plan_is_refused(tmp_path: Path) -> None:
    plan = plan_of(WriteFile(path="/etc/a", content="x"))
    check_digest(plan, "here")
    file = tmp_path / "plan.json"
    document = {"schema": "gpu-setup/plan/1", "data": msgspec.to_builtins(plan)}
    file.write_bytes(msgspec.json.encode(document))
    assert load_plan(str(file)) == plan
    file.write_bytes(msgspec.json.encode(document).replace(b"/etc/a", b"/etc/b"))
    with pytest.raises(Refused) as refused:
        load_plan(str(file))
    assert refused.value.code == "plan.tampered"
