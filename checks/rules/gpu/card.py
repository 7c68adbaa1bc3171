"""Is there a card that can train, and how big is it?"""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import ASLEEP, Host, PciCard
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import by_hand, command, error, hardware, info, unread, warning

# What the article promises: QLoRA of a 7B model on one card of 16 GB. Decimal gigabytes with 5 % off, because a
# "16 GB" card shows between 15.9 and 17.2 (ECC, reserved memory).
ROOM_FOR_MISTRAL = 15.2e9
# 4.1 GB of 4-bit weights, 1 GB of context and workspace, and nothing left under this for the batch
NO_ROOM_AT_ALL = 6e9
_FIRST_WITH_BF16 = (8, 0)
_NOT_IN_CATALOGUE = "The compute capability is not known: NVML does not answer and the catalogue has not got the card."


@check(
    "gpu.present",
    "A card that can train is in the machine",
    about="Lists the NVIDIA and AMD cards on the PCI bus, from /sys/bus/pci/devices, with the names of the tool's "
    "own catalogue. The processor's own graphics and cards reserved for a virtual machine do not count. Without a "
    "card the check is skipped, not failed: the tool then trains a small model on the processor.",
    by_hand="Run `lspci -Dnn -d 10de:` and `lspci -Dnn -d 1002:`. If a card that is plugged in does not show, "
    "check its power cables, reseat it, and look in the BIOS whether the slot is enabled.",
)
def present(host: Host, catalogue: Catalogue) -> Verdict:
    if host.cards is None:
        return unread(host, "What is on the PCI bus", ("/sys/bus/pci",), "Run where /sys is mounted.")
    ours = cards.training(host, catalogue)
    if ours:
        return Ok("Found " + ", ".join(cards.subject(card, catalogue) for card in ours) + ".")
    others = [card for card in host.cards if card.vendor in cards.VENDOR_NAMES]
    if others:
        names = ", ".join(cards.subject(card, catalogue) for card in others)
        return Skip(f"No supported GPU: {names} cannot be used for training here. The processor trains small models.")
    return Skip("No supported GPU: the PCI bus has no NVIDIA or AMD card. The processor trains small models.")


@check(
    "gpu.supported",
    "The card has a training stack",
    about="Each card's PCI id (for AMD also the revision byte) is looked up in the catalogue, and the stacks are "
    "searched for one with kernels for its architecture. A card without one fails later with `no kernel image is "
    "available` or `invalid device function`.",
    by_hand="Compare the card's architecture with `python -c 'import torch; print(torch.cuda.get_arch_list())'` of "
    "the torch build that you want to use. No setting adds an architecture that is not in that list.",
)
def supported(host: Host, catalogue: Catalogue) -> Verdict:
    ours = [card for card in host.cards or () if card.vendor in cards.VENDOR_NAMES]
    ours = [card for card in ours if card.driver not in cards.RESERVED]
    if host.cards is None:
        return unread(host, "What is on the PCI bus", ("/sys/bus/pci",), "Run where /sys is mounted.")
    findings, strangers, fine = [], [], []
    for card in ours:
        row, about = cards.known(card, catalogue), cards.subject(card, catalogue)
        if row is None:
            strangers.append(about)
        elif row.integrated:
            continue
        elif not row.supported or (catalogue.stacks and not cards.stacks(card, catalogue)):
            findings.append(_without_stack(card, catalogue))
        else:
            fine.append(f"{about} ({row.target})")
    if findings:
        return tuple(findings)
    if strangers:
        return Unknown(
            f"Not in the catalogue: {', '.join(strangers)}. A report made with `gpu-setup facts record` gets it added."
        )
    return Ok("There is a stack for " + ", ".join(fine) + ".") if fine else Skip(cards.none_of(host, catalogue))


def _without_stack(card: PciCard, catalogue: Catalogue) -> Finding:
    row = cards.known(card, catalogue)
    assert row is not None
    return warning(
        cards.subject(card, catalogue),
        f"No training stack supports {row.name} ({row.target}).",
        "Neither PyTorch's nor bitsandbytes' published builds have kernels for this architecture"
        + (f": {row.note}" if row.note else "."),
        [(f"/sys/bus/pci/devices/{card.slot}", f"{card.vendor}:{card.device} rev {card.revision or '?'}")],
        hardware("Train on another card; without one, gpu-setup trains a small model on the processor."),
    )


