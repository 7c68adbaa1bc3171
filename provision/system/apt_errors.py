"""From the words of apt and dpkg to one message: which step, what caused it, what to do next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from machine.errors import OutsideFailed, Problem, Refused
from machine.local import ABSENT, Outcome
from provision.system.apt_simulation import parse_missing

_CHATTER = re.compile(
    r"Setting up|Unpacking|Preparing|Selecting|\(Reading|Get:|Fetched|After this|Processing triggers|Reading|Building"
)
_CREDENTIALS = re.compile(r"://[^/@\s]*@")


class Cause(NamedTuple):
    """`pattern` is looked for in the output; its groups fill {1}, {2} … in `why`."""

    code: str
    pattern: str
    why: str
    next: str
    refused: bool = False


AGAIN = "then run it again: what is done stays done"
# The first that fits. Texts as apt 2.6 to 2.8 and dpkg 1.21 to 1.22 write them (seen in the lab).
CAUSES = (
    Cause(
        "apt.locked",
        r"Could not get lock \S+?\.? .*?held by process ([0-9]+ ?(?:\([^)]*\))?)|Unable to (?:acquire|lock) .*lock",
        "Another program uses apt: process {1} holds its lock for longer than 10 minutes.",
        "Wait until it has finished or end it, " + AGAIN,
    ),
    Cause(
        "dpkg.interrupted",
        r"dpkg was interrupted, you must manually run",
        "dpkg was cut off earlier and refuses all work until that is finished.",
        "gpu-setup apply finishes it first; by hand: sudo dpkg --configure -a",
    ),
    Cause(
        "disk.full",
        r"No space left on device|You don't have enough free space in (\S+)|Disk quota exceeded",
        "The disk is full.",
        "Free some space (sudo apt-get clean; df -h / /var /boot), " + AGAIN,
    ),
    Cause(
        "file.read-only",
        r"Read-only file system",
        "A file system that has to be written is mounted read-only.",
        "See why (sudo dmesg | grep -i remount), mount it writable, " + AGAIN,
    ),
    Cause(
        "clock.wrong",
        r"Release file for (\S+) is not valid yet \(invalid for another ([^)]*)\)",
        "By this machine's clock the lists of {1} come from the future ({2}): the clock is behind.",
        "Set the clock (timedatectl set-ntp true; timedatectl), " + AGAIN,
    ),
    Cause(
        "apt.expired",
        r"Release file for (\S+) is expired \(invalid since ([^)]*)\)",
        "The lists of {1} expired {2} ago: the clock is ahead, or the mirror is no longer kept up.",
        "Look at the clock (timedatectl) and at the mirror, " + AGAIN,
    ),
    Cause(
        "key.expired",
        r"EXPKEYSIG ([0-9A-F]+)(?: ([^\n]*))?",
        "The key {1} that signs this repository has expired.",
        "The vendor has to renew it: read the vendor's announcement; a newer gpu-setup will know the new key.",
    ),
    Cause(
        "key.missing",
        r"NO_PUBKEY ([0-9A-F]+)",
        "The repository is signed with the key {1}, which is not the one that is trusted for it.",
        "Do not trust another key by hand; compare with the vendor's announcement, and report it.",
    ),
    Cause(
        "key.bad-signature",
        r"BADSIG ([0-9A-F]+)|invalid signature|Clearsigned file isn't valid",
        "The repository's signature does not fit its lists: they were changed or cut on the way.",
        "Look for a proxy or mirror in between, " + AGAIN,
    ),
    Cause(
        "apt.renamed",
        r"Repository '([^']+)' changed its '([^']+)' value",
        "The repository {1} now calls itself by another {2}, which apt does not accept unseen.",
        "Look whether that is meant (a new release, another vendor), accept it with "
        "sudo apt-get update --allow-releaseinfo-change, " + AGAIN,
    ),
    Cause(
        "apt.sources-conflict",
        r"Conflicting values set for option Signed-By regarding source (\S+)",
        "Two source files name {1} with different keys, so apt refuses both.",
        "Remove the older one (grep -l for the address in /etc/apt/sources.list.d), " + AGAIN,
    ),
    Cause(
        "apt.hash",
        r"Hash Sum mismatch|File has unexpected size|Mirror sync in progress",
        "What was downloaded is not what the repository's lists promise: a mirror in mid-update, a proxy or an attack.",
        "Wait some minutes, look for a proxy in between, " + AGAIN,
    ),
    Cause(
        "apt.truncated",
        r"Connection (?:closed|failed) prematurely|Error reading from server|Remote end closed connection|"
        r"Undetermined Error|Data left in (?:buffer|pipe)|transfer closed with outstanding read data",
        "The server broke the download off.",
        "Check the network, " + AGAIN,
    ),
    Cause(
        "apt.server",
        r"Failed to fetch (\S+)[^\n]*?\s(5[0-9][0-9])\s+[A-Z]",
        "The server answers {2} for {1}.",
        "It is the server's trouble: wait, " + AGAIN,
    ),
    Cause(
        "apt.not-found",
        r"Failed to fetch (\S+)[^\n]*?\s(40[0-9])\s+[A-Z]",
        "The server answers {2} for {1}: the repository has moved, or its lists here are old.",
        "gpu-setup plan shows what the repository has now, " + AGAIN,
    ),
    Cause(
        "apt.not-found",
        r"The repository '([^']+)' (?:does not have|no longer has) a Release file",
        "There is no package list at {1}.",
        "Look at the address in the source file, " + AGAIN,
    ),
    Cause(
        "apt.certificate",
        r"[Cc]ertificate verification failed|server certificate|SSL certificate problem|is not trusted",
        "The server's certificate is not trusted here: often a company's network that looks into TLS.",
        "Install your company's certificate (sudo update-ca-certificates), " + AGAIN,
    ),
    Cause(
        "apt.network",
        r"Temporary failure resolving '([^']+)'|Could not resolve '([^']+)'|Could not connect to (\S+)|"
        r"Unable to connect to (\S+)|Cannot initiate the connection to (\S+)|Network is unreachable|"
        r"connection timed out|Connection refused|Failed to connect",
        "The network or the server cannot be reached.",
        "Check the network and, where there is one, the proxy (http_proxy, https_proxy), " + AGAIN,
    ),
    Cause(
        "apt.held",
        r"Held packages were changed and -y was used without --allow-change-held-packages",
        "Packages that somebody put on hold stand in the way.",
        "See them with apt-mark showhold; release the right ones (sudo apt-mark unhold NAME), " + AGAIN,
        refused=True,
    ),
    Cause(
        "apt.downgrade",
        r"Packages were downgraded and -y was used without --allow-downgrades",
        "apt would have to go back to older versions of packages, which is never done unasked.",
        "gpu-setup plan -v shows which; remove them first, " + AGAIN,
        refused=True,
    ),
    Cause(
        "apt.unmet",
        r"The following packages have unmet dependencies:\n((?:.*\n?){1,3})",
        "apt finds no set of packages that fits together: {1}",
        "A repository is missing or two do not go together: gpu-setup doctor, gpu-setup plan -v",
    ),
    Cause(
        "dpkg.script",
        r"installed (\S+) package (?:pre|post)-(?:installation|removal) script "
        r"subprocess returned error exit status ([0-9]+)",
        "The package {1} failed while it set itself up (exit {2}).",
        "Its own words stand in the log; gpu-setup doctor, " + AGAIN,
    ),
    Cause(
        "dpkg.half-configured",
        r"dpkg: error processing package (\S+) \(--configure\)",
        "The package {1} could not be configured.",
        "Its own words stand in the log; gpu-setup doctor, " + AGAIN,
    ),
    Cause(
        "dpkg.failed",
        r"dpkg: error processing (?:archive|package) (\S+)",
        "dpkg could not work on {1}.",
        "Its own words stand in the log, " + AGAIN,
    ),
)


def problem(argv: Sequence[str], outcome: Outcome, title: str) -> Problem:
    """What stopped this command, for the step called `title`."""
    said = outcome.stdout + "\n" + outcome.stderr
    what = f"{title.rstrip('.')}: {argv[0]} failed."
    if outcome.problem:
        why = f"{argv[0]} is not installed here." if outcome.problem == ABSENT else f"{argv[0]}: {outcome.problem}."
        return OutsideFailed("apt.unusable", what, why, "This is for systems with apt (Ubuntu, Debian).")
    if missing := parse_missing(said):
        return Refused(
            "apt.unknown-package",
            what,
            f"apt knows no package {', '.join(missing)}.",
            "gpu-setup plan chooses by what the archive has; sudo apt-get update reads its lists again.",
        )
    for cause in CAUSES:
        if match := re.search(cause.pattern, said):
            why = cause.why
            for number, group in enumerate(match.groups(), 1):
                why = why.replace(f"{{{number}}}", _plain(group or "a program"))
            words = _line_of(said, match.start()) or last_words(said)
            full = why if not words or words in why else f"{why} It says: {words}"
            return (Refused if cause.refused else OutsideFailed)(cause.code, what, full, _sentence(cause.next))
    return OutsideFailed(
        "apt.failed", what, f"It ended with {outcome.rc}: {last_words(said) or 'without a word'}", _sentence(AGAIN)
    )


def last_words(said: str) -> str:
    """The lines that tell most: E: lines and errors, at most three, passwords taken out."""
    telling = [
        line.strip()
        for line in said.splitlines()
        if re.match(r"\s*(?:E: |W: |dpkg: error|Error!|make.*Error|.*BUILD FAILED)", line)
    ]
    chosen = [line for line in telling if line.startswith("E: ")] or telling
    chosen = [line for line in chosen if "Sub-process /usr/bin/dpkg returned an error" not in line]
    chosen = chosen or _before_error(said) or telling
    return _plain(" / ".join(dict.fromkeys(chosen[-2:])))[:400]


def _line_of(said: str, at: int) -> str:
    """The line at this place, where it is one of apt's or dpkg's errors that says more than the cause does."""
    line = said[said.rfind("\n", 0, at) + 1 : (said.find("\n", at) + 1 or len(said) + 1) - 1].strip()
    telling = line.startswith(("E: ", "W: ", "dpkg: ", "dpkg-deb: ", "cannot ")) and "processing package" not in line
    return _plain(line)[:300] if telling else ""


def _before_error(said: str) -> list[str]:
    """What a package's own script said before dpkg gave up on it."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    at = next((index for index, line in enumerate(lines) if line.startswith("dpkg: error processing")), 0)
    own = [line for line in lines[:at] if not _CHATTER.match(line)]
    return own[-2:]


def locked(said: str) -> bool:
    """Whether it failed only because somebody else holds the lock of the package lists."""
    return (
        re.search(r"Could not get lock /var/lib/apt/lists/lock|Unable to lock directory /var/lib/apt/lists", said)
        is not None
    )


def failing_addresses(said: str) -> tuple[str, ...]:
    """The addresses that apt could not read, passwords taken out."""
    patterns = (
        r"^[EW]: Failed to fetch (\S+)",
        r"^Err:[0-9]+ (\S+)",
        r"^[EW]: The repository '(?:deb )?(\S+)",
        r"^[EW]: GPG error: (\S+)",
    )
    found = [address for pattern in patterns for address in re.findall(pattern, said, re.MULTILINE)]
    return tuple(dict.fromkeys(_plain(address) for address in found))


def _plain(text: str) -> str:
    return _CREDENTIALS.sub("://…@", " ".join(text.split()))


def _sentence(text: str) -> str:
    first = text[:1] if text.startswith("gpu-setup") else text[:1].upper()
    return f"{first}{text[1:].rstrip('.')}."
