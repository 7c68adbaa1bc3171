"""What each source looks like when it is whole: everything else in it is damage.

The kernel writes a value or table of /proc and /sys at once and ends it with a line end (seq_file, sysfs_emit), so
that an incomplete one can be noticed. Files that people type may lack the last line end; there each line is checked.
"""

from __future__ import annotations

import re

import msgspec

from checks.facts.apt_settings import is_complete
from checks.facts.deb822 import paragraphs
from machine.patterns import lazy_pattern

KERNEL = ("/proc/", "/sys/")
# No text has them, but ESC in a shell's start-up file; zeros are what a power failure leaves of a file that was being
# written.
_CONTROL = lazy_pattern("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f\ufffd\ud800-\udfff]")
# what compilers print has no form at all; names of persons and vendors have any encoding
_FREE = "/make.log"
_ANY_ENCODING = ("/etc/passwd", "/sys/class/dmi/")
_NEVER_EMPTY = ("/etc/os-release", "/etc/group", "/etc/passwd", "/.info/version")
# files of the kernel that may be empty: no module is loaded, nobody holds a lock
_MAYBE_EMPTY = ("/proc/modules", "/proc/locks")
# The whole content of a kernel's file, by its path or by the last part of its path under /sys. Whole numbers are
# checked by gaps.whole_number.
_WHOLE = {
    "class": r"0x[0-9a-f]{6}\n",
    **dict.fromkeys(("vendor", "device", "subsystem_vendor", "subsystem_device"), r"0x[0-9a-f]{4}\n"),
    "revision": r"0x[0-9a-f]{2}\n",
    **dict.fromkeys(("current_link_speed", "max_link_speed"), r"(?:Unknown.*|[0-9]{1,3}(?:\.[0-9])? GT/s(?: PCIe)?)\n"),
    "power_state": r"(?:unknown|error|D0|D1|D2|D3hot|D3cold)\n",
    "resource": r"(?:0x[0-9a-f]{16} 0x[0-9a-f]{16} 0x[0-9a-f]{16}\n){6,}",
    "aer_dev_correctable": r"(?:\S+ [0-9]{1,20}\n)*TOTAL_ERR_COR [0-9]{1,20}\n",
    "umc_err_count": r"(?:\w+: [0-9]{1,20}\n)+|Query .*\n",
    "status": r"(?:connected|disconnected|unknown)\n",
    "properties": r"(?=[^\0]*\bsimd_count [0-9])(?:\w+ [0-9]{1,20}\n)+",
    "type": r"[\w-]+\n",
    **dict.fromkeys(
        ("power1_cap", "power1_cap_default", "mem_info_vram_total", "mem_info_vis_vram_total", "mem_info_vram_used"),
        r"[0-9]{1,19}\n",
    ),
    **dict.fromkeys((f"temp{number}_label" for number in range(1, 10)), r"\w+\n"),
    **dict.fromkeys(("current_link_width", "max_link_width"), r"[0-9]{1,3}\n"),
    "boot_vga": r"[01]\n",
    "removable": r"(?:removable|fixed|unknown)\n",
    **dict.fromkeys(("sys_vendor", "product_name", "bios_vendor", "board_vendor", "board_name"), r".*\n"),
    "lockdown": r"(?:\w+ )*\[\w+\](?: \w+)*\n",
    **dict.fromkeys(("memory.max", "memory.limit_in_bytes"), r"(?:max|[0-9]{1,19})\n"),
    "version": r"[0-9][\w.+~-]*\n",
    "/proc/sys/kernel/osrelease": r"[0-9]{1,4}\.[0-9]{1,4}\S{0,64}\n",
    "/proc/sys/kernel/arch": r"\w+\n",
    "/proc/version": r"Linux version .*\n",
    "/proc/uptime": r"[0-9]{1,12}\.[0-9]{1,9} [0-9]{1,15}\.[0-9]{1,9}\n",
    "/proc/cmdline": r".*\n",
    "/proc/meminfo": r"MemTotal: +[0-9]{1,15} kB\n(?:[\w()]+: +[0-9]{1,15}(?: kB)?\n)+",
    "/proc/cpuinfo": r"(?:[^:\n]+:.*\n|\n)+",
    "/proc/modules": r"(?:[\w-]+ [0-9]+ (?:-|[0-9]+) \S+ (?:Live|Loading|Unloading) 0x[0-9a-f]+(?: \([^)\n]*\))?\n)*",
    "/proc/locks": r"(?:[0-9]+: .*\n)*",
    "/proc/self/cgroup": r"(?:[0-9]+:[^:\n]*:/.*\n)+",
    "/proc/driver/nvidia/version": r"NVRM version: .*Kernel Module\b.*\s[0-9]{2,4}(?:\.[0-9]+)+ .*\n(?:.*\n)*",
}
# One line of a configuration file, by the file's path.
_LINE = (
    (r"/etc/os-release", r"\s*(?:#.*)?|[A-Z][A-Z0-9_]*=(?:\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\"'\s]*)\s*"),
    (r"/etc/passwd", r"\s*|[#+-].*|[^:]+:[^:]*:[0-9]+:[0-9]+:[^:]*:[^:]*:[^:]*"),
    (r"/etc/group", r"\s*|[#+-].*|[^:]+:[^:]*:[0-9]+:[^:]*"),
    (
        r"/etc/apt/.*\.list",
        r"\s*(?:#.*)?|\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s*)?[a-z][a-z0-9+.-]*:\S+\s+\S.*",
    ),
    (r"/etc/apt/sources\.list\.d/.*\.sources|/etc/apt/preferences.*", r"\s*|#.*|[A-Za-z][\w-]*:.*|\s.*"),
    (
        r"/(?:etc|usr/lib|run)/modprobe\.d/.*",
        r"\s*(?:#.*)?|\s*(?:alias|blacklist|config|include|install|options|remove|softdep|weakdep)\s+\S.*",
    ),
    (r".*/pyvenv\.cfg", r"\s*|[\w-]+\s*=.*"),
    (r"/opt/.*/\.info/version", r"[0-9]+(?:\.[0-9]+)+[A-Za-z0-9_.+~-]*"),
)
# The fields that each paragraph must have (apt refuses others).
_FIELDS = (
    (r"/etc/apt/sources\.list\.d/.*\.sources", ("types", "uris")),
    (r"/etc/apt/preferences.*", ("package", "pin")),
)
_COMMENT = lazy_pattern(r"^#.*\n?", re.MULTILINE)
_NO_FIELD = lazy_pattern(r"(?:\A|\n[ \t]*\n)[ \t]+\S")
# nvidia-ctk writes them and ends the last line
_ENDED = ("/etc/cdi/", "/run/cdi/")

