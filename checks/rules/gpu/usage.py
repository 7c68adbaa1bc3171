"""Who else uses the card, and whether it accepts CUDA programs: compute mode, MIG, memory in use, monitor."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Ok, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import command, error, hardware, info, warning
from checks.rules.gpu.card import GIB, no_driver_answer


@check(
    "gpu.compute-mode",
    "The card accepts compute programs",
    about="NVIDIA cards can be set to refuse compute programs (Prohibited) or to accept only one process (Exclusive). "
    "CUDA then reports `all CUDA-capable devices are busy or unavailable`. Read from NVML.",
    by_hand="Run `sudo nvidia-smi -i SLOT -c DEFAULT`.",
    needs=(needs.NVIDIA_CARD,),
    causes=("driver.nvml",),
)
def compute_mode(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    findings, known = [], 0
    for card in ours:
        gpu = cards.nvml_of(card, host)
        mode = (gpu.compute_mode if gpu else None) or ""
        known += bool(mode)
        argv = ("nvidia-smi", "-i", card.slot, "-c", "DEFAULT")
        if "prohibited" in mode.lower():
            findings.append(
                error(
                    cards.subject(card, catalogue),
                    "The card is set to refuse all compute programs.",
                    "In compute mode Prohibited every CUDA program fails at its first call.",
                    [("NVML compute mode", mode)],
                    command("Set the default mode.", *argv, sudo=True),
                )
            )
        elif "exclusive" in mode.lower():
            findings.append(
                info(
                    cards.subject(card, catalogue),
                    "The card accepts only one compute program at a time.",
                    "A second program, monitoring tool or data worker that uses CUDA is refused.",
                    [("NVML compute mode", mode)],
                    command("Set the default mode if this is not intended.", *argv, sudo=True),
                )
            )
    if findings:
        return tuple(findings)
    return Ok("Compute mode is Default.") if known else no_driver_answer(host, ours)


@check(
    "gpu.mig",
    "MIG is off or has instances",
    about="With MIG on, an A100, H100 or RTX PRO card is partitioned: CUDA sees only MIG instances, and no device "
    "until an instance has been created. Read from NVML.",
    by_hand="`nvidia-smi -L` lists the instances. Turn MIG off with `sudo nvidia-smi -i SLOT -mig 0`, or create an "
    "instance with `sudo nvidia-smi mig -cgi 0 -C`.",
    needs=(needs.NVIDIA_CARD,),
    causes=("driver.nvml",),
)
def mig(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    split = [(card, gpu) for card in ours if (gpu := cards.nvml_of(card, host)) and gpu.mig]
    if not split:
        answered = any(cards.nvml_of(card, host) for card in ours)
        return Ok("MIG is off.") if answered else no_driver_answer(host, ours)
    if any(gpu.mig_instances is None for _, gpu in split):
        return Unknown("MIG is on, but the number of instances is not known; `nvidia-smi -L` lists them.")
    findings = [
        error(
            cards.subject(card, catalogue),
            "MIG is on and no instance exists.",
            "CUDA sees only MIG instances, so it finds no device.",
            [("NVML", "MIG enabled, 0 instances")],
            command("Turn MIG off.", "nvidia-smi", "-i", card.slot, "-mig", "0", sudo=True),
        )
        for card, gpu in split
        if gpu.mig_instances == 0
    ]
    return tuple(findings) or Ok("MIG is on and has instances.")


@check(
    "gpu.busy-memory",
    "Other programs use little of the card's memory",
    about="Memory that the desktop and other programs use is not available for training. A desktop uses up to 2 GiB; "
    "more is another program. Read from NVML, or on AMD from mem_info_vram_used.",
    by_hand="`nvidia-smi` or `amd-smi process` shows which programs use it. Stop the program, connect the monitor to "
    "the integrated graphics, or switch to text mode for the run: `sudo systemctl isolate multi-user.target`.",
    needs=(needs.CARD,),
)
def busy_memory(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    findings, known = [], 0
    for card in ours:
        gpu, amd = cards.nvml_of(card, host), cards.amd_of(card, host)
        used = gpu.memory_used if gpu else amd.vram_used if amd else None
        if used is None:
            continue
        known += 1
        users = tuple((gpu.processes if gpu else None) or ())
        if used < 1e9:
            continue
        seen: list[tuple[str, object]] = [("memory in use", f"{used / GIB:.1f} GiB")]
        seen += [("NVML process", f"{pid} {command_name}") for pid, command_name in users[:5]]
        tool = "nvidia-smi" if card.vendor == cards.NVIDIA else "amd-smi"
        findings.append(
            (warning if used > 2.2e9 else info)(
                cards.subject(card, catalogue),
                f"{used / GIB:.1f} GiB of the card's memory is in use"
                + (" by other programs." if used > 2.2e9 else ", about what a desktop uses."),
                "Less memory is left for training; runs that only just fit fail with out of memory.",
                seen,
                command("Find the program and stop it, or connect the monitor to the integrated graphics.", tool),
            )
        )
    if findings:
        return tuple(findings)
    return Ok("Less than 1 GiB of the card's memory is in use.") if known else no_driver_answer(host, ours)


@check(
    "gpu.display",
    "No monitor is connected to the training GPU",
    about="A desktop uses 0.5 to 2 GiB of the memory of the card that displays it; browsers and editors use more. If "
    "the machine has a second graphics adapter, connect the monitor to that one. Informational only; read from the "
    "connectors in /sys/class/drm.",
    by_hand="Connect the monitor to the mainboard's output (and select the integrated graphics as first adapter in the "
    "BIOS), or stop the desktop for the run: `sudo systemctl isolate multi-user.target`; `sudo systemctl isolate "
    "graphical.target` starts it again.",
    needs=(needs.CARD,),
)
def display(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    with_monitor = [card for card in ours if card.connectors_connected]
    if not with_monitor:
        return Ok("No monitor is connected to the training card.")
    others = [card for card in host.cards or () if card not in ours and (card.class_code or "").startswith("03")]
    if not others:
        return Ok("A monitor is connected to the card; the machine has no other graphics adapter.")
    return tuple(
        info(
            cards.subject(card, catalogue),
            "A monitor is connected to the training GPU, although the machine has another graphics adapter.",
            "The desktop uses 0.5 to 2 GiB of its memory, which may be missing for training.",
            [
                (f"/sys/class/drm, {card.slot}", ", ".join(card.connectors_connected or ()) + " connected"),
                ("other adapter", ", ".join(f"{other.slot} ({other.driver or 'no driver'})" for other in others)),
            ],
            hardware("Connect the monitor to the mainboard's output."),
        )
        for card in with_monitor
    )
