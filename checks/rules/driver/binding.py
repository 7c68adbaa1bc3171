"""Is the GPU bound to its driver, and if not, what keeps the driver away?"""

from __future__ import annotations

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host, PciCard
from checks.model import Finding, Fix, Ok, Skip, Verdict, check
from checks.rules import cards, driver_log, kernel_log, needs
from checks.rules.driver.probe import failed_probe
from checks.rules.finding import Seen, bound_to, by_hand, command, error, firmware
from checks.rules.gpu.place import fitting
from checks.rules.installed import modules, nvidia_driver
from checks.rules.other_systems import install_driver, without_parameters

_FREE_DRIVERS = ("nouveau", "nova", "nova_core", "nova_drm", "nova-core", "NovaCore")
# How the program that wrote a blacklist removes it (prime-select(8); system76-power, envycontrol and supergfxctl
# --help; optimus-manager's README): in its mode for both GPUs NVIDIA's driver is loaded.
SWITCHES = {
    "nvidia-prime": ("prime-select", "on-demand"),
    "system76-power": ("system76-power", "graphics", "hybrid"),
    "EnvyControl": ("envycontrol", "--switch", "hybrid"),
    "supergfxd": ("supergfxctl", "--mode", "Hybrid"),
    "optimus-manager": ("optimus-manager", "--switch", "hybrid"),
    # it loads the module only for programs that optirun starts
    "bumblebee": ("apt-get", "purge", "bumblebee"),
}
_COMMAND_LINE = "/proc/cmdline"
_NO_MEMORY = -12


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
        "os.virtual",
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
    again = command(
        f"{card.driver} is blacklisted already, but was loaded before: rebuild the initramfs and reboot.",
        *("update-initramfs", "-u", "-k", "all"),
        sudo=True,
        reboot=True,
    )
    return error(
        cards.subject(card, catalogue),
        f"The card is bound to {card.driver}, not to the vendor's driver.",
        f"Only one driver can use the card; {_platform(card)} does not work with this one."
        if card.driver in _FREE_DRIVERS
        else f"{_platform(card)} does not work with this driver.",
        [bound_to(card)],
        again
        if blocked
        else install_driver(
            host, catalogue, "The driver packages in the plan blacklist it; reboot after the installation."
        ),
    )


def _no_driver(host: Host, catalogue: Catalogue, card: PciCard, wanted: str) -> Finding:
    obstacle = (
        _refused_by_driver(host, catalogue, card, wanted)
        or _blacklisted(host, wanted)
        or _parameters(host, catalogue, wanted)
        or _not_bound(host, card, wanted)
    )
    seen, fix = obstacle
    return error(
        cards.subject(card, catalogue),
        f"The card is bound to no driver; it should be bound to {wanted}.",
        f"{_platform(card)} cannot find a card without a driver.",
        [bound_to(card), *seen],
        fix,
    )


def _platform(card: PciCard) -> str:
    return "CUDA" if card.vendor == cards.NVIDIA else "ROCm"


def _log_words(card: PciCard, wanted: str) -> str:
    return "|".join((wanted, *(["NVRM"] if card.vendor == cards.NVIDIA else []), card.slot))


Obstacle = tuple[list[Seen], Fix]


def _refused_by_driver(host: Host, catalogue: Catalogue, card: PciCard, wanted: str) -> Obstacle | None:
    lines, code = failed_probe(host, card, wanted)
    stated, row = driver_log.why_not_bound(host, catalogue, card)
    if not lines and row is None:
        return None
    seen: list[Seen] = stated or [(kernel_log.SOURCE, line[:300]) for line in lines]
    is_guest = host.os.virtualisation not in (None, "none")
    if code == _NO_MEMORY and card.vendor == cards.AMD:
        why = "Error -12 (ENOMEM): the computer gave the card no address space for its memory."
        return seen, by_hand(
            f"{why} On the host of this virtual machine, give it a larger 64-bit MMIO window."
        ) if is_guest else firmware(
            f"{why} In the BIOS switch on Above 4G Decoding, enlarge the MMIO range (MMIO High Size or Limit, 64-bit "
            "BAR), and switch on SR-IOV where the server's manual asks for it."
        )
    if any("Unable to locate a BIOS ROM" in line for line in lines):
        return seen, by_hand(
            "On the host of this virtual machine, pass the card's ROM through as well (a file with `romfile=`)."
            if is_guest
            else "The firmware hides the card's ROM: update the BIOS, and reseat the card."
        )
    if row is not None:
        fix = driver_log.fix_of(row)
        text = f"{row.means[0].upper()}{row.means[1:]}. {fix.text}"
        return seen, fitting(msgspec.structs.replace(fix, text=text), host, card)
    return seen, by_hand(
        "The driver started and gave up: its first message above is the reason. Power the machine off and on once; if "
        "it fails again, reseat the card and its power cables or try another slot, and look for newer firmware. All "
        f"messages: sudo journalctl -k -b | grep -iE '{_log_words(card, wanted)}'"
    )


