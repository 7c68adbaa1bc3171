"""Secure Boot and modules that this machine builds itself: the one step that needs a person at the console."""

from __future__ import annotations

from checks.facts.host import Host
from provision.model import MokEnroll, State, Step
from provision.system.mok import PASSWORD

# Ubuntu's, which its dkms signs with; where another one signs, that is found out once there is a module
CERTIFICATE = "/var/lib/shim-signed/mok/MOK.der"


def no_key_needed(host: Host) -> str:
    """The sentence that says what Secure Boot means for modules that Canonical signed."""
    if host.firmware.secure_boot:
        return "Secure Boot is on: these modules are signed by Canonical, so no key of yours has to be enrolled."
    if host.firmware.secure_boot is None and host.firmware.uefi is not False:
        return "Secure Boot's state could not be read; with modules that Canonical signed it makes no difference."
    return ""


def is_enforced(host: Host) -> bool:
    """Whether the kernel may refuse a module of ours: the firmware's word alone is not enough."""
    firmware = host.firmware
    off = firmware.uefi is False or firmware.secure_boot is False
    # shim can have switched it off; and a kernel under Secure Boot that enforces it is locked down
    return not (off or firmware.shim_validation_disabled or firmware.lockdown == "none")


def enrol_step(host: Host, title: str, module: str) -> Step | None:
    """The step that makes the firmware trust DKMS's key; None where Secure Boot does not check modules."""
    if not is_enforced(host):
        return None
    firmware = host.firmware
    certificate = firmware.mok_certificate or CERTIFICATE
    because = f"{title} is built by DKMS on this machine and signed with a key of its own. "
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
    waits = " The key is imported and waits for you at the next start." if firmware.mok_pending else ""
    also = "" if firmware.mok_certificate else " Which key signs is looked up once the module is built."
    return Step(
        id="enrol-key",
        title="Enrol the key that signs the module, at the console",
        action=MokEnroll(certificate=certificate, module=module),
        state=State.MANUAL,
        because=f"{because}{waits}{also} mokutil asks for {PASSWORD}; after the restart choose Enroll MOK, Continue, "
        "Yes. Have the recovery key of an encrypted disk at hand: enrolling can trip a TPM-sealed one.",
        commands=(
            ("mokutil", "--import", certificate),
            ("mokutil", "--timeout", "-1"),
            ("mokutil", "--test-key", certificate),
            ("mokutil", "--list-new"),
        ),
        undo="nothing: the key stays enrolled; sudo mokutil --delete removes it when you want",
    )
