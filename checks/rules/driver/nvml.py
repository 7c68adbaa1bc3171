"""Whether the NVIDIA driver responds and has initialised the cards."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import ASLEEP, Host
from checks.model import Finding, Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, driver_log, kernel_log, needs
from checks.rules.driver.probe import failed_probe
from checks.rules.finding import by_hand, command, error, hardware, provision, reboot
from checks.rules.gpu.place import fitting
from checks.rules.installed import nvidia_packages

_ANSWERS = ("nvidia-smi",)
_RESEAT = (
    "Power off the machine. Reseat the card, check each of its power cables and the riser, and power on; if it is "
    "still missing, try the card in another slot and read `sudo dmesg | grep NVRM`."
)
# problems of our query, not of the driver
_NOT_ASKED = ("no-binding", "unreadable answer", "not-recorded")


@check(
    "driver.nvml",
    "The NVIDIA driver responds (NVML) and lists every card",
    about="Queries NVML, the library behind nvidia-smi, in a separate process with a time limit, and compares its "
    "cards with those on the PCI bus. No answer in time is `unknown`, not a failure: without persistence mode each "
    "card takes some seconds to start.",
    by_hand="Run `nvidia-smi`; if it fails, its message gives the cause. `sudo dmesg | grep NVRM` shows the driver's "
    "messages.",
    needs=(needs.NVIDIA_CARD, needs.NVIDIA_DRIVER),
    causes=(
        "os.virtual",
        "driver.present",
        "secureboot.module",
        "gpu.fell-off-bus",
        "driver.mismatch",
        "driver.flavour",
        "driver.dropped",
        "driver.module",
        "driver.init",
        "driver.bound",
        "gpu.xid",
        "gpu.nvidia-errors",
    ),
)
def nvml(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    problem = host.nvidia.nvml_problem
    if problem and ("timed-out" in problem or "timed out" in problem):
        return Unknown(
            "NVML did not respond in time. Without persistence mode a card can take some seconds to start; a driver "
            "that hangs never responds. Try `nvidia-smi`, and reboot if it hangs too."
        )
    if problem == ASLEEP:
        return Unknown(
            "NVML was not queried: every NVIDIA card is asleep (D3cold), and a query would wake it. Run the doctor "
            "while a program uses the card."
        )
    if problem in _NOT_ASKED:
        return Unknown(f"NVML could not be queried ({problem}). `nvidia-smi` shows whether the driver responds.")
    if problem and not host.nvidia.nvml:
        return (_no_nvml(host, problem),)
    if host.nvidia.nvml is None:
        return Unknown("NVML was not queried.")
    answering = [card for card in ours if (gpu := cards.nvml_of(card, host)) and not gpu.problem]
    # a card without a handle has no address in NVML's answer, only a problem
    nameless = [gpu.problem for gpu in host.nvidia.nvml if gpu.slot is None and gpu.problem]
    findings = []
    for card in ours:
        if card in answering:
            continue
        gpu = cards.nvml_of(card, host)
        words = [gpu.problem] if gpu is not None and gpu.problem else nameless
        findings.append(
            error(
                cards.subject(card, catalogue),
                f"NVML cannot use the card: {', '.join(words)}." if words else "NVML does not list the card.",
                "CUDA gets its cards from the same driver, so it cannot use this one either.",
                [*(("NVML", word) for word in words), ("NVML", f"{len(answering)} of {len(ours)} cards answer")],
                fitting(_for_words(" ".join(words).lower()), host, card),
            )
        )
    return tuple(findings) or Ok(f"NVML lists {len(answering)} of {len(ours)} cards.")


def _for_words(words: str) -> Fix:
    """What helps against these words of NVML (nvmlErrorString in nvml.h)."""
    if "reset" in words:
        return reboot("Reboot the machine: the driver asks for a reset of the card.", verify=_ANSWERS)
    if "power" in words:
        text = "Power off and plug in every power connector of the card, each with its own cable from the power supply."
        return hardware(text, verify=_ANSWERS)
    return hardware(_RESEAT, verify=_ANSWERS)


def _load_module(host: Host) -> Fix:
    if any(failed_probe(host, card, "nvidia")[0] for card in host.cards or () if card.vendor == cards.NVIDIA):
        return by_hand("The driver gave up when it was loaded, and would again: see driver.bound.", verify=_ANSWERS)
    text = "Load the module; if this fails, the error message gives the reason."
    return command(text, "modprobe", "nvidia", sudo=True, verify=_ANSWERS)


def _no_nvml(host: Host, problem: str) -> Finding:
    seen: list[tuple[str, object]] = [
        ("NVML", problem),
        ("/sys/module/nvidia/version", host.nvidia.module_version or "not loaded"),
    ]
    fix: Fix
    if problem == "absent":
        summary = "NVIDIA's library libnvidia-ml.so.1 is missing."
        fix = provision("Run `gpu-setup apply` to install the driver's libraries and nvidia-smi.", verify=_ANSWERS)
    elif not host.nvidia.module_version and "nvidia" not in (host.kernel.loaded or ()):
        summary = f"NVML cannot work: NVIDIA's kernel module is not loaded ({problem})."
        fix = _load_module(host)
    else:
        summary = f"NVML cannot reach the driver: {problem}."
        fix = reboot("Reboot the machine.", verify=_ANSWERS)
    packages = ", ".join(f"{row.name} {row.version}" for row in nvidia_packages(host)[:3])
    if packages:
        seen.append(("/var/lib/dpkg/status", packages))
    return error("NVIDIA driver", summary, "Without it nvidia-smi and CUDA find no card.", seen, fix)


@check(
    "driver.init",
    "The driver has initialised the card",
    about="`RmInitAdapter failed` in the kernel log means that the module is loaded, but could not initialise the "
    "card. Causes: the wrong module flavour, memory windows that are not mapped, GSP firmware that does not match the "
    "driver, or firmware in a state that only a power cycle clears. A card that NVML lists now has been initialised "
    "later.",
    by_hand="Power off the machine for ten seconds, then start it again. `ls /lib/firmware/nvidia/` must list the "
    "driver's version. Then see driver.flavour and gpu.bar-space.",
    needs=(needs.NVIDIA_CARD, needs.NVIDIA_DRIVER),
    causes=("gpu.fell-off-bus", "driver.flavour", "driver.dropped", "gpu.bar-space", "driver.gsp", "gpu.nvidia-errors"),
)
def init(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "whether the driver has initialised the card")
    said = driver_log.said(host, catalogue, driver_log.NVIDIA)
    findings = []
    for card in ours:
        gpu = cards.nvml_of(card, host)
        own = driver_log.about(card, host, said)
        failures = [one.line for one in own if one.row is not None and one.row.check == "driver.init"]
        if not failures or (gpu is not None and not gpu.problem):
            continue
        # the driver's own explanation wins
        explained = [one for one in own if one.row is not None and one.row.fix]
        best = min(explained, key=lambda one: catalogue.log_lines.index(one.row), default=None)
        firmware = [one.line for one in own if one.row is not None and one.row.check == "driver.gsp"]
        off = hardware(
            "Power off the machine for ten seconds, then start it again. If it happens again, reseat the card without "
            "riser, check its power cables, and try another slot.",
            verify=_ANSWERS,
        )
        findings.append(
            error(
                cards.subject(card, catalogue),
                "The driver could not initialise the card"
                + (f": {best.row.means}." if best is not None and best.row is not None else "."),
                "Programs cannot see it: nvidia-smi reports `No devices were found`.",
                kernel_log.quote([*([best.line] if best else firmware[-1:]), *failures]),
                fitting(driver_log.fix_of(best.row) if best is not None and best.row is not None else off, host, card),
            )
        )
    return tuple(findings) or Ok("The driver has reported no failed initialisation.")


# NVIDIA/open-gpu-kernel-modules#639, #673, #943, #1230; `Booter` and `FWSEC` are steps of the GSP's start-up
_GSP = (
    r"Cannot initialize GSP firmware|WPR2 already up|cannot bootstrap"
    r"|GSP.{0,80}(?:[Tt]imeout|timed out|failed)|(?:Booter|FWSEC).{0,60}failed"
    r"|gsp\w*\.bin failed with error|firmware load for nvidia/\S*gsp\S* failed"
)


@check(
    "driver.gsp",
    "The GPU's firmware (GSP) has started",
    about="Cards from Turing on run firmware of the driver (GSP), which must have the driver's version. If its file is "
    "missing, if a crash left it in a stale state (`WPR2 already up`), or after a time-out, the card cannot be used. "
    "Checked only for cards that NVML does not list: a failed first attempt from the initramfs is harmless.",
    by_hand="Power off the machine for ten seconds (a reboot does not clear WPR2), then start it again. `ls "
    "/lib/firmware/nvidia/` must list the driver's version; if not, reinstall the package "
    "nvidia-firmware-BRANCH-VERSION. Then try another branch.",
    needs=(needs.NVIDIA_CARD, needs.NVIDIA_MODULE),
    causes=("gpu.fell-off-bus", "driver.flavour", "driver.dropped", "driver.mismatch"),
)
def gsp(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    version = host.nvidia.module_version
    working = [card for card in ours if (gpu := cards.nvml_of(card, host)) and not gpu.problem]
    if len(working) == len(ours):
        return Ok("The driver has initialised every card.")
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "whether the GSP has started")
    lines = [
        line for line, _ in kernel_log.matching_lines(host.kernel.log, "", _GSP) if "NVRM" in line or "nvidia" in line
    ]
    if not lines:
        return Ok("The driver has reported no GSP errors.")
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
            "Without it the driver cannot use the card: `No devices were found`.",
            seen,
            provision(
                "Run `gpu-setup apply` to install driver and firmware of the same version.",
                reboot=True,
                verify=_ANSWERS,
            )
            if missing
            else hardware("Power off the machine for ten seconds, then start it again.", verify=_ANSWERS),
        ),
    )


@check(
    "driver.fabric-manager",
    "NVIDIA Fabric Manager is running (NVSwitch)",
    about="Machines with NVSwitch chips (HGX A100, H100) need nvidia-fabricmanager in the driver's version before CUDA "
    "works on any card; without it: `CUDA_ERROR_SYSTEM_NOT_READY` (802). Checked only if the PCI bus has such chips.",
    by_hand="Run `sudo apt-get install nvidia-fabricmanager-BRANCH` (from 590 on the package in NVIDIA's repository "
    "has no number), then `sudo systemctl enable --now nvidia-fabricmanager`.",
    needs=(needs.NVIDIA_CARD,),
)
def fabric_manager(host: Host, catalogue: Catalogue) -> Verdict:
    if not host.nvidia.nvswitches:
        return Skip("The machine has no NVSwitch.")
    if host.nvidia.fabric_manager is None:
        return Unknown("Cannot determine whether nvidia-fabricmanager is running: /run/systemd/units cannot be read.")
    if host.nvidia.fabric_manager:
        return Ok("nvidia-fabricmanager is running.")
    return (
        error(
            "NVSwitch",
            "nvidia-fabricmanager is not running.",
            "CUDA fails with `system not yet initialized` (802) on every card until it has set up the switches.",
            [
                ("PCI bus", f"{host.nvidia.nvswitches} NVSwitch chips"),
                ("/run/systemd/units", "no nvidia-fabricmanager"),
            ],
            command("Start the service.", "systemctl", "enable", "--now", "nvidia-fabricmanager", sudo=True),
        ),
    )
