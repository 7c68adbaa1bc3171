"""Public words: a name is kept where all of its parts are public; each other part becomes a pseudonym."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache

from checks.catalogue import compiled
from machine.identities import NOBODY, REDACTED, Identities
from machine.patterns import lazy_pattern

# a text and whom to hide → what may be kept of it
Reducer = Callable[[str, Identities], str]

_PART = lazy_pattern(r"[^\W_]+")
# figures and versions that no person is called: 580, 24a, 6ubuntu2, 10de, 0x1f
_FIGURE = lazy_pattern(r"[a-z]|\d{1,8}|[a-z]\d{1,3}|\d{1,6}[a-z]{1,3}\d{0,5}|0x[0-9a-f]{1,16}|name[0-9a-f]{8}")
# a public word with a number: gfx1100, nvidia0, 20auto, nvme0n1p2
_NUMBERED = lazy_pattern(r"\d{0,4}([a-z]+)\d{0,6}(?:[a-z]\d{0,2}){0,2}")
# what scrub.py puts in the place of something
_PSEUDONYM = lazy_pattern(r"((?:uuid|disk|serial|mac|ip|mail)-[0-9a-f]{8})")
# the folder of an environment that gpu-setup made (harness/environment)
_ENVIRONMENT = lazy_pattern(r"(?:cpu|cu\d+|rocm[\d.]+)-[0-9a-f]{12}-py[0-9.]+")
# below these, and where sysfs' own links lead, only the kernel names things
_OF_THE_KERNEL = lazy_pattern(
    r"/sys/(?:bus|class|devices|firmware|kernel|module)/|/proc/|(?:\.\./)+(?:bus|class|devices|kernel|module)/"
)
_PATH = lazy_pattern(r"(?<![\w./:~-])(?:/[^\s/:;,'\"()<>|\[\]{}=]+){2,}/?")
# paths in messages that packages and the kernel name; amdgpu-dkms builds in a temporary folder
_OF_THE_SYSTEM = lazy_pattern(
    r"/(?:usr|lib|lib64|bin|sbin|sys|proc|boot|var/lib/dkms|opt/rocm[\w.-]*|tmp/amd\.\w{8})(?:/|$)|/dev/(?!mapper)\w+(?:/[a-zA-Z]+\d*)?$"
)


@cache
def lists() -> Mapping[str, Collection[str]]:
    """The lists of allowed.toml, `words` in lower case."""
    found = compiled().allowed
    return {**found, "words": frozenset(word.lower() for word in found["words"])}


def word(value: str, who: Identities = NOBODY) -> str:
    """The name with each part that is not public replaced; one part always becomes the same pseudonym.

    Without a salt it is only left out: a pseudonym that anybody can compute would be no secret.
    """
    if _ENVIRONMENT.fullmatch(value):
        return value
    # every second piece is a pseudonym already
    pieces = _PSEUDONYM.split(value)
    pieces[::2] = [_PART.sub(lambda match: _public_part(match[0], who), piece) for piece in pieces[::2]]
    return "".join(pieces)


def _public_part(part: str, who: Identities) -> str:
    low = part.lower()
    numbered, public = _NUMBERED.fullmatch(low), lists()["words"]
    if low in public or _FIGURE.fullmatch(low) or (numbered and numbered[1] in public):
        return part
    if not who.salt:
        return REDACTED
    import hashlib

    # keyed, so that nobody finds the name by trying
    raw = low.encode("utf-8", "surrogateescape")
    return f"name{hashlib.blake2s(raw, key=who.salt[:32], digest_size=4).hexdigest()}"


def words(value: str, who: Identities) -> str:
    return " ".join(word(one, who) for one in value.split())


def path(value: str, who: Identities) -> str:
    """The path with folders and files that somebody named replaced; one name is replaced alike in every path."""
    # reading a machine's facts needs none of its patterns: about 10 ms at each start
    from machine import scrub

    scrubbed = scrub.text(value, who)
    if _OF_THE_KERNEL.match(scrubbed):
        return scrubbed
    return "/".join(word(part, who) for part in scrubbed.split("/"))


def path_list(value: str, who: Identities) -> str:
    return ":".join(path(one, who) for one in value.split(":"))


def message(value: str, who: Identities) -> str:
    """A message with the paths in it reduced, except those of packages and the kernel."""
    return _PATH.sub(lambda found: found[0] if _OF_THE_SYSTEM.match(found[0]) else path(found[0], who), value)


def phrases(value: str, who: Identities = NOBODY) -> str:
    """Of each line the phrases of the list `messages`: programs quote names, addresses and settings on stderr."""
    found = []
    for line in filter(str.strip, value.splitlines()):
        known = dict.fromkeys(match[0] for match in _phrase().finditer(line))
        found.append(", ".join(known) or REDACTED)
    return "".join(f"{line}\n" for line in dict.fromkeys(found))


@cache
def _phrase() -> re.Pattern[str]:
    return re.compile("|".join(lists()["messages"]), re.IGNORECASE)


def lines(pattern: str) -> Reducer:
    """Only the lines that match whole."""
    wanted = re.compile(pattern)
    return lambda value, who: join(line for line in value.splitlines() if wanted.fullmatch(line))


def each_line(reducer: Reducer) -> Reducer:
    return lambda value, who: join(reducer(line, who) for line in value.splitlines())


def join(found: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in found)


def if_matches(pattern: str) -> Reducer:
    """The whole text, without the white space around it, or nothing of it."""
    wanted = re.compile(pattern)
    return lambda value, who: value if wanted.fullmatch(value.strip()) else REDACTED


def as_it_is(value: str, who: Identities) -> str:
    """Of a source that only the kernel writes."""
    return value
