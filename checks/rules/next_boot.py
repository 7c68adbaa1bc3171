"""Whether the next boot gives a card to its driver: what keeps the module off, which version loads, what failed now."""

from __future__ import annotations

from typing import NamedTuple

from checks.facts.host import DkmsBuild, Host, ModuleFile, PciCard
from checks.rules import kernel_log
from checks.rules.driver.binding import SWITCHES, keeps_away
from checks.rules.driver.build import does_not_build
from checks.rules.driver.probe import failed_probe
from checks.rules.installed import NextModule, modules, next_module
from checks.rules.secureboot import REFUSED

LINE = "/proc/cmdline"
GRUB = "/etc/default/grub"
_OFF = "amdgpu.modeset=0"
# NVRM's words where it names no card, and a module of another kernel
_NOT_TAKEN = (
    r"(?:NVRM: (?:None of the NVIDIA devices were|The NVIDIA probe routine failed|No NVIDIA (?:GPU|devices))"
    r"|\b{module}: (?:version magic|disagrees about version of symbol))"
)


class Block(NamedTuple):
    """A setting that keeps a module from its card: `words` in `file`.

    `on_line`: a parameter of the kernel's command line, and `file` is the boot loader's. `program` wrote the file, and
    `argv` is its command that takes the setting back; empty where a person edits it.
    """

    file: str
    words: str
    on_line: bool = False
    program: str = ""
    argv: tuple[str, ...] = ()


def blocks(host: Host, module: str) -> tuple[Block, ...]:
    """What keeps this module (nvidia, amdgpu) from the cards at the next boot, the kernel's command line first."""
    kernel = host.kernel
    line = kernel.cmdline or ()
    places = {word: file for file, word in kernel.boot_parameters}
    words = dict.fromkeys(word for word in (*line, *places) if _keeps_off(word, module, line))
    files = [file for name, file in kernel.blacklisted or () if name == module and file != LINE]
    off = [file for name, option, file in kernel.module_options or () if f"{name}.{option}" == _OFF and name == module]
    writers = dict(kernel.written_by)
    return (
        *(Block(places.get(word, GRUB), word, on_line=True) for word in words),
        *(_in_file(file, f"blacklist {module}", writers.get(file, "")) for file in dict.fromkeys(files)),
        *(Block(file, f"options {module} modeset=0") for file in off),
    )


def _in_file(file: str, words: str, program: str) -> Block:
    return Block(file, words, program=program, argv=SWITCHES.get(program, ()))


def _keeps_off(word: str, module: str, line: tuple[str, ...]) -> bool:
    # the recovery entry of GRUB's menu adds nomodeset, for one boot
    return keeps_away(word, module) and not (word == "nomodeset" and "recovery" in line)


def failed_line(host: Host, module: str, card: PciCard) -> str | None:
    """The line of this boot's log that says that the module did not take the card; None: it says nothing of that."""
    if card.driver == module:
        return None
    said, _ = failed_probe(host, card, module)
    if said or module in (host.kernel.loaded or ()):
        return next(iter(said), None)
    return refused_line(host, module) or _first_line(host, module, f"()(){_NOT_TAKEN.format(module=module)}")


def refused_line(host: Host, module: str) -> str | None:
    """The line of this boot's log that says that the kernel refused the module's signature."""
    return None if module in (host.kernel.loaded or ()) else _first_line(host, module, REFUSED)


def _first_line(host: Host, module: str, pattern: str) -> str | None:
    """Lines that name another module, in the pattern's first two groups, are about that one."""
    lines = kernel_log.matching_lines(host.kernel.log or (), "", pattern)
    return next((line for line, match in lines if (match[1] or match[2] or module).startswith(module)), None)


def module_file(host: Host, module: str) -> ModuleFile | None:
    """The file that the next boot loads: modprobe takes updates/ (DKMS) before the kernel's own; None: none known."""
    release = host.kernel.next_boot or host.kernel.release
    found = modules(host, module, release) if release else ()
    return min(found, key=lambda file: file.origin not in ("dkms", "other"), default=None)


def failed_build(host: Host, module: str) -> DkmsBuild | None:
    """DKMS's attempt for the kernel of the next boot that fails again, as its log shows; None: built, or not known."""
    release = host.kernel.next_boot or host.kernel.release
    rows = (row for row in host.kernel.dkms or () if row.module.startswith(module) and row.kernel == release)
    return next((row for row in rows if does_not_build(row)), None)


def nvidia_matches(host: Host) -> bool | None:
    """Whether the module of the next boot has the version of the libraries on the disk; None: not known."""
    module, library = next_module(host), host.nvidia.library_version
    return None if module is None or library is None or module_name(module) is None else module.fits(library)


def module_name(module: NextModule | None) -> str | None:
    """What is known of its version: all of it, or the branch."""
    return None if module is None else module.version or module.branch


def older_kernel_is_chosen(host: Host) -> bool:
    """Whether the machine was booted into an older kernel than GRUB's default, which was installed already.

    The installation of a kernel writes /run/reboot-required, and a boot deletes it.
    """
    oldest_first = host.kernel.installed or ()
    running, coming = host.kernel.release, host.kernel.next_boot
    if running not in oldest_first or coming not in oldest_first or host.apt.reboot_required is not False:
        return False
    return oldest_first.index(running) < oldest_first.index(coming)
