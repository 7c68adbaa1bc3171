"""Secure Boot and modules that are built on this machine: the only step that needs a person at the console."""

from __future__ import annotations

from checks.facts.host import Host
from provision.model import MokEnroll, State, Step
from provision.system.mok import PASSWORD, RECOVERY_KEY

# Ubuntu's dkms signs with this one; whether another one signs is known once there is a module
CERTIFICATE = "/var/lib/shim-signed/mok/MOK.der"


def no_key_needed(host: Host) -> str:
    """The sentence about Secure Boot and modules that Canonical signed."""
    if host.firmware.secure_boot:
        return "Secure Boot is on: these modules are signed by Canonical, so you need not enrol a key."
    if host.firmware.secure_boot is None and host.firmware.uefi is not False:
        return "Secure Boot's state could not be read; it makes no difference for modules that Canonical signed."
    return ""


def is_enforced(host: Host) -> bool:
    """Whether the kernel may refuse a module built here: the firmware's setting alone is not enough."""
    firmware = host.firmware
    off = firmware.uefi is False or firmware.secure_boot is False
    # shim can have disabled it; and a kernel that enforces Secure Boot is locked down
    return not (off or firmware.shim_validation_disabled or firmware.lockdown == "none")


def enrol_step(host: Host, title: str, module: str) -> Step | None:
    """The step that enrols DKMS's key in the firmware; None where Secure Boot does not check modules."""
    if not is_enforced(host):
        return None
    firmware = host.firmware
    certificate = firmware.mok_certificate or CERTIFICATE
    because = f"{title} is built by DKMS on this machine and signed with this machine's key. "
    if firmware.secure_boot:
        because += "Secure Boot is on and refuses it until that key is enrolled."
    else:
        because += "Whether Secure Boot is on could not be read; if it is off, there is nothing to enrol."
    if firmware.mok_key_enrolled:
        return Step(
            id="enrol-key",
            title="Enrol the key that signs the module",
            action=MokEnroll(certificate=certificate, module=module),
            state=State.DONE,
            because="The key that signs DKMS modules is already enrolled.",
        )
    waits = " The key is imported and must be confirmed at the next boot." if firmware.mok_pending else ""
    also = "" if firmware.mok_certificate else " Which key signs is known once the module is built."
    return Step(
        id="enrol-key",
        title="Enrol the key that signs the module, at the console",
        action=MokEnroll(certificate=certificate, module=module),
        state=State.MANUAL,
        because=f"{because}{waits}{also} mokutil asks for {PASSWORD}; after the reboot choose Enroll MOK, Continue, "
        f"Yes. {RECOVERY_KEY}",
        commands=(
            ("mokutil", "--import", certificate),
            ("mokutil", "--timeout", "-1"),
            ("mokutil", "--test-key", certificate),
            ("mokutil", "--list-new"),
        ),
        undo="nothing: the key stays enrolled; sudo mokutil --delete removes it",
    )
