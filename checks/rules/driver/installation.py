"""The GPU's kernel driver: there, on the card, and the right one."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host, PciCard
from checks.model import Finding, Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, kernel_log, needs
from checks.rules.finding import by_hand, command, error, info, install, provision, reboot, unread, warning
from checks.rules.installed import modules, nvidia_driver

_DPKG = "/var/lib/dpkg/status"
_FREE_DRIVERS = ("nouveau", "nova", "nova_core", "nova_drm", "nova-core", "NovaCore")


@check(
    "driver.present",
    "The kernel driver is installed",
    about="NVIDIA: a driver package in dpkg's database, a module under /lib/modules, or a loaded module. AMD: the "
    "amdgpu module of the running kernel, which small and cloud kernels leave to linux-modules-extra.",
    by_hand="`gpu-setup plan` names the packages. By hand on Ubuntu 24.04: `ubuntu-drivers list`, then "
    "`sudo ubuntu-drivers install`; for AMD `sudo apt-get install linux-modules-extra-$(uname -r)`.",
    needs=(needs.CARD,),
)
def present(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    findings: list[Finding] = []
    unknown: list[str] = []
    for card in ours:
        there = nvidia_driver(host) if card.vendor == cards.NVIDIA else _amdgpu(host, card)
        if there is None:
            unknown.append(cards.subject(card, catalogue))
        elif not there:
            findings.append(_missing(host, catalogue, card))
    if findings:
        return tuple(findings)
    if unknown:
        return unread(
            host,
            f"Whether a driver is installed for {', '.join(unknown)}",
            ("dpkg", "/lib/modules"),
            "Both /var/lib/dpkg/status and /lib/modules must be readable.",
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
            "Small and cloud kernels come without it; linux-modules-extra brings it.",
            [(f"/lib/modules/{release}/kernel/drivers/gpu/drm/amd", "no amdgpu module"), _bound_to(card)],
            install("Install the kernel's extra modules, then restart.", f"linux-modules-extra-{release}"),
        )
    known = cards.known(card, catalogue) is not None
    return (error if known else warning)(
        about,
        "No NVIDIA driver is installed.",
        "CUDA needs NVIDIA's own kernel driver and libraries; the kernel's nouveau cannot run it.",
        [(_DPKG, "no nvidia driver package"), _bound_to(card)],
        provision("The plan picks driver, modules and repository.", reboot=True, verify=("nvidia-smi",)),
    )


def _bound_to(card: PciCard) -> tuple[str, object]:
    return f"/sys/bus/pci/devices/{card.slot}/driver", card.driver or "no driver"


@check(
    "driver.bound",
    "The card belongs to its driver",
    about="Looks at each card's driver link in /sys. nouveau or nova on an NVIDIA card keeps NVIDIA's driver out; "
    "no driver at all means that the module was refused, is blacklisted or did not start. Not asked while no "
    "driver is installed: nouveau is then what is to be expected.",
    by_hand="`lsmod`, `lspci -nnk -d 10de:` (or 1002:), `grep -rn blacklist /etc/modprobe.d`. After a change there "
    "run `sudo update-initramfs -u` and restart. Remove nomodeset from the kernel command line on AMD.",
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
    judged = [card for card in ours if card.vendor == cards.AMD or nvidia_driver(host)]
    if not judged:
        return Skip("No NVIDIA driver is installed yet: see driver.present.")
    findings = []
    for card in judged:
        wanted = "nvidia" if card.vendor == cards.NVIDIA else "amdgpu"
        if card.driver == wanted:
            continue
        findings.append(_wrong(host, catalogue, card) if card.driver else _none(host, catalogue, card, wanted))
    return tuple(findings) or Ok(", ".join(f"{card.slot}: {card.driver}" for card in judged) + ".")


def _wrong(host: Host, catalogue: Catalogue, card: PciCard) -> Finding:
    blocked = any(module == card.driver for module, _ in host.kernel.blacklisted or ())
    again = reboot(
        f"{card.driver} is blacklisted already: build the initramfs anew (sudo update-initramfs -u -k all) and restart."
    )
    return error(
        cards.subject(card, catalogue),
        f"{card.driver} holds the card, not the vendor's driver.",
        "The first driver keeps the card; CUDA and ROCm do not work with this one."
        if card.driver in _FREE_DRIVERS
        else "CUDA and ROCm do not work with this driver.",
        [_bound_to(card)],
        again if blocked else provision("The plan's driver packages blacklist it; restart after that.", reboot=True),
    )


def _none(host: Host, catalogue: Catalogue, card: PciCard, wanted: str) -> Finding:
    gave_up = rf"{card.slot}: .*(?:Fatal error during GPU init|probe with driver {wanted} failed)"
    said = kernel_log.matching(host.kernel.log or (), card.slot, gave_up)
    seen: list[tuple[str, object]] = [_bound_to(card), *kernel_log.quote([line for line, _ in said], most=1)]
    line = host.kernel.cmdline or ()
    blocked = [path for module, path in host.kernel.blacklisted or () if module == wanted]
    fix: Fix = command(
        "Load the module; if it is refused, its message names the reason.", "modprobe", wanted, sudo=True
    )
    if blocked:
        seen.append((blocked[0], f"blacklist {wanted}"))
        fix = command(
            f"Remove the blacklist line for {wanted}, then run this and restart.",
            *("update-initramfs", "-u"),
            sudo=True,
            reboot=True,
        )
    elif any(word.startswith("modprobe.blacklist=") and wanted in word for word in line) or (
        wanted == "amdgpu" and "nomodeset" in line
    ):
        seen.append(("/proc/cmdline", " ".join(line)))
        fix = command(
            "Remove nomodeset and modprobe.blacklist from /etc/default/grub, then run this and restart.",
            "update-grub",
            sudo=True,
            reboot=True,
        )
    elif wanted in (host.kernel.loaded or ()):
        seen.append(("/proc/modules", f"{wanted} is loaded, but did not take the card"))
        fix = by_hand(f"Read what the driver said: sudo journalctl -k -b | grep -iE '{wanted}|NVRM|{card.slot}'")
    return error(
        cards.subject(card, catalogue),
        f"No driver holds the card; {wanted} should.",
        "A card without a driver does not exist for CUDA and ROCm.",
        seen,
        fix,
    )


@check(
    "driver.runfile",
    "The driver came through apt",
    about="NVIDIA's .run installer puts files beside the package manager: kernel updates then leave the machine "
    "without a module, and driver packages overwrite it half. Recognised by /usr/bin/nvidia-uninstall without an "
    "owner.",
    by_hand="`sudo /usr/bin/nvidia-uninstall`, restart, then install the packages that `gpu-setup plan` names.",
    needs=(needs.NVIDIA_CARD,),
)
def runfile(host: Host, catalogue: Catalogue) -> Verdict:
    if host.nvidia.runfile is None:
        return Unknown("Whether a .run installer was used is not known: /usr/bin cannot be read.")
    if not host.nvidia.runfile:
        return Ok("No .run installer was used.")
    return (
        warning(
            "NVIDIA driver",
            "The driver was installed by NVIDIA's .run file, not by apt.",
            "The next kernel update leaves the machine without a module, and driver packages collide with it.",
            [("/usr/bin/nvidia-uninstall", "present, and owned by no package")],
            command(
                "Remove it, restart, then follow gpu-setup plan.", "/usr/bin/nvidia-uninstall", sudo=True, reboot=True
            ),
        ),
    )


@check(
    "driver.uvm",
    "CUDA's memory device is there",
    about="CUDA needs /dev/nvidia-uvm of the module nvidia_uvm. After suspend, and on some headless machines, it "
    "is missing while nvidia-smi still works, and CUDA ends with `CUDA unknown error`.",
    by_hand="`sudo modprobe -r nvidia_uvm; sudo modprobe nvidia_uvm`, then `sudo nvidia-modprobe -c 0 -u`.",
    needs=(needs.NVIDIA_CARD, needs.NVIDIA_MODULE),
    causes=("driver.bound", "driver.nvml"),
)
def uvm(host: Host, catalogue: Catalogue) -> Verdict:
    if host.nvidia.device_nodes is None:
        return Unknown("The device nodes are not known: /dev cannot be listed.")
    if any(node.rpartition("/")[2] == "nvidia-uvm" for node in host.nvidia.device_nodes):
        return Ok("/dev/nvidia-uvm is there.")
    return (
        warning(
            "NVIDIA driver",
            "/dev/nvidia-uvm is missing.",
            "CUDA programs end with `CUDA unknown error` although nvidia-smi works.",
            [("/dev", ", ".join(host.nvidia.device_nodes) or "no nvidia nodes")],
            command("Load the module and make its node.", "nvidia-modprobe", "-c", "0", "-u", sudo=True),
        ),
    )


@check(
    "driver.persistence",
    "The driver stays awake between programs",
    about="On a machine without a desktop the driver shuts the card down when the last program ends; the next one "
    "waits seconds for it, and settings such as the power limit are lost. Read from NVML, judged only without a "
    "desktop.",
    by_hand="`sudo systemctl enable --now nvidia-persistenced`.",
    needs=(needs.NVIDIA_CARD,),
)
def persistence(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    if host.os.graphical:
        return Skip("A desktop keeps the driver awake.")
    off = [card for card in ours if (gpu := cards.nvml_of(card, host)) and gpu.persistence is False]
    if off:
        return tuple(
            info(
                cards.subject(card, catalogue),
                "Persistence mode is off.",
                "Each program waits for the card to start, and the power limit is forgotten in between.",
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
    return Unknown("Persistence mode is not known: NVML does not answer. See driver.nvml.")
