"""What amdgpu needs from the kernel: its version, firmware, PCIe atomics, the IOMMU."""

from __future__ import annotations

import re

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host, PciCard
from checks.model import Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, driver_log, kernel_log, needs
from checks.rules.driver.build import does_not_build, outdated_amdgpu, reason_line
from checks.rules.finding import (
    Seen,
    by_hand,
    cannot_determine,
    command,
    error,
    hardware,
    info,
    install,
    reboot,
    warning,
)
from checks.rules.gpu.place import fitting, in_guest
from checks.rules.next_boot import older_kernel_is_chosen

_NEXT_TO_CPU = (
    "Move the card to a slot wired directly to the CPU (not the chipset), without riser or Thunderbolt; if the board "
    "has none that supports atomics, use another board."
)
# vfio_pci_enable_rp_atomics in QEMU's hw/vfio/pci.c; ROCm/legacy-rocm-build#6520 (2026-08-23)
_THROUGH_HOST = (
    "pass the card alone, without its audio function (Proxmox: 0000:0b:00.0, not 0000:0b:00), on a PCIe root port of a "
    "q35 machine, with QEMU 8.1 or newer; its slot in the host must support atomics too."
)
# firmware that amdgpu requests but does not need: SR-IOV caps, and a table that it can read from the card instead
_OPTIONAL = r"amdgpu/(?:\w+_cap|ip_discovery)\.bin"
# `psp gfx command LOAD_TA … failed` is not among them: working machines log it
_NAMELESS = r"PSP firmware loading failed|IP block <psp> failed"
_PSP = (
    "The files exist, so installing them again does not help: power off the machine for ten seconds, then start it "
    "again. If it happens again, use kernel and linux-firmware of the same age (a newer kernel), and update the BIOS."
)
_BROKEN = rf"failed to load ucode|LOAD_IP_FW\(0x6\) failed|{_NAMELESS}"


