"""Which cards can train, how much memory they have, and what they support."""

from __future__ import annotations

from checks.catalogue import NEWER, Card, Catalogue
from checks.devices import source
from checks.facts.host import ASLEEP, Host, PciCard
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs, wsl
from checks.rules.finding import by_hand, cannot_determine, command, error, hardware, info, warning

# What the article promises: QLoRA of a 7B model on one card with 16 GiB. Bytes, with some room below, because such a
# card reports between 15.9 and 17.2 billion (ECC, reserved memory).
ROOM_FOR_MISTRAL = 15.2e9
# 4.1 GB of 4-bit weights, 1 GB of context and workspace: below this no memory is left for a batch
NO_ROOM_AT_ALL = 6e9
GIB = 2**30
_FIRST_WITH_BF16 = (8, 0)
_NOT_IN_CATALOGUE = (
    "Cannot determine the compute capability: NVML does not respond, and the PCI id database does not have the card."
)


@check(
    "gpu.present",
    "The machine has a card that can train",
    about="Lists the NVIDIA and AMD cards on the PCI bus, from /sys/bus/pci/devices, with their names from the PCI id "
    "database. Integrated graphics and cards reserved for a virtual machine do not count. Without a card the check is "
    "skipped, not failed: gpu-setup then trains a small model on the CPU.",
    by_hand="Run `lspci -Dnn -d 10de:` and `lspci -Dnn -d 1002:`. If an installed card is not listed, check its power "
    "cables, reseat it, and check in the BIOS that the slot is enabled.",
)
def present(host: Host, catalogue: Catalogue) -> Verdict:
    if host.cards is None:
        return cannot_determine(
            host, "which devices are on the PCI bus", ("/sys/bus/pci",), "Run the doctor where /sys is mounted."
        )
    ours = cards.training(host, catalogue)
    if ours:
        return Ok("Found " + ", ".join(cards.subject(card, catalogue) for card in ours) + ".")
    others = [card for card in host.cards if card.vendor in cards.VENDOR_NAMES]
    unknown = [card for card in others if (row := cards.row_of(card, catalogue)) and row.unknown]
    if unknown:
        return _unknown(unknown, catalogue)
    if others:
        names = ", ".join(f"{cards.subject(card, catalogue)}{_why_not(card, catalogue)}" for card in others)
        return Skip(f"No supported GPU: {names} cannot be used for training here. The CPU trains small models.")
    if (under_windows := wsl.without_card(host)) is not None:
        return Skip(under_windows)
    return Skip("No supported GPU: the PCI bus has no NVIDIA or AMD card. The CPU trains small models.")


def _why_not(card: PciCard, catalogue: Catalogue) -> str:
    row = cards.row_of(card, catalogue)
    if row is None or card.driver in cards.RESERVED:
        return ""
    if row.integrated:
        return " (integrated graphics)"
    return f" ({'; '.join(filter(None, (row.target, row.note)))})" if row.target or row.note else ""


def _unknown(unlisted: list[PciCard], catalogue: Catalogue) -> Unknown:
    """A card that is newer than the tables: what is known of it, and who knows more."""
    names = ", ".join(cards.subject(card, catalogue) for card in unlisted)
    kernel = " An older kernel's amdgpu may not support it: `sudo apt-get install linux-generic-hwe-24.04`."
    amd = any(card.vendor == cards.AMD for card in unlisted)
    return Unknown(
        f"{names}: newer than gpu-setup's data ({source()}), and no driver reports what it is. As soon as its driver "
        f"answers, gpu-setup uses the driver's own information.{kernel if amd else ''}"
    )


