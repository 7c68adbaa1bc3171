"""Firmware: UEFI or not, Secure Boot and its keys, kernel lockdown, board."""

from __future__ import annotations

import re

from checks.facts.gaps import Gaps, exists, names, output, raw, text, word
from checks.facts.host import Firmware, Frozen
from machine.local import ABSENT, Machine

EFIVARS = "/sys/firmware/efi/efivars"
# GUIDs of the UEFI specification's global variables and of shim (rhboot/shim, lib/guid.c)
SECURE_BOOT = f"{EFIVARS}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
SHIM_STATE = f"{EFIVARS}/MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23"
# the key of Ubuntu's update-secureboot-policy, and that of dkms
MOK = "/var/lib/shim-signed/mok/MOK.der"
DKMS_KEY = "/var/lib/dkms/mok.pub"
# Fedora's akmods signs with a key of its own
AKMODS_KEY = "/etc/pki/akmods/certs/public_key.der"
MOK_TRUSTED = f"{EFIVARS}/MokListTrustedRT-605dab50-e046-4300-abb6-3dd810dd8b23"
LIST_ENROLLED = ("mokutil", "--list-enrolled")
LIST_NEW = ("mokutil", "--list-new")
# a key in mokutil's list: `[key 1]` up to 0.6, then the beginning of its fingerprint and its name
_LISTED = r"^(?:\[key [0-9]+\]|[0-9a-f]{10} )"
# both are sourced by dkms; the paths may hold ${kernelver}
FRAMEWORK = ("/etc/dkms/framework.conf", "/etc/dkms/framework.conf.d")


def parse_efi_flag(data: bytes) -> bool | None:
    """An EFI variable that holds one byte, 0 or 1, after four bytes of attributes."""
    return data[4] == 1 if len(data) == 5 and data[4] in (0, 1) else None


def parse_lockdown(content: str) -> str | None:
    """`none [integrity] confidentiality` → integrity."""
    match = re.search(r"\[(\w+)\]", content)
    return match[1] if match else None


def parse_enrolled(content: str) -> tuple[str, ...]:
    """Subjects of the certificates that `mokutil --list-enrolled` prints."""
    return tuple(dict.fromkeys(match.strip() for match in re.findall(r"^\s*Subject:\s*(.+)$", content, re.MULTILINE)))


def parse_test_key(content: str) -> bool | None:
    """`MOK.der is already enrolled` or `MOK.der is not enrolled`."""
    if "already enrolled" in content:
        return True
    return False if "not enrolled" in content or "enrollment request" in content else None


def parse_certificate(content: str) -> str | None:
    """The certificate that dkms's framework.conf names; the last line counts, as in the shell that reads it."""
    found = re.findall(r"^\s*mok_certificate=[\"']?(/[^\"'\s#$]+)[\"']?\s*(?:#.*)?$", content, re.MULTILINE)
    return found[-1] if found else None


def certificates(machine: Machine, gaps: Gaps) -> tuple[str, ...]:
    """Certificates of keys that may sign modules built here, the likeliest first: from DKMS's settings, then Ubuntu's,
    then DKMS's own, then that of akmods. Only existing ones.
    """
    files = [FRAMEWORK[0], *(f"{FRAMEWORK[1]}/{name}" for name in names(machine, FRAMEWORK[1], gaps) or ())]
    named = [parse_certificate(text(machine, file, gaps) or "") for file in files if file.endswith(".conf")]
    likely = dict.fromkeys((*(path for path in reversed(named) if path), MOK, DKMS_KEY, AKMODS_KEY))
    return tuple(path for path in likely if exists(machine, path))


def parse_new(content: str) -> bool:
    """Whether `mokutil --list-new` lists a key; without one it prints that MokNew is empty, or nothing."""
    return re.search(_LISTED, content, re.MULTILINE) is not None


