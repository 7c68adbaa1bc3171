"""The GPU's kernel driver: installed, bound to the card, and by which installer."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host, PciCard
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import bound_to, cannot_determine, command, error, info, install, warning
from checks.rules.installed import modules, nvidia_driver
from checks.rules.other_systems import install_driver

_DPKG = "/var/lib/dpkg/status"


@check(
    "driver.present",
    "The kernel driver is installed",
    about="NVIDIA: a driver package in dpkg's database, a module under /lib/modules, or a loaded module. AMD: the "
    "amdgpu module of the running kernel; for small and cloud kernels it is in linux-modules-extra.",
    by_hand="`gpu-setup plan` lists the packages. By hand on Ubuntu 24.04: `ubuntu-drivers list`, then `sudo "
    "ubuntu-drivers install`; for AMD `sudo apt-get install linux-modules-extra-$(uname -r)`.",
    needs=(needs.CARD,),
    causes=("os.virtual",),
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
            [(f"/lib/modules/{release}/kernel/drivers/gpu/drm/amd", "no amdgpu module"), bound_to(card)],
            install("Install the kernel's extra modules, then reboot.", f"linux-modules-extra-{release}"),
        )
    row = cards.row_of(card, catalogue)
    return (warning if row is None or row.unknown else error)(
        about,
        "No NVIDIA driver is installed.",
        "CUDA needs NVIDIA's own kernel driver and libraries; it does not work with the kernel's nouveau driver.",
        [
            ("/lib/modules", "no nvidia module") if host.apt.packages is None else (_DPKG, "no nvidia driver package"),
            bound_to(card),
        ],
        install_driver(host, catalogue, "Run `gpu-setup apply` to install the driver.", verify=("nvidia-smi",)),
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
