"""What never leaves the machine: names of people and the machine, addresses, ids of disks, passwords, tokens.

Pure functions. One value always becomes the same pseudonym within one `Identities`, so that two lines can still be
compared, and scrubbing twice changes nothing. What a diagnosis needs is kept: PCI addresses, versions, kernel
releases, package names, public repositories. Text that is not UTF-8 passes byte by byte.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from machine import secrets
from machine.secrets import REDACTED


class Identities(NamedTuple):
    """Names to hide. `users` begins with the session's; `salt` makes pseudonyms of one recording unlike another's.

    `full_names` are people's, `literals` texts that are hidden wherever they occur (secrets.literals).
    """

    users: tuple[str, ...] = ()
    host: str = ""
    homes: tuple[str, ...] = ()
    salt: bytes = b""
    full_names: tuple[str, ...] = ()
    literals: tuple[str, ...] = ()


# words that are also names of accounts or machines: hidden only where a name must be, or whole files would suffer
_WORDS = frozenset(
    {
        *("root", "user", "users", "admin", "daemon", "systemd", "default", "test", "worker", "vagrant", "pi", "dev"),
        *("ubuntu", "debian", "linux", "fedora", "mint", "noble", "jammy", "kernel", "generic", "system", "boot"),
        *("gpu", "cuda", "rocm", "nvidia", "amd", "amdgpu", "intel", "docker", "podman", "video", "render", "audio"),
        *("host", "server", "desktop", "laptop", "workstation", "machine", "node", "box", "pc", "lab", "localhost"),
        *("localdomain", "disk", "home", "main", "local", "data"),
        # first names that are words of the kernel or of this scrubbing
        *(
            "max",
            "min",
            "pat",
            "ray",
            "art",
            "mark",
            "link",
            "port",
            "page",
            "dash",
            "redacted",
            "serial",
            "uuid",
            "mac",
        ),
        *("mail", "token", "card", "module", "driver", "python", "ruby", "jack", "mate", "guest", "nobody", "apt"),
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
# 6 octets, 8 (EUI-64), or 14 as netfilter logs a packet's two addresses and its kind; dashes as Windows writes them
_MAC = re.compile(
    r"(?<![\w:-])(?:(?:[0-9a-fA-F]{2}:){5}(?:(?:[0-9a-fA-F]{2}:){2}(?:(?:[0-9a-fA-F]{2}:){6})?)?[0-9a-fA-F]{2}"
    r"|(?:[0-9a-fA-F]{2}-){5}[0-9a-fA-F]{2})(?![\w:-])"
)
# systemd names an interface after its address (systemd.net-naming-scheme(7))
_MAC_NAME = re.compile(r"(?<![A-Za-z0-9])(enx|wlx|wwx)[0-9a-f]{12}(?![0-9A-Za-z])")
_IPV4 = re.compile(r"(?<![\w.+~-])(?<!\d:)(?:\d{1,3}\.){3}\d{1,3}(?![\w+~]|-\d(?!\d{0,2}(?:\.\d{1,3}){3})|\.\d)")
# a name made of an address (ip-10-0-0-5), and the end of a range whose beginning is hidden already
_IPV4_AFTER = re.compile(r"(?<=ip-)(?:\d{1,3}-){3}\d{1,3}(?![\w])|(?<=ip-[0-9a-f]{8}-)(?:\d{1,3}\.){3}\d{1,3}(?![\w.])")
_IPV6 = re.compile(
    r"(?<![\w:.])(?:(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{1,4}(?:%\w+)?|(?:[0-9a-fA-F]{1,4}:)+:)(?![\w:.])"
)
_MAIL = re.compile(r"(?<![\w.@/+-])[A-Za-z0-9][\w.+-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.([A-Za-z]{2,24})(?![\w-])")
_DISK_ID = re.compile(
    r"(?i)((?:PART)?(?:UUID|LABEL)=|by-(?:uu|partuu)?id/|by-(?:part)?label/|luks-|rd\.luks\.\w+=|machine[-_]id=)"
    r"(?!true\b|false\b)([^\s,;:'\"|>=]+)"
)
# `search --fs-uuid --set=root 1A2B-3C4D` of grub.cfg; a disk's model and serial number as udev joins them
_FS_UUID = re.compile(r"(--fs-uuid\b[^\n]{0,200}\s)([0-9A-F]{4}-[0-9A-F]{4}|[0-9A-F]{16})(?![\w-])")
_DISK_NAME = re.compile(
    r"(?<![A-Za-z0-9])((?:ata|nvme|scsi|usb|wwn|mmc)-)(?=\w*\d)([A-Za-z0-9]\w*_[\w.-]{4,}|0x[0-9a-f]{8,}|eui\.[0-9a-f]+)"
)
# volume groups are often called after the machine; these are what Ubuntu's installers call them
_VOLUME = re.compile(
    r"(/dev/mapper/)(?!control\b|ubuntu--vg-|vgubuntu-|luks-|dm_crypt-\d|(?:sd|vd|nvme|md)\w*_crypt\b|disk-)([\w.+-]+)"
)
_SERIAL = re.compile(r"(?i)(serial(?:[ _-]?(?:number|no|num))?[\"']?\s*[:=]\s*[\"']?)(?!serial-)([\w:.-]{4,})")
_ALIAS = re.compile(r"user\d*")
_HOME = re.compile(r"(/home/|/Users/|/var/home/)([^/\s:\"'*$<>|,;()]+)")
_REGISTRIES = re.compile(
    r"(\"(?:insecure-registries|registry-mirrors|allow-nondistributable-artifacts)\"\s*:\s*\[)[^\]\"]{0,200}\"[^\]]{0,9000}\]"
)
# `journalctl -o short-monotonic` writes the host's name before each message
_JOURNAL = re.compile(r"(?m)^(\[ *\d+\.\d+\] )\S+(?= kernel:)")
_VERSION_BEFORE = re.compile(r"(?i)(?:version|release|\([<>=]{1,2})\s*:?\s*[\"']?$")


_FULL_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]+%40[\w-]+(?:\.[\w-]+)+")
# files that hold secrets and nothing else: not even a scrubbed copy leaves
_MUST_STAY = re.compile(
    r"/etc/apt/auth\.conf(?:\.d/.*)?$|/etc/(?:g?shadow|gshadow|sudoers|krb5\.keytab|opasswd)\b|/\.?netrc$|/\.ssh/|/etc/ssh/"
    r"|/\.gnupg/|/system-connections/|/etc/wireguard/|/wpa_supplicant[^/]*\.conf$|/\.docker/config\.json$|/auth\.json$"
    r"|/gh/hosts\.yml$|/huggingface/(?:token|stored_tokens)$|/\.aws/|/\.kube/|/\.env$|/\.git-credentials$|/\.pypirc$"
    r"|/etc/ubuntu-advantage/|/var/lib/ubuntu-advantage/private|\.(?:priv|p12|pfx|jks|keytab|kdbx)$|/edid$|/id_[a-z0-9]+$"
)
# files whose whole content names this machine or a part of it
_IDENTITY = re.compile(
    r"/(?:(?:board_|chassis_|product_)?serial(?:_number)?|unique_id|product_uuid|machine-id|\w*asset_tag|wwid|address"
    r"|vpd_pg\w+)$|/etc/hostname$|/sys/kernel/hostname$"
)
# what a reader looks at in daemon.json; the values of all other keys are the owner's affair
_ENGINE_KEYS = frozenset(
    {
        *("runtimes", "default-runtime", "features", "exec-opts", "data-root", "live-restore", "storage-driver"),
        *("cdi-spec-dirs", "log-driver", "log-opts", "debug", "experimental", "iptables", "ipv6", "userns-remap"),
        *("default-shm-size", "default-ulimits", "cgroup-parent", "group", "path", "runtimeArgs", "buildkit", "cdi"),
        *("containerd-snapshotter", "max-size", "max-file", "shutdown-timeout", "selinux-enabled", "builder", "gc"),
    }
)
NOBODY = Identities()
_MOST_PASSES = 8

must_stay = _MUST_STAY.search
literals = secrets.literals


def text(value: str, who: Identities = NOBODY) -> str:
    """The text with everything replaced that must not leave the machine."""
    # what one pass puts in may, with its neighbours, look like something to hide: until nothing changes
    for _ in range(_MOST_PASSES):
        before, value = value, _pass(value, who)
        if value == before:
            break
    return value


def _pass(value: str, who: Identities) -> str:
    def pseudonym(kind: str, found: str) -> str:
        # keyed, so that an address cannot be found by trying all of them
        raw = found.lower().encode("utf-8", "surrogateescape")
        return f"{kind}-{hashlib.blake2s(raw, key=who.salt[:32], digest_size=4).hexdigest()}"

    for literal in who.literals:
        value = value.replace(literal, REDACTED)
    value = secrets.redact(_scrub_names(value, who))
    value = _REGISTRIES.sub(rf'\1"{REDACTED}"]', value)
    value = _JOURNAL.sub(r"\1host", value)
    value = _UUID.sub(lambda m: m[0] if m[0].lower() in _PUBLIC_UUIDS else pseudonym("uuid", m[0]), value)
    value = _DISK_ID.sub(lambda m: m[1] + (m[2] if _is_pseudonym(m[2]) else pseudonym("disk", m[2])), value)
    value = _FS_UUID.sub(lambda m: m[1] + pseudonym("disk", m[2]), value)
    value = _DISK_NAME.sub(lambda m: m[1] + pseudonym("disk", m[2]), value)
    value = _VOLUME.sub(lambda m: m[1] + pseudonym("disk", m[2]), value)
    value = _SERIAL.sub(lambda m: m[1] + pseudonym("serial", m[2]), value)
    value = _MAC.sub(lambda m: pseudonym("mac", m[0]), value)
    value = _MAC_NAME.sub(r"\1-redacted", value)
    value = _FULL_MAIL.sub(lambda m: pseudonym("mail", m[0]), value)
    value = _MAIL.sub(lambda m: m[0] if m[1] in _UNITS else pseudonym("mail", m[0]), value)
    value = _IPV4.sub(lambda m: pseudonym("ip", m[0]) if _is_address(m) else m[0], value)
    value = _IPV4_AFTER.sub(lambda m: pseudonym("ip", m[0]), value)
    return _IPV6.sub(lambda m: pseudonym("ip", m[0]) if _is_address6(m[0]) else m[0], value)


def data(value: bytes, who: Identities = NOBODY) -> bytes:
    """The same for bytes; what is not UTF-8 is kept as it is."""
    return text(value.decode("utf-8", "surrogateescape"), who).encode("utf-8", "surrogateescape")


def file(path: str, value: bytes, who: Identities = NOBODY) -> bytes:
    """The same for a file's bytes; account files, daemon.json and files that hold one id lose more."""
    if path in ("/etc/passwd", "/etc/group"):
        lines = value.decode("utf-8", "surrogateescape").split("\n")
        value = "\n".join(_scrub_account(line, aliases(who)) for line in lines).encode("utf-8", "surrogateescape")
    elif path.endswith("/daemon.json"):
        value = _scrub_daemon_json(value)
    elif _IDENTITY.search(path) and value.strip():
        return b"host\n" if path.endswith("hostname") else f"{REDACTED}\n".encode()
    return data(value, who)


