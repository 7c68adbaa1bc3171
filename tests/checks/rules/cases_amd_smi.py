"""AMD's management library: it answers, it lists what the kernel drives, or it is not of the tool's release."""

from __future__ import annotations

from checks.facts.host import Host
from tests.checks.rules.case import WARN, Blind, Fault, LookAlike
from tests.checks.rules.hosts import but, healthy_amd, healthy_nvidia

A = healthy_amd()
SLOT = A.cards[0].slot if A.cards else ""


def smi(problem: str | None = None, slots: tuple[str, ...] | None = None, detail: str | None = None) -> Host:
    return but(A, amd={"amdsmi_problem": problem, "amdsmi_slots": slots, "amdsmi_detail": detail})


FAULTS = [
    Fault("rocm.smi", smi(slots=()), WARN, "does not list it"),
    Fault("rocm.smi", smi(slots=("0000:c3:00.0",)), WARN, "does not list it"),
    Fault(
        "rocm.smi",
        # what the binding of 7.0.2 raises over a library that lacks the function
        smi(
            "the library does not fit the binding",
            detail="AttributeError: /opt/rocm/lib/libamd_smi.so: undefined symbol: amdsmi_get_gpu_vram_info",
        ),
        WARN,
        "does not fit",
    ),
    Fault("rocm.smi", smi("crashed (signal 11)"), WARN, "crashed"),
]
LOOK_ALIKES = [
    LookAlike("rocm.smi", smi(slots=(SLOT,)), "the card is listed"),
    LookAlike("rocm.smi", smi(slots=(SLOT.upper(),)), "the card is listed in upper case"),
    LookAlike("rocm.smi", smi("absent"), "AMD's library is not installed"),
    LookAlike("rocm.smi", healthy_nvidia(), "there is no AMD card"),
]
BLIND = [
    Blind("rocm.smi", smi("timed-out"), "did not respond in time"),
    Blind("rocm.smi", smi("asleep"), "asleep"),
    Blind("rocm.smi", smi("not-permitted"), "rocm.kfd-access"),
    Blind("driver.nvml", but(healthy_nvidia(), nvidia={"nvml": None, "nvml_problem": "asleep"}), "asleep"),
    Blind("gpu.heat", but(healthy_nvidia(), nvidia={"nvml": None, "nvml_problem": "asleep"}), "asleep"),
]
