"""Which installed kernel GRUB boots next: from /etc/default/grub and grubenv, else the newest."""

from __future__ import annotations

import re

from checks.facts.gaps import Gaps, names, text
from machine.local import Machine


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


def decide_next_boot(machine: Machine, installed: tuple[str, ...] | None, gaps: Gaps) -> tuple[str | None, str | None]:
    """The release and how it was decided; (None, None) where no kernel is installed (a container, a hosted kernel)."""
    if not installed:
        return None, None
    content = text(machine, "/etc/default/grub", gaps) or ""
    folder = "/etc/default/grub.d"
    for name in names(machine, folder, gaps) or ():
        if name.endswith(".cfg"):
            content += "\n" + (text(machine, f"{folder}/{name}", gaps) or "")
    defaults = parse_defaults(content)
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