def _blacklisted(host: Host, wanted: str) -> Obstacle | None:
    files = [path for module, path in host.kernel.blacklisted or () if module == wanted and path != _COMMAND_LINE]
    if not files:
        return None
    writer = dict(host.kernel.written_by).get(files[0])
    seen: list[Seen] = [(files[0], f"blocks {wanted}" + (f" (generated by {writer})" if writer else ""))]
    if writer in SWITCHES:
        argv = SWITCHES[writer]
        return seen, command(
            f"{writer} has switched the NVIDIA GPU off, and would write this file again: use its command, then reboot.",
            *argv,
            sudo=True,
            reboot=True,
        )
    return seen, command(
        f"Remove the lines about {wanted} (blacklist, alias … off, install) from {' and '.join(files)}, then run this "
        "and reboot.",
        *("update-initramfs", "-u"),
        sudo=True,
        reboot=True,
    )


def _parameters(host: Host, catalogue: Catalogue, wanted: str) -> Obstacle | None:
    line = host.kernel.cmdline or ()
    words = tuple(word for word in line if keeps_away(word, wanted))
    if not words:
        return None
    seen: list[Seen] = [(_COMMAND_LINE, " ".join(line)), *((file, word) for file, word in host.kernel.boot_parameters)]
    edit, argv = without_parameters(host, catalogue, words)
    if all(word.startswith(("modprobe.blacklist=", "rd.driver.blacklist=")) for word in words):
        wish = " (AMD recommends it for MI300X servers)" if wanted == "amdgpu" else ""
        then = f", run `sudo {' '.join(argv)}`" if argv else ""
        return seen, command(
            f"The kernel command line keeps {wanted} from being loaded at boot. If that is intended{wish}, load the "
            f"module now with the command below. Otherwise {edit}{then}, and reboot.",
            "modprobe",
            wanted,
            sudo=True,
        )
    text = f"{edit[0].upper()}{edit[1:]}, "
    if argv:
        return seen, command(f"{text}then run this and reboot.", *argv, sudo=True, reboot=True)
    return seen, by_hand(f"{text}then reboot.")


def keeps_away(word: str, wanted: str) -> bool:
    """Whether a parameter of the kernel keeps this driver (nvidia, amdgpu) from the cards."""
    name, _, value = word.partition("=")
    if name in ("modprobe.blacklist", "module_blacklist", "rd.driver.blacklist"):
        return wanted in value.replace("-", "_").split(",")
    # nomodeset stops every driver of the kernel's own graphics, not NVIDIA's
    return wanted == "amdgpu" and word in ("nomodeset", "amdgpu.modeset=0")


def _not_bound(host: Host, card: PciCard, wanted: str) -> Obstacle:
    if wanted in (host.kernel.loaded or ()):
        return [("/proc/modules", f"{wanted} is loaded, but not bound to the card")], by_hand(
            f"Read the driver's messages: sudo journalctl -k -b | grep -iE '{_log_words(card, wanted)}'"
        )
    release = host.kernel.release
    if host.kernel.modules and release and not modules(host, wanted, release):
        return [(f"/lib/modules/{release}", f"no {wanted} module")], by_hand(
            f"Install the {wanted} module of this kernel first: see driver.module and driver.dkms."
        )
    return [], command(
        "Load the module; if this fails, the error message gives the reason.", "modprobe", wanted, sudo=True
    )


@check(
    "driver.switched-off",
    "No program has removed the NVIDIA GPU from the bus",
    about="Switches for hybrid graphics (EnvyControl, supergfxctl, system76-power, prime-select, optimus-manager) can "
    "turn a laptop's NVIDIA GPU off: their files block the driver, and some remove the card from the PCI bus at each "
    "boot, so that the machine looks as if it had none. Recognised by the file that such a program writes into "
    "modprobe.d.",
    by_hand="Use the program's own command for its hybrid mode, for example `sudo envycontrol --switch hybrid`, then "
    "reboot.",
)
def switched_off(host: Host, catalogue: Catalogue) -> Verdict:
    if any(card.vendor == cards.NVIDIA for card in host.cards or ()):
        return Ok("The NVIDIA GPU is on the bus; driver.bound checks its driver.")
    found = _blacklisted(host, "nvidia")
    writer = dict(host.kernel.written_by).get(found[0][0][0]) if found else None
    if found is None or writer not in SWITCHES:
        return Ok("No such program has switched an NVIDIA GPU off.")
    seen, fix = found
    return (
        error(
            "NVIDIA GPU",
            f"{writer} has switched this machine's NVIDIA GPU off.",
            "Its mode for integrated graphics blocks the driver and can remove the card from the PCI bus.",
            seen,
            fix,
        ),
    )
