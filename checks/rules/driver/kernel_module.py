"""A GPU driver is a kernel module, built for one kernel: checked for the running and the next kernel."""

from __future__ import annotations

import re

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import DkmsBuild, Host
from checks.model import Finding, Fix, Ok, Skip, Verdict, check
from checks.rules import cards, needs, session
from checks.rules.driver.build import outdated_amdgpu, problem_of, reason_line
from checks.rules.finding import by_hand, cannot_determine, command, error, install, provision, reboot, warning
from checks.rules.installed import modules, nvidia_driver, nvidia_packages
from checks.rules.other_systems import distribution, install_driver, plan_supports

_NAMES = {cards.NVIDIA: "nvidia", cards.AMD: "amdgpu"}


@check(
    "driver.module",
    "The running kernel has NVIDIA's module",
    about="Searches /lib/modules/RELEASE for the module of the running kernel. It is missing if a kernel update came "
    "before its prebuilt modules, if a DKMS build failed, or if the modules were installed for another kernel flavour "
    "(lowlatency, oem). nvidia-smi then cannot reach the driver.",
    by_hand="`sudo apt-get install linux-modules-nvidia-BRANCH-open-$(uname -r)`, or with DKMS `sudo dkms "
    "autoinstall`. Until then boot the previous kernel (hold Esc at boot, Advanced options).",
    needs=(needs.NVIDIA_CARD, needs.NVIDIA_DRIVER),
    causes=("driver.dkms", "kernel.headers"),
)
def running(host: Host, catalogue: Catalogue) -> Verdict:
    release = host.kernel.release
    if host.nvidia.module_version:
        return Ok("The module is loaded.")
    if host.kernel.modules is None or release is None:
        return cannot_determine(
            host, "whether the running kernel has the module", ("/lib/modules",), "Make /lib/modules readable."
        )
    files = modules(host, "nvidia", release)
    if files:
        return Ok(f"{files[0].path} exists.")
    others = sorted({file.kernel for file in modules(host, "nvidia")})
    return (
        error(
            f"kernel {release}",
            "NVIDIA's module is missing for the running kernel.",
            f"It exists only for {', '.join(others)}."
            if others
            else "The installed driver packages contain no module for it.",
            [
                (f"/lib/modules/{release}", "no nvidia module"),
                (
                    "/var/lib/dpkg/status",
                    ", ".join(row.name for row in nvidia_packages(host)[:4]) or "no driver package",
                ),
            ],
            _get_module(host, catalogue, release, others),
        ),
    )


def _get_module(host: Host, catalogue: Catalogue, release: str, others: list[str]) -> Fix:
    verify = ("modinfo", "nvidia")
    row = distribution(host, catalogue)
    if plan_supports(host, catalogue):
        return provision("Run `gpu-setup apply` to install the module for this kernel.", verify=verify)
    if others and not any(file.kernel == release for file in host.kernel.modules or ()) and host.apt.packages is None:
        # pacman removes the modules of the kernel that it replaces
        return reboot(f"An update has replaced the running kernel: reboot into {others[-1]}.", verify=verify)
    if row.module:
        argv = tuple(part.replace("{kernel}", release) for part in row.module)
        return command("Build the module for this kernel.", *argv, sudo=True, verify=verify)
    return provision("Run `gpu-setup apply` to install the module for this kernel.", verify=verify)


