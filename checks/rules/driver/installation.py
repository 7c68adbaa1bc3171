"""The GPU's kernel driver: installed, bound to the card, and by which installer."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host, PciCard
from checks.model import Finding, Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, kernel_log, needs
from checks.rules.finding import by_hand, cannot_determine, command, error, info, install, provision, reboot, warning
from checks.rules.installed import modules, nvidia_driver

_DPKG = "/var/lib/dpkg/status"
_FREE_DRIVERS = ("nouveau", "nova", "nova_core", "nova_drm", "nova-core", "NovaCore")


@check(
    "driver.present",
    "The kernel driver is installed",
    about="NVIDIA: a driver package in dpkg's database, a module under /lib/modules, or a loaded module. AMD: the "
    "amdgpu module of the running kernel; for small and cloud kernels it is in linux-modules-extra.",
    by_hand="`gpu-setup plan` lists the packages. By hand on Ubuntu 24.04: `ubuntu-drivers list`, then `sudo "
    "ubuntu-drivers install`; for AMD `sudo apt-get install linux-modules-extra-$(uname -r)`.",
    needs=(needs.CARD,),
)
def present(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    findings: list[Finding] = []
    unknown: list[str] = []
    for card in ours:
        installed = nvidia_driver(host) if card.vendor == cards.NVIDIA else _amdgpu(host, card)
        if installed is None:
            unknown.append(cards.subject(card, catalogue))
        elif not installed:
            findings.append(_missing(host, catalogue, card))
    if findings:
        return tuple(findings)
    if unknown:
        return cannot_determine(
            host,
            f"whether a driver is installed for {', '.join(unknown)}",
            ("dpkg", "/lib/modules"),
            "Make /var/lib/dpkg/status and /lib/modules readable.",
        )
    return Ok("The driver is installed.")


def _amdgpu(host: Host, card: PciCard) -> bool | None:
    if card.driver == "amdgpu" or host.amd.loaded or modules(host, "amdgpu", host.kernel.release):
        return True
    return None if host.kernel.modules is None or host.kernel.release is None else False


def _missing(host: Host, catalogue: Catalogue, card: PciCard) -> Finding:
    about, release = cards.subject(card, catalogue), host.kernel.release
    if card.vendor == cards.AMD:
        return error(
            about,
            f"Kernel {release} has no amdgpu module.",
            "Small and cloud kernels do not include it; it is in linux-modules-extra.",
            [(f"/lib/modules/{release}/kernel/drivers/gpu/drm/amd", "no amdgpu module"), _bound_to(card)],
            install("Install the kernel's extra modules, then reboot.", f"linux-modules-extra-{release}"),
        )
    row = cards.row_of(card, catalogue)
    return (warning if row is None or row.unknown else error)(
        about,
        "No NVIDIA driver is installed.",
        "CUDA needs NVIDIA's own kernel driver and libraries; it does not work with the kernel's nouveau driver.",
        [(_DPKG, "no nvidia driver package"), _bound_to(card)],
        provision("Run `gpu-setup apply` to install the driver.", reboot=True, verify=("nvidia-smi",)),
    )


def _bound_to(card: PciCard) -> tuple[str, object]:
    return f"/sys/bus/pci/devices/{card.slot}/driver", card.driver or "no driver"


@check(
    "driver.bound",
    "The GPU is bound to its driver",
    about="Reads each card's driver link in /sys. If nouveau or nova is bound to an NVIDIA card, NVIDIA's driver "
    "cannot use it. No driver at all means that the module was refused, is blacklisted or failed to start. Skipped "
    "while no driver is installed: nouveau is then normal.",
    by_hand="`lsmod`, `lspci -nnk -d 10de:` (or 1002:), `grep -rn blacklist /etc/modprobe.d`. After a change there run "
    "`sudo update-initramfs -u` and reboot. Remove nomodeset from the kernel command line on AMD.",
    needs=(needs.CARD,),
    causes=(
        "secureboot.module",
        "driver.module",
        "driver.present",
        "driver.flavour",
        "driver.dropped",
        "kernel.amdgpu-floor",
        "kernel.firmware",
        "kernel.initramfs",
        "gpu.bar-space",
        "gpu.fell-off-bus",
    ),
)
def bound(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    with_driver = [card for card in ours if card.vendor == cards.AMD or nvidia_driver(host)]
    if not with_driver:
        return Skip("No NVIDIA driver is installed yet: see driver.present.")
    findings = []
    for card in with_driver:
        wanted = "nvidia" if card.vendor == cards.NVIDIA else "amdgpu"
        if card.driver == wanted:
            continue
        findings.append(
            _other_driver(host, catalogue, card) if card.driver else _no_driver(host, catalogue, card, wanted)
        )
    return tuple(findings) or Ok(", ".join(f"{card.slot}: {card.driver}" for card in with_driver) + ".")


def _other_driver(host: Host, catalogue: Catalogue, card: PciCard) -> Finding:
    blocked = any(module == card.driver for module, _ in host.kernel.blacklisted or ())
    again = reboot(
        f"{card.driver} is blacklisted already: rebuild the initramfs (sudo update-initramfs -u -k all) and reboot."
    )
    return error(
        cards.subject(card, catalogue),
        f"The card is bound to {card.driver}, not to the vendor's driver.",
        "Only one driver can use the card; CUDA and ROCm do not work with this one."
        if card.driver in _FREE_DRIVERS
        else "CUDA and ROCm do not work with this driver.",
        [_bound_to(card)],
        again
        if blocked
        else provision("The driver packages in the plan blacklist it; reboot after the installation.", reboot=True),
    )


def _no_driver(host: Host, catalogue: Catalogue, card: PciCard, wanted: str) -> Finding:
    gave_up = rf"{card.slot}: .*(?:Fatal error during GPU init|probe with driver {wanted} failed)"
    errors = kernel_log.matching_lines(host.kernel.log or (), card.slot, gave_up)
    seen: list[tuple[str, object]] = [_bound_to(card), *kernel_log.quote([line for line, _ in errors], most=1)]
    line = host.kernel.cmdline or ()
    blocked = [path for module, path in host.kernel.blacklisted or () if module == wanted]
    fix: Fix = command(
        "Load the module; if this fails, the error message gives the reason.", "modprobe", wanted, sudo=True
    )
    if blocked:
        seen.append((blocked[0], f"blacklist {wanted}"))
        fix = command(
            f"Remove the blacklist line for {wanted}, then run this and reboot.",
            *("update-initramfs", "-u"),
            sudo=True,
            reboot=True,
        )
    elif any(word.startswith("modprobe.blacklist=") and wanted in word for word in line) or (
        wanted == "amdgpu" and "nomodeset" in line
    ):
        seen.append(("/proc/cmdline", " ".join(line)))
        fix = command(
            "Remove nomodeset and modprobe.blacklist from /etc/default/grub, then run this and reboot.",
            "update-grub",
            sudo=True,
            reboot=True,
        )
    elif wanted in (host.kernel.loaded or ()):
        seen.append(("/proc/modules", f"{wanted} is loaded, but not bound to the card"))
        fix = by_hand(f"Read the driver's messages: sudo journalctl -k -b | grep -iE '{wanted}|NVRM|{card.slot}'")
    return error(
        cards.subject(card, catalogue),
        f"The card is bound to no driver; it should be bound to {wanted}.",
        "CUDA and ROCm cannot find a card without a driver.",
        seen,
        fix,
    )


@check(
    "driver.runfile",
    "The driver was installed through apt",
    about="NVIDIA's .run installer bypasses the package manager: after a kernel update the module is missing, and "
    "driver packages overwrite only some of its files. Recognised by a /usr/bin/nvidia-uninstall that belongs to no "
    "package.",
    by_hand="Run `sudo /usr/bin/nvidia-uninstall`, reboot, then install the packages that `gpu-setup plan` lists.",
    needs=(needs.NVIDIA_CARD,),
)
def runfile(host: Host, catalogue: Catalogue) -> Verdict:
    if host.nvidia.runfile is None:
        return Unknown("Cannot determine whether a .run installer was used: /usr/bin cannot be read.")
    if not host.nvidia.runfile:
        return Ok("No .run installer was used.")
    return (
        warning(
            "NVIDIA driver",
            "The driver was installed by NVIDIA's .run file, not by apt.",
            "After the next kernel update the module is missing, and driver packages conflict with it.",
            [("/usr/bin/nvidia-uninstall", "exists, and belongs to no package")],
            command(
                "Remove it, reboot, then run gpu-setup apply.", "/usr/bin/nvidia-uninstall", sudo=True, reboot=True
            ),
        ),
    )


@check(
    "driver.uvm",
    "CUDA's device file /dev/nvidia-uvm exists",
    about="CUDA needs /dev/nvidia-uvm, which the module nvidia_uvm provides. After a suspend, and on some headless "
    "machines, it is missing although nvidia-smi still works, and CUDA fails with `CUDA unknown error`.",
    by_hand="`sudo modprobe -r nvidia_uvm; sudo modprobe nvidia_uvm`, then `sudo nvidia-modprobe -c 0 -u`.",
    needs=(needs.NVIDIA_CARD, needs.NVIDIA_MODULE),
    causes=("driver.bound", "driver.nvml"),
)
def uvm(host: Host, catalogue: Catalogue) -> Verdict:
    if host.nvidia.device_nodes is None:
        return Unknown("Cannot determine the device files: /dev cannot be listed.")
    if any(node.rpartition("/")[2] == "nvidia-uvm" for node in host.nvidia.device_nodes):
        return Ok("/dev/nvidia-uvm exists.")
    return (
        warning(
            "NVIDIA driver",
            "/dev/nvidia-uvm is missing.",
            "CUDA programs fail with `CUDA unknown error` although nvidia-smi works.",
            [("/dev", ", ".join(host.nvidia.device_nodes) or "no nvidia device files")],
            command("Load the module and create its device file.", "nvidia-modprobe", "-c", "0", "-u", sudo=True),
        ),
    )


@check(
    "driver.persistence",
    "NVIDIA persistence mode is on",
    about="On a machine without a desktop the driver shuts the card down when the last program exits. The next program "
    "then waits some seconds for the card, and settings such as the power limit are lost. Read from NVML; skipped on a "
    "machine with a desktop.",
    by_hand="Run `sudo systemctl enable --now nvidia-persistenced`.",
    needs=(needs.NVIDIA_CARD,),
)
def persistence(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    if host.os.graphical:
        return Skip("The desktop keeps the driver initialised.")
    off = [card for card in ours if (gpu := cards.nvml_of(card, host)) and gpu.persistence is False]
    if off:
        return tuple(
            info(
                cards.subject(card, catalogue),
                "Persistence mode is off.",
                "Each program waits until the card has started, and settings such as the power limit are lost.",
                [("NVML persistence mode", "off")],
                command(
                    "Start the persistence daemon.",
                    *("systemctl", "enable", "--now", "nvidia-persistenced"),
                    sudo=True,
                ),
            )
            for card in off
        )
    if any((gpu := cards.nvml_of(card, host)) and gpu.persistence for card in ours):
        return Ok("Persistence mode is on.")
    return Unknown("Cannot determine the persistence mode: NVML does not respond. See driver.nvml.")
