"""What never leaves the machine: names of people and the machine, addresses, ids of disks, passwords, tokens.

Pure functions. One value always becomes the same pseudonym within one `Identities`, so that two lines can still be
compared, and scrubbing twice changes nothing. What a diagnosis needs is kept: PCI addresses, versions, kernel
releases, package names, public repositories. Text that is not UTF-8 passes byte by byte.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable

from machine import secrets
from machine.identities import NOBODY, REDACTED, Identities

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
_UUID_OF_NO_CARD = re.compile(r"(?<!GPU-)(?<!MIG-)" + _UUID.pattern)
# 6 octets, 8 (EUI-64), or 14 as netfilter logs a packet's two addresses and its kind; dashes as Windows writes them
_MAC = re.compile(
    r"(?<![\w:-])(?:(?:[0-9a-fA-F]{2}:){5}(?:(?:[0-9a-fA-F]{2}:){2}(?:(?:[0-9a-fA-F]{2}:){6})?)?[0-9a-fA-F]{2}"
    r"|(?:[0-9a-fA-F]{2}-){5}[0-9a-fA-F]{2})(?![\w:-])"
)
# systemd names an interface after its address (systemd.net-naming-scheme(7))
_MAC_NAME = re.compile(r"(?<![A-Za-z0-9])(enx|wlx|wwx)[0-9a-f]{12}(?![0-9A-Za-z])")
_IPV4 = re.compile(
    r"(?<![\w.+~-])(?<!\d:)(?<!==)(?:\d{1,3}\.){3}\d{1,3}(?![\w+~]|-[A-Za-z]|-\d(?!\d{0,2}(?:\.\d{1,3}){3})|\.\d)"
)
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
_MOST_PASSES = 8

must_stay = _MUST_STAY.search
literals = secrets.literals


def text(value: str, who: Identities = NOBODY) -> str:
    """The text with everything replaced that must not leave the machine."""
    return _until_stable(value, lambda found: _ids(_names(found, who), who))


def here(value: str, hidden: Iterable[str] = ()) -> str:
    """The text for a document that is used on this machine: without secrets, addresses, ids, and the texts `hidden`.

    It keeps names of accounts, folders and servers, because its commands need them, and UUIDs of cards.
    """
    for literal in hidden:
        value = value.replace(literal, REDACTED)
    return _until_stable(value, lambda found: _ids(found, NOBODY, _UUID_OF_NO_CARD))


def _until_stable(value: str, replace: Callable[[str], str]) -> str:
    # what one pass puts in may, with its neighbours, look like something to hide: until nothing changes
    for _ in range(_MOST_PASSES):
        before, value = value, replace(value)
        if value == before:
            break
    return value


def _names(value: str, who: Identities) -> str:
    for literal in who.literals:
        value = value.replace(literal, REDACTED)
    return _scrub_names(value, who)


def _ids(value: str, who: Identities, uuid: re.Pattern[str] = _UUID) -> str:
    def pseudonym(kind: str, found: str) -> str:
        # keyed, so that an address cannot be found by trying all of them
        raw = found.lower().encode("utf-8", "surrogateescape")
        return f"{kind}-{hashlib.blake2s(raw, key=who.salt[:32], digest_size=4).hexdigest()}"

    value = secrets.redact(value)
    value = _REGISTRIES.sub(rf'\1"{REDACTED}"]', value)
    value = _JOURNAL.sub(r"\1host", value)
    value = uuid.sub(lambda m: m[0] if m[0].lower() in _PUBLIC_UUIDS else pseudonym("uuid", m[0]), value)
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
    """The same for a file's bytes; one that holds a single id loses all of it."""
    if _IDENTITY.search(path) and value.strip():
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


def aliases(who: Identities) -> dict[str, str]:
    """Account → pseudonym: `user` for the session's, `user2` … for the others. root and such pseudonyms stay."""
    people = [name for name in dict.fromkeys(who.users) if name and name != "root" and not _ALIAS.fullmatch(name)]
    return {name: "user" if index == 0 else f"user{index + 1}" for index, name in enumerate(people)}


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
