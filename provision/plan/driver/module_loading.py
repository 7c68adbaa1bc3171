"""Whether an installed module takes the cards at the next boot: what a person must change first, and the reboot."""

from __future__ import annotations

import re

import msgspec

from checks.facts.host import Host
from checks.rules import next_boot
from checks.rules.next_boot import Block
from provision.model import KernelModule, State, Step
from provision.plan.driver.secure_boot import is_enforced
from provision.plan.package_steps import reboot_step
from provision.plan.plan_cards import PlannedCard, card_list


def allow_steps(host: Host, module: str, cards: tuple[PlannedCard, ...]) -> tuple[Step, ...]:
    """What keeps the module off is a person's decision, or their program's: shown with the commands, done by hand.

    None where the module has all of these cards: it was loaded by hand, as AMD advises for MI300X servers.
    """
    return by_hand_steps(next_boot.blocks(host, module), module) if idle_cards(cards, module) else ()


def switched_off_steps(host: Host, module: str) -> tuple[Step, ...]:
    """For a card that is not on the bus: only the settings of programs that take a laptop's card off."""
    return by_hand_steps(tuple(block for block in next_boot.blocks(host, module) if block.argv), module)


def idle_cards(cards: tuple[PlannedCard, ...], module: str) -> tuple[PlannedCard, ...]:
    return tuple(seen for seen in cards if seen.pci.driver != module)


def by_hand_steps(blocks: tuple[Block, ...], module: str) -> tuple[Step, ...]:
    steps = []
    for number, block in enumerate(blocks[:8], 1):
        title, because, commands = _line(block, module) if block.on_line else _file(block, module)
        steps.append(
            Step(
                id=f"{module}-allow" if number == 1 else f"{module}-allow-{number}",
                title=title,
                action=KernelModule(name=module, change="allow", file=block.file),
                state=State.MANUAL,
                because=because,
                commands=(*commands, ("systemctl", "reboot")),
                undo=f"nothing: {block.file} is yours",
            )
        )
    return tuple(steps)


def _line(block: Block, module: str) -> tuple[str, str, tuple[tuple[str, ...], ...]]:
    key, _, value = block.words.partition("=")
    because = (
        f"`{block.words}` keeps {module} from the GPU. "
        + (
            "An installation with safe graphics leaves it there. "
            if block.words == "nomodeset"
            else "It may be wanted: AMD documents it for MI300X servers. "
            if (module, key) == ("amdgpu", "modprobe.blacklist")
            else "It may be wanted. "
        )
        + f"Remove it from GRUB_CMDLINE_LINUX_DEFAULT or GRUB_CMDLINE_LINUX in {block.file} yourself, run update-grub, "
        "reboot."
    )
    if key == "modprobe.blacklist":
        because += f" To keep it, load the module yourself after each boot: sudo modprobe {module}."
    # of a list of modules only one is removed, which is left to an editor
    edit = ("sudoedit", block.file) if "," in value else ("sed", "-i", f"s/ *\\b{re.escape(block.words)}//", block.file)
    return f"Remove {block.words} from the kernel command line", because, (edit, ("update-grub",))


def _file(block: Block, module: str) -> tuple[str, str, tuple[tuple[str, ...], ...]]:
    if block.argv:
        because = (
            f"{block.program} wrote {block.file}, which keeps {module} from loading, and would write it again: switch "
            "with that program, do not edit the file. Then reboot."
        )
        return f"Switch the GPU on with {block.argv[0]}", because, (block.argv,)
    because = (
        f"{block.file} prevents {module} from loading, and it is not known who wrote the line: remove it yourself, and "
        f"with it lines of the same file such as `alias {module} off`. Then rebuild the initramfs and reboot."
    )
    return (
        f"Remove {module} from the blacklist in {block.file}",
        because,
        (("sudoedit", block.file), ("update-initramfs", "-u", "-k", "all")),
    )


def reboot_for(host: Host, module: str, idle: tuple[PlannedCard, ...]) -> Step | None:
    """The reboot that gives these cards to the module that is installed; done (so none) where it would change nothing.

    None where something keeps the module off: the steps of `allow_steps` come first, and each ends with a reboot.
    """
    file = next_boot.module_file(host, module)
    if file is None or host.kernel.cmdline is None or host.kernel.blacklisted is None or next_boot.blocks(host, module):
        return None
    failed = next((line for seen in idle if (line := next_boot.failed_line(host, module, seen.pci))), None)
    tried = failed or module in (host.kernel.loaded or ())
    if tried and file.kernel == host.kernel.release:
        said = f" ({failed})" if failed else ""
        because = f"{module} did not take {card_list(idle)} in this boot{said}, and a reboot alone repeats that."
        return msgspec.structs.replace(
            reboot_step(f"{because} See gpu-setup doctor.", State.DONE),
            title="No reboot: the driver would fail again",
            commands=(),
            undo="",
        )
    if module == "nvidia" and next_boot.nvidia_matches(host) is False:
        return None
    built_here = file.origin not in ("in-tree", "prebuilt")
    if built_here and is_enforced(host) and host.firmware.mok_key_enrolled is False and not host.firmware.mok_pending:
        return None
    if tried:
        return reboot_step(
            f"The next boot uses another kernel ({file.kernel}), whose {module} may take {card_list(idle)}; that of "
            f"{host.kernel.release} did not."
        )
    return reboot_step(
        f"{module} is installed for the kernel that boots next ({file.kernel}), nothing known keeps it off, and it was "
        f"not loaded in this boot: it takes {card_list(idle)} at the next."
    )