@check(
    "gpu.supported",
    "A training stack supports the card",
    about="Looks up each card's PCI id (for AMD also the revision byte) in the PCI id database, which names its chip, "
    "and searches for a stack with kernels for the chip's architecture. A running driver has the last word (NVML's "
    "compute capability, KFD's gfx target). On a card without a stack, training fails later with `no kernel image is "
    "available` or `invalid device function`.",
    by_hand="Compare the card's architecture with `python -c 'import torch; print(torch.cuda.get_arch_list())'` of the "
    "torch build that you want to use. No setting can add an architecture that is not in that list; some AMD cards can "
    "run another one's kernels with HSA_OVERRIDE_GFX_VERSION.",
)
def supported(host: Host, catalogue: Catalogue) -> Verdict:
    ours = [card for card in host.cards or () if card.vendor in cards.VENDOR_NAMES]
    ours = [card for card in ours if card.driver not in cards.RESERVED]
    if host.cards is None:
        return cannot_determine(
            host, "which devices are on the PCI bus", ("/sys/bus/pci",), "Run the doctor where /sys is mounted."
        )
    findings, unlisted, fine = [], [], []
    for card in ours:
        row, about = cards.row_of(card, catalogue), cards.subject(card, catalogue)
        if row is None or row.unknown:
            unlisted.append(card)
        elif row.integrated:
            continue
        elif not row.supported or (catalogue.stacks and not cards.stacks(card, catalogue)):
            findings.append(_without_stack(card, row))
        else:
            fine.append(f"{about} ({row.target})")
            if any(chip.unofficial for chip in catalogue.chips if chip.target == row.target):
                findings.append(_unofficial(card, row, catalogue))
    if findings:
        return tuple(findings)
    if unlisted:
        return _unknown(unlisted, catalogue)
    return Ok("A stack supports " + ", ".join(fine) + ".") if fine else Skip(cards.none_of(host, catalogue))


def _seen(card: PciCard) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = [
        (f"/sys/bus/pci/devices/{card.slot}", f"{card.vendor}:{card.device} rev {card.revision or '?'}")
    ]
    if card.reported_target:
        found.append(("driver", card.reported_target))
    return found


def _without_stack(card: PciCard, row: Card) -> Finding:
    target = row.target or row.generation
    if row.generation == NEWER:
        why = f"{target} is newer than the kernels of every stack here: a newer gpu-setup may have one."
    else:
        note = row.note or "neither PyTorch's nor bitsandbytes' builds have kernels for it"
        why = f"{note[0].upper()}{note[1:]}."
    return warning(
        f"{card.slot} {row.name}",
        f"No training stack supports {row.name} ({target}).",
        why,
        _seen(card),
        hardware("Train on another card; without one, gpu-setup trains a small model on the CPU."),
    )


def _unofficial(card: PciCard, row: Card, catalogue: Catalogue) -> Finding:
    own = " and ".join(stack.name for stack in cards.stacks(card, catalogue))
    other = keep = ""
    if known := catalogue.override(row.target):
        setting = f"HSA_OVERRIDE_GFX_VERSION={known.value}"
        other = f" Another build of PyTorch runs the kernels of {known.runs_as} on it where {setting} is set."
        keep = f"; for other programs keep {setting}"
    return info(
        f"{card.slot} {row.name}",
        f"AMD does not officially support {row.name} ({row.target}) for ROCm, but it works.",
        f"gpu-setup's stack {own} has kernels for it.{other}",
        _seen(card),
        by_hand(f"Nothing to do in gpu-setup{keep}."),
    )


