"""Secure Boot: has the kernel refused the GPU's module because of its signature?"""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, kernel_log, needs
from checks.rules.finding import cannot_determine, error, firmware, info, provision, reboot, warning
from checks.rules.installed import modules

_STATE = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# Messages of modprobe and the kernel for a refused signature; newer kernels name the module first. `module
# verification failed … tainting kernel` is not one: it is logged where unsigned modules are allowed.
_REFUSED = (
    r"'(\w+)': (?:Key was rejected by service|Required key not available)"
    r"|(?:\b(\w+): )?[Ll]oading of (?:unsigned module|module with [\w ]+) is rejected"
    r"|PKCS#7 signature not signed with a trusted key|unsigned module loading is restricted"
)


def _not_enforced(host: Host) -> Ok | Unknown | None:
    """The verdict where Secure Boot is not enforced, or not known to be; None where it is."""
    if host.firmware.uefi is False:
        return Ok("The machine does not boot with UEFI, so there is no Secure Boot.")
    if host.firmware.secure_boot is None:
        return cannot_determine(
            host, "whether Secure Boot is on", ("SecureBoot", "efivars"), "`mokutil --sb-state` shows it."
        )
    if not host.firmware.secure_boot:
        return Ok("Secure Boot is off.")
    if host.firmware.shim_validation_disabled:
        return Ok("Secure Boot is on in the firmware, but validation is disabled in shim: modules are not checked.")
    return None


@check(
    "secureboot.module",
    "Secure Boot accepts the GPU's kernel module",
    about="With Secure Boot on, the kernel refuses modules built by DKMS or a .run installer until their signing key "
    "(MOK) is enrolled: `Key was rejected by service`. Canonical's prebuilt modules and the kernel's own amdgpu are "
    "signed and need no key. Fails only if such a module exists, is not loaded, and was refused or has a key that is "
    "not enrolled; refusals of other modules do not count.",
    by_hand="Either run `sudo mokutil --import /var/lib/shim-signed/mok/MOK.der`, choose a one-time password, reboot "
    "and answer the blue MokManager screen (Enroll MOK, Continue, Yes; US keyboard layout). This needs the console: it "
    "does not work over SSH. Or install linux-modules-nvidia-*, which Canonical has signed.",
    needs=(needs.CARD,),
    causes=("secureboot.mok-pending",),
)
def module(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    if (verdict := _not_enforced(host)) is not None:
        return verdict
    loaded = host.kernel.loaded or ()
    refusals = kernel_log.matching_lines(host.kernel.log or (), "", _REFUSED)
    findings: list[Finding] = []
    for vendor in dict.fromkeys(card.vendor for card in ours):
        name = "nvidia" if vendor == cards.NVIDIA else "amdgpu"
        if name in loaded or (vendor == cards.NVIDIA and host.nvidia.module_version):
            continue
        own = [file for file in modules(host, name, host.kernel.release) if file.origin not in ("prebuilt", "in-tree")]
        by_name = [line for line, match in refusals if (match[1] or match[2] or "").startswith(name)]
        # lines that name another module are about that one
        refused = by_name or [line for line, match in refusals if not (match[1] or match[2])]
        if own and not refused and host.firmware.mok_key_enrolled is None and host.kernel.log is None:
            return kernel_log.cannot_read(host, f"whether Secure Boot refused {name}")
        if by_name or (own and (refused or host.firmware.mok_key_enrolled is False)):
            findings.append(_finding(host, name, own[0].path if own else "", refused))
    return tuple(findings) or Ok("Secure Boot is on, and the GPU's module is not refused.")


def _finding(host: Host, name: str, path: str, refused: list[str]) -> Finding:
    seen: list[tuple[str, object]] = [(_STATE, "1 (on)")]
    if path:
        seen.append((path, "built on this machine, not loaded"))
    if host.firmware.mok_key_enrolled is not None:
        seen.append(("mokutil --test-key", "enrolled" if host.firmware.mok_key_enrolled else "the key is not enrolled"))
    return error(
        f"{name} module",
        f"Secure Boot refuses the {name} module: the key that signed it is not enrolled.",
        "The kernel loads only modules signed with a known key, so the card has no driver.",
        [*seen, *kernel_log.quote(refused)],
        provision(
            "Run `gpu-setup apply`: it installs modules signed by Canonical, or enrols the key (at the console).",
            reboot=True,
            verify=("mokutil", "--test-key", "/var/lib/shim-signed/mok/MOK.der"),
        ),
    )


@check(
    "secureboot.mok-pending",
    "No Secure Boot key is waiting to be enrolled",
    about="`mokutil --import` only requests it: the key is enrolled at the next boot, on the blue MokManager screen, "
    "which must be answered at the console within ten seconds. Read from `mokutil --list-new`.",
    by_hand="Reboot with a keyboard and monitor (or IPMI) connected: Enroll MOK, Continue, Yes, the one-time password "
    "(US layout), Reboot. If you missed the screen, import the key again; `sudo mokutil --timeout -1` makes the screen "
    "wait for you.",
    needs=(needs.CARD,),
)
def mok_pending(host: Host, catalogue: Catalogue) -> Verdict:
    if (verdict := _not_enforced(host)) is not None:
        return verdict
    if host.firmware.mok_pending is None:
        return Unknown("Cannot determine whether a key is waiting: `mokutil --list-new` lists it (package mokutil).")
    if not host.firmware.mok_pending:
        return Ok("No key is waiting to be enrolled.")
    return (
        warning(
            "Secure Boot",
            "A key is waiting to be enrolled at the console.",
            "Until someone answers MokManager at the next boot, modules signed with this key are refused.",
            [("mokutil --list-new", "a key is listed")],
            reboot("Reboot, and answer the blue screen: Enroll MOK, Continue, Yes, the password."),
        ),
    )


@check(
    "secureboot.shim-off",
    "Secure Boot validation is enforced (not disabled in shim)",
    about="Validation can be disabled in shim (`mokutil --disable-validation`): the firmware then reports that Secure "
    "Boot is on, but nothing is checked. Informational only, because it explains why unsigned modules load.",
    by_hand="Run `sudo mokutil --enable-validation` and reboot to enable it again.",
)
def shim_off(host: Host, catalogue: Catalogue) -> Verdict:
    if not host.firmware.secure_boot:
        return Skip("Secure Boot is off or not available.")
    if not host.firmware.shim_validation_disabled:
        return Ok("Validation is enabled in shim.")
    return (
        info(
            "Secure Boot",
            "Secure Boot is on in the firmware, but validation is disabled in shim.",
            "Modules load without a signature; the kernel is not locked down.",
            [("MokSBStateRT", "1"), ("/sys/kernel/security/lockdown", host.firmware.lockdown or "not read")],
            firmware("Keep it, or enable validation again with `sudo mokutil --enable-validation`."),
        ),
    )
