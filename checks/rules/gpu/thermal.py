"""Heat and power: what keeps a card from its speed."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import AmdGpu, Host, NvmlGpu
from checks.model import Finding, Ok, Skip, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import Seen, command, hardware, warning
from checks.rules.gpu.card import unanswered

# bits of NVML's clocks event reasons (nvml.h, nvmlClocksEventReason*)
_SW_THERMAL, _HW_THERMAL, _HW_POWER_BRAKE = 0x20, 0x40, 0x80

HOT_CORE = 90
# RDNA3's junction limit is 110; from here on it slows down
HOT_JUNCTION = 105.0
# a cooler that sits well keeps hotspot and edge closer than this (field experience with the 7900 series)
WIDEST_SPREAD = 30.0
SPREAD_COUNTS_FROM = 75.0


@check(
    "gpu.heat",
    "The card is not slowed down by heat",
    about="Reads temperature and the driver's own reasons for slowing down (NVML), or edge, junction and memory "
    "temperature (hwmon on AMD). Slowing down by heat while the core is cool means the memory or its pads, whose "
    "temperature a GeForce does not show. On AMD a junction 30 degrees above the edge means a cooler that sits "
    "badly.",
    by_hand="Clean filters and fans, give the case air, check that the cooler sits; on a used 3090 renew the "
    "thermal pads; a 7900 with a hotspot far above the edge is a warranty case.",
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
                    "A hot card lowers its clocks: the run is slower, and a benchmark is not worth comparing.",
                    seen,
                    hardware("Give the card air, clean it, check its cooler and pads; then measure again."),
                )
            )
        else:
            cool.append(", ".join(f"{value}" for _, value in seen))
    if findings:
        return tuple(findings)
    return Ok(f"Not slowed down by heat ({'; '.join(cool)}).") if cool else unanswered(host, ours)


def _nvidia_heat(gpu: NvmlGpu) -> tuple[str, list[Seen]] | None:
    if gpu.temperature is None and gpu.throttle_reasons is None:
        return None
    bits = gpu.throttle_reasons or 0
    seen: list[Seen] = [("NVML temperature", "unknown" if gpu.temperature is None else f"{gpu.temperature} °C")]
    if gpu.throttle_reasons is not None:
        seen.append(("NVML clocks event reasons", f"{bits:#x}"))
    if bits & _HW_THERMAL:
        return "The card's hardware slows it down because of heat.", seen
    if bits & _SW_THERMAL:
        pads = gpu.temperature is not None and gpu.temperature < 80
        return (
            "The driver slows the card down because of heat, while its core is cool: memory or thermal pads."
            if pads
            else "The driver slows the card down because of heat."
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
        return f"The hottest spot is {junction - edge:.0f} degrees above the edge: the cooler does not sit well.", seen
    return "", seen


@check(
    "gpu.power-brake",
    "No power brake is pulled",
    about="A pin on the card tells it to halve its clocks at once (hardware power brake). Servers pull it when a power "
    "supply fails; on a PC a power cable that is not fully seated, or an adapter, does it. Told apart from heat by its "
    "own bit of NVML's reasons for slowing down.",
    by_hand="`nvidia-smi -q -d PERFORMANCE` shows `HW Power Brake Slowdown`. Check that each power plug of the card is "
    "seated, has a cable of its own, and that the supply is strong enough; in a server look at its power supplies.",
    needs=(needs.NVIDIA_CARD,),
    causes=("driver.nvml",),
)
def power_brake(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    told = [(card, gpu.throttle_reasons) for card in ours if (gpu := cards.nvml_of(card, host))]
    known = [(card, bits) for card, bits in told if bits is not None]
    findings = [
        warning(
            cards.subject(card, catalogue),
            "The power supply or board tells the card to slow down (power brake).",
            "The card runs at a fraction of its clocks until the signal goes away.",
            [("NVML clocks event reasons", f"{bits:#x}")],
            hardware("Check the card's power plugs and cables, and the power supply."),
        )
        for card, bits in known
        if bits & _HW_POWER_BRAKE
    ]
    return tuple(findings) or (Ok("No power brake.") if known else unanswered(host, ours))


@check(
    "gpu.power-cap",
    "The card may draw its normal power",
    about="A power limit under the card's default costs speed all the time. Many set one on purpose (a 3090 at 280 "
    "W is nearly as fast), so this is a warning only from 10 % below the default on. From NVML, or hwmon's "
    "power1_cap.",
    by_hand="`sudo nvidia-smi -i SLOT -pl WATTS` or `sudo amd-smi set -g N -o WATTS`; look for a unit or script "
    "that sets it at boot. gpu-setup's reports show the limit, so a deliberate one may stay.",
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
                f"The power limit is {limit:.0f} W, the default {watts} W.",
                "The card runs at lower clocks than others of its kind; figures do not compare with theirs.",
                [("NVML power limit" if gpu else "hwmon power1_cap", f"{limit:.0f} W of {watts} W")],
                command("Set the default, or keep the limit if it is meant.", *argv, sudo=True),
            )
        )
    if findings:
        return tuple(findings)
    if fine:
        return Ok("Power limit: " + ", ".join(fine) + ".")
    if host.os.virtualisation and any(cards.nvml_of(card, host) for card in ours):
        return Skip("The driver answers, but knows no power limit for this card (usual in a virtual machine).")
    return unanswered(host, ours)
