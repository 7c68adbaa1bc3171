"""Does AMD's management library answer, and does it agree with the kernel?"""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import ASLEEP, Host
from checks.model import Ok, Skip, Unknown, Verdict, check
from checks.rules import cards
from checks.rules.finding import by_hand, reboot, warning

_VERIFY = ("amd-smi", "list")
# neither is a fault: sensors, memory and power are read from /sys first
_NOT_THERE = ("absent", "no-binding", "not-recorded")


@check(
    "rocm.smi",
    "AMD's management library answers and shows every card",
    about="Asks `amd-smi`, and where there is none AMD's library through a Python binding, in a process of its own "
    "with a time limit, and compares the cards that it lists with those that amdgpu drives. A library of another "
    "release than its binding reads shifted fields or lacks functions. Sensors and memory come from /sys, so its "
    "absence is no fault.",
    by_hand="`amd-smi version` and `amd-smi list`. Library and tool come in one package (amd-smi-lib): remove other "
    "copies from LD_LIBRARY_PATH and ROCM_PATH.",
    causes=("driver.bound", "rocm.several-installs", "rocm.kfd-access", "rocm.render-access"),
)
def answers(host: Host, catalogue: Catalogue) -> Verdict:
    ours = [card for card in cards.training(host, catalogue, cards.AMD) if cards.amd_of(card, host) is not None]
    if not ours:
        return Skip("amdgpu drives no AMD card that can train.")
    problem, slots = host.amd.amdsmi_problem, host.amd.amdsmi_slots
    if problem in _NOT_THERE:
        return Skip("AMD's management library is not installed; sensors and memory are read from /sys.")
    if problem == ASLEEP:
        return Unknown("AMD's library was not asked: every AMD card sleeps (D3cold), and asking would wake it.")
    if problem == "timed-out":
        return Unknown("AMD's library did not answer in time. Try `amd-smi list`, and restart if it hangs too.")
    if problem == "not-permitted":
        return Unknown("AMD's library may not be asked by this session: see rocm.kfd-access and rocm.render-access.")
    if problem:
        return (
            warning(
                "AMD management library",
                f"AMD's management library gives no answer: {problem}.",
                "Clocks and energy during a run are then read from /sys only, and amd-smi itself may fail.",
                [("libamd_smi.so", host.amd.amdsmi_detail or problem)],
                by_hand(
                    "Let tool and library be of one release: install amd-smi-lib of the ROCm release in use, and take "
                    "other copies out of LD_LIBRARY_PATH and ROCM_PATH.",
                    verify=_VERIFY,
                ),
            ),
        )
    if slots is None:
        return Unknown("AMD's library was not asked.")
    shown = {cards.place(slot) for slot in slots}
    missing = [card for card in ours if cards.place(card.slot) not in shown]
    return tuple(
        warning(
            cards.subject(card, catalogue),
            "amdgpu drives the card, but AMD's management library does not list it.",
            "Kernel and library disagree: usually one of them was updated and not started afresh.",
            [("amd-smi", ", ".join(slots) or "no card"), (f"/sys/bus/pci/devices/{card.slot}/driver", "amdgpu")],
            reboot("Restart the machine.", verify=_VERIFY),
        )
        for card in missing
    ) or Ok(f"AMD's management library lists {len(slots)} of {len(ours)} cards.")
