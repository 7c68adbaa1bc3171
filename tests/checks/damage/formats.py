"""What a source can look like when it is whole: anything else is damage that can be noticed.

Written from the kernel's, systemd's, dpkg's and apt's own formats, not from the readers under test.
"""

from __future__ import annotations

import json
import re

_NUMBER = rb"(?:0|[1-9][0-9]{0,18})\n"
# a GPU has SIMD units and an address; a CPU has neither
_NODE = rb"(?=(?s:.*)\bsimd_count )(?=(?s:.*)(?:\bsimd_count 0\n|\blocation_id ))(?:\w+ [0-9]{1,20}\n)+"
_DEVICE = r"/sys/bus/pci/devices/[^/]+"
# The whole content of a file. sysfs and procfs write one value or table at once (seq_file, sysfs_emit), always with
# a line end; configuration files are typed by people, whose editors may leave it out.
_FILES: tuple[tuple[str, bytes], ...] = (
    (rf"{_DEVICE}/class", rb"0x[0-9a-f]{6}\n"),
    (rf"{_DEVICE}/(?:subsystem_)?(?:vendor|device)", rb"0x[0-9a-f]{4}\n"),
    (rf"{_DEVICE}/revision", rb"0x[0-9a-f]{2}\n"),
    (rf"{_DEVICE}/(?:current|max)_link_speed", rb"(?:Unknown(?: speed)?|[0-9]{1,3}(?:\.[0-9])? GT/s(?: PCIe)?)\n"),
    (rf"{_DEVICE}/(?:current|max)_link_width", rb"[0-9]{1,3}\n"),
    (rf"{_DEVICE}/boot_vga", rb"[01]\n"),
    (rf"{_DEVICE}/power_state", rb"(?:unknown|error|D0|D1|D2|D3hot|D3cold)\n"),
    (rf"{_DEVICE}/resource", rb"(?:0x[0-9a-f]{16} 0x[0-9a-f]{16} 0x[0-9a-f]{16}\n){6,}"),
    (rf"{_DEVICE}/aer_dev_correctable", rb"(?:\S+ [0-9]{1,20}\n)*TOTAL_ERR_COR [0-9]{1,20}\n"),
    (rf"{_DEVICE}/ras/\w+", rb"(?:(?:ue|ce|de): [0-9]{1,20}\n)+|Query currently inaccessible\n"),
    (rf"{_DEVICE}/hwmon/[^/]+/temp[0-9]+_label", rb"\w+\n"),
    (rf"{_DEVICE}/hwmon/[^/]+/temp[0-9]+_input", rb"-?" + _NUMBER),
    (rf"{_DEVICE}/(?:hwmon/[^/]+/power1_.*|mem_info_.*)", _NUMBER),
    (r"/sys/class/drm/[^/]+/status", rb"(?:connected|disconnected|unknown)\n"),
    (r"/sys/class/kfd/.*/properties", _NODE),
    (r"/sys/class/dmi/id/\w+", rb".*\n"),
    (r"/sys/kernel/iommu_groups/[0-9]+/type", rb"[\w-]+\n"),
    (r"/sys/kernel/security/lockdown", rb"(?:\w+ )*\[\w+\](?: \w+)*\n"),
    (r"/sys/fs/cgroup/.*", rb"(?:max|[0-9]{1,19})\n"),
    (r"/sys/module/\w+/version", rb"[0-9][\w.-]*\n"),
    (r"/sys/firmware/efi/efivars/.*", rb"[\0-\xff]{4}[\0\x01]"),
    (r"/proc/sys/kernel/osrelease", rb"[0-9]{1,4}\.[0-9]{1,4}\S{0,64}\n"),
    (r"/proc/sys/kernel/arch", rb"\w+\n"),
    (r"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", rb"[01]\n"),
    (r"/proc/version", rb"Linux version .*\n"),
    (r"/proc/uptime", rb"[0-9]+\.[0-9]{2} [0-9]+\.[0-9]{2}\n"),
    (r"/proc/cmdline", rb".*\n"),
    (r"/proc/meminfo", rb"MemTotal: +[0-9]{1,15} kB\n(?:\w+(?:\(\w+\))?: +[0-9]{1,15}(?: kB)?\n)+"),
    (r"/proc/cpuinfo", rb"(?:[^:\n]+:.*\n|\n)+"),
    (r"/proc/modules", rb"(?:[\w-]+ [0-9]+ (?:-|[0-9]+) \S+ (?:Live|Loading|Unloading) 0x[0-9a-f]+(?: \(\w+\))?\n)*"),
    (r"/proc/locks", rb"(?:[0-9]+: .*\n)*"),
    (r"/proc/self/cgroup", rb"(?:[0-9]+:[^:\n]*:/.*\n)+"),
    (r"/proc/driver/nvidia/version", rb"NVRM version: .*Kernel Module.*\s[0-9]{2,4}(?:\.[0-9]+)+ .*\n(?:.*\n)*"),
)  # fmt: skip
# Files that are lists: each line for itself. People type most of them, so the last may lack its line end.
_BLANK = rb"\s*(?:#.*)?"
_SHELL = _BLANK + rb"|\s*(?:export )?\w+=(?:\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\"'\s]*)\s*(?:#.*)?"
_LINES: tuple[tuple[str, bytes], ...] = (
    (r"/etc/os-release", _SHELL),
    (r"/etc/passwd", rb"\s*|[#+-].*|[^:]+:[^:]*:[0-9]+:[0-9]+:[^:]*:[^:]*:[^:]*"),
    (r"/etc/group", rb"\s*|[#+-].*|[^:]+:[^:]*:[0-9]+:[^:]*"),
    (r"/etc/apt/.*\.list", _BLANK + rb"|\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s*)?[a-z][a-z0-9+.-]*:\S+\s+\S.*"),
    (r"/etc/apt/sources\.list\.d/.*\.sources|/etc/apt/preferences.*", rb"|#.*|[A-Za-z][\w-]*:.*|[ \t].*"),
    (
        r"/(?:etc|usr/lib|run)/modprobe\.d/.*",
        _BLANK + rb"|\s*(?:alias|blacklist|install|options|remove|softdep|weakdep)\s+\S.*",
    ),
    (r"/opt/.*/\.info/version", rb"[0-9]+(?:\.[0-9]+)+[\w.+~-]*"),
    (r"/var/lib/dpkg/status", rb"|(?:Package|Architecture|Version): \S+|Status: \w+ [\w-]+ [\w-]+|[A-Z][\w-]*:.*| .*"),
)
_LINKS = (
    (r"/sys/bus/pci/devices/[^/]+", r".*/devices/.*SELF"),
    (r"/sys/bus/pci/devices/.*/driver", r".*/drivers/[^/]+"),
    (r"/sys/bus/pci/devices/.*/iommu_group", r".*/iommu_groups/[0-9]+"),
    (r"/sys/class/drm/.*/device", r"(?:\.\./)+.+"),
)
# never empty, where they exist
_FULL = ("/etc/os-release", "/etc/passwd", "/etc/group", "/var/lib/dpkg/status")
# written by programs, which end their last line
_ENDED = r"/var/lib/dpkg/status|/(?:etc|run)/cdi/.*"
_COMMANDS: dict[str, str] = {
    # each message begins with its time, later lines of one are indented
    "journalctl": r"(?:\[ *[0-9]+\.[0-9]+\].*\n|\s.*\n|-- .*\n)*",
    "dmesg": r"(?:\[ *[0-9]+\.[0-9]+\].*\n|\s.*\n)*",
    "mokutil": r"(?:.*\n)*",
    "stat": r"(?:[0-9]+ /.*\n)*",
}
_JSON = (r"/etc/docker/daemon\.json", r"/(?:etc|run)/cdi/.*\.json")