@check(
    "kernel.amdgpu-floor",
    "The kernel's own amdgpu is new enough for the card",
    about="Each kernel release adds support for new cards: RDNA3 works from 6.8 on, RDNA4 (RX 9000) from 6.14 on. The "
    "minimum kernel for each architecture comes from the stacks in the catalogue. If amdgpu-dkms is loaded, the "
    "kernel's version does not matter.",
    by_hand="Run `sudo apt-get install linux-generic-hwe-24.04` and reboot into the newer kernel.",
    needs=(needs.AMD_CARD,),
)
def amdgpu_floor(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    if host.amd.module_version:
        return Ok(f"amdgpu-dkms {host.amd.module_version} is loaded; the kernel's own driver is not used.")
    release = host.kernel.release
    if release is None:
        return Unknown("Cannot determine the kernel's release.")
    findings = []
    for card in ours:
        lowest = _floor(card, catalogue)
        if lowest and cards.numbers(release) < cards.numbers(lowest):
            findings.append(
                error(
                    cards.subject(card, catalogue),
                    f"Kernel {release} is too old for the card: its amdgpu needs {lowest}.",
                    "An older amdgpu does not support the card or its firmware; ROCm then finds no GPU.",
                    [("/proc/sys/kernel/osrelease", release), ("stack", f"kernel {lowest} or newer")],
                    _newer_kernel(host, lowest),
                )
            )
    return tuple(findings) or Ok(f"Kernel {release} supports the card.")


def _newer_kernel(host: Host, lowest: str) -> Fix:
    there = host.kernel.next_boot
    if there is not None and cards.numbers(there) >= cards.numbers(lowest):
        return reboot(f"Reboot: kernel {there} is installed.", verify=("uname", "-r"))
    return install("Install Ubuntu's newer kernel and reboot.", "linux-generic-hwe-24.04", verify=("uname", "-r"))


def _floor(card: PciCard, catalogue: Catalogue) -> str | None:
    """The oldest kernel whose own amdgpu supports the card; None: not known."""
    row, fitting = cards.row_of(card, catalogue), cards.stacks(card, catalogue)
    floors = {
        stack.kernel_floors.get(row.target) or stack.kernel_floor
        for stack in fitting
        if row and (stack.kernel_floors or stack.kernel_floor)
    }
    return min((floor for floor in floors if floor), key=cards.numbers, default=None)


@check(
    "kernel.firmware",
    "amdgpu found all of the card's firmware",
    about="amdgpu loads the card's firmware from /lib/firmware/amdgpu. After `Direct firmware load … failed` for a "
    "file that it needs, or `PSP firmware loading failed`, the card is unusable. Without the first message the file "
    "exists, and the card's security unit (PSP) refused it or did not respond. Missing firmware of other drivers "
    "and optional files (…_cap.bin, ip_discovery.bin) do not count.",
    by_hand="`sudo apt-get install --reinstall linux-firmware`, `sudo update-initramfs -u`, reboot. For a card newer "
    "than Ubuntu's linux-firmware use the HWE kernel or amdgpu-dkms-firmware.",
    needs=(needs.AMD_CARD,),
)
def firmware(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "whether amdgpu found its firmware")
    missing = rf"amdgpu ([0-9a-f:.]+): Direct firmware load for (?!{_OPTIONAL})amdgpu/\S+ failed"
    broken = rf"amdgpu ([0-9a-f:.]+): .*(?:{_BROKEN})"
    log = host.kernel.log
    hits = [
        *kernel_log.matching_lines(log, "direct firmware load", missing),
        *kernel_log.matching_lines(log, "amdgpu", broken),
    ]
    # without an address the line is about a card that amdgpu is not bound to (kernels up to 6.8)
    nameless = kernel_log.matching_lines(log, "*error*", rf"\[drm:\w+(?: \[amdgpu\])?\] \*ERROR\* .*(?:{_NAMELESS})")
    findings = []
    for card in ours:
        lines = [line for line, match in hits if cards.bus_address(match[1]) == cards.bus_address(card.slot)]
        lines += [line for line, _ in nameless if card.driver != "amdgpu"]
        # the driver is bound to the card: it works without this firmware
        harmless = card.driver == "amdgpu" and not any(re.search(_BROKEN, line) for line in lines)
        if harmless:
            lines = [line for line in lines if not line.rstrip().partition(" failed")[0].endswith("_ta.bin")]
        missing_file = any("irect firmware load" in line for line in lines)
        if lines:
            findings.append(
                (warning if harmless else error)(
                    cards.subject(card, catalogue),
                    "amdgpu did not find some of the card's firmware."
                    if missing_file
                    else "The card's security unit (PSP) did not load the firmware.",
                    "amdgpu is bound to the card, but some functions may not work."
                    if harmless
                    else "Without it amdgpu cannot use the card; ROCm finds no GPU.",
                    kernel_log.quote(lines),
                    install("Install the firmware, then reboot.", "--reinstall", "linux-firmware")
                    if missing_file
                    else fitting(hardware(_PSP), host, card),
                )
            )
    return tuple(findings) or Ok("No firmware is missing.")


@check(
    "kernel.pcie-atomics",
    "The slot supports PCI Express atomics for the AMD card",
    about="ROCm needs PCI Express atomics between CPU and card. If the slot does not support them, KFD skips the card "
    "and logs `skipped device …, PCI rejects atomics`: a failure. With newer firmware KFD takes the card all the same, "
    "and amdgpu only notes `PCIE atomic ops is not supported`: then HIP programs whose kernels print or assert "
    "(hostcall) fail or hang, a warning. That note about integrated graphics is harmless.",
    by_hand="Move the card to a slot wired directly to the CPU, not to the chipset, a riser or Thunderbolt. If the "
    "message shows two numbers (`494<509`), newer linux-firmware also works without atomics.",
    needs=(needs.AMD_CARD,),
)
def pcie_atomics(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "whether KFD accepted the card")
    pattern = r"skipped device ([0-9a-f]{4}):([0-9a-f]{4}), PCI rejects atomics(?: (\d+)<(\d+))?"
    findings = []
    for line, match in kernel_log.matching_lines(host.kernel.log, "rejects atomics", pattern):
        hit = [card for card in ours if (card.vendor, card.device) == (match[1], match[2])]
        # integrated graphics may be skipped for the same reason, which is harmless
        if hit:
            findings.append(
                error(
                    cards.subject(hit[0], catalogue) if len(hit) == 1 else f"{match[1]}:{match[2]}",
                    "KFD skipped the card: its slot does not support PCI Express atomics.",
                    "ROCm does not list a card that KFD skipped, so PyTorch finds no GPU."
                    + (
                        f" Firmware {match[4]} or newer works without atomics; {match[3]} is loaded."
                        if match[3]
                        else ""
                    ),
                    kernel_log.quote([line]),
                    _atomics(host, hit[0], "Newer linux-firmware works too." if match[3] else ""),
                )
            )
    unique = {finding.subject: finding for finding in findings}
    if unique:
        return tuple(unique.values())
    noted = kernel_log.matching_lines(host.kernel.log, "atomic", r"PCIE atomic ops is not supported")
    found = [(line, re.search(r"amdgpu ([0-9a-f:.]{7,16}):", line)) for line, _ in noted]
    places = {line: cards.bus_address(match[1]) if match else "" for line, match in found}
    return tuple(
        warning(
            cards.subject(card, catalogue),
            "The slot does not support PCI Express atomics"
            + (", although KFD took the card." if _taken(card, host) else "."),
            "HIP programs that need them (hostcall: kernels that print or assert) fail with `Pcie atomics not enabled, "
            "hostcall not supported`, or hang. PyTorch can be one of them.",
            kernel_log.quote(lines, 1),
            _atomics(host, card),
        )
        for card in ours
        if (lines := [line for line, place in places.items() if driver_log.is_about(card, host, place)])
    ) or Ok("The kernel log has no complaint about the card's slot.")


def _atomics(host: Host, card: PciCard, also: str = "") -> Fix:
    fix = fitting(hardware(_THROUGH_HOST), host, card) if in_guest(host) else hardware(_NEXT_TO_CPU)
    return msgspec.structs.replace(fix, text=f"{fix.text} {also}".strip())


def _taken(card: PciCard, host: Host) -> bool:
    return any(cards.bus_address(node.slot) == cards.bus_address(card.slot) for node in host.amd.nodes or ())


@check(
    "kernel.iommu",
    "The IOMMU does not disturb copies between AMD cards",
    about="With two or more AMD cards, address translation by the IOMMU can make copies between them hang; AMD "
    "recommends `iommu=pt`. Checked only with at least two cards. Read from the kernel command line and the cards' "
    "IOMMU groups.",
    by_hand="Add `iommu=pt` to GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, run `sudo update-grub`, reboot.",
)
def iommu(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    if len(ours) < 2:
        return Skip("Fewer than two AMD cards.")
    line = host.kernel.cmdline
    if line is not None and any(word in ("iommu=pt", "iommu=off", "amd_iommu=off", "intel_iommu=off") for word in line):
        return Ok("The kernel command line has " + " ".join(word for word in line if "iommu" in word) + ".")
    types = {card.iommu_group_type for card in ours}
    if types <= {"identity", None} and "identity" in types:
        return Ok("The cards' IOMMU groups are of type identity.")
    if line is None or types == {None}:
        return Unknown("Cannot determine the cards' IOMMU groups (no IOMMU, or /sys is not mounted).")
    return (
        warning(
            "kernel",
            "The IOMMU translates addresses between the AMD cards.",
            "Copies between the cards can hang; AMD recommends iommu=pt for several GPUs.",
            [("/proc/cmdline", " ".join(line)), ("iommu_group/type", ", ".join(sorted(filter(None, types))))],
            command(
                "Add iommu=pt to GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, then run this and reboot.",
                "update-grub",
                sudo=True,
                reboot=True,
                verify=("cat", "/proc/cmdline"),
            ),
        ),
    )


@check(
    "kernel.amdgpu-dkms",
    "amdgpu-dkms supports the running and the next kernel",
    about="amdgpu-dkms supports kernels up to its own version number (amdgpu 6.14.14 for 6.14); on a newer kernel its "
    "build usually fails and leaves the package half-configured. Compares each version under /var/lib/dkms with the "
    "running kernel and that of the next boot. A kernel for which the module was built counts as supported.",
    by_hand="Keep the GA kernel (`sudo apt-get install linux-generic` and remove linux-generic-hwe-24.04), install a "
    "newer amdgpu-dkms, or `sudo apt-get remove amdgpu-dkms` and use the kernel's own amdgpu.",
    needs=(needs.AMD_CARD,),
)
def amdgpu_dkms(host: Host, catalogue: Catalogue) -> Verdict:
    if host.kernel.dkms is None:
        return cannot_determine(host, "what DKMS has built", ("/var/lib/dkms",), "Make /var/lib/dkms readable.")
    builds = [build for build in host.kernel.dkms if build.module == "amdgpu"]
    if not builds:
        return Skip("amdgpu-dkms is not installed.")
    failed = [build.kernel for build in builds if does_not_build(build) and build.kernel]
    newer = outdated_amdgpu(host)
    kernels = tuple(dict.fromkeys((*newer, *(kernel for kernel in failed if _matters(host, kernel)))))
    if not kernels:
        return Ok(f"amdgpu-dkms {builds[-1].version} supports the running and the next kernel.")
    supported = ".".join(map(str, max(cards.numbers(build.version)[:2] for build in builds)))
    reason = next((line for build in builds if (line := reason_line(build.log_tail))), None)
    seen: list[tuple[str, object]] = [
        ("/var/lib/dkms", f"amdgpu/{builds[-1].version}"),
        ("kernel", ", ".join(kernels)),
        *([("make.log", reason)] if reason else []),
    ]
    too_old = [kernel for kernel in kernels if not _in_tree_serves(host, catalogue, kernel)]
    if too_old:
        fix: Fix = by_hand(
            f"Install a newer amdgpu-dkms, or boot an older kernel: the kernel's own amdgpu of {too_old[0]} is too old "
            "for the card.",
        )
    else:
        fix = command(
            "Remove amdgpu-dkms and use the kernel's own amdgpu, or install a newer one; a build over these sources "
            "fails again.",
            *("apt-get", "remove", "amdgpu-dkms"),
            sudo=True,
            reboot=host.amd.module_version is not None and not older_kernel_is_chosen(host),
        )
    return (
        warning(
            f"amdgpu-dkms {builds[-1].version}",
            f"amdgpu-dkms supports kernels up to {supported}; {' and '.join(newer)} is newer."
            if newer
            else f"amdgpu-dkms {builds[-1].version} does not compile on kernel {' and '.join(kernels)}.",
            "Its build fails there; the kernel falls back to its own amdgpu, and the package may be half-configured.",
            seen,
            fix,
        ),
    )


def _matters(host: Host, kernel: str) -> bool:
    """The running kernel or that of the next boot, without a build of amdgpu-dkms."""
    built = any(
        row.module == "amdgpu" and row.kernel == kernel and row.state == "installed" for row in host.kernel.dkms or ()
    )
    return kernel in (host.kernel.release, host.kernel.next_boot) and not built


def _in_tree_serves(host: Host, catalogue: Catalogue, kernel: str) -> bool:
    """Whether this kernel's own amdgpu is new enough for every AMD card, as far as is known."""
    floors = (_floor(card, catalogue) for card in cards.training(host, catalogue, cards.AMD))
    return all(floor is None or cards.numbers(kernel) >= cards.numbers(floor) for floor in floors)


# PP_OVERDRIVE_MASK in drivers/gpu/drm/amd/include/amd_shared.h
_OVERDRIVE_BIT = 0x4000
_MASK = "ppfeaturemask="
_LOADED_MASK = "/sys/module/amdgpu/parameters/ppfeaturemask"


@check(
    "kernel.overdrive",
    "amdgpu's overdrive is off",
    about="`amdgpu.ppfeaturemask` with bit 0x4000 allows tools such as LACT and CoreCtrl to change clocks and voltages "
    "(overdrive). amdgpu then marks the kernel as out of its specification, and some kernels hang or lose the screen "
    "with it. A warning if amdgpu notes it in the kernel log or has logged errors, else informational.",
    by_hand="`grep -rn ppfeaturemask /etc/modprobe.d /etc/default/grub`; remove the option, then run `sudo "
    "update-initramfs -u` (and `sudo update-grub`) and reboot. In LACT: Disable overclocking support.",
    needs=(needs.AMD_CARD,),
)
def overdrive(host: Host, catalogue: Catalogue) -> Verdict:
    places = [
        (path, option)
        for module, option, path in host.kernel.module_options or ()
        if module == "amdgpu" and option.startswith(_MASK) and _allows_overdrive(option)
    ]
    words = [
        word for word in host.kernel.cmdline or () if word.startswith(f"amdgpu.{_MASK}") and _allows_overdrive(word)
    ]
    places += [("/proc/cmdline", word) for word in words]
    noted = kernel_log.matching_lines(host.kernel.log or (), "overdrive", r"Overdrive is enabled")
    mask = host.amd.feature_mask
    active = mask is not None and bool(mask & _OVERDRIVE_BIT)
    if not places and not noted and not active:
        if mask is None and host.kernel.module_options is None and host.kernel.log is None:
            return cannot_determine(host, "whether overdrive is on", ("modprobe.d", "kernel log"), "Run it with sudo.")
        return Ok("No option switches overdrive on.")
    seen: list[Seen] = [*places, *([(_LOADED_MASK, hex(mask))] if mask is not None else ())]
    seen += kernel_log.quote([line for line, _ in noted], 1)
    errors = [
        one for one in driver_log.said(host, catalogue, driver_log.AMDGPU) if one.row is None or not one.row.check
    ]
    files = " and ".join(dict.fromkeys("/etc/default/grub" if path == "/proc/cmdline" else path for path, _ in places))
    later = mask is not None and not active and not noted
    return (
        (warning if (noted or errors) and not later else info)(
            "amdgpu",
            ("Overdrive is on from the next start" if later else "Overdrive is on")
            + (f", set in {files}." if files else "."),
            "Clocks and voltages outside of the card's specification are allowed; with some kernels the desktop hangs "
            "or stays black, and amdgpu's developers ask to switch it off before a fault is reported.",
            seen,
            command(
                f"If the card hangs: remove {_MASK[:-1]} from {files}, then run this and reboot.",
                *(("update-grub",) if words and len(places) == len(words) else ("update-initramfs", "-u")),
                sudo=True,
                reboot=True,
            )
            if files
            else by_hand("If the card hangs: switch overclocking support off in the tool that set it, and reboot."),
        ),
    )


def _allows_overdrive(option: str) -> bool:
    value = option.partition(_MASK)[2]
    try:
        return bool(int(value, 0) & _OVERDRIVE_BIT) if len(value) <= 20 else False
    except ValueError:
        return False
