"""Why apt or dpkg failed: which step, the known cause in the output, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Sequence

from machine.causes import Cause, find_cause
from machine.errors import OutsideFailed, Problem, Refused
from machine.local import ABSENT, Outcome
from provision.system.apt_simulation import parse_missing

_CHATTER = re.compile(
    r"Setting up|Unpacking|Preparing|Selecting|\(Reading|Get:|Fetched|After this|Processing triggers|Reading|Building"
)
_CREDENTIALS = re.compile(r"://[^/@\s]*@")

AGAIN = "then run it again: finished steps are kept"
# The first that matches. Texts as apt 2.6 to 2.8 and dpkg 1.21 to 1.22 write them (seen in the lab).
CAUSES = (
    Cause(
        r"Could not get lock \S+?\.? .*?held by process (?P<holder>[0-9]+ ?(?:\([^)]*\))?)",
        "apt.locked",
        "Another program uses apt: process {holder} has held its lock for longer than 10 minutes.",
        "Wait until it has finished or stop it, " + AGAIN,
    ),
    Cause(
        r"Unable to (?:acquire|lock) .*lock",
        "apt.locked",
        "Another program uses apt and has held its lock for longer than 10 minutes.",
        "Wait until it has finished or stop it, " + AGAIN,
    ),
    Cause(
        r"dpkg was interrupted, you must manually run",
        "dpkg.interrupted",
        "dpkg was interrupted earlier and refuses all work until that is finished.",
        "gpu-setup apply finishes it first; by hand: sudo dpkg --configure -a",
    ),
    Cause(
        r"No space left on device|You don't have enough free space in \S+|Disk quota exceeded",
        "disk.full",
        "The disk is full.",
        "Free some space (sudo apt-get clean; df -h / /var /boot), " + AGAIN,
    ),
    Cause(
        r"Read-only file system",
        "file.read-only",
        "A file system that must be written to is mounted read-only.",
        "Find out why (sudo dmesg | grep -i remount), mount it writable, " + AGAIN,
    ),
    Cause(
        r"Release file for (?P<file>\S+) is not valid yet \(invalid for another (?P<time>[^)]*)\)",
        "clock.wrong",
        "The Release file of {file} is dated {time} in the future: the system clock is slow.",
        "Set the clock (timedatectl set-ntp true; timedatectl), " + AGAIN,
    ),
    Cause(
        r"Release file for (?P<file>\S+) is expired \(invalid since (?P<time>[^)]*)\)",
        "apt.expired",
        "The Release file of {file} expired {time} ago: the system clock is fast, or the mirror is no longer updated.",
        "Check the clock (timedatectl) and the mirror, " + AGAIN,
    ),
    Cause(
        r"EXPKEYSIG (?P<key>[0-9A-F]+)",
        "key.expired",
        "The key {key} that signs this repository has expired.",
        "The vendor has to renew it: read the vendor's announcement; a newer gpu-setup will know the new key.",
    ),
    Cause(
        r"NO_PUBKEY (?P<key>[0-9A-F]+)",
        "key.missing",
        "The repository is signed with the key {key}, which is not the key that is trusted for it.",
        "Do not trust another key by hand; compare with the vendor's announcement, and report it.",
    ),
    Cause(
        r"BADSIG [0-9A-F]+|invalid signature|Clearsigned file isn't valid",
        "key.bad-signature",
        "The repository's signature does not match its package lists: they were changed or truncated on the way.",
        "Check for a proxy or mirror in between, " + AGAIN,
    ),
    Cause(
        r"Repository '(?P<repository>[^']+)' changed its '(?P<field>[^']+)' value",
        "apt.renamed",
        "The repository {repository} has changed its {field}, which apt does not accept without confirmation.",
        "Check whether this is expected (a new release, another vendor), accept it with "
        "sudo apt-get update --allow-releaseinfo-change, " + AGAIN,
    ),
    Cause(
        r"Conflicting values set for option Signed-By regarding source (?P<source>\S+)",
        "apt.sources-conflict",
        "Two source files name {source} with different keys, so apt refuses both.",
        "Remove the older one (grep -l for the address in /etc/apt/sources.list.d), " + AGAIN,
    ),
    Cause(
        r"Hash Sum mismatch|File has unexpected size|Mirror sync in progress",
        "apt.hash",
        "A downloaded file differs from the repository's package list: a mirror during its update, a proxy or an "
        "attack.",
        "Wait some minutes, check for a proxy in between, " + AGAIN,
    ),
    Cause(
        r"Connection (?:closed|failed) prematurely|Error reading from server|Remote end closed connection|"
        r"Undetermined Error|Data left in (?:buffer|pipe)|transfer closed with outstanding read data",
        "apt.truncated",
        "The server closed the connection during the download.",
        "Check the network, " + AGAIN,
    ),
    Cause(
        r"Failed to fetch (?P<address>\S+)[^\n]*?\s(?P<status>5[0-9][0-9])\s+[A-Z]",
        "apt.server",
        "The server answers {status} for {address}.",
        "This is an error of the server: wait, " + AGAIN,
    ),
    Cause(
        r"Failed to fetch (?P<address>\S+)[^\n]*?\s(?P<status>40[0-9])\s+[A-Z]",
        "apt.not-found",
        "The server answers {status} for {address}: the repository has moved, or the package lists here are stale.",
        "gpu-setup plan shows what the repository has now, " + AGAIN,
    ),
    Cause(
        r"The repository '(?P<repository>[^']+)' (?:does not have|no longer has) a Release file",
        "apt.not-found",
        "There is no package list at {repository}.",
        "Check the address in the source file, " + AGAIN,
    ),
    Cause(
        r"[Cc]ertificate verification failed|server certificate|SSL certificate problem|is not trusted",
        "apt.certificate",
        "The server's certificate is not trusted here; often a company's proxy that decrypts TLS causes this.",
        "Install your company's certificate (sudo update-ca-certificates), " + AGAIN,
    ),
    Cause(
        r"Temporary failure resolving '[^']+'|Could not resolve '[^']+'|Could not connect to \S+|"
        r"Unable to connect to \S+|Cannot initiate the connection to \S+|Network is unreachable|"
        r"connection timed out|Connection refused|Failed to connect",
        "apt.network",
        "The network or the server cannot be reached.",
        "Check the network and the proxy settings (http_proxy, https_proxy), " + AGAIN,
    ),
    Cause(
        r"Held packages were changed and -y was used without --allow-change-held-packages",
        "apt.held",
        "Packages that are on hold would have to change.",
        "List them with apt-mark showhold; release those that may change (sudo apt-mark unhold NAME), " + AGAIN,
        Refused,
    ),
    Cause(
        r"Packages were downgraded and -y was used without --allow-downgrades",
        "apt.downgrade",
        "apt would have to downgrade packages, which gpu-setup never does without being asked.",
        "gpu-setup plan -v shows which; remove them first, " + AGAIN,
        Refused,
    ),
    Cause(
        r"The following packages have unmet dependencies:\n(?P<packages>(?:.*\n?){1,3})",
        "apt.unmet",
        "apt finds no compatible set of packages: {packages}",
        "A repository is missing, or two repositories conflict: gpu-setup doctor, gpu-setup plan -v",
    ),
    Cause(
        r"installed (?P<package>\S+) package (?:pre|post)-(?:installation|removal) script "
        r"subprocess returned error exit status (?P<status>[0-9]+)",
        "dpkg.script",
        "The setup script of the package {package} failed (exit status {status}).",
        "See the log for the full output; gpu-setup doctor, " + AGAIN,
    ),
    Cause(
        r"dpkg: error processing package (?P<package>\S+) \(--configure\)",
        "dpkg.half-configured",
        "The package {package} could not be configured.",
        "See the log for the full output; gpu-setup doctor, " + AGAIN,
    ),
    Cause(
        r"dpkg: error processing (?:archive|package) (?P<package>\S+)",
        "dpkg.failed",
        "dpkg could not process {package}.",
        "See the log for the full output, " + AGAIN,
    ),
)


def apt_problem(argv: Sequence[str], outcome: Outcome, title: str) -> Problem:
    """Why this command of the step `title` failed."""
    output = _without_passwords(outcome.stdout + "\n" + outcome.stderr)
    what = f"{title.rstrip('.')}: {argv[0]} failed."
    if outcome.problem:
        why = f"{argv[0]} is not installed." if outcome.problem == ABSENT else f"{argv[0]}: {outcome.problem}."
        return OutsideFailed("apt.unusable", what, why, "This is for systems with apt (Ubuntu, Debian).")
    if missing := parse_missing(output):
        return Refused(
            "apt.unknown-package",
            what,
            f"apt has no package {', '.join(missing)}.",
            "Update the package lists (sudo apt-get update); gpu-setup plan then chooses from what they offer.",
        )
    if cause := find_cause(CAUSES, output):
        line = _error_line(output, cause.pattern) or error_lines(output)
        why = cause.why if not line or line in cause.why else f"{cause.why} The output says: {line}"
        return cause.kind(cause.code, what, why, _sentence(cause.next))
    why = f"Exit status {outcome.rc}: {error_lines(output) or 'it printed nothing.'}"
    return OutsideFailed("apt.failed", what, why, _sentence(AGAIN))


def error_lines(output: str) -> str:
    """The most informative lines: E: lines and errors, at most two, without passwords."""
    errors = [
        line.strip()
        for line in output.splitlines()
        if re.match(r"\s*(?:E: |W: |dpkg: error|Error!|make.*Error|.*BUILD FAILED)", line)
    ]
    chosen = [line for line in errors if line.startswith("E: ")] or errors
    chosen = [line for line in chosen if "Sub-process /usr/bin/dpkg returned an error" not in line]
    chosen = chosen or _lines_before_error(output) or errors
    return _one_line(_without_passwords(" / ".join(dict.fromkeys(chosen[-2:]))))[:400]


def _error_line(output: str, pattern: str) -> str:
    """The line where the pattern matches, if it is one of apt's or dpkg's errors that says more than the cause does."""
    match = re.search(pattern, output)
    at = match.start() if match else 0
    line = output[output.rfind("\n", 0, at) + 1 :].partition("\n")[0].strip()
    is_error = line.startswith(("E: ", "W: ", "dpkg: ", "dpkg-deb: ", "cannot ")) and "processing package" not in line
    return _one_line(line)[:300] if is_error else ""


def _lines_before_error(output: str) -> list[str]:
    """What a package's own script printed before dpkg reported its failure."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    at = next((index for index, line in enumerate(lines) if line.startswith("dpkg: error processing")), 0)
    return [line for line in lines[:at] if not _CHATTER.match(line)][-2:]


def is_lists_locked(output: str) -> bool:
    """Whether it failed only because another program holds the lock of the package lists."""
    pattern = r"Could not get lock /var/lib/apt/lists/lock|Unable to lock directory /var/lib/apt/lists"
    return re.search(pattern, output) is not None


def failing_addresses(output: str) -> tuple[str, ...]:
    """The addresses that apt could not read, without passwords."""
    patterns = (
        r"^[EW]: Failed to fetch (\S+)",
        r"^Err:[0-9]+ (\S+)",
        r"^[EW]: The repository '(?:deb )?(\S+)",
        r"^[EW]: GPG error: (\S+)",
    )
    found = [address for pattern in patterns for address in re.findall(pattern, output, re.MULTILINE)]
    return tuple(dict.fromkeys(_without_passwords(address) for address in found))


def _without_passwords(text: str) -> str:
    return _CREDENTIALS.sub("://…@", text)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _sentence(text: str) -> str:
    first = text[:1] if text.startswith("gpu-setup") else text[:1].upper()
    return f"{first}{text[1:].rstrip('.')}."
