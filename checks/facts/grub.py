"""Which installed kernel GRUB boots next, from /etc/default/grub and grubenv, else the newest; and its parameters."""

from __future__ import annotations

import re

from checks.facts.gaps import Gaps, names, text
from machine.local import Machine

# parameters that keep a GPU's driver away: of the kernel (module_blacklist), of kmod, of dracut, of drm
BLOCKING = (
    r"(?:modprobe\.blacklist|module_blacklist|rd\.driver\.blacklist)=(?:[\w-]+,)*(?:nvidia|amdgpu)(?:,[\w-]+)*|nomodeset|"
    r"amdgpu\.modeset=0"
)


def parse_defaults(content: str) -> dict[str, str]:
    """GRUB_X=value lines of /etc/default/grub, quotes taken off; later lines win, as the shell has it."""
    found = {}
    for line in content.splitlines():
        match = re.match(r"\s*(?:export\s+)?(GRUB_\w+)=(.*?)\s*(?:\s#.*)?$", line)
        if match:
            found[match[1]] = match[2].strip("\"'")
    return found


def parse_environment(content: str) -> dict[str, str]:
    """key=value lines of grubenv."""
    pairs = (line.partition("=") for line in content.splitlines() if not line.startswith("#"))
    return {key: value for key, sign, value in pairs if sign}


def choose(entry: str, installed: tuple[str, ...], recovery: bool) -> str | None:
    """The release of a menu entry: its name or id contains it, or `1>N` counts in the submenu.

    `installed` is oldest first; the submenu is newest first, each kernel followed by its recovery entry if `recovery`.
    """
    if entry in ("", "0"):
        return installed[-1]
    counted = re.fullmatch(r"1>([0-9]{1,3})", entry)
    if counted:
        index = int(counted[1]) // (2 if recovery else 1)
        return installed[::-1][index] if index < len(installed) else None
    named = [release for release in installed if re.search(rf"(?<![\w.]){re.escape(release)}(?![\w.])", entry)]
    return max(named, key=len, default=None)


def blocking_parameters(value: str) -> tuple[str, ...]:
    """Of a kernel command line, the parameters that keep a GPU's driver away."""
    words = (word.strip("\"'") for word in value.split())
    return tuple(word for word in words if re.fullmatch(BLOCKING, word))


def _defaults_files(machine: Machine, gaps: Gaps) -> dict[str, str]:
    """The content of /etc/default/grub and of the files that Ubuntu's grub-mkconfig reads after it."""
    folder = "/etc/default/grub.d"
    drop_ins = (f"{folder}/{name}" for name in names(machine, folder, gaps) or () if name.endswith(".cfg"))
    return {path: text(machine, path, gaps) or "" for path in ("/etc/default/grub", *drop_ins)}


def read_parameters(machine: Machine, gaps: Gaps) -> tuple[tuple[str, str], ...]:
    """(file, parameter) of each blocking parameter in GRUB's files and in systemd-boot's /etc/kernel/cmdline."""
    lines = [
        (path, value)
        for path, content in _defaults_files(machine, gaps).items()
        for key, value in parse_defaults(content).items()
        if key.startswith("GRUB_CMDLINE_LINUX")
    ]
    lines.append(("/etc/kernel/cmdline", text(machine, "/etc/kernel/cmdline", gaps) or ""))
    return tuple(dict.fromkeys((path, word) for path, value in lines for word in blocking_parameters(value)))


def decide_next_boot(machine: Machine, installed: tuple[str, ...] | None, gaps: Gaps) -> tuple[str | None, str | None]:
    """The release and how it was decided; (None, None) where no kernel is installed (a container, a hosted kernel)."""
    if not installed:
        return None, None
    defaults = parse_defaults("\n".join(_defaults_files(machine, gaps).values()))
    recovery = defaults.get("GRUB_DISABLE_RECOVERY", "").lower() != "true"
    environment = parse_environment(text(machine, "/boot/grub/grubenv", gaps) or "")
    asked = defaults.get("GRUB_DEFAULT", "0")
    if environment.get("next_entry"):
        release = choose(environment["next_entry"], installed, recovery)
        return release, f"grubenv: next_entry={environment['next_entry']}, for one boot"
    if asked == "saved":
        saved = environment.get("saved_entry", "")
        release = choose(saved, installed, recovery)
        return release, f"GRUB_DEFAULT=saved, grubenv: saved_entry={saved or '(none, so the first entry)'}"
    if asked not in ("", "0"):
        return choose(asked, installed, recovery), f"/etc/default/grub: GRUB_DEFAULT={asked}"
    return installed[-1], "the newest /boot/vmlinuz-*, GRUB's first entry"
