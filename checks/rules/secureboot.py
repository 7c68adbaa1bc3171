"""Secure Boot: has the kernel refused the GPU's module because of its signature?"""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, kernel_log, needs
from checks.rules.finding import by_hand, cannot_determine, command, error, firmware, info, provision, reboot, warning
from checks.rules.installed import modules, packages
from checks.rules.other_systems import own_kernel, plan_supports

_STATE = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# Messages of modprobe and the kernel for a refused signature; newer kernels name the module first. `module
# verification failed … tainting kernel` is not one: it is logged where unsigned modules are allowed.
REFUSED = (
    r"'(\w+)': (?:Key was rejected by service|Required key not available)"
    r"|(?:\b(\w+): )?[Ll]oading of (?:unsigned module|module with [\w ]+) is rejected"
    r"|PKCS#7 signature not signed with a trusted key|unsigned module loading is restricted"
)
# kernel/module/signing.c: no signature at all, or one of an algorithm that this kernel does not have
_UNSIGNED = r"[Ll]oading of unsigned module|unsigned module loading is restricted"
_CRYPTO = r"module with unsupported crypto"


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
    verdict = _not_enforced(host)
    if verdict is not None and not _enforced_by_kernel(host):
        return verdict
    loaded = host.kernel.loaded or ()
    refusals = kernel_log.matching_lines(host.kernel.log or (), "", REFUSED)
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
        if by_name or (own and (refused or (verdict is None and host.firmware.mok_key_enrolled is False))):
            findings.append(_finding(host, catalogue, name, own[0].path if own else "", refused))
    return tuple(findings) or verdict or Ok("Secure Boot is on, and the GPU's module is not refused.")


def _enforced_by_kernel(host: Host) -> bool:
    """Signatures are checked without Secure Boot: by a parameter, or by lockdown."""
    enforced = {"module.sig_enforce", "module.sig_enforce=1", "lockdown=integrity", "lockdown=confidentiality"}
    return bool(enforced & set(host.kernel.cmdline or ())) or host.firmware.lockdown in ("integrity", "confidentiality")


def _finding(host: Host, catalogue: Catalogue, name: str, path: str, refused: list[str]) -> Finding:
    by_firmware = _not_enforced(host) is None
    seen: list[tuple[str, object]] = (
        [(_STATE, "1 (on)")]
        if by_firmware
        else [("/sys/kernel/security/lockdown", host.firmware.lockdown or "not read")]
    )
    if path:
        seen.append((path, "built on this machine, not loaded"))
    if host.firmware.mok_key_enrolled is not None:
        seen.append(("mokutil --test-key", "enrolled" if host.firmware.mok_key_enrolled else "the key is not enrolled"))
    who = "Secure Boot" if by_firmware else "The kernel (lockdown or module.sig_enforce)"
    because, fix = _reason(host, catalogue, name, refused)
    return error(
        f"{name} module",
        f"{who} refuses the {name} module: {because}.",
        "The kernel loads only modules signed with a key that it trusts, so the card has no driver.",
        [*seen, *kernel_log.quote(refused)],
        fix,
    )


def _reason(host: Host, catalogue: Catalogue, name: str, refused: list[str]) -> tuple[str, Fix]:
    """Why the signature does not count, and what makes it count."""
    said = "\n".join(refused)
    package = next((row.name for row in packages(host, "nvidia-dkms", "nvidia-kernel-dkms", "amdgpu-dkms")), None)
    certificate = host.firmware.mok_certificate or "/var/lib/shim-signed/mok/MOK.der"
    if re.search(_CRYPTO, said):
        return "its signature uses an algorithm that this kernel does not have", _sign_again(
            host, catalogue, package, name
        )
    verify = ("mokutil", "--test-key", certificate) if host.firmware.mok_key_enrolled is False else ()
    install_or_enrol = (
        provision(
            "Run `gpu-setup apply`: it installs modules signed by Canonical, or enrols the key (at the console).",
            reboot=True,
            verify=verify,
        )
        if plan_supports(host, catalogue)
        else command(
            "Request the enrolment of the key with a one-time password, reboot, and confirm it on the blue MokManager "
            "screen (at the console, US keyboard layout).",
            *("mokutil", "--import", certificate),
            sudo=True,
            reboot=True,
            verify=verify,
        )
    )
    if re.search(_UNSIGNED, said):
        enrolled = host.firmware.mok_key_enrolled is not False
        return "it has no signature", _sign_again(host, catalogue, package, name) if enrolled else install_or_enrol
    if host.firmware.mok_key_enrolled:
        if not _trusts_enrolled_keys(host, catalogue):
            return "this kernel does not trust enrolled keys (MOK) for modules, although the key is enrolled", by_hand(
                f"Boot a kernel of your distribution that loads signed modules, with the driver for it (on Ubuntu "
                f"linux-image-generic with linux-modules-nvidia), or switch Secure Boot off in the firmware. Do not "
                f"enrol the key again.{_TRUST if host.firmware.machine_keyring else ''}",
            )
        return "it is signed with another key than the one that is enrolled", _sign_again(
            host, catalogue, package, name
        )
    if host.firmware.mok_key_enrolled is None:
        return "the kernel does not trust the key that signed it", install_or_enrol
    return "the key that signed it is not enrolled", install_or_enrol


_TRUST = (
    " If shim keeps enrolled keys from the kernel, `sudo mokutil --trust-mok` and a reboot (confirm it "
    "in MokManager) can be enough."
)


def _sign_again(host: Host, catalogue: Catalogue, package: str | None, name: str) -> Fix:
    """DKMS signs what it builds with its key; building again replaces the signature."""
    if name == "nvidia" and plan_supports(host, catalogue) and own_kernel(host, catalogue):
        by_dkms = f" To keep DKMS's module, build and sign it again: sudo dpkg-reconfigure {package}" if package else ""
        return provision(f"Run `gpu-setup apply`: it installs modules that Canonical has signed.{by_dkms}", reboot=True)
    if package is None:
        return by_hand(
            f"Build and sign {name} again with the enrolled key, or install modules that the distribution has signed."
        )
    return command(
        "Build the module again: DKMS signs it with its own key. Then check that this key is enrolled (mokutil).",
        *("dpkg-reconfigure", package),
        sudo=True,
        reboot=True,
    )


def _trusts_enrolled_keys(host: Host, catalogue: Catalogue) -> bool:
    """Whether the running kernel takes enrolled keys for modules.

    Those of Ubuntu, Debian and Fedora have a patch for it; upstream's need CONFIG_INTEGRITY_MACHINE_KEYRING and shim's
    consent (MokListTrustedRT; security/integrity/platform_certs/machine_keyring.c). Without any sign of either, a
    kernel that the distribution did not build does not (pop-os/linux#447, deepin-community/kernel#2144).
    """
    if host.firmware.machine_keyring is False:
        return False
    patched = host.os.id in _PATCHED and own_kernel(host, catalogue)
    return bool(patched or (host.firmware.machine_keyring and host.firmware.mok_trusted))


# their kernels also accept keys of the keyring .platform for modules
_PATCHED = ("ubuntu", "debian", "fedora", "linuxmint", "rhel", "rocky", "almalinux", "centos")


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
