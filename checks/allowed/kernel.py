"""The kernel's sources: its command line, version, log, and what configures modules and the boot menu."""

from __future__ import annotations

import re

from checks.allowed.words import join, lines, lists, message, path, word
from checks.facts import dkms, firmware, grub, kernel
from machine.identities import NOBODY, REDACTED, Identities
from machine.patterns import lazy_pattern

_NAME = lazy_pattern(r"[\w.-]+")
_VALUE = lazy_pattern(r"[\w.,:;+-]{0,120}")
_VERSION = lazy_pattern(
    r"Linux version (?P<release>\S+).*?"
    r"(?P<date> #\S+(?: +(?:SMP|PREEMPT\w*|[A-Z][a-z]{2}\b|\d[\d:]*|[A-Z]{3,4}\b))*)?\s*$"
)
# Ubuntu's builders, and the compilers of distributions
_BUILDER = lazy_pattern(r"\(buildd@lcy[\w-]+\)")
_COMPILER = lazy_pattern(
    r"\((?:(?:x86_64|aarch64)-linux-gnu-)?(?:gcc|clang)[\w-]*(?: \((?:GCC|Ubuntu [\w.~+-]+)\))?(?: [\d.]+)?"
    r"(?:, GNU ld \((?:GNU Binutils(?: for Ubuntu)?)\) [\d.]+)?\)"
)
_SOMEBODY_AT = lazy_pattern(r"\s*\([\w.-]+@[^)]*\)")
_LOG_HEAD = lazy_pattern(r"\[ *\d+\.\d+\] (?:\S+ kernel: )?")
# what a process is called in NVIDIA's Xid lines, by the OOM killer, in amdgpu's time-outs, in segfaults
_PROCESS = lazy_pattern(
    r"(?P<before>\bname=|\btask=|\bcomm[=:] ?|\b[Pp]rocess (?=\S+ pid)|\bthread |\bprocess \d+ \()(?P<name>[^\s,():;]+)"
    r"|(?P<crashed>\S+)(?=\[\d+\]: segfault)"
)


def command_line(value: str, who: Identities = NOBODY) -> str:
    """The kernel's command line: known parameters with their values, of all others only the name."""
    return " ".join(map(_parameter, kernel.parse_cmdline(value))) + "\n" * value.endswith("\n")


def _parameter(one: str) -> str:
    name, sign, value = one.partition("=")
    known = _is_known(name)
    if not sign:
        return one if known or name in lists()["kernel_flags"] else REDACTED
    if name == "BOOT_IMAGE":
        return f"{name}={'/boot' * ('/boot/' in value)}/{word(value.rpartition('/')[2])}"
    if known and _VALUE.fullmatch(value):
        return one
    return f"{name if re.fullmatch(r'[a-zA-Z][a-zA-Z0-9_.-]{0,60}', name) else REDACTED}={REDACTED}"


def _is_known(name: str) -> bool:
    # as one regular expression they take 1 ms of each start to compile
    return _NAME.fullmatch(name) is not None and any(
        name.startswith(before) and name.endswith(after) if star else name == before
        for before, star, after in (one.partition("*") for one in lists()["kernel_parameters"])
    )


def version(value: str, who: Identities = NOBODY) -> str:
    """/proc/version: the release, the compiler, the date; of who built it where only Ubuntu's builders."""
    # the real one has 200 characters; the pattern's time grows with the square
    match = _VERSION.match(value[:1000])
    if match is None:
        return REDACTED
    middle = [found[0] for pattern in (_BUILDER, _COMPILER) if (found := pattern.search(value))]
    head = " ".join((f"Linux version {word(match['release'], who)}", *middle))
    return f"{head}{match['date'] or ''}" + "\n" * value.endswith("\n")


def nvidia_version(value: str, who: Identities) -> str:
    """/proc/driver/nvidia/version without who built it where."""
    return lines(r"NVRM version:.*")(_SOMEBODY_AT.sub("", value), who)


