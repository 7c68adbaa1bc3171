"""What never leaves the machine: names of people and the machine, addresses, ids of disks, passwords, tokens.

Pure functions. One value always becomes the same pseudonym within one `Who` (so that two lines can still be compared),
and scrubbing twice changes nothing. What a diagnosis needs stays: PCI addresses, versions, kernel releases, package
names, public repositories. Text that is not UTF-8 passes byte by byte.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

GONE = "redacted"


class Who(NamedTuple):
    """Whom to hide. `users` begins with the session's; `salt` makes pseudonyms of one recording unlike another's."""

    users: tuple[str, ...] = ()
    host: str = ""
    homes: tuple[str, ...] = ()
    salt: bytes = b""


# words that are also names of accounts or machines: hidden only where a name must stand, or whole files would suffer
_WORDS = frozenset(
    {
        *("root", "user", "users", "admin", "daemon", "systemd", "default", "test", "worker", "vagrant", "pi", "dev"),
        *("ubuntu", "debian", "linux", "fedora", "mint", "noble", "jammy", "kernel", "generic", "system", "boot"),
        *("gpu", "cuda", "rocm", "nvidia", "amd", "amdgpu", "intel", "docker", "podman", "video", "render", "audio"),
        *("host", "server", "desktop", "laptop", "workstation", "machine", "node", "box", "pc", "lab", "localhost"),
        *("localdomain", "disk", "home", "main", "local", "data"),
    }
)
# GUIDs of EFI variables that everyone has: global variables, shim's, the image security database
_PUBLIC_UUIDS = frozenset(
    {
        "8be4df61-93ca-11d2-aa0d-00e098032b8c",
        "605dab50-e046-4300-abb6-3dd810dd8b23",
        "d719b2cb-3d3a-4596-a3bc-dad00e67656f",
    }
)
_UNITS = ("service", "socket", "target", "timer", "mount", "slice", "scope", "device", "path")

_UUID = re.compile(r"(?<![0-9A-Za-z])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![0-9A-Za-z])")
_MAC = re.compile(r"(?<![\w:-])(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}(?![\w:-])")
_EUI64 = re.compile(r"(?<![\w:-])(?:[0-9a-fA-F]{2}:){7}[0-9a-fA-F]{2}(?![\w:-])")
_IPV4 = re.compile(r"(?<![\w.+~-])(?<!\d:)(?:\d{1,3}\.){3}\d{1,3}(?![\w+~]|-\d|\.\d)")
_IPV6 = re.compile(
    r"(?<![\w:.])(?:(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{1,4}(?:%\w+)?|(?:[0-9a-fA-F]{1,4}:)+:)(?![\w:.])"
)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s\"']+(?=@)")
_MAIL = re.compile(r"(?<![\w.@/+-])[A-Za-z0-9][\w.+-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.([A-Za-z]{2,24})(?![\w-])")
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{30,}|sk-[\w-]{20,}|xox[abprs]-[\w-]{10,}|pypi-[\w-]{20,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)(?![A-Za-z0-9])"
)
_BEARER = re.compile(
    r"(?i)\b(bearer|basic|token)(\s+)(?!redacted\b)(?=[A-Za-z0-9+/._~-]*[0-9+/=])[A-Za-z0-9+/._~-]{12,}=*"
)
_SECRET = re.compile(
    r"(?i)(?<![A-Za-z])((?:[\w-]{0,40}[_-])?(?:password|passwd|passphrase|token|secret|(?:api|access|auth)key|key)"
    r"[\"']?[ \t]*[=:][ \t]*)(?:\"([^\"\n]*)\"|'([^'\n]*)'|([^\s\"'&;,}\]]+))"
)
# no secrets: a file that holds the key, small numbers, and the words that stand for "none"
_NO_SECRET = re.compile(r"(?i)^(?:/|\(|none$|null$|true$|false$|yes$|no$|redacted$|\d{0,3}$|0x[0-9a-f]{1,8}$)")
_DISK_ID = re.compile(
    r"(?i)((?:PART)?(?:UUID|LABEL)=|by-(?:uu|partuu)?id/|by-(?:part)?label/|luks-|rd\.luks\.\w+=|machine[-_]id=)"
    r"(?!true\b|false\b)([^\s,;:'\"|>=]+)"
)
_SERIAL = re.compile(r"(?i)(serial(?:[ _-]?(?:number|no))?\s*[:=]\s*)(?!serial-)([\w:.-]{4,})")
_ALIAS = re.compile(r"user\d*")
_HOME = re.compile(r"(/home/|/Users/|/var/home/)([^/\s:\"'*$<>|,;()]+)")
_REGISTRIES = re.compile(
    r"(\"(?:insecure-registries|registry-mirrors|allow-nondistributable-artifacts)\"\s*:\s*\[)[^\]]*\"[^\]]*\]"
)
# `journalctl -o short-monotonic` writes the host's name before each message
_JOURNAL = re.compile(r"(?m)^(\[ *\d+\.\d+\] )\S+(?= kernel:)")
_VERSION_BEFORE = re.compile(r"(?i)(?:version|release|\([<>=]{1,2})\s*:?\s*[\"']?$")


NOBODY = Who()
_MOST_PASSES = 8


def text(value: str, who: Who = NOBODY) -> str:
    """The text without what must stay here."""
    # what one pass puts in may, with its neighbours, look like something to hide: until nothing changes
    for _ in range(_MOST_PASSES):
        before, value = value, _pass(value, who)
        if value == before:
            break
    return value


def _pass(value: str, who: Who) -> str:
    def coded(kind: str, found: str) -> str:
        # keyed, so that an address cannot be found by trying all of them
        raw = found.lower().encode("utf-8", "surrogateescape")
        return f"{kind}-{hashlib.blake2s(raw, key=who.salt[:32], digest_size=4).hexdigest()}"

    value = _TOKEN.sub(GONE, value)
    value = _BEARER.sub(rf"\1\2{GONE}", value)
    value = _CREDENTIALS.sub(GONE, value)
    value = _SECRET.sub(_secret, value)
    value = _REGISTRIES.sub(rf'\1"{GONE}"]', value)
    value = _JOURNAL.sub(r"\1host", value)
    value = _UUID.sub(lambda m: m[0] if m[0].lower() in _PUBLIC_UUIDS else coded("uuid", m[0]), value)
    value = _DISK_ID.sub(lambda m: m[1] + (m[2] if _is_coded(m[2]) else coded("disk", m[2])), value)
    value = _SERIAL.sub(lambda m: m[1] + coded("serial", m[2]), value)
    value = _EUI64.sub(lambda m: coded("mac", m[0]), value)
    value = _MAC.sub(lambda m: coded("mac", m[0]), value)
    value = _MAIL.sub(lambda m: m[0] if m[1] in _UNITS else coded("mail", m[0]), value)
    value = _IPV4.sub(lambda m: coded("ip", m[0]) if _is_address(m) else m[0], value)
    value = _IPV6.sub(lambda m: coded("ip", m[0]) if _is_address6(m[0]) else m[0], value)
    return _names(value, who)


def data(value: bytes, who: Who = NOBODY) -> bytes:
    """The same for bytes; what is not UTF-8 is kept as it is."""
    return text(value.decode("utf-8", "surrogateescape"), who).encode("utf-8", "surrogateescape")


def file(path: str, value: bytes, who: Who = NOBODY) -> bytes:
    """The same for a file's bytes; the account files also lose full names and every name of a person."""
    if path in ("/etc/passwd", "/etc/group"):
        lines = value.decode("utf-8", "surrogateescape").split("\n")
        value = "\n".join(_account(line, aliases(who)) for line in lines).encode("utf-8", "surrogateescape")
    return data(value, who)


