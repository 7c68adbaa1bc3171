"""What a GPU driver itself said when it tried to take a card: its explanation counts before ours."""

from __future__ import annotations

import re
from collections.abc import Iterable

from checks.facts.host import Host, PciCard
from checks.rules import cards

_STAMP = r"\[[^\]]*\] ?"
_HEAD = r"NVRM:\s*"
_ADDRESS = r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
# `amdgpu: probe of 0000:83:00.0 failed with error -12`; later kernels `amdgpu 0000:83:00.0: probe with driver amdgpu …`
_ENDED = r"probe (?:of \S+|with driver \S+) failed with error (-[0-9]+)|Fatal error during GPU init"
_BAD = r"(?i)error|fail|fatal|unable|timed? ?out|not supported|cannot|can't|no space|invalid|refus|missing|already"


def messages(log: Iterable[str]) -> tuple[str, ...]:
    """The log's messages, those of several lines (NVRM's explanations) as one, without time and `NVRM:`."""
    found: list[tuple[str, list[str]]] = []
    for line in log:
        stamp = re.match(_STAMP, line)
        text = line[stamp.end() :] if stamp else line
        time = stamp[0] if stamp else ""
        head = re.match(_HEAD, text)
        if head and found and found[-1][0] == time and _continues(found[-1][1], text[head.end() :]):
            found[-1][1].append(text[head.end() :].strip())
        else:
            found.append((time, [text.strip()]))
    return tuple(" ".join(parts) for _, parts in found)


def _continues(parts: list[str], text: str) -> bool:
    """A line of the same message: NVRM breaks its explanations at 60 characters, none of them begins a new one."""
    return parts[0].startswith("NVRM:") and not re.match(
        r"(?:The NVIDIA|No NVIDIA|This PCI|GPU |Xid |loading |API mismatch|None of)", text
    )


def explanation(host: Host, card: PciCard, pattern: str) -> tuple[str, re.Match[str]] | None:
    """The driver's message about this card that matches; one that names another card is not about it."""
    for said in messages(host.kernel.log or ()):
        match = re.search(pattern, said)
        if match is None or not said.startswith("NVRM:"):
            continue
        address = re.search(_ADDRESS, said)
        device = re.search(r"PCI ID: [0-9a-f]{4}:([0-9a-f]{4})", said)
        if address and cards.bus_address(address[0]) != cards.bus_address(card.slot):
            continue
        if device and device[1] != card.device:
            continue
        return said[:400], match
    return None


def failed_probe(host: Host, card: PciCard, driver: str) -> tuple[tuple[str, ...], int | None]:
    """The first errors of the driver's last attempt to take the card, its end, and the error number of that.

    Empty where the log has no failed attempt.
    """
    about: list[str] = []
    code = None
    for line in host.kernel.log or ():
        if card.slot not in line and driver not in line.lower() and "NVRM" not in line:
            continue
        if re.search(r"\b(?:nouveau|radeon)\b", line) and driver not in line:
            continue
        other = re.search(_ADDRESS, line)
        if other and cards.bus_address(other[0]) != cards.bus_address(card.slot):
            continue
        if match := re.search(_ENDED, line):
            code = int(match[1]) if match[1] else code
            about.append(line.strip())
        elif re.search(_BAD, line):
            about.append(line.strip())
    if not any(re.search(_ENDED, line) for line in about):
        return (), None
    ends = [line for line in about if re.search(_ENDED, line)]
    first = [line for line in about if line not in ends][:2]
    return (*first, *ends[-2:]), code
