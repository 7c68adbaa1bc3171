"""A plan as a file: read again, and refused where it was damaged or edited.

The digest has no key, so anybody can compute it again: it shows an accident, not who wrote the plan. What the plan says
is checked by `allowed.py` and `comparison.py`.
"""

from __future__ import annotations

import msgspec

from machine import scrub
from machine.errors import BadUsage, Refused
from machine.local import LocalMachine, Unreadable
from machine.plain_text import hide_in_strings
from provision.model import NOT_DECODABLE, Plan, seal
from provision.plan.package_steps import sentence

LARGEST = 16 << 20


def as_written(plan: Plan) -> Plan:
    """The plan as its document has it: without secrets, addresses and ids, and with the digest of that."""
    plain = hide_in_strings(msgspec.to_builtins(plan), scrub.here)
    return seal(msgspec.convert(plain, Plan))


class _Envelope(msgspec.Struct):
    schema: str
    data: Plan


def load_plan(path: str) -> Plan:
    """The plan in a file that `gpu-setup plan --out` wrote. Refuses one whose digest does not match its content."""
    try:
        content = LocalMachine().read(path, LARGEST)
    except Unreadable as error:
        raise BadUsage(
            "plan.unreadable", f"The plan {path} cannot be read.", sentence(error.detail or error.reason), ""
        ) from error
    try:
        found = msgspec.json.decode(content, type=_Envelope)
    except NOT_DECODABLE as error:
        raise BadUsage(
            "plan.no-plan", f"{path} is not a plan of gpu-setup.", str(error), "gpu-setup plan --out FILE writes one."
        ) from error
    check_digest(found.data, path)
    return found.data


def check_digest(plan: Plan, where: str) -> None:
    """Refuse a plan that was changed after it was made."""
    if seal(plan).digest != plan.digest:
        raise Refused(
            "plan.tampered",
            f"The plan in {where} was changed after it was made.",
            "Its digest does not match its content, so it is not the plan that was reviewed.",
            "gpu-setup plan makes a new one, gpu-setup apply carries it out.",
        )