def is_whole(source: str, content: bytes) -> bool:
    """Whether this can be the source's content on some machine. `source`: a path, or a command's first word."""
    if source.endswith("/make.log"):
        return True
    if not source.startswith("/"):
        return _answer_is_whole(source, content)
    if any(re.fullmatch(pattern, source) for pattern in _JSON):
        return not content.strip() or _is_json(content)
    # persons and vendors have names in any encoding
    text = content.decode("latin-1").encode() if source.startswith(("/etc/passwd", "/sys/class/dmi/")) else content
    if not source.startswith("/sys/firmware/efi/efivars/") and not _is_text(text):
        return False
    if (source in _FULL and not content.strip()) or (re.fullmatch(_ENDED, source) and not content.endswith(b"\n")):
        return False
    if not _statements_are_whole(source, content):
        return False
    if (line := _form(_LINES, source)) is not None:
        return all(re.fullmatch(line, found) for found in content.removesuffix(b"\n").split(b"\n"))
    return (form := _form(_FILES, source)) is None or re.fullmatch(form, content) is not None


def link_is_whole(path: str, target: str) -> bool:
    """Whether the link can point there; where people make links, every target that is text can be."""
    form = next((form for pattern, form in _LINKS if re.fullmatch(pattern, path)), r".*")
    return re.fullmatch(
        form.replace("SELF", re.escape(path.rpartition("/")[2])), target, re.ASCII
    ) is not None and _is_text(target.encode("utf-8", "replace"))


