"""One line of an example: on this machine this check answers so."""

from __future__ import annotations

from typing import NamedTuple

from checks.facts.host import Host
from checks.model import Status

FAIL, WARN, PASS, SKIP, UNKNOWN = Status.FAIL, Status.WARN, Status.PASS, Status.SKIP, Status.UNKNOWN


class Fault(NamedTuple):
    """A machine on which the check must find something; `says` is in the first finding's summary."""

    check: str
    host: Host
    status: Status
    says: str


class LookAlike(NamedTuple):
    """A machine that resembles the fault and on which the check must find nothing."""

    check: str
    host: Host
    why: str


class Blind(NamedTuple):
    """A machine on which the signal cannot be read: unknown, and the reason names what to do."""

    check: str
    host: Host
    says: str