def parse_machine_keyring(content: str) -> bool | None:
    """Whether a kernel with this configuration can take enrolled keys for modules; None: it does not say.

    Linux 5.18 and newer put them into the keyring `.machine` (security/integrity/Kconfig, INTEGRITY_MACHINE_KEYRING).
    """
    match = re.search(r"^(?:# )?CONFIG_INTEGRITY_MACHINE_KEYRING(=y| is not set)$", content, re.MULTILINE)
    return match[1] == "=y" if match else None


def read_firmware(machine: Machine, gaps: Gaps) -> Firmware:
    """Everything except the keys, which `read_keys` gets from mokutil."""
    uefi = exists(machine, "/sys/firmware/efi")
    secure: bool | None = False
    shim_off: bool | None = False
    if uefi:
        state, shim = raw(machine, SECURE_BOOT, gaps), raw(machine, SHIM_STATE, gaps)
        secure = parse_efi_flag(state) if state is not None else None
        for path, data in ((SECURE_BOOT, state), (SHIM_STATE, shim)):
            if data is not None and parse_efi_flag(data) is None:
                gaps.note(path, "damaged: it is not four bytes and a 0 or 1")
        if state is None and not exists(machine, EFIVARS):
            gaps.note(EFIVARS, "not mounted")
        # shim writes the variable only after validation has been disabled
        shim_off = parse_efi_flag(shim) if shim is not None else (False if state is not None else None)
    lockdown = text(machine, "/sys/kernel/security/lockdown", gaps)
    dmi = {
        name: word(machine, f"/sys/class/dmi/id/{name}", gaps) for name in ("bios_vendor", "board_vendor", "board_name")
    }
    return Firmware(
        uefi=uefi,
        secure_boot=secure,
        shim_validation_disabled=shim_off,
        lockdown=parse_lockdown(lockdown) if lockdown else None,
        mok_key_present=exists(machine, MOK) or exists(machine, DKMS_KEY),
        bios_vendor=dmi["bios_vendor"],
        board=" ".join(filter(None, (dmi["board_vendor"], dmi["board_name"]))) or None,
    )


class Keys(Frozen, frozen=True):
    """The results of mokutil; read.py puts them into Firmware under the same names."""

    mok_enrolled: tuple[str, ...] | None = None
    mok_key_enrolled: bool | None = None
    mok_pending: bool | None = None
    mok_certificate: str | None = None
    mok_trusted: bool | None = None
    machine_keyring: bool | None = None


def read_keys(machine: Machine, gaps: Gaps, patience: float = 4.0) -> Keys:
    """Read only while Secure Boot is on: without it no key matters, and mokutil may be missing."""
    state = raw(machine, SECURE_BOOT, Gaps())
    if state is None or not parse_efi_flag(state):
        return Keys()
    enrolled = machine.run(LIST_ENROLLED, timeout=patience / 3)
    if enrolled.problem == ABSENT:
        gaps.note("mokutil", "not installed, so enrolled keys are not known")
        return Keys()
    new = machine.run(LIST_NEW, timeout=patience / 3)
    certificate = next(iter(certificates(machine, gaps)), None)
    release = word(machine, "/proc/sys/kernel/osrelease", Gaps())
    key = machine.run(("mokutil", "--test-key", certificate), timeout=patience / 3) if certificate else None
    for outcome in (enrolled, new, key):
        if outcome is not None:
            source = " ".join(outcome.argv[:2])
            output(outcome, source, gaps)
            if outcome.problem:
                gaps.note(source, outcome.problem)
    return Keys(
        mok_enrolled=parse_enrolled(enrolled.stdout) if enrolled.rc is not None else None,
        mok_pending=parse_new(new.stdout) if new.rc is not None else None,
        mok_key_enrolled=parse_test_key(key.stdout + key.stderr) if key is not None else None,
        mok_certificate=certificate,
        mok_trusted=exists(machine, MOK_TRUSTED),
        machine_keyring=parse_machine_keyring(text(machine, f"/boot/config-{release}", Gaps()) or "")
        if release
        else None,
    )
