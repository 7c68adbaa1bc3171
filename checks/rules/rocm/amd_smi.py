"""Whether AMD's management library responds, and agrees with the kernel."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import ASLEEP, Host
from checks.model import Ok, Skip, Unknown, Verdict, check
from checks.rules import cards
from checks.rules.finding import by_hand, reboot, warning

_VERIFY = ("amd-smi", "list")
# none of these is a fault: sensors, memory and power are read from /sys first
_NOT_AVAILABLE = ("absent", "no-binding", "not-recorded")


@check(
    "rocm.smi",
    "AMD's management library (amd-smi) lists every card",
    about="Queries `amd-smi`, or without it AMD's library through a Python binding, in a separate process with a time "
    "limit, and compares the listed cards with those that amdgpu controls. If library and binding have different "
    "releases, values are wrong or functions are missing. Sensors and memory are read from /sys, so a missing library "
    "is no fault.",
    by_hand="Run `amd-smi version` and `amd-smi list`. Library and tool are in one package (amd-smi-lib): remove other "
    "copies from LD_LIBRARY_PATH and ROCM_PATH.",
    causes=("driver.bound", "rocm.several-installs", "rocm.kfd-access", "rocm.render-access"),
)
def lists_cards(host: Host, catalogue: Catalogue) -> Verdict:
    ours = [card for card in cards.training(host, catalogue, cards.AMD) if cards.amd_of(card, host) is not None]
    if not ours:
        return Skip("amdgpu controls no AMD card that can train.")
    problem, slots = host.amd.amdsmi_problem, host.amd.amdsmi_slots
    if problem in _NOT_AVAILABLE:
        return Skip("AMD's management library is not installed; sensors and memory are read from /sys.")
    if problem == ASLEEP:
        return Unknown("AMD's library was not queried: every AMD card is asleep (D3cold), and a query would wake it.")
    if problem == "timed-out":
        return Unknown("AMD's library did not respond in time. Try `amd-smi list`, and reboot if it hangs too.")
    if problem == "not-permitted":
        return Unknown(
            "This session lacks permission to query AMD's library: see rocm.kfd-access and rocm.render-access."
        )
    if problem:
        return (
            warning(
                "AMD management library",
                f"AMD's management library does not respond: {problem}.",
                "Clocks and energy during a run are then read from /sys only, and amd-smi itself may fail.",
                [("libamd_smi.so", host.amd.amdsmi_detail or problem)],
                by_hand(
                    "Install amd-smi-lib of the ROCm release in use, and remove other copies from LD_LIBRARY_PATH and "
                    "ROCM_PATH.",
                    verify=_VERIFY,
                ),
            ),
        )
    if slots is None:
        return Unknown("AMD's library was not queried.")
    shown = {cards.bus_address(slot) for slot in slots}
    missing = [card for card in ours if cards.bus_address(card.slot) not in shown]
    return tuple(
        warning(
            cards.subject(card, catalogue),
            "amdgpu controls the card, but AMD's management library does not list it.",
            "Kernel and library disagree: usually one of them was updated and the machine was not rebooted.",
            [("amd-smi", ", ".join(slots) or "no card"), (f"/sys/bus/pci/devices/{card.slot}/driver", "amdgpu")],
            reboot("Reboot the machine.", verify=_VERIFY),
        )
        for card in missing
    ) or Ok(f"AMD's management library lists {len(ours)} of {len(ours)} cards.")
