"""Root's end of apply, resume and rollback: a request on stdin, one JSON line an event, the run as the last line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import msgspec

from machine.errors import FINE, OUTSIDE_FAILED, Problem, Refused
from machine.events import Emit
from provision.apply.journal import Request, Run, trouble
from provision.model import Plan
from provision.root.sudo import Line


def apply_inside() -> int:
    """Carry out the request that stdin holds."""

    def do(emit: Emit) -> Run:
        from provision.root.helper import work

        try:
            request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
        except msgspec.MsgspecError as error:
            raise Refused("apply.request", "Root's part got no request that it understands.", str(error)) from error
        verify(request)
        return work(request, emit)

    return told(do)


def plan_inside() -> int:
    """The way back as a plan, for whoever asks: only root may read the journal."""

    def do(emit: Emit) -> Plan:
        from machine.local import LocalMachine
        from provision.apply.journal import Journal
        from provision.apply_context import STATE, Site
        from provision.rollback.rollback_plan import plan_back
        from provision.root.helper import host_for

        site = Site(LocalMachine(), emit, STATE)
        return plan_back(Journal(STATE).entries(), host_for(site.machine, None), site)

    return told(do)


def verify(request: Request) -> None:
    """The plan that a person saw is the plan that is carried out."""
    from provision.plan.plan_file import check

    check(request.plan, "the request")


def told(do: Callable[[Emit], Run | Plan]) -> int:
    """Run it as root and write what it says; whoever watched may have gone away by now."""
    if os.geteuid() != 0:
        raise Refused("apply.not-root", "This part of gpu-setup runs as root.", "", "gpu-setup apply")
    try:
        made = do(lambda event: say(Line(event=event)))
    except Problem as problem:
        say(Line(problem=trouble(problem)))
        return problem.exit_code
    if isinstance(made, Run):
        say(Line(run=made))
        return FINE if made.problem is None else OUTSIDE_FAILED
    say(Line(plan=made))
    return FINE


def say(line: Line) -> None:
    try:
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()
    except OSError:
        # nobody reads any more: the work goes on
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