@check(
    "gpu.vram",
    "The card has the memory that QLoRA of a 7B model needs",
    about="QLoRA of Mistral 7B fits on one card of 16 GB: 4.1 GB of 4-bit weights, adapter, optimizer and context, "
    "and several GB of activations, with one sequence at a time (`mistral-7b-qlora-16gb`); the recipe as it stands is "
    "for 24 GB. With 12 GB sequences are shorter (`mistral-7b-qlora-12gb`); under 6 GB nothing is left for a batch. "
    "gpu-setup takes what fits. The size is the driver's where it answers, else the catalogue's.",
    by_hand="Ask `gpu-setup fit --card NAME` for the longest sequence and largest batch that fit. Set "
    "`sequence_len: 1024` (or 2048) and `micro_batch_size: 1` in the recipe.",
    needs=(needs.CARD,),
)
def vram(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    findings, fine = [], []
    for card in ours:
        size, source = memory(card, host, catalogue)
        about = cards.subject(card, catalogue)
        if size is None:
            continue
        if size >= ROOM_FOR_MISTRAL:
            fine.append(f"{about}: {size / 1e9:.0f} GB")
            continue
        seen = [(source, f"{size / 1e9:.1f} GB")]
        if size < NO_ROOM_AT_ALL:
            findings.append(
                error(
                    about,
                    f"{size / 1e9:.0f} GB of memory is too little for a 7B model, even in 4 bits.",
                    "The weights alone take 4.1 GB and the context 1 GB; the rest does not hold a batch.",
                    seen,
                    command("See which models fit.", "gpu-setup", "fit", "--recipe", "smollm2-135m-qlora"),
                )
            )
        else:
            findings.append(
                warning(
                    about,
                    f"{size / 1e9:.0f} GB of memory: sequences as long as the reference's need a card of 16 GB.",
                    "Mistral 7B still trains on it with a shorter sequence and a batch of one.",
                    seen,
                    command(
                        "Ask which sequence and batch fit, and set them in the recipe.",
                        *("gpu-setup", "fit", "--recipe", "mistral-7b-qlora"),
                    ),
                )
            )
    if findings:
        return tuple(findings)
    if not fine:
        return Unknown("The card's memory is not known: the driver does not answer and the catalogue has no figure.")
    return Ok("; ".join(fine) + ".")


def memory(card: PciCard, host: Host, catalogue: Catalogue) -> tuple[float | None, str]:
    """Bytes, and who says so: the driver first, because boards of one PCI id are sold with 8 and with 16 GB."""
    gpu, amd, row = cards.nvml_of(card, host), cards.amd_of(card, host), cards.known(card, catalogue)
    if gpu is not None and gpu.memory_total:
        return float(gpu.memory_total), "NVML memory"
    if amd is not None and amd.vram_total:
        return float(amd.vram_total), f"/sys/bus/pci/devices/{card.slot}/mem_info_vram_total"
    if row is not None and row.vram_gb:
        return row.vram_gb * 1e9, "catalogue"
    return None, ""


@check(
    "gpu.kept-for-vm",
    "No card is held back for a virtual machine",
    about="A card bound to vfio-pci is reserved for a virtual machine. That is usually meant, so it is only said, "
    "and no other check judges the card.",
    by_hand="To get the card back, remove its ids from the vfio options in /etc/modprobe.d and from the kernel "
    "command line, run `sudo update-initramfs -u` and restart.",
)
def kept_for_vm(host: Host, catalogue: Catalogue) -> Verdict:
    kept = [c for c in host.cards or () if c.vendor in cards.VENDOR_NAMES and c.driver in cards.RESERVED]
    if host.cards is None:
        return unread(host, "What is on the PCI bus", ("/sys/bus/pci",), "Run where /sys is mounted.")
    if not kept:
        return Ok("No card is bound to vfio-pci.")
    return tuple(
        info(
            cards.subject(card, catalogue),
            "The card is reserved for a virtual machine.",
            f"It is bound to {card.driver}, so neither CUDA nor ROCm on this system sees it.",
            [(f"/sys/bus/pci/devices/{card.slot}/driver", card.driver)],
            by_hand("Leave it, or give the card back to the system: gpu-setup doctor --explain gpu.kept-for-vm."),
        )
        for card in kept
    )


@check(
    "gpu.integrated-beside",
    "The processor's graphics do not stand in for the card",
    about="ROCm lists the graphics inside a Ryzen processor as one more GPU. Where it comes first, PyTorch takes "
    "it as device 0: a crash, or training on 512 MB. Decided from the KFD topology: which node comes first, and "
    "whether ROCR_VISIBLE_DEVICES or HIP_VISIBLE_DEVICES already hides it. gpu-setup's own runs always name the "
    "card.",
    by_hand="Put `export ROCR_VISIBLE_DEVICES=UUID` (the card's, from `rocminfo`) into your shell's start file, or "
    "disable the integrated graphics in the BIOS.",
    needs=(needs.AMD_CARD,),
)
def integrated_beside(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    inside = [
        c for c in host.cards or () if c.vendor == cards.AMD and (r := cards.known(c, catalogue)) and r.integrated
    ]
    if not inside:
        return Ok("The card is the only AMD GPU.")
    nodes = {cards.place(node.slot): node.index for node in host.amd.nodes or ()}
    listed = [card for card in inside if cards.place(card.slot) in nodes]
    if not listed:
        return Ok("ROCm does not list the processor's graphics.")
    if any(host.person.environ.get(name) for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")):
        return Ok("The processor's graphics are hidden by ROCR_VISIBLE_DEVICES or HIP_VISIBLE_DEVICES.")
    first = min((nodes[cards.place(card.slot)] for card in ours if cards.place(card.slot) in nodes), default=None)
    found = []
    for card in listed:
        index = nodes[cards.place(card.slot)]
        ahead = first is not None and index < first
        found.append(
            (warning if ahead else info)(
                cards.subject(card, catalogue),
                "ROCm takes the processor's graphics as device 0."
                if ahead
                else "ROCm also lists the processor's graphics.",
                "PyTorch would train on it, with its few hundred MB, or crash."
                if ahead
                else "Programs that take every GPU they find trip over it; the card comes first, so device 0 is right.",
                [
                    (
                        "/sys/class/kfd/kfd/topology/nodes",
                        f"node {index} is {card.slot}, the card's first node is {first}",
                    )
                ],
                by_hand(
                    "Set ROCR_VISIBLE_DEVICES to the card's UUID: gpu-setup doctor --explain gpu.integrated-beside."
                ),
            )
        )
    return tuple(found)


@check(
    "gpu.bf16",
    "The card computes in BF16",
    about="Recipes train in BF16, which NVIDIA cards have from Ampere (8.0) on. Turing and Volta have FP16 only: with "
    "`bf16: true` the run stops or crawls, and flash-attention does not support them. Decided by the compute "
    "capability in the catalogue, or NVML's.",
    by_hand="Set `bf16: false` and `fp16: true` in the recipe (`bf16: auto` does it by itself), and "
    "`attn_implementation: sdpa`.",
    needs=(needs.NVIDIA_CARD,),
)
def bf16(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    findings, fine = [], []
    for card in ours:
        gpu, row = cards.nvml_of(card, host), cards.known(card, catalogue)
        able = (gpu.compute_capability if gpu else None) or (row.target if row else None)
        if not cards.numbers(able):
            continue
        if cards.numbers(able) >= _FIRST_WITH_BF16:
            fine.append(str(able))
            continue
        findings.append(
            info(
                cards.subject(card, catalogue),
                f"The card has no BF16 (compute capability {able}).",
                "A recipe with `bf16: true` does not run on it; FP16 does, with loss scaling.",
                [("compute capability", able)],
                by_hand("Set `fp16: true` and `attn_implementation: sdpa` in the recipe."),
            )
        )
    if findings:
        return tuple(findings)
    return Ok(f"Compute capability {', '.join(fine)}.") if fine else Unknown(_NOT_IN_CATALOGUE)


def unanswered(host: Host, ours: tuple[PciCard, ...]) -> Skip | Unknown:
    """The verdict where only the driver could tell: no driver on the card yet, or one that does not answer."""
    if not host.nvidia.module_version and not any(card.driver in ("nvidia", "amdgpu") for card in ours):
        return Skip("No driver holds the card yet: see driver.present and driver.bound.")
    if host.nvidia.nvml_problem == ASLEEP:
        return Unknown(
            "The card sleeps (D3cold), and reading this would wake it. Use it, and run the doctor meanwhile."
        )
    said = f" NVML said: {host.nvidia.nvml_problem}." if host.nvidia.nvml_problem else ""
    return Unknown(f"The driver does not answer, so this cannot be read.{said} See driver.nvml and driver.bound.")