def _form(table: tuple[tuple[str, bytes], ...], path: str) -> bytes | None:
    return next((form for pattern, form in table if re.fullmatch(pattern, path)), None)


def _statements_are_whole(path: str, content: bytes) -> bool:
    """What apt and dpkg refuse: a paragraph without a field that it must have, an apt.conf with an open bracket."""
    if path.startswith("/etc/apt/apt.conf.d/"):
        bare = re.sub(
            rb'"[^"\n]*"|//.*|^\s*#.*', lambda match: b"" if match[0][:1] != b'"' else b"S", content, flags=re.M
        )
        return re.fullmatch(rb"(?:[^\"{};]*(?:;|\{|\}))*\s*", bare) is not None and bare.count(b"{") == bare.count(b"}")
    needed = next((fields for pattern, fields in _NEEDED if re.fullmatch(pattern, path)), ())
    bare = re.sub(rb"^#.*\n?", b"", content, flags=re.MULTILINE)
    paragraphs = [found for found in re.split(rb"\n\s*\n", bare) if found.strip()]
    return all(re.search(rb"^%s:\s*\S" % field, one, re.M | re.I) for one in paragraphs for field in needed) and (
        path != "/var/lib/dpkg/status" or all(b" not-installed" in one or b"Version: " in one for one in paragraphs)
    )


_NEEDED: tuple[tuple[str, tuple[bytes, ...]], ...] = (
    (r"/etc/apt/sources\.list\.d/.*\.sources", (b"Types", b"URIs")),
    (r"/etc/apt/preferences.*", (b"Package", b"Pin")),
    (r"/var/lib/dpkg/status", (b"Package", b"Status")),
)


def _answer_is_whole(source: str, content: bytes) -> bool:
    if not _is_text(content):
        return False
    if source in ("nvidia", "amd", "amd-smi"):
        return content.endswith(b"\n") and _is_json(content)
    if source == "docker":
        return all(map(_is_json, filter(None, content.splitlines())))
    return re.fullmatch(_COMMANDS.get(source, r"(?:.*\n)*"), content.decode()) is not None


def _is_text(content: bytes) -> bool:
    try:
        return re.search(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f\ufffd]", content.decode("utf-8")) is None
    except UnicodeDecodeError:
        return False


def _is_json(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content, parse_int=str), (dict, list))
    except ValueError:
        return False
