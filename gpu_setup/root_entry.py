"""Root's end of apply, resume and rollback: a request on stdin, one JSON line an event, the run as the last line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from machine.errors import FINE, OUTSIDE_FAILED, Problem, Refused
from machine.events import Emit
from provision.apply.journal import ApplyRequest, ApplyRun, stored_problem
from provision.model import NOT_DECODABLE, Plan
from provision.plan.plan_file import LARGEST
from provision.root.sudo import RootMessage

if TYPE_CHECKING:
    from provision.apply.journal import Journal
    from provision.apply_context import ApplyContext


def apply_inside() -> int:
    """Carry out the request that stdin holds."""

    def do(emit: Emit) -> ApplyRun:
        from provision.root.helper import run_request

        try:
            request = msgspec.json.decode(sys.stdin.buffer.read(LARGEST), type=ApplyRequest)
        except NOT_DECODABLE as error:
            raise Refused("apply.request", "The privileged helper received an invalid request.", str(error)) from error
        return run_request(request, emit, plan_of_root)

    return answer(do)


def resume_inside(*, at_boot: bool, reboot: bool) -> int:
    """Continue with the approved request. At boot the result is in the state: the unit itself never fails."""
    from provision.root.helper import resume_request

    code = answer(lambda emit: resume_request(emit, at_boot=at_boot, reboot=reboot))
    return FINE if at_boot else code


def plan_inside() -> int:
    """Print the rollback as a plan: only root may read the journal."""

    def do(emit: Emit) -> Plan:
        from machine.local import LocalMachine
        from provision.apply.journal import Journal
        from provision.apply_context import STATE, ApplyContext
        from provision.rollback.rollback_plan import plan_rollback
        from provision.root.helper import read_host_for

        context = ApplyContext(LocalMachine(), emit, STATE)
        return plan_rollback(Journal(STATE).entries(), read_host_for(context.machine, None), context)

    return answer(do)


def plan_of_root(request: ApplyRequest, context: ApplyContext, journal: Journal) -> Plan:
    """The plan that root makes by itself, from its own facts and journal, for a request."""
    from provision.root.helper import plan_here, read_host_for

    if request.kind == "apply":
        return plan_here(request, context, journal)
    host = read_host_for(context.machine, None)
    if request.kind == "rollback":
        from provision.rollback.rollback_plan import plan_rollback

        return plan_rollback(journal.entries(), host, context)
    from checks.catalogue import catalogue
    from provision.resolve.update import plan_requested_update

    return plan_requested_update(host, catalogue(), request.plan)


def answer(do: Callable[[Emit], ApplyRun | Plan]) -> int:
    """Run it as root and print its events and result; whoever watched may have gone away by now."""
    if os.geteuid() != 0:
        raise Refused("apply.not-root", "This part of gpu-setup runs as root.", "", "gpu-setup apply")
    try:
        made = do(lambda event: print_line(RootMessage(event=event)))
    except Problem as problem:
        print_line(RootMessage(problem=stored_problem(problem)))
        return problem.exit_code
    if isinstance(made, ApplyRun):
        print_line(RootMessage(run=made))
        return FINE if made.problem is None else OUTSIDE_FAILED
    print_line(RootMessage(plan=made))
    return FINE


def print_line(line: RootMessage) -> None:
    try:
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()
    except OSError:
        # nobody reads any more: the work continues
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
