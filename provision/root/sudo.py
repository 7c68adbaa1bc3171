"""From a person's process to root's: sudo once, root's own copy of the tool, a transient systemd unit."""

from __future__ import annotations

import os
import secrets

import msgspec

from machine.errors import Interrupted, OutsideFailed, Refused
from machine.events import Emit, Event
from machine.local import ABSENT, LocalMachine
from provision.apply.journal import ApplyRequest, ApplyRun, StoredProblem
from provision.apply_context import LIBRARY, SYSTEMD
from provision.model import Plan, PlanStruct
from provision.root import tool_copy

SUDO = ("sudo", "--")
CLEAN = ("/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8")


class RootMessage(PlanStruct, frozen=True, kw_only=True):
    """One line of root's process: an event, and at the end the run or the problem that kept it from beginning."""

    event: Event | None = None
    run: ApplyRun | None = None
    plan: Plan | None = None
    problem: StoredProblem | None = None


def unit_name() -> str:
    return f"gpu-setup-apply-{secrets.token_hex(4)}"


def root_command(copy_command: tuple[str, ...], unit: str | None) -> tuple[str, ...]:
    """argv that root starts: in a unit of its own, so that a dying terminal, SSH or desktop cannot cut it off."""
    if unit is None:
        return (*CLEAN, *copy_command)
    return (
        "/usr/bin/systemd-run",
        f"--unit={unit}",
        "--description=gpu-setup changes this machine",
        "--quiet",
        "--collect",
        "--wait",
        "--pipe",
        "--service-type=exec",
        # ending the unit lets the step at work finish: only the tool is told, not apt and dpkg under it
        "--property=KillMode=mixed",
        "--property=TimeoutStopSec=15min",
        *copy_command,
    )


def can_use_unit() -> bool:
    """Whether systemd can take it: it is PID 1, and not in a rescue shell, where units may not start."""
    if not os.path.isdir(SYSTEMD):
        return False
    state = LocalMachine().run(("systemctl", "is-system-running"), timeout=10).stdout.strip()
    return state not in ("maintenance", "stopping", "offline", "unknown", "initializing")


def launch(arguments: tuple[str, ...], request: ApplyRequest | None, version: str, emit: Emit) -> ApplyRun:
    """Run `gpu-setup ARGUMENTS` as root and follow it to its end. Raises Problem for what root could not begin."""
    last = _launch(arguments, request, version, emit, can_use_unit())
    if last.run is None:
        raise OutsideFailed("apply.ended", "Root's part ended without a result.", "", "gpu-setup status")
    return last.run


def launch_plan(arguments: tuple[str, ...], version: str, emit: Emit) -> Plan:
    """The same for a command of root's that only reads, and answers with a plan."""
    last = _launch(arguments, None, version, emit, None)
    if last.plan is None:
        raise OutsideFailed("apply.ended", "Root's part ended without a plan.", "", "gpu-setup status")
    return last.plan


def _launch(
    arguments: tuple[str, ...], request: ApplyRequest | None, version: str, emit: Emit, unit: bool | None
) -> RootMessage:
    """`unit`: in a unit of systemd's; None: not worth one."""
    machine = LocalMachine()
    uid = machine.session().uid
    name = unit_name() if unit else None
    feed = msgspec.json.encode(request) + b"\n" if request is not None else b""
    if tool_copy.is_copy() and uid == 0:
        from provision.root.helper import copy_command

        argv: tuple[str, ...] = root_command(copy_command(*arguments), name)
    else:
        copy = tool_copy.make_copy(version)
        argv = root_command(copy.command(*arguments), name)
        if not copy.place.is_dir():
            size = str(len(copy.content))
            first = (copy.python, "-I", "-S", "-c", tool_copy.bootstrap_source(), str(LIBRARY), copy.digest, size)
            argv, feed = (*first, *argv), copy.content + feed
    if uid != 0:
        argv = (*SUDO, *argv)
    if unit is False:
        said = "systemd does not run here: it is done in this process, so keep the terminal open"
        emit(Event("note", "apply", said))
    ended: list[RootMessage] = []

    def line(text: str) -> None:
        try:
            found = msgspec.json.decode(text.encode("utf-8", "replace"), type=RootMessage)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            emit(Event("note", "apply", text))
            return
        if found.event is not None:
            emit(found.event)
        else:
            ended.append(found)

    try:
        outcome = machine.attended(argv, feed, line)
    except KeyboardInterrupt as stop:
        if name is None:
            raise
        raise Interrupted(
            "apply.goes-on",
            "You no longer watch; the work itself goes on in the background.",
            "It runs in a unit of its own, so that nothing is cut off half-way.",
            f"gpu-setup status shows how far it is; sudo systemctl stop {name} ends it after the step at work.",
        ) from stop
    last = ended[-1] if ended else RootMessage()
    if last.problem is not None:
        raise restore_problem(last.problem)
    if last.run is not None or last.plan is not None:
        return last
    if outcome.problem == ABSENT:
        raise Refused(
            "apply.no-sudo",
            "This needs root, and there is no sudo here.",
            "Packages and settings of the system are changed.",
            "Run the same command as root.",
        )
    raise OutsideFailed(
        "apply.ended",
        "Root's part ended without a word.",
        f"{argv[0]} ended with {outcome.rc}: sudo was refused, or the process was killed.",
        "gpu-setup status; then gpu-setup apply again: what is done stays done.",
    )


def restore_problem(kept: StoredProblem) -> OutsideFailed:
    """The problem again, with the exit code that it had."""
    made = OutsideFailed(kept.code, kept.what, kept.why, kept.next)
    made.exit_code = kept.exit_code
    return made
