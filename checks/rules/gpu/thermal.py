"""Heat and power: what throttles the card."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import AmdGpu, Host, NvmlGpu
from checks.model import Finding, Ok, Skip, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import Seen, command, hardware, warning
from checks.rules.gpu.card import no_driver_answer
from checks.rules.gpu.place import fitting

# bits of NVML's clocks event reasons (nvml.h, nvmlClocksEventReason*)
_SW_THERMAL, _HW_THERMAL, _HW_POWER_BRAKE = 0x20, 0x40, 0x80

HOT_CORE = 90
# RDNA3's junction limit is 110; from here on the card throttles
HOT_JUNCTION = 105.0
# a cooler that is mounted correctly keeps hotspot and edge closer than this (field experience with the 7900 series)
WIDEST_SPREAD = 30.0
SPREAD_COUNTS_FROM = 75.0


@check(
    "gpu.heat",
    "The card is not throttled by heat",
    about="Reads the temperature and the driver's throttle reasons (NVML), or on AMD the edge, junction and memory "
    "temperature (hwmon). Thermal throttling with a cool core means that the memory is hot, whose temperature a "
    "GeForce does not report. On AMD, a junction 30 °C above the edge means that the cooler is mounted badly.",
    by_hand="Clean filters and fans, improve the airflow in the case, check that the cooler is mounted correctly. On a "
    "used 3090 replace the thermal pads. A 7900 with a hotspot far above the edge temperature is a warranty case.",
    needs=(needs.CARD,),
)
def heat(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    findings: list[Finding] = []
    cool = []
    for card in ours:
        gpu, amd = cards.nvml_of(card, host), cards.amd_of(card, host)
        reasons = _nvidia_heat(gpu) if gpu else _amd_heat(amd) if amd else None
        if reasons is None:
            continue
        summary, seen = reasons
        if summary:
            findings.append(
                warning(
                    cards.subject(card, catalogue),
                    summary,
                    "A hot card lowers its clocks: the run is slower, and benchmark results are not comparable.",
                    seen,
                    hardware("Improve the airflow, clean the card, check its cooler and pads; then measure again."),
                )
            )
        else:
            cool.append(", ".join(f"{value}" for _, value in seen))
    if findings:
        return tuple(findings)
    return Ok(f"Not throttled by heat ({'; '.join(cool)}).") if cool else no_driver_answer(host, ours)


def _nvidia_heat(gpu: NvmlGpu) -> tuple[str, list[Seen]] | None:
    if gpu.temperature is None and gpu.throttle_reasons is None:
        return None
    bits = gpu.throttle_reasons or 0
    seen: list[Seen] = [("NVML temperature", "unknown" if gpu.temperature is None else f"{gpu.temperature} °C")]
    if gpu.throttle_reasons is not None:
        seen.append(("NVML clocks event reasons", f"{bits:#x}"))
    if bits & _HW_THERMAL:
        return "The card's hardware throttles it because of heat.", seen
    if bits & _SW_THERMAL:
        pads = gpu.temperature is not None and gpu.temperature < 80
        return (
            "The driver throttles the card because of heat while its core is cool: check memory and thermal pads."
            if pads
            else "The driver throttles the card because of heat."
        ), seen
    if gpu.temperature is not None and gpu.temperature >= HOT_CORE:
        return f"The card is at {gpu.temperature} °C.", seen
    return "", seen[:1]


def _amd_heat(amd: AmdGpu) -> tuple[str, list[Seen]] | None:
    edge, junction = amd.temperature_edge, amd.temperature_junction
    if edge is None and junction is None:
        return None
    seen: list[Seen] = [("hwmon edge", f"edge {edge} °C")] if edge is not None else []
    if junction is None:
        return (f"The card is at {edge:.0f} °C." if edge is not None and edge >= HOT_CORE else ""), seen
    seen.append(("hwmon junction", f"junction {junction} °C"))
    if junction >= HOT_JUNCTION:
        return f"The card's hottest spot is at {junction:.0f} °C.", seen
    if edge is not None and junction >= SPREAD_COUNTS_FROM and junction - edge > WIDEST_SPREAD:
        return f"The hottest spot is {junction - edge:.0f} °C above the edge: the cooler is mounted badly.", seen
    return "", seen


@check(
    "gpu.power-brake",
    "HW power-brake slowdown is not active",
    about="A pin on the card makes it halve its clocks at once (hardware power brake). Servers use it when a power "
    "supply fails; on a PC the cause is a power cable that is not fully plugged in, or an adapter. Read from its own "
    "bit in NVML's throttle reasons.",
    by_hand="`nvidia-smi -q -d PERFORMANCE` shows `HW Power Brake Slowdown`. Check that each power plug of the card is "
    "fully plugged in, has its own cable, and that the power supply is strong enough; in a server check its power "
    "supplies.",
    needs=(needs.NVIDIA_CARD,),
    causes=("driver.nvml",),
)
def power_brake(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    read = [(card, gpu.throttle_reasons) for card in ours if (gpu := cards.nvml_of(card, host))]
    known = [(card, bits) for card, bits in read if bits is not None]
    findings = [
        warning(
            cards.subject(card, catalogue),
            "HW power-brake slowdown is active: the power supply or mainboard forces the card to slow down.",
            "The card runs at a fraction of its clocks until the signal is off.",
            [("NVML clocks event reasons", f"{bits:#x}")],
            fitting(hardware("Check the card's power plugs and cables, and the power supply."), host, card),
        )
        for card, bits in known
        if bits & _HW_POWER_BRAKE
    ]
    return tuple(findings) or (Ok("No power-brake slowdown.") if known else no_driver_answer(host, ours))


@check(
    "gpu.power-cap",
    "The power limit is at most 10 % below the card's default",
    about="A power limit below the card's default makes it slower all the time. Many users set one on purpose (a 3090 "
    "at 280 W is almost as fast), so there is a warning only if the limit is more than 10 % below the default. From "
    "NVML, or hwmon's power1_cap.",
    by_hand="`sudo nvidia-smi -i SLOT -pl WATTS` or `sudo amd-smi set -g N -o WATTS`; search for a unit or script that "
    "sets the limit at boot. gpu-setup's reports show the limit, so you can keep one that you set on purpose.",
    needs=(needs.CARD,),
)
def power_cap(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    findings: list[Finding] = []
    fine = []
    for number, card in enumerate(ours):
        gpu, amd = cards.nvml_of(card, host), cards.amd_of(card, host)
        limit = gpu.power_limit if gpu else amd.power_cap if amd else None
        default = gpu.power_default if gpu else amd.power_cap_default if amd else None
        if not limit or not default:
            continue
        if limit >= 0.9 * default:
            fine.append(f"{limit:.0f} W")
            continue
        watts = f"{default:.0f}"
        argv = (
            ("nvidia-smi", "-i", card.slot, "-pl", watts) if gpu else ("amd-smi", "set", "-g", str(number), "-o", watts)
        )
        findings.append(
            warning(
                cards.subject(card, catalogue),
                f"The power limit is {limit:.0f} W; the default is {watts} W.",
                "The card runs at lower clocks than the same model elsewhere; results are not comparable.",
                [("NVML power limit" if gpu else "hwmon power1_cap", f"{limit:.0f} W of {watts} W")],
                command("Set the default, or keep the limit if you set it on purpose.", *argv, sudo=True),
            )
        )
    if findings:
        return tuple(findings)
    if fine:
        return Ok("Power limit: " + ", ".join(fine) + ".")
    if host.os.virtualisation and any(cards.nvml_of(card, host) for card in ours):
        return Skip("The driver reports no power limit for this card (usual in a virtual machine).")
    return no_driver_answer(host, ours)
