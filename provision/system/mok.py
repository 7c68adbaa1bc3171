"""The key that signs modules built on this machine: which one it is, and the state of its enrolment."""

from __future__ import annotations

import re
from typing import NamedTuple

from checks.facts.firmware import LIST_NEW, certificates, parse_new, parse_test_key
from checks.facts.gaps import Gaps
from machine.local import Machine, Unreadable

RECOVERY_KEY = "Have the recovery key of an encrypted disk ready: enrolling can lock a disk that the TPM unlocks."
# from experience: MokManager assumes a US keyboard
PASSWORD = "a one-time password without a q w z y m and symbols, since the blue screen assumes a US keyboard"


class MokKey(NamedTuple):
    """`enrolled`: the firmware trusts it; `pending`: requested, and not confirmed at the console yet (None: not known).

    `exposed`: the path of a private key that users other than root can read.
    """

    certificate: str
    enrolled: bool
    pending: bool | None
    exposed: str | None


def read_mok_key(machine: Machine, fallback: str, module: str = "") -> MokKey:
    """The result of mokutil's --test-key and --list-new for the signing certificate."""
    certificate = signing_certificate(machine, fallback, module)
    tested = machine.run(("mokutil", "--test-key", certificate), timeout=20)
    said = tested.stdout + tested.stderr
    new = machine.run(LIST_NEW, timeout=20)
    pending = None if new.rc is None else parse_new(new.stdout) or "enrollment request" in said
    return MokKey(certificate, parse_test_key(said) is True, pending, exposed_private_key(machine, certificate))


def signing_certificate(machine: Machine, fallback: str, module: str = "") -> str:
    """The certificate whose key signed the built module; if no module shows it, the most likely one."""
    found = certificates(machine, Gaps())
    if module and len(found) > 1:
        said = machine.run(("modinfo", "-F", "sig_key", module), timeout=20).stdout
        wanted = re.sub(r"[^0-9a-f]", "", said.lower())
        for path in found:
            if wanted and _number(machine, path) == wanted.lstrip("0"):
                return path
    return found[0] if found else fallback


def exposed_private_key(machine: Machine, certificate: str) -> str | None:
    """The private key beside the certificate, if others than its owner may read it."""
    stem = certificate.rpartition(".")[0]
    for path in (f"{stem}.priv", f"{stem}.key"):
        try:
            if machine.stat(path).mode & 0o077:
                return path
        except Unreadable:
            continue
    return None


def _number(machine: Machine, path: str) -> str:
    try:
        return serial_number(machine.read(path))
    except Unreadable:
        return ""


def serial_number(certificate: bytes) -> str:
    """The serial number of a certificate in DER, in hex without leading zeros; empty if it is not one.

    X.509 (RFC 5280): SEQUENCE { SEQUENCE { [0] version, INTEGER serial …, and `modinfo -F sig_key` shows that number.
    """
    try:
        at = _inside(certificate, _inside(certificate, 0, 0x30), 0x30)
        if certificate[at] == 0xA0:
            at = _inside(certificate, at, 0xA0) + certificate[at + 1]
        start = _inside(certificate, at, 0x02)
        return certificate[start : start + certificate[at + 1]].hex().lstrip("0")
    except (IndexError, ValueError):
        return ""


def _inside(data: bytes, at: int, tag: int) -> int:
    """Where the content of the element at `at` starts. Raises ValueError for another tag."""
    if data[at] != tag:
        raise ValueError(tag)
    length = data[at + 1]
    return at + 2 + (length & 0x7F if length & 0x80 else 0)


def enrolment_steps(key: MokKey) -> str:
    """What the person does next. The password is typed only into mokutil and the blue screen."""
    tail = "at the console: Enroll MOK, Continue, Yes, the password, Reboot. Then: gpu-setup resume"
    if key.pending:
        begin = (
            f"The enrolment of {key.certificate} is requested and not confirmed yet: the blue screen appears at the "
            f"next boot for a short time. Reboot, {tail}"
        )
    else:
        asked = f"sudo mokutil --import {key.certificate} (choose {PASSWORD}), sudo mokutil --timeout -1"
        begin = f"{asked}, reboot, and {tail}"
    closed = f" First make the private key readable only by root: sudo chmod 600 {key.exposed}." if key.exposed else ""
    return f"{begin}. {RECOVERY_KEY}{closed}"