_DEVICE = r"/sys/bus/pci/devices/[^/]+"
_SELF = r".*/devices/.*"
# Where a link of sysfs points to; a PCI device's to the folder of the same name.
_LINK = (
    (_DEVICE, _SELF),
    (rf"{_DEVICE}/driver", r".*/drivers/[^/]+"),
    (rf"{_DEVICE}/iommu_group", r".*/iommu_groups/[0-9]+"),
    (r"/sys/class/drm/[^/]+/device", r"(?:\.\./)+.+"),
)


def damage(path: str, content: bytes) -> str | None:
    """Why this cannot be the whole content of the file at `path`; None if nothing is wrong with it."""
    if path.endswith(_FREE):
        return None
    text = content.decode("utf-8", "replace")
    if path.startswith(_ANY_ENCODING):
        text = text.replace("\ufffd", "?")
    if _CONTROL.search(text):
        why: str | None = "it is not text"
    else:
        why = _kernel_file(path, text) if path.startswith(KERNEL) else _settings_file(path, text)
    return f"damaged: {why}" if why else None


def _kernel_file(path: str, text: str) -> str | None:
    if not text:
        return None if path in _MAYBE_EMPTY else "it is empty"
    below_sys = path.startswith("/sys/")
    if not text.endswith("\n") or (below_sys and text.endswith("\n\n")):
        return "the last line is incomplete"
    form = _WHOLE.get(path) or (_WHOLE.get(path.rpartition("/")[2]) if below_sys else None)
    whole = "\r" not in text and (form is None or re.fullmatch(form, text, re.ASCII))
    return None if whole else "its content cannot be understood"


def _settings_file(path: str, text: str) -> str | None:
    if path.endswith(_NEVER_EMPTY) and not text.strip():
        return "it is empty"
    if path.endswith(".json"):
        return None if _is_json(text) else "it is not JSON"
    if path.startswith(_ENDED) and not text.endswith("\n"):
        return "the last line is incomplete"
    if path.startswith("/etc/apt/apt.conf.d/") and not is_complete(text):
        return "a quote, a bracket or the last `;` is missing"
    fields = next((fields for pattern, fields in _FIELDS if re.fullmatch(pattern, path)), ())
    if not all(found.get(name) for found in paragraphs(text) for name in fields):
        return f"a paragraph has no {' or '.join(fields)}"
    if fields and _NO_FIELD.search(_COMMENT.sub("", text)):
        return "a line continues no field"
    line = next((line for pattern, line in _LINE if re.fullmatch(pattern, path)), r".*")
    rows = enumerate(text.replace("\\\n", " ").splitlines(), 1)
    return next((f"line {number} cannot be understood" for number, row in rows if not re.fullmatch(line, row)), None)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


def link_damage(path: str, target: str) -> str | None:
    """Why the link cannot point there; None if nothing is wrong with it."""
    form = next((form for pattern, form in _LINK if re.fullmatch(pattern, path)), r".+")
    fits = re.fullmatch(form, target, re.ASCII) and target.endswith(path.rpartition("/")[2] if form is _SELF else "")
    return None if fits and not _CONTROL.search(target) else "damaged: the link points to no such thing"


def answer_damage(stdout: str, ended: bool = True) -> str | None:
    """Why this cannot be all that a program printed; None if nothing is wrong. `ended`: it ends its last line."""
    if _CONTROL.search(stdout):
        return "damaged: the output is not text"
    incomplete = ended and stdout and not stdout.endswith("\n")
    return "damaged: the last line of the output is incomplete" if incomplete else None
