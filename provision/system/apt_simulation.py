"""What apt would do: the output of `apt-get -s` and of `--print-uris`, as facts."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import NamedTuple

# apt-get(8) -s: Inst NAME [OLD] (NEW ORIGIN [ARCH]) and Remv NAME [OLD]; NAME may carry :ARCH
_INST = re.compile(r"^Inst (\S+)(?: \[([^\]]*)\])? \((\S+) ?(.*?) ?(?:\[([^\]]*)\])?\)")
_REMV = re.compile(r"^(?:Remv|Purg) (\S+)(?: \[([^\]]*)\])?")
# apt-get(8) --print-uris: 'URI' FILE SIZE HASH
_URI = re.compile(r"^'([^']+)' (\S+) ([0-9]{1,15}) ")


class AptChange(NamedTuple):
    """`installs`: name → version; `upgrades`: name → (old, new); `removes`: name → version."""

    installs: dict[str, str]
    upgrades: dict[str, tuple[str, str]]
    removes: dict[str, str]

    @property
    def empty(self) -> bool:
        return not (self.installs or self.upgrades or self.removes)

    def version(self, name: str) -> str | None:
        """The version that the package would have; None if it does not change."""
        if name in self.installs:
            return self.installs[name]
        return self.upgrades[name][1] if name in self.upgrades else None

    def matching(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        """New packages that one of these shell patterns matches."""
        return tuple(sorted(name for name in self.installs if any(fnmatchcase(name, pattern) for pattern in patterns)))

    def without(self, earlier: AptChange) -> AptChange:
        """What this adds to an earlier change of the same machine."""
        return AptChange(
            {name: version for name, version in self.installs.items() if name not in earlier.installs},
            {name: pair for name, pair in self.upgrades.items() if name not in earlier.upgrades},
            {name: version for name, version in self.removes.items() if name not in earlier.removes},
        )


NO_CHANGE = AptChange({}, {}, {})


def parse_simulation(content: str) -> AptChange:
    """The Inst and Remv lines of a simulation."""
    installs: dict[str, str] = {}
    upgrades: dict[str, tuple[str, str]] = {}
    removes: dict[str, str] = {}
    for line in content.splitlines():
        if match := _INST.match(line):
            name, old, new = match[1], match[2], match[3]
            if old:
                upgrades[name] = (old, new)
            else:
                installs[name] = new
        elif match := _REMV.match(line):
            removes[match[1]] = match[2] or ""
    return AptChange(installs, upgrades, removes)


def parse_uris(content: str) -> dict[str, int]:
    """Archive file name → bytes, for what is still to download."""
    return {match[2]: int(match[3]) for line in content.splitlines() if (match := _URI.match(line))}


def parse_missing(content: str) -> tuple[str, ...]:
    """Names that apt does not know or has no version of."""
    patterns = (
        r"^E: Unable to locate package (\S+)",
        r"^E: Package '([^']+)' has no installation candidate",
        r"^E: Couldn't find any package by (?:glob|regex) '([^']+)'",
        r"^E: Version '[^']+' for '([^']+)' was not found",
    )
    found = [name for pattern in patterns for name in re.findall(pattern, content, re.MULTILINE)]
    return tuple(dict.fromkeys(found))
