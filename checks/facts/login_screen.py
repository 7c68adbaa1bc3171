"""Suspend by the login screen: GDM suspends an idle machine, even while jobs run on it over SSH."""

from __future__ import annotations

import re

from checks.facts.gaps import Gaps, names, target, text
from machine.local import Machine
from machine.patterns import lazy_pattern

GREETER = "/etc/gdm3/greeter.dconf-defaults"
DCONF = "/etc/dconf/db/gdm.d"
SCHEMAS = "/usr/share/glib-2.0/schemas"
_POWER = lazy_pattern(r"\[org[./]gnome[./]settings-daemon[./]plugins[./]power\]")
_SLEEPS = ("suspend", "hibernate", "shutdown", "logout")


def parse_power(content: str) -> dict[str, str]:
    """`sleep-inactive-ac-*` of a dconf keyfile or a schema override, `type` and `timeout`; quotes taken off."""
    found, inside = {}, False
    for line in content.splitlines():
        short = line.strip()
        if short.startswith("["):
            # a section for one desktop (`…power:ubuntu`) is not the greeter's
            inside = _POWER.fullmatch(short) is not None
        match = re.fullmatch(r"sleep-inactive-ac-(type|timeout)\s*=\s*['\"]?([\w-]+)['\"]?", short) if inside else None
        if match:
            found[match[1]] = match[2]
    return found


def parse_schema(content: str) -> dict[str, str]:
    """The defaults of the same two keys in gnome-settings-daemon's schema."""
    pattern = r"name=\"sleep-inactive-ac-(type|timeout)\"[^>]*>\s*<default>['\"]?([\w-]+)"
    return {match[1]: match[2] for match in re.finditer(pattern, content)}


def read_login_sleep(machine: Machine, gaps: Gaps) -> tuple[int | None, str | None]:
    """Seconds until GDM's greeter suspends on mains power (0: never), and the file that sets it; (None, None): no file.

    GNOME's own default is 900 seconds, Ubuntu's 0 (its ADSys manual lists the defaults by release).
    """
    if not (target(machine, "/etc/systemd/system/display-manager.service", gaps) or "").endswith(
        ("gdm.service", "gdm3.service")
    ):
        return None, None
    for unit in ("suspend.target", "sleep.target"):
        if target(machine, f"/etc/systemd/system/{unit}", gaps) == "/dev/null":
            return 0, f"/etc/systemd/system/{unit} is masked"
    kind, seconds, source = None, None, None
    for path, settings in _sources(machine, gaps):
        kind = settings.get("type") if kind is None else kind
        if seconds is None and re.fullmatch(r"[0-9]{1,7}", settings.get("timeout", "")):
            seconds, source = int(settings["timeout"]), path
        if kind is not None and kind not in _SLEEPS:
            return 0, path
        if kind is not None and seconds is not None:
            break
    return seconds, source


def _sources(machine: Machine, gaps: Gaps) -> list[tuple[str, dict[str, str]]]:
    """Files that set the two keys, highest priority first."""
    files = [GREETER, *(f"{DCONF}/{name}" for name in (names(machine, DCONF, gaps) or ())[::-1] if "." not in name)]
    held = names(machine, SCHEMAS, gaps) or ()
    # the last override in the alphabet wins
    files += [f"{SCHEMAS}/{name}" for name in held[::-1] if name.endswith(".gschema.override")]
    found = [(path, parse_power(text(machine, path, gaps) or "")) for path in files]
    schema = f"{SCHEMAS}/org.gnome.settings-daemon.plugins.power.gschema.xml"
    return [*found, (schema, parse_schema(text(machine, schema, gaps) or ""))]