def variables(environ: Mapping[str, str], keep: Iterable[str], who: Who = NOBODY) -> dict[str, str]:
    """The environment variables named in `keep`, scrubbed. All others stay here, whatever they hold."""
    return {name: text(environ[name], who) for name in sorted(keep) if name in environ}


def aliases(who: Who) -> dict[str, str]:
    """Account → pseudonym: `user` for the session's, `user2` … for the others. root and such pseudonyms stay."""
    people = [name for name in dict.fromkeys(who.users) if name and name != "root" and not _ALIAS.fullmatch(name)]
    return {name: "user" if index == 0 else f"user{index + 1}" for index, name in enumerate(people)}


def _account(line: str, called: Mapping[str, str]) -> str:
    fields = line.split(":")
    if len(fields) == 7:
        name, password, uid, gid, full, home, shell = fields
        alias = called.get(name, name)
        home = f"/home/{alias}" if name in called else home
        return ":".join((alias, password, uid, gid, "" if uid != "0" and full else full, home, shell))
    if len(fields) == 4:
        members = ",".join(called.get(member, member) for member in fields[3].split(","))
        return ":".join((called.get(fields[0], fields[0]), *fields[1:3], members))
    return line


def _secret(match: re.Match[str]) -> str:
    if _NO_SECRET.match(match[2] or match[3] or match[4] or ""):
        return match[0]
    quote = '"' if match[2] is not None else "'" if match[3] is not None else ""
    return f"{match[1]}{quote}{GONE}{quote}"


def _is_coded(value: str) -> bool:
    return re.fullmatch(r"(?:luks-)?(?:uuid|disk)-[0-9a-f]{8}", value) is not None


def _is_address(match: re.Match[str]) -> bool:
    octets = match[0].split(".")
    if any(int(octet) > 255 or (len(octet) > 1 and octet[0] == "0") for octet in octets):
        return False
    if octets[0] in ("0", "127", "255"):
        return False
    # `Version: 9.10.2.21` and `(>= 12.3.3.54)` are versions
    return _VERSION_BEFORE.search(match.string[max(0, match.start() - 24) : match.start()]) is None


def _is_address6(found: str) -> bool:
    import ipaddress

    try:
        address = ipaddress.IPv6Address(found.partition("%")[0])
    except ValueError:
        return False
    return not address.is_loopback and not address.is_unspecified


def _names(value: str, who: Who) -> str:
    """User names, the host's name and homes. A name that is also a common word goes only where a name must stand."""
    called = aliases(who)
    for home in who.homes:
        if home.count("/") >= 2 and not home.startswith("/home/"):
            value = re.sub(re.escape(home.rstrip("/")) + r"(?![\w.-])", "/home/user", value)
    value = _HOME.sub(lambda m: m[1] + (m[2] if _ALIAS.fullmatch(m[2]) else called.get(m[2], "user")), value)
    if _is_telling(who.host):
        value = _whole(re.escape(who.host), r"(?:\.[A-Za-z][A-Za-z0-9-]*)*").sub("host", value)
    telling = sorted(filter(_is_telling, called), key=len, reverse=True)
    if telling:
        value = _whole("|".join(map(re.escape, telling))).sub(lambda m: called[m[0]], value)
    for name, alias in called.items():
        value = re.sub(rf"(?<![\w.-]){re.escape(name)}(?=@)|(?<=\d\(){re.escape(name)}(?=\))", alias, value)
    return value


def _is_telling(name: str) -> bool:
    return len(name) > 2 and name != "host" and name.lower() not in _WORDS and not _ALIAS.fullmatch(name)


def _whole(names: str, tail: str = "") -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.-])(?:{names}){tail}(?![\w-])")
