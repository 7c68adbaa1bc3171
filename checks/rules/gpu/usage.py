"""Who else uses the card, and whether it lets CUDA in: compute mode, MIG, memory in use, the display."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Ok, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import command, error, hardware, info, warning
from checks.rules.gpu.card import unanswered


@check(
    "gpu.compute-mode",
    "The card accepts compute programs",
    about="NVIDIA cards can be set to refuse compute (Prohibited) or to take one process (Exclusive). CUDA then "
    "says `all CUDA-capable devices are busy or unavailable`. Read from NVML.",
    by_hand="`sudo nvidia-smi -i SLOT -c DEFAULT`.",
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
                    "The card takes one compute program at a time.",
                    "A second program, a monitoring tool or a data worker that opens CUDA is refused.",
                    [("NVML compute mode", mode)],
                    command("Set the default mode if that is not meant.", *argv, sudo=True),
                )
            )
    if findings:
        return tuple(findings)
    return Ok("Compute mode is Default.") if known else unanswered(host, ours)


@check(
    "gpu.mig",
    "MIG is off, or has instances",
    about="With MIG on, an A100, H100 or RTX PRO card is split: CUDA sees instances only, and none at all until "
    "one has been made. Read from NVML.",
    by_hand="`nvidia-smi -L` lists instances. Switch MIG off with `sudo nvidia-smi -i SLOT -mig 0`, or make an "
    "instance with `sudo nvidia-smi mig -cgi 0 -C`.",
    needs=(needs.NVIDIA_CARD,),
    causes=("driver.nvml",),
)
def mig(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    split = [(card, gpu) for card in ours if (gpu := cards.nvml_of(card, host)) and gpu.mig]
    if not split:
        answered = any(cards.nvml_of(card, host) for card in ours)
        return Ok("MIG is off.") if answered else unanswered(host, ours)
    if any(gpu.mig_instances is None for _, gpu in split):
        return Unknown("MIG is on, and how many instances there are is not known; `nvidia-smi -L` lists them.")
    findings = [
        error(
            cards.subject(card, catalogue),
            "MIG is on and no instance exists.",
            "CUDA sees instances only, so it finds no device at all.",
            [("NVML", "MIG enabled, 0 instances")],
            command("Switch MIG off.", "nvidia-smi", "-i", card.slot, "-mig", "0", sudo=True),
        )
        for card, gpu in split
        if gpu.mig_instances == 0
    ]
    return tuple(findings) or Ok("MIG is on and has instances.")


@check(
    "gpu.busy-memory",
    "The card's memory is free",
    about="Memory that the desktop and other programs hold is missing in training. Up to 2 GB is what a desktop "
    "takes; more is another program. Read from NVML, or on AMD from mem_info_vram_used.",
    by_hand="`nvidia-smi` or `amd-smi process` shows who holds it. End the program, plug the display into the "
    "processor's graphics, or switch to text mode for the run: `sudo systemctl isolate multi-user.target`.",
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
        seen: list[tuple[str, object]] = [("memory in use", f"{used / 1e9:.1f} GB")]
        seen += [("NVML process", f"{pid} {command_name}") for pid, command_name in users[:5]]
        tool = "nvidia-smi" if card.vendor == cards.NVIDIA else "amd-smi"
        findings.append(
            (warning if used > 2.2e9 else info)(
                cards.subject(card, catalogue),
                f"{used / 1e9:.1f} GB of the card's memory is in use"
                + (" by other programs." if used > 2.2e9 else ", about what a desktop takes."),
                "Training has that much less; runs that just fit end with out of memory.",
                seen,
                command("See who holds it, and end it or move the display to the processor's graphics.", tool),
            )
        )
    if findings:
        return tuple(findings)
    return Ok("Less than 1 GB of the card's memory is in use.") if known else unanswered(host, ours)


@check(
    "gpu.display",
    "The display does not hang on the training card",
    about="A desktop keeps 0.5 to 2 GB of the card that draws it, and browsers and editors add to it. Where the "
    "machine has a second graphics adapter, the display can hang on that one. Only said; read from the connectors in "
    "/sys/class/drm.",
    by_hand="Plug the display into the board's own socket (and choose it as first adapter in the BIOS), or give the "
    "desktop up for the run: `sudo systemctl isolate multi-user.target`, back with graphical.target.",
    needs=(needs.CARD,),
)
def display(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    lit = [card for card in ours if card.connectors_connected]
    if not lit:
        return Ok("No display is plugged into the training card.")
    others = [card for card in host.cards or () if card not in ours and (card.class_code or "").startswith("03")]
    if not others:
        return Ok("A display is plugged into the card; the machine has no other adapter for it.")
    return tuple(
        info(
            cards.subject(card, catalogue),
            "A display hangs on the training card, though the machine has another adapter.",
            "The desktop takes 0.5 to 2 GB of its memory, which runs that just fit miss.",
            [
                (f"/sys/class/drm, {card.slot}", ", ".join(card.connectors_connected or ()) + " connected"),
                ("other adapter", ", ".join(f"{other.slot} ({other.driver or 'no driver'})" for other in others)),
            ],
            hardware("Plug the display into the board's own socket."),
        )
        for card in lit
    )