@check(
    "driver.next-boot",
    "The kernel of the next boot has the GPU driver",
    about="GRUB boots the newest installed kernel. If that kernel has no module for the card, the machine has no GPU "
    "after the next reboot, and often no desktop. Compares /boot, GRUB's default and /lib/modules.",
    by_hand="Install the module package for that kernel (`linux-modules-nvidia-BRANCH-open-RELEASE`, or "
    "`linux-modules-extra-RELEASE` for amdgpu) before you reboot, or build it: `sudo dkms autoinstall -k RELEASE`.",
    needs=(needs.CARD,),
    causes=("driver.dkms", "kernel.headers"),
)
def next_boot(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    if session.in_container(host):
        return Skip("A container does not boot a kernel: run the doctor on its host.")
    release = host.kernel.next_boot
    vendors = {card.vendor for card in ours if card.vendor == cards.AMD or nvidia_driver(host)}
    if not vendors:
        return Skip("No NVIDIA driver is installed yet: see driver.present.")
    if release is None or host.kernel.modules is None:
        return cannot_determine(
            host, "which kernel boots next", ("/boot", "grub", "/lib/modules"), "Run the doctor with sudo."
        )
    if release == host.kernel.release:
        return Ok(f"The next boot uses the same kernel, {release}.")
    findings = []
    for vendor in sorted(vendors):
        name = _NAMES[vendor]
        # checked only by comparison: without any listed module file nothing is known
        if modules(host, name, release) or not modules(host, name):
            continue
        findings.append(
            warning(
                f"kernel {release}",
                f"The next boot uses kernel {release}, which has no {name} module.",
                "After the next reboot the card has no driver.",
                [
                    ("/boot", f"next boot: {release}; running: {host.kernel.release}"),
                    (f"/lib/modules/{release}", f"no {name} module"),
                ],
                provision("Run `gpu-setup apply` to install the module for that kernel before you reboot.")
                if vendor == cards.NVIDIA
                else install("Install the kernel's extra modules before you reboot.", f"linux-modules-extra-{release}"),
            )
        )
    return tuple(findings) or Ok(f"Kernel {release} has the driver.")


@check(
    "driver.dkms",
    "DKMS has built the driver for the running and the next kernel",
    about="DKMS compiles driver modules on this machine. A module whose build failed has the state `added` instead of "
    "`installed`; the reason is at the end of its make.log. Checked for the running kernel and that of the next boot. "
    "On AMD the kernel's own amdgpu is used instead, so a failed amdgpu-dkms is only a warning.",
    by_hand="`dkms status`, read /var/lib/dkms/MODULE/VERSION/build/make.log. Usually the kernel is too new for the "
    "driver: use a newer driver branch, or on AMD remove amdgpu-dkms and use the kernel's own module.",
    needs=(needs.CARD,),
    causes=("kernel.headers", "kernel.amdgpu-dkms"),
)
def dkms(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    if host.kernel.dkms is None:
        return cannot_determine(host, "what DKMS has built", ("/var/lib/dkms",), "Make /var/lib/dkms readable.")
    names = tuple({_NAMES[card.vendor] for card in ours})
    builds = [build for build in host.kernel.dkms if build.module.startswith(names)]
    if not builds:
        return Skip("DKMS builds no GPU driver here.")
    kernels = [kernel for kernel in dict.fromkeys((host.kernel.release, host.kernel.next_boot)) if kernel]
    findings: list[Finding] = []
    for name in sorted({build.module for build in builds}):
        rows = [build for build in builds if build.module == name]
        for kernel in kernels:
            if not any(row.kernel == kernel and row.state == "installed" for row in rows):
                findings.append(_not_built(host, catalogue, name, kernel, rows))
    return tuple(findings) or Ok(f"Built and installed for {', '.join(kernels)}.")


def _not_built(host: Host, catalogue: Catalogue, name: str, kernel: str, rows: list[DkmsBuild]) -> Finding:
    near = next((row for row in rows if row.kernel == kernel), None) or next(
        (row for row in rows if row.kernel is None), rows[-1]
    )
    log = near.log_tail if near.kernel in (None, kernel) else None
    lines = (log or "").strip().splitlines()
    shown = list(dict.fromkeys(line for line in (reason_line(log), *lines[-2:]) if line))
    unusable = kernel == host.kernel.release and not modules(host, name, kernel)
    return (error if unusable else warning)(
        f"{name} {near.version} on kernel {kernel}",
        f"{name} {near.version} does not compile on kernel {kernel}."
        if problem_of(log) == "source"
        else f"DKMS has not built {name} for kernel {kernel}.",
        "The card has no driver with that kernel."
        if unusable or name.startswith("nvidia")
        else "That kernel falls back to its own amdgpu; dpkg may leave the package half-configured.",
        [
            ("/var/lib/dkms", f"{name}/{near.version}, {near.kernel or 'no kernel'}: {near.state}"),
            *((f"/var/lib/dkms/{name}/{near.version}/build/make.log", line) for line in shown),
        ],
        _build_fix(host, catalogue, name, kernel, log),
    )


def _build_fix(host: Host, catalogue: Catalogue, name: str, kernel: str, log: str | None) -> Fix:
    """Cure what stopped the build; only where that is not known, build once more and look."""
    problem = problem_of(log)
    again = f"sudo dkms autoinstall -k {kernel}"
    if problem == "source" or kernel in (outdated_amdgpu(host) if name.startswith("amdgpu") else ()):
        return _another_driver_or_kernel(host, catalogue, name, kernel)
    if problem == "headers":
        return install(f"Install that kernel's headers, then build: {again}", f"linux-headers-{kernel}")
    if problem == "compiler":
        # /proc/version is about the running kernel
        built_with = re.search(r"gcc-[0-9]+", host.kernel.version or "") if kernel == host.kernel.release else None
        text = f"The kernel was built with another compiler. Install that one, then build: {again}"
        if built_with is None or f"{built_with[0]}: " in (log or ""):
            return by_hand(text)
        return install(text, built_with[0])
    if problem is not None:
        what = "disk space (df -h /var /boot /tmp)" if problem == "disk" else "memory (close programs, or add swap)"
        return by_hand(f"The build ran out of {what.partition(' (')[0]}: free {what}, then build: {again}")
    return command(
        "Build it again and read the log.",
        *("dkms", "autoinstall", "-k", kernel),
        sudo=True,
    )


def _another_driver_or_kernel(host: Host, catalogue: Catalogue, name: str, kernel: str) -> Fix:
    if name.startswith("amdgpu"):
        return command(
            "Remove amdgpu-dkms and use the kernel's own amdgpu, or install a newer one.",
            *("apt-get", "remove", "amdgpu-dkms"),
            sudo=True,
        )
    others = [other for other in host.kernel.installed or () if other != kernel and modules(host, name, other)]
    boot = f" Or boot kernel {others[-1]}, which has the module (boot menu, Advanced options)." if others else ""
    again = "Building it again fails the same way."
    newer = _newer_branch(host, catalogue)
    if newer and not plan_supports(host, catalogue):
        return command(
            f"{again} Install a newer driver branch, which replaces this one.{boot}",
            *("apt-get", "install", newer),
            sudo=True,
            reboot=True,
        )
    said = "Run `gpu-setup apply`: it installs modules that Ubuntu has built for this kernel, or a newer branch."
    fix = install_driver(host, catalogue, said)
    return msgspec.structs.replace(fix, text=f"{again} A newer driver branch may support this kernel. {fix.text}{boot}")


def _newer_branch(host: Host, catalogue: Catalogue) -> str | None:
    """The installed driver package's name with the next production or long-term branch; None where there is none."""
    for package in nvidia_packages(host):
        match = re.fullmatch(r"nvidia-driver-([0-9]+)(-open)?", package.name)
        newer = [
            row.number
            for row in catalogue.branches
            if match and row.kind in ("lts", "production") and row.number > int(match[1])
        ]
        if match and newer:
            return f"nvidia-driver-{min(newer)}{match[2] or ''}"
    return None