def log(value: str, who: Identities) -> str:
    """The log's lines that the checks look for, without names of processes and folders; the first shows that it was
    read.
    """
    reduced = kernel.reduce_log(value.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
    found = reduced.splitlines()
    kept = [
        _log_line(line, who) if index or kernel.is_relevant(line) else _head(line) for index, line in enumerate(found)
    ]
    # a message without its time stays one: the log is damaged
    broken = kernel.log_damage(value) and not kernel.log_damage(join(kept))
    return join([*kept, REDACTED] if broken else kept)


def _head(line: str) -> str:
    head = _LOG_HEAD.match(line)
    return f"{head[0] if head else '-- '}{REDACTED}"


def _log_line(line: str, who: Identities) -> str:
    head = _LOG_HEAD.match(line)
    stamp = head[0] if head else ""
    said = public_message(line[len(stamp) :])
    said = _SOMEBODY_AT.sub("", said)
    said = _PROCESS.sub(lambda found: (found["before"] or "") + word(found["name"] or found["crashed"], who), said)
    return stamp + message(said, who)


def public_message(said: str) -> str:
    """A line of the log; those that repeat the command line or the version are reduced like these."""
    before, colon, after = said.partition("ommand line: ")
    if colon:
        return f"{before}{colon}{command_line(after)}"
    before, version_line, after = said.partition("Linux version ")
    return f"{before}{version(version_line + after)}" if version_line else said


def make_log(value: str, who: Identities) -> str:
    """The lines of DKMS's make.log that are shown."""
    found = [line for line in value.splitlines() if line.strip()]
    head = found[:1] if found and dkms.LOG_HEAD.search(found[0]) else []
    _, shown = dkms.parse_make_log("\n".join(found))
    return join(message(line, who) for line in dict.fromkeys([*head, *shown.splitlines()]))


def modprobe(value: str, who: Identities) -> str:
    """Blacklists and options of GPU modules."""
    writer = kernel.parse_writer("", value)
    found = [f"# generated by {writer}"] if writer else []
    found += [f"blacklist {module}" for module in kernel.parse_blacklist(value)]
    found += [f"options {module} {_option(option, who)}" for module, option in kernel.parse_options(value)]
    return join(found)


def _option(option: str, who: Identities) -> str:
    name, sign, value = option.partition("=")
    if not re.fullmatch(r"[A-Za-z]\w{0,60}", name):
        return REDACTED
    plain = re.fullmatch(r"(?:0x)?[0-9a-fA-F,:.-]*|[YyNn]|on|off|auto", value)
    return f"{name}{sign}{value if plain else path(value, who)}"


def grub_defaults(value: str, who: Identities) -> str:
    wanted = ("GRUB_DEFAULT", "GRUB_DISABLE_RECOVERY")
    defaults = grub.parse_defaults(value).items()
    blocking = [(key, " ".join(grub.blocking_parameters(held))) for key, held in defaults if "CMDLINE_LINUX" in key]
    kept = [(key, word(held, who)) for key, held in defaults if key in wanted]
    return join(f'{key}="{held}"' for key, held in (*kept, *(row for row in blocking if row[1])))


def boot_line(value: str, who: Identities) -> str:
    """/etc/kernel/cmdline: only the parameters that keep a GPU's driver away."""
    return " ".join(grub.blocking_parameters(value)) + "\n"


def grub_environment(value: str, who: Identities) -> str:
    wanted = ("next_entry", "saved_entry")
    return join(f"{key}={word(held, who)}" for key, held in grub.parse_environment(value).items() if key in wanted)


def dkms_settings(value: str, who: Identities) -> str:
    found = firmware.parse_certificate(value)
    return f"mok_certificate={path(found, who)}\n" if found else ""


def keys(value: str, who: Identities) -> str:
    """mokutil's answers: how many keys there are, which public certificates, and whether a key is enrolled."""
    found = []
    for line in value.splitlines():
        numbered, named = re.match(r"\[key \d+\]", line), re.match(r"[0-9a-f]{10} ", line)
        answer = re.search(r"is already enrolled|is not enrolled|enrollment request", line)
        if numbered:
            found.append(numbered[0])
        elif named:
            found.append(f"0000000000 {certificate(line[11:])}")
        elif subject := re.match(r"\s*Subject:\s*(.+)$", line):
            found.append(f"        Subject: {certificate(subject[1])}")
        elif answer:
            found.append(f"{path(line[: answer.start()].strip(), who)} {answer[0]}")
    return join(found)


def certificate(subject: str) -> str:
    """The public part of a common name: in those of Ubuntu's own keys it follows the machine's name."""
    name = subject.rpartition("CN=")[2].strip().rstrip(",")
    public = next((one for one in lists()["key_names"] if name.endswith(one)), None)
    return f"CN={REDACTED}" if public is None else f"CN={public if public == name else f'{REDACTED} {public}'}"
