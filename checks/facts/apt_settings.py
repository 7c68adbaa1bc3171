"""Settings of apt: apt.conf(5)."""

from __future__ import annotations

import re


def parse_settings(content: str) -> dict[str, str | tuple[str, ...]]:
    """The apt.conf(5) settings about unattended upgrades: `Name "value";` and `Name { "a"; "b"; };`, comments out."""
    plain = _without_comments(content)
    found: dict[str, str | tuple[str, ...]] = {}
    for match in re.finditer(
        r'((?:APT::Periodic|Unattended-Upgrade)::[\w:-]+?)(?:::)?\s*(?:"([^"]*)"\s*;|\{([^}]*)\})', plain
    ):
        name = match[1].lower()
        if match[3] is not None:
            before = found.get(name, ())
            found[name] = (*(before if isinstance(before, tuple) else ()), *re.findall(r'"([^"]*)"', match[3]))
        else:
            found[name] = match[2]
    return found


def is_complete(content: str) -> bool:
    """Whether each quote and bracket of an apt.conf(5) text is closed, and its last statement ended."""
    bare = re.sub(r'"[^"\n]*"', "", _without_comments(content)).strip()
    return '"' not in bare and bare.count("{") == bare.count("}") and (not bare or bare.endswith((";", "}")))


def _without_comments(content: str) -> str:
    # // begins a comment only outside of quotes (URLs have two slashes)
    return re.sub(
        r'("[^"\n]*")|//[^\n]*|/\*.*?\*/|^\s*#[^\n]*', lambda m: m[1] or "", content, flags=re.DOTALL | re.MULTILINE
    )