@check(
    "gpu.vram",
    "The card has enough memory for QLoRA of a 7B model",
    about="QLoRA of Mistral 7B fits on one card with 16 GiB: 3.8 GiB of 4-bit weights, adapter, optimizer and context, "
    "and several GiB of activations, with a micro-batch size of 1 (`mistral-7b-qlora-16gb`). The reference recipe is "
    "for 24 GiB. With 12 GiB sequences are shorter (`mistral-7b-qlora-12gb`); below 6 GiB no memory is left for a "
    "batch. gpu-setup selects the recipe that fits. The size is from the driver, or from the catalogue if the driver "
    "does not respond.",
    by_hand="Run `gpu-setup fit --card NAME` to get the longest sequence and the largest batch that fit. Set "
    "`sequence_len: 1024` (or 2048) and `micro_batch_size: 1` in the recipe.",
    needs=(needs.GPU,),
    permanent=True,
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
            fine.append(f"{about}: {size / GIB:.0f} GiB")
            continue
        seen = [(source, f"{size / GIB:.1f} GiB")]
        if size < NO_ROOM_AT_ALL:
            findings.append(
                error(
                    about,
                    f"{size / GIB:.0f} GiB of memory is too little for a 7B model, even in 4 bits.",
                    "The weights alone need 3.8 GiB and the context 1 GiB; the rest is too small for a batch.",
                    seen,
                    command("Show which models fit.", "gpu-setup", "fit", "--recipe", "smollm2-135m-qlora"),
                )
            )
        else:
            findings.append(
                warning(
                    about,
                    f"{size / GIB:.0f} GiB of memory: the reference sequence length needs a card with 16 GiB.",
                    "Mistral 7B still trains on it with a shorter sequence length and a micro-batch size of 1.",
                    seen,
                    command(
                        "Show which sequence length and batch fit, and set them in the recipe.",
                        *("gpu-setup", "fit", "--recipe", "mistral-7b-qlora"),
                    ),
                )
            )
    if findings:
        return tuple(findings)
    if not fine:
        return Unknown(
            "Cannot determine the card's memory: the driver does not respond and the catalogue has no figure."
        )
    return Ok("; ".join(fine) + ".")


def memory(card: PciCard, host: Host, catalogue: Catalogue) -> tuple[float | None, str]:
    """Bytes, and their source: the driver first, because boards with the same PCI id have 8 or 16 GiB."""
    gpu, amd, row = cards.nvml_of(card, host), cards.amd_of(card, host), cards.row_of(card, catalogue)
    if gpu is not None and gpu.memory_total:
        return float(gpu.memory_total), "NVML memory"
    if amd is not None and amd.vram_total:
        return float(amd.vram_total), f"/sys/bus/pci/devices/{card.slot}/mem_info_vram_total"
    if row is not None and row.vram_gb:
        return row.vram_gb * GIB, "catalogue"
    return None, ""


@check(
    "gpu.kept-for-vm",
    "No card is reserved for a virtual machine",
    about="A card bound to vfio-pci is reserved for a virtual machine. That is usually intended, so it is "
    "informational only, and the other checks ignore the card.",
    by_hand="To get the card back, remove its ids from the vfio options in /etc/modprobe.d and from the kernel command "
    "line, run `sudo update-initramfs -u` and reboot.",
)
def reserved_for_vm(host: Host, catalogue: Catalogue) -> Verdict:
    reserved = [c for c in host.cards or () if c.vendor in cards.VENDOR_NAMES and c.driver in cards.RESERVED]
    if host.cards is None:
        return cannot_determine(
            host, "which devices are on the PCI bus", ("/sys/bus/pci",), "Run the doctor where /sys is mounted."
        )
    if not reserved:
        return Ok("No card is bound to vfio-pci.")
    return tuple(
        info(
            cards.subject(card, catalogue),
            "The card is reserved for a virtual machine.",
            f"It is bound to {card.driver}, so programs on this system cannot use it.",
            [(f"/sys/bus/pci/devices/{card.slot}/driver", card.driver)],
            by_hand("Leave it, or return the card to this system: gpu-setup doctor --explain gpu.kept-for-vm."),
        )
        for card in reserved
    )


@check(
    "gpu.integrated-beside",
    "ROCm does not use integrated graphics instead of the card",
    about="ROCm lists the integrated graphics of a Ryzen CPU as another GPU. If it comes first, PyTorch uses it as "
    "device 0 and crashes, or trains with 512 MiB. Decided from the KFD topology: which node comes first, and whether "
    "ROCR_VISIBLE_DEVICES or HIP_VISIBLE_DEVICES already hides it. gpu-setup's own runs always select the card.",
    by_hand="Add `export ROCR_VISIBLE_DEVICES=UUID` (the card's, from `rocminfo`) to your shell's start-up file, or "
    "disable the integrated graphics in the BIOS.",
    needs=(needs.AMD_CARD,),
)
def integrated_beside(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    integrated = [
        c for c in host.cards or () if c.vendor == cards.AMD and (r := cards.row_of(c, catalogue)) and r.integrated
    ]
    if not integrated:
        return Ok("The card is the only AMD GPU.")
    nodes = {cards.bus_address(node.slot): node.index for node in host.amd.nodes or ()}
    listed = [card for card in integrated if cards.bus_address(card.slot) in nodes]
    if not listed:
        return Ok("ROCm does not list the integrated graphics.")
    if any(host.person.environ.get(name) for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")):
        return Ok("ROCR_VISIBLE_DEVICES or HIP_VISIBLE_DEVICES hides the integrated graphics.")
    first = min(
        (nodes[cards.bus_address(card.slot)] for card in ours if cards.bus_address(card.slot) in nodes), default=None
    )
    found = []
    for card in listed:
        index = nodes[cards.bus_address(card.slot)]
        ahead = first is not None and index < first
        found.append(
            (warning if ahead else info)(
                cards.subject(card, catalogue),
                "ROCm uses the integrated graphics as device 0."
                if ahead
                else "ROCm also lists the integrated graphics.",
                "PyTorch would train on it, with a few hundred MiB of memory, or crash."
                if ahead
                else "Programs that use every GPU can fail on it; the card comes first, so device 0 is the card.",
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
    "The card supports BF16",
    about="Recipes train in BF16, which NVIDIA cards support from Ampere (compute capability 8.0) on. Turing and Volta "
    "support FP16 only: with `bf16: true` the run stops or is very slow, and flash-attention does not support them. "
    "Decided by the compute capability from NVML or the catalogue.",
    by_hand="Set `bf16: false` and `fp16: true` in the recipe (`bf16: auto` does this automatically), and "
    "`attn_implementation: sdpa`.",
    needs=(needs.NVIDIA_GPU,),
)
def bf16(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    findings, fine = [], []
    for card in ours:
        gpu, row = cards.nvml_of(card, host), cards.row_of(card, catalogue)
        able = (gpu.compute_capability if gpu else None) or (row.target if row else None)
        if not cards.numbers(able):
            continue
        if cards.numbers(able) >= _FIRST_WITH_BF16:
            fine.append(str(able))
            continue
        findings.append(
            info(
                cards.subject(card, catalogue),
                f"The card does not support BF16 (compute capability {able}).",
                "A recipe with `bf16: true` does not run on it; FP16 with loss scaling does.",
                [("compute capability", able)],
                by_hand("Set `fp16: true` and `attn_implementation: sdpa` in the recipe."),
            )
        )
    if findings:
        return tuple(findings)
    return Ok(f"Compute capability {', '.join(fine)}.") if fine else Unknown(_NOT_IN_CATALOGUE)


def no_driver_answer(host: Host, ours: tuple[PciCard, ...]) -> Skip | Unknown:
    """The verdict where only the driver knows: the card has no driver yet, or the driver does not respond."""
    if not host.nvidia.module_version and not any(card.driver in ("nvidia", "amdgpu") for card in ours):
        return Skip("No driver is bound to the card yet: see driver.present and driver.bound.")
    if host.nvidia.nvml_problem == ASLEEP:
        return Unknown(
            "The card is asleep (D3cold), and reading this would wake it. Run the doctor while a program uses the card."
        )
    reported = f" NVML reported: {host.nvidia.nvml_problem}." if host.nvidia.nvml_problem else ""
    return Unknown(f"The driver does not respond, so this cannot be read.{reported} See driver.nvml and driver.bound.")
