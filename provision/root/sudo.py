"""Runs the tool as root: sudo once, root's own copy of the tool, a transient systemd unit."""

from __future__ import annotations

import os
import secrets

import msgspec

from machine.errors import Interrupted, OutsideFailed, Refused
from machine.events import Emit, Event
from machine.local import ABSENT, LocalMachine
from provision.apply.journal import ApplyRequest, ApplyRun, StoredProblem
from provision.apply_context import LIBRARY, SYSTEMD
from provision.model import NOT_DECODABLE, Plan, PlanStruct
from provision.root import tool_copy

SUDO = ("sudo", "--")
CLEAN = ("/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8")


class RootMessage(PlanStruct, frozen=True, kw_only=True):
    """One line from root's process: an event, and at the end the run, or the problem that prevented its start."""

    event: Event | None = None
    run: ApplyRun | None = None
    plan: Plan | None = None
    problem: StoredProblem | None = None


def unit_name() -> str:
    return f"gpu-setup-apply-{secrets.token_hex(4)}"


def root_command(copy_command: tuple[str, ...], unit: str | None) -> tuple[str, ...]:
    """argv that root runs: in its own unit, so that the end of a terminal, SSH or desktop does not interrupt it."""
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
        # stopping the unit lets the current step finish: only the tool gets the signal, not apt and dpkg
        "--property=KillMode=mixed",
        "--property=TimeoutStopSec=15min",
        *copy_command,
    )


def can_use_unit() -> bool:
    """Whether systemd can run the unit: it is PID 1, and not in a rescue shell, where units may not start."""
    if not os.path.isdir(SYSTEMD):
        return False
    state = LocalMachine().run(("systemctl", "is-system-running"), timeout=10).stdout.strip()
    return state not in ("maintenance", "stopping", "offline", "unknown", "initializing")


def launch(arguments: tuple[str, ...], request: ApplyRequest | None, version: str, emit: Emit) -> ApplyRun:
    """Run `gpu-setup ARGUMENTS` as root and follow it until it ends. Raises Problem when root could not start."""
    last = _launch(arguments, request, version, emit, can_use_unit())
    if last.run is None:
        raise OutsideFailed("apply.ended", "The privileged helper ended without a result.", "", "gpu-setup status")
    return last.run


def launch_plan(arguments: tuple[str, ...], version: str, emit: Emit) -> Plan:
    """The same for a command that only reads as root, and returns a plan."""
    last = _launch(arguments, None, version, emit, None)
    if last.plan is None:
        raise OutsideFailed("apply.ended", "The privileged helper ended without a plan.", "", "gpu-setup status")
    return last.plan


def _launch(
    arguments: tuple[str, ...], request: ApplyRequest | None, version: str, emit: Emit, unit: bool | None
) -> RootMessage:
    """`unit`: run in a systemd unit; None: not needed."""
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
        said = "systemd does not run here: the work runs in this process, so keep the terminal open"
        emit(Event("note", "apply", said))
    ended: list[RootMessage] = []

    def line(text: str) -> None:
        try:
            found = msgspec.json.decode(text.encode("utf-8", "replace"), type=RootMessage)
        except NOT_DECODABLE:
            emit(Event("note", "apply", text))
            return
        if found.event is not None:
            emit(found.event)
        else:
            ended.append(found)

    try:
        outcome = machine.run_on_terminal(argv, feed, line)
    except KeyboardInterrupt as stop:
        if name is None:
            raise
        raise Interrupted(
            "apply.goes-on",
            "You no longer see the progress; the work continues in the background.",
            "It runs in its own systemd unit, so that nothing is interrupted half-way.",
            f"gpu-setup status shows its progress; sudo systemctl stop {name} stops it after the current step.",
        ) from stop
    last = ended[-1] if ended else RootMessage()
    if last.problem is not None:
        raise restore_problem(last.problem)
    if last.run is not None or last.plan is not None:
        return last
    if outcome.problem == ABSENT:
        raise Refused(
            "apply.no-sudo",
            "This needs root, and sudo is not installed.",
            "It changes packages and settings of the system.",
            "Run the same command as root.",
        )
    raise OutsideFailed(
        "apply.ended",
        "The privileged helper ended without output.",
        f"{argv[0]}: exit status {outcome.rc}. sudo was refused, or the process was killed.",
        "gpu-setup status; then gpu-setup apply again: finished steps are kept.",
    )


def restore_problem(kept: StoredProblem) -> OutsideFailed:
    """The stored problem as an exception, with its exit code."""
    made = OutsideFailed(kept.code, kept.what, kept.why, kept.next)
    made.exit_code = kept.exit_code
    return made