def json(found: object, who: Identities = NOBODY) -> object:
    """A decoded JSON document whose texts are scrubbed, each with its key before it (`"serial": "X"`)."""
    if isinstance(found, dict):
        return {text(str(key), who): _scrub_value(str(key), value, who) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [json(value, who) for value in found]
    return text(found, who) if isinstance(found, str) else found


def _scrub_value(key: str, value: object, who: Identities) -> object:
    if not isinstance(value, str):
        return json(value, who)
    # a key may say what its value is; where it changes nothing else, the value alone is scrubbed
    head = f"{key}: "
    said = text(head + value, who)
    return said[len(head) :] if said.startswith(head) else text(value, who)


def variables(environ: Mapping[str, str], keep: Iterable[str], who: Identities = NOBODY) -> dict[str, str]:
    """The environment variables named in `keep`, scrubbed. All others are dropped."""
    return {name: text(environ[name], who) for name in sorted(keep) if name in environ}


def aliases(who: Identities) -> dict[str, str]:
    """Account → pseudonym: `user` for the session's, `user2` … for the others. root and such pseudonyms stay."""
    people = [name for name in dict.fromkeys(who.users) if name and name != "root" and not _ALIAS.fullmatch(name)]
    return {name: "user" if index == 0 else f"user{index + 1}" for index, name in enumerate(people)}


def _scrub_account(line: str, called: Mapping[str, str]) -> str:
    fields = line.split(":")
    if len(fields) == 7:
        name, password, uid, gid, full, home, shell = fields
        alias = called.get(name, name)
        home = f"/home/{alias}" if name in called else home
        return ":".join((alias, password[:1], uid, gid, "" if uid != "0" and full else full, home, shell))
    if len(fields) == 4:
        members = ",".join(called.get(member, member) for member in fields[3].split(","))
        return ":".join((called.get(fields[0], fields[0]), fields[1][:1], fields[2], members))
    return line


def _scrub_daemon_json(value: bytes) -> bytes:
    """daemon.json with the values of known keys only; one that does not parse stays one that does not."""
    import json as decoder

    try:
        found = decoder.loads(value) if value.strip() else None
    except (ValueError, RecursionError):
        # its words are scrubbed, its punctuation, which is broken, is kept
        known = {f'"{key}"'.encode() for key in _ENGINE_KEYS}
        return re.sub(rb'"[^"\n]*"?', lambda m: m[0] if m[0] in known else b'"' + REDACTED.encode() + b'"', value)
    if not isinstance(found, dict):
        return value
    kept = {key: setting if key in _ENGINE_KEYS else REDACTED for key, setting in found.items()}
    return decoder.dumps(kept, indent=1).encode()


def _is_pseudonym(value: str) -> bool:
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


def _scrub_names(value: str, who: Identities) -> str:
    """People, the machine's name and homes. A name that is also a common word is replaced only where a name must be."""
    called = aliases(who)
    for home in who.homes:
        if home.count("/") >= 2 and not home.startswith("/home/"):
            value = re.sub(re.escape(home.rstrip("/")) + r"(?![\w.-])", "/home/user", value)
    value = _HOME.sub(lambda m: m[1] + (m[2] if _ALIAS.fullmatch(m[2]) else called.get(m[2], "user")), value)
    for full in who.full_names:
        words = full.split()
        if len(words) > 1 and len(full) > 5:
            value = re.sub(r"(?i)" + r"[\s._-]*".join(map(re.escape, words)), REDACTED, value)
    short, _, domain = who.host.partition(".")
    for host in filter(_is_distinctive, dict.fromkeys((who.host, short))):
        value = _name_pattern(re.escape(host), r"(?:\.[A-Za-z][A-Za-z0-9-]*)*").sub("host", value)
    if domain.count(".") and _is_distinctive(domain):
        value = _name_pattern(re.escape(domain)).sub(REDACTED, value)
    distinctive = sorted(filter(_is_distinctive, called), key=len, reverse=True)
    if distinctive:
        lower = {name.lower(): alias for name, alias in called.items()}
        value = _name_pattern("|".join(map(re.escape, distinctive))).sub(lambda m: lower[m[0].lower()], value)
    for name, alias in called.items():
        value = re.sub(rf"(?<![\w.-]){re.escape(name)}(?=@)|(?<=\d\(){re.escape(name)}(?=\))", alias, value)
    return value


def _is_distinctive(name: str) -> bool:
    return len(name) > 2 and name != "host" and name.lower() not in _WORDS and not _ALIAS.fullmatch(name)


def _name_pattern(names: str, tail: str = "") -> re.Pattern[str]:
    # `anna-laptop--vg`, `anna_backup` and `Anna's` hold a name, `banana` does not
    return re.compile(rf"(?i)(?<![A-Za-z0-9])(?:{names}){tail}(?![A-Za-z0-9])")
