"""Does the driver answer when it is asked?"""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import ASLEEP, Host
from checks.model import Finding, Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, kernel_log, needs
from checks.rules.finding import command, error, hardware, provision, reboot
from checks.rules.installed import nvidia_packages

_ANSWERS = ("nvidia-smi",)
# faults of our own asking, not of the driver
_NOT_ASKED = ("no-binding", "unreadable answer", "not-recorded")


@check(
    "driver.nvml",
    "NVIDIA's driver answers and shows every card",
    about="Asks NVML, the library under nvidia-smi, in a process of its own with a time limit, and compares the "
    "cards that it lists with those on the bus. While no driver is installed this is not asked. Silence is "
    "`unknown`, not a failure: without persistence mode a start takes seconds a card.",
    by_hand="`nvidia-smi`; if it fails, its message names the cause. `sudo dmesg | grep NVRM` has the driver's side.",
    needs=(needs.NVIDIA_CARD, needs.NVIDIA_DRIVER),
    causes=(
        "driver.present",
        "secureboot.module",
        "gpu.fell-off-bus",
        "driver.mismatch",
        "driver.flavour",
        "driver.dropped",
        "driver.module",
        "driver.init",
        "driver.bound",
    ),
)
def nvml(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    problem = host.nvidia.nvml_problem
    if problem and ("timed-out" in problem or "timed out" in problem):
        return Unknown(
            "NVML did not answer in time. Without persistence mode that can take seconds a card; a driver that hangs "
            "never answers. Try `nvidia-smi`, and restart if it hangs too."
        )
    if problem == ASLEEP:
        return Unknown(
            "NVML was not asked: every NVIDIA card sleeps (D3cold), and asking would wake it. Use the card, and run "
            "the doctor meanwhile."
        )
    if problem in _NOT_ASKED:
        return Unknown(f"NVML could not be asked ({problem}). `nvidia-smi` shows whether the driver answers.")
    if problem and not host.nvidia.nvml:
        return (_silent(host, problem),)
    if host.nvidia.nvml is None:
        return Unknown("NVML was not asked.")
    findings: list[Finding] = []
    for card in ours:
        gpu = cards.nvml_of(card, host)
        lost = gpu is None or (gpu.problem or "")
        if gpu is not None and not gpu.problem:
            continue
        findings.append(
            error(
                cards.subject(card, catalogue),
                f"NVML does not show the card{f': {lost}' if isinstance(lost, str) else ''}.",
                "CUDA takes its cards from the same driver, so it does not find this one.",
                [("NVML", f"{len(host.nvidia.nvml)} of {len(ours)} cards" if gpu is None else gpu.problem)],
                hardware(
                    "Switch the machine off and on; if it stays away, read `sudo dmesg | grep NVRM`.", verify=_ANSWERS
                ),
            )
        )
    return tuple(findings) or Ok(f"NVML shows {len(host.nvidia.nvml)} of {len(ours)} cards.")


def _silent(host: Host, problem: str) -> Finding:
    seen: list[tuple[str, object]] = [
        ("NVML", problem),
        ("/sys/module/nvidia/version", host.nvidia.module_version or "not loaded"),
    ]
    fix: Fix
    if problem == "absent":
        summary = "NVIDIA's library libnvidia-ml.so.1 is missing."
        fix = provision("The plan installs the driver's libraries and nvidia-smi.", verify=_ANSWERS)
    elif not host.nvidia.module_version:
        summary = f"NVML cannot reach the driver: its module is not loaded ({problem})."
        fix = command(
            "Load the module; its refusal names the reason.", "modprobe", "nvidia", sudo=True, verify=_ANSWERS
        )
    else:
        summary = f"NVML cannot reach the driver: {problem}."
        fix = reboot("Restart the machine.", verify=_ANSWERS)
    packages = ", ".join(f"{row.name} {row.version}" for row in nvidia_packages(host)[:3])
    if packages:
        seen.append(("/var/lib/dpkg/status", packages))
    return error("NVIDIA driver", summary, "Without it neither nvidia-smi nor CUDA finds a card.", seen, fix)


@check(
    "driver.init",
    "The driver could start the card",
    about="`RmInitAdapter failed` in the kernel log: the module is loaded, but the card did not start. Behind it "
    "are the wrong module flavour, missing memory windows, firmware (GSP) that does not match or is in a state "
    "that only a cold start clears. A card that NVML shows now has started after all.",
    by_hand="Switch the machine off for ten seconds and on again. `ls /lib/firmware/nvidia/` must hold the "
    "driver's version. Then see driver.flavour and gpu.bar-space.",
    needs=(needs.NVIDIA_CARD, needs.NVIDIA_DRIVER),
    causes=("gpu.fell-off-bus", "driver.flavour", "driver.dropped", "gpu.bar-space", "driver.gsp"),
)
def init(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "Whether the driver could start the card")
    pattern = r"NVRM:.*?([0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2})\S*:? .*RmInitAdapter failed"
    lines: dict[str, list[str]] = {}
    for line, match in kernel_log.matching(host.kernel.log, "nvrm", pattern):
        lines.setdefault(cards.place(match[1]), []).append(line)
    firmware = [line for line, _ in kernel_log.matching(host.kernel.log, "nvrm", r"GSP|WPR2")]
    findings = []
    for card in ours:
        said = lines.get(cards.place(card.slot))
        gpu = cards.nvml_of(card, host)
        if not said or (gpu is not None and not gpu.problem):
            continue
        findings.append(
            error(
                cards.subject(card, catalogue),
                "The driver could not start the card.",
                "It stays invisible: nvidia-smi says `No devices were found`.",
                kernel_log.quote([*firmware[-1:], *said]),
                hardware("Switch the machine off for ten seconds and on again.", verify=_ANSWERS),
            )
        )
    return tuple(findings) or Ok("The driver reports no failed start.")


# NVIDIA/open-gpu-kernel-modules#639, #673, #943, #1230; `Booter` and `FWSEC` are the steps of GSP's start
_GSP = (
    r"Cannot initialize GSP firmware|WPR2 already up|cannot bootstrap"
    r"|GSP.{0,80}(?:[Tt]imeout|timed out|failed)|(?:Booter|FWSEC).{0,60}failed"
    r"|gsp\w*\.bin failed with error|firmware load for nvidia/\S*gsp\S* failed"
)


@check(
    "driver.gsp",
    "The card's own firmware (GSP) has started",
    about="Cards from Turing on run the driver's firmware (GSP), which must have the driver's version and start "
    "afresh. A missing file, a state left over by a crash (`WPR2 already up`) or a time-out keeps the card out. "
    "Judged only for cards that NVML does not show: a failed first try from the initramfs is harmless.",
    by_hand="Switch the machine off for ten seconds (a restart does not clear WPR2). `ls /lib/firmware/nvidia/` must "
    "hold the driver's version; if not, reinstall the package nvidia-firmware-BRANCH-VERSION. Then try another "
    "branch.",
    needs=(needs.NVIDIA_CARD, needs.NVIDIA_MODULE),
    causes=("gpu.fell-off-bus", "driver.flavour", "driver.dropped", "driver.mismatch"),
)
def gsp(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    version = host.nvidia.module_version
    shown = [card for card in ours if (gpu := cards.nvml_of(card, host)) and not gpu.problem]
    if len(shown) == len(ours):
        return Ok("The driver has started every card.")
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "Whether GSP has started")
    lines = [line for line, _ in kernel_log.matching(host.kernel.log, "", _GSP) if "NVRM" in line or "nvidia" in line]
    if not lines:
        return Ok("The driver reports no trouble with GSP.")
    seen = kernel_log.quote(lines)
    missing = host.nvidia.firmware is not None and version not in host.nvidia.firmware
    if missing:
        seen.append(("/lib/firmware/nvidia", f"no firmware of {version} ({', '.join(host.nvidia.firmware or ())})"))
    return (
        error(
            "NVIDIA driver",
            f"The driver's firmware for version {version} is missing."
            if missing
            else "The card's own firmware (GSP) did not start.",
            "Without it the driver gives the card up: `No devices were found`.",
            seen,
            provision("The plan installs driver and firmware of one version.", reboot=True, verify=_ANSWERS)
            if missing
            else hardware("Switch the machine off for ten seconds and on again.", verify=_ANSWERS),
        ),
    )


@check(
    "driver.fabric-manager",
    "The NVSwitch fabric is running",
    about="Machines with NVSwitch chips (HGX A100, H100) need nvidia-fabricmanager of the driver's version before CUDA "
    "starts on any card: `CUDA_ERROR_SYSTEM_NOT_READY` (802) without it. Judged only where the PCI bus has such chips.",
    by_hand="`sudo apt-get install nvidia-fabricmanager-BRANCH` (from 590 on in NVIDIA's repository without the "
    "number), `sudo systemctl enable --now nvidia-fabricmanager`.",
    needs=(needs.NVIDIA_CARD,),
)
def fabric_manager(host: Host, catalogue: Catalogue) -> Verdict:
    if not host.nvidia.nvswitches:
        return Skip("The machine has no NVSwitch.")
    if host.nvidia.fabric_manager is None:
        return Unknown("Whether nvidia-fabricmanager runs is not known: /run/systemd/units cannot be read.")
    if host.nvidia.fabric_manager:
        return Ok("nvidia-fabricmanager is running.")
    return (
        error(
            "NVSwitch",
            "nvidia-fabricmanager is not running.",
            "CUDA ends with `system not yet initialized` (802) on every card until it has set up the switches.",
            [
                ("PCI bus", f"{host.nvidia.nvswitches} NVSwitch chips"),
                ("/run/systemd/units", "no nvidia-fabricmanager"),
            ],
            command("Start it.", "systemctl", "enable", "--now", "nvidia-fabricmanager", sudo=True),
        ),
    )
