"""The running kernel and that of the next boot: a pending reboot, headers, initramfs."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Ok, Skip, Unknown, Verdict, check
from checks.rules import needs
from checks.rules.finding import by_hand, cannot_determine, command, error, install, reboot, warning
from checks.rules.installed import modules, uses_dkms
from checks.rules.next_boot import older_kernel_is_chosen

# packages whose update needs a reboot before the GPU works again
_MATTERS = ("linux-image", "linux-modules", "linux-base", "nvidia", "libnvidia", "amdgpu", "linux-firmware")


@check(
    "kernel.reboot-pending",
    "No reboot is pending for kernel or driver",
    about="After an update of kernel or driver the old version runs until the next reboot; checks and benchmarks "
    "before it measure the old version. From /run/reboot-required and the newest kernel in /boot.",
    by_hand="`cat /run/reboot-required.pkgs` lists the packages that need it. Reboot.",
    needs=(needs.CARD,),
    causes=("driver.next-boot", "kernel.amdgpu-dkms", "driver.dkms"),
)
def reboot_pending(host: Host, catalogue: Catalogue) -> Verdict:
    release, coming = host.kernel.release, host.kernel.next_boot
    asked = [name for name in host.apt.reboot_packages or () if name.startswith(_MATTERS)]
    newer = coming is not None and release is not None and coming != release
    if not newer and not (host.apt.reboot_required and (asked or not host.apt.reboot_packages)):
        if host.apt.reboot_required is None and coming is None:
            return cannot_determine(
                host, "whether a reboot is pending", ("reboot-required", "/boot"), "Make /run and /boot readable."
            )
        return Ok("No reboot is pending for kernel or driver.")
    seen: list[tuple[str, object]] = []
    if newer:
        seen.append(("/boot", f"next boot: {coming}; running: {release}"))
    if host.apt.reboot_required:
        seen.append(("/run/reboot-required", ", ".join(asked) or "exists"))
    return (
        warning(
            "kernel",
            f"A reboot is pending: kernel {coming} is installed, {release} is running."
            if newer
            else "A reboot is pending.",
            "Until the reboot the machine runs the old kernel or driver.",
            seen,
            by_hand(
                "Reboot, unless you chose the older kernel in the boot menu on purpose. Check driver.next-boot first.",
                verify=("uname", "-r"),
            )
            if newer and older_kernel_is_chosen(host)
            else reboot("Reboot (check driver.next-boot first).", verify=("uname", "-r")),
        ),
    )


@check(
    "kernel.headers",
    "The kernel headers that DKMS needs are installed",
    about="DKMS needs the linux-headers package of exactly the kernel that it builds the module for. Checked only if "
    "DKMS builds a GPU driver; prebuilt and in-tree modules need no headers.",
    by_hand="`sudo apt-get install linux-headers-$(uname -r)`, and for later kernels linux-headers-generic or "
    "linux-headers-generic-hwe-24.04.",
    needs=(needs.CARD,),
)
def headers(host: Host, catalogue: Catalogue) -> Verdict:
    if not uses_dkms(host):
        return Skip("DKMS builds no GPU driver here, so no headers are needed.")
    if host.kernel.headers is None:
        return cannot_determine(host, "which headers are installed", ("/usr/src", "headers"), "Make /usr/src readable.")
    wanted = [kernel for kernel in dict.fromkeys((host.kernel.release, host.kernel.next_boot)) if kernel]
    if not wanted:
        return Unknown("Cannot determine the kernel's release.")
    missing = [kernel for kernel in wanted if kernel not in host.kernel.headers]
    findings = []
    for kernel in missing:
        unusable = kernel == host.kernel.release and not (
            modules(host, "nvidia", kernel) or modules(host, "amdgpu", kernel)
        )
        findings.append(
            (error if unusable else warning)(
                f"kernel {kernel}",
                f"linux-headers-{kernel} is missing.",
                "DKMS cannot build the GPU driver for this kernel without them.",
                [("/usr/src", ", ".join(host.kernel.headers) or "no linux-headers")],
                install("Install the headers; DKMS then builds the module automatically.", f"linux-headers-{kernel}"),
            )
        )
    return tuple(findings) or Ok(f"Headers are installed for {', '.join(wanted)}.")


@check(
    "kernel.initramfs",
    "The initramfs contains the current module settings",
    about="nouveau, amdgpu and NVIDIA's module are often loaded from the initramfs, which contains a copy of "
    "/etc/modprobe.d. A blacklist or option that is newer than the initramfs affects only modules that are loaded "
    "later. Compares the dates of your own files there with the initrd of the next boot.",
    by_hand="`sudo update-initramfs -u -k all`, then reboot. `lsinitramfs /boot/initrd.img-RELEASE | grep modprobe` "
    "shows what is inside.",
    needs=(needs.CARD,),
)
def initramfs(host: Host, catalogue: Catalogue) -> Verdict:
    release = host.kernel.next_boot or host.kernel.release
    if host.kernel.dates is None:
        if any(gap.source == "stat" for gap in host.unread):
            return cannot_determine(
                host, "when the initramfs was built", ("stat",), "`ls -l /boot /etc/modprobe.d` shows it."
            )
        return Skip("No file of your own in /etc/modprobe.d mentions GPU modules.")
    dates = dict(host.kernel.dates)
    built = dates.get(f"/boot/initrd.img-{release}")
    if built is None:
        return Unknown(f"Cannot determine when the initramfs of {release} was built. `ls -l /boot` shows it.")
    later = [path for path, when in host.kernel.dates if path.startswith("/etc/modprobe.d/") and when > built + 60]
    if not later:
        return Ok(f"The initramfs of {release} is newer than the files in /etc/modprobe.d.")
    return (
        warning(
            f"kernel {release}",
            f"{later[0]} is newer than the initramfs.",
            "Modules that are loaded early do not get its settings; nouveau may bind the card.",
            [(path, f"changed {dates[path] - built} s after /boot/initrd.img-{release}") for path in later],
            command(
                "Rebuild the initramfs, then reboot.",
                *("update-initramfs", "-u", "-k", "all"),
                sudo=True,
                reboot=True,
            ),
        ),
    )
