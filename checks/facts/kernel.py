"""The kernel: running, installed and next; its GPU modules as loaded, on disk, blacklisted; its log since boot."""

from __future__ import annotations

import re

from checks.facts.dkms import read_dkms
from checks.facts.gaps import Gaps, exists, names, on_path, output, text, whole_number, word
from checks.facts.grub import decide_next_boot
from checks.facts.host import Kernel, ModuleFile, ModuleOrigin
from machine.local import ABSENT, TIMED_OUT, Machine, Unreadable

_GPU_MODULE = re.compile(
    r"nvidia(?:[_-]\w+)*|amdgpu|amdkcl|amdttm|amddrm\w*|amdxcp|radeon|nouveau|nova(?:[_-]\w+)?|i915|xe"
)
_SUFFIX = re.compile(r"\.ko(?:\.(?:zst|xz|gz))?$")
# folders under /lib/modules/RELEASE: DKMS's, NVIDIA's installer's and mainline's own
_FOLDERS: tuple[tuple[str, ModuleOrigin], ...] = (
    ("updates/dkms", "dkms"),
    ("updates", "other"),
    ("extra", "other"),
    ("kernel/drivers/video", "runfile"),
    ("kernel/drivers/gpu/drm/amd/amdgpu", "in-tree"),
    ("kernel/drivers/gpu/drm/nouveau", "in-tree"),
    ("kernel/drivers/gpu/drm/nova", "in-tree"),
    ("kernel/drivers/gpu/nova-core", "in-tree"),
)
JOURNAL = ("journalctl", "-k", "-b", "-o", "short-monotonic", "--no-pager", "-q")
DMESG = ("dmesg",)
# What the checks look for: vendors' drivers, PCIe trouble, module signing, firmware, memory pressure, suspend. Matched
# against lower-case lines, and each alternative begins with a plain letter: both make re skip ahead five times faster.
_RELEVANT = re.compile(
    r"nvrm|nvidia|nouveau|nova[_-]?core|nova_drm|amdgpu|kfd\b|radeon|drm\b|xid\b|aer\b|pcieport|vfio|iommu|dmar|amd-vi|"
    r"bar\b.*(?:fail|no space|can't|disabled)|fallen off|d3cold|firmware|secure ?boot|lockdown|pkcs#7|unsigned module|"
    r"is rejected|key was rejected|module verification|tainting kernel|out of memory|oom-kill|oom_reaper|"
    r"killed process|machine check|mce\b|hardware error|thermal.*(?:trip|critical|shut)|throttl|i/o error|"
    r"ext4-fs error|btrfs.*error|nvme.*(?:timeout|reset)|segfault|pm: suspend"
)
_LINE = re.compile(r"^(\[ *[0-9]+\.[0-9]+\]) (?:\S+ kernel: )?(.*)$")
_TIME = re.compile(r"\[ *[0-9]+\.[0-9]+\]")
_MOST_LINES = 600


def version_key(release: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts releases by number, not by letter: 6.8.0-9 before 6.8.0-31; `~rc1` before nothing, as dpkg does."""
    return (*map(_part_key, re.findall(r"[0-9]+|~|[^0-9~]+", release)), (1, 0, ""))


def _part_key(part: str) -> tuple[int, int, str]:
    if "0" <= part[0] <= "9":
        # of two numbers the one with more digits is larger; int() refuses thousands of them
        digits = part.lstrip("0")
        return (2, len(digits), digits)
    return (0, 0, "") if part == "~" else (3, 0, part)


def parse_cmdline(content: str) -> tuple[str, ...]:
    """Words of /proc/cmdline; double quotes keep spaces, as the kernel's own parser does."""
    return tuple(re.findall(r"(?:[^\s\"]|\"[^\"]*\"?)+", content))


def parse_modules(content: str) -> tuple[str, ...]:
    return tuple(line.split(maxsplit=1)[0] for line in content.splitlines() if line.strip())


def parse_blacklist(content: str) -> tuple[str, ...]:
    """GPU modules that a modprobe.d(5) file blocks: `blacklist X`, `install X /bin/false`."""
    found = []
    for line in content.replace("\\\n", " ").splitlines():
        match = re.match(r"\s*(?:blacklist\s+(\S+)\s*$|install\s+(\S+)\s+(?:/usr)?/bin/(?:false|true)\b)", line)
        if match and _GPU_MODULE.fullmatch(match[1] or match[2]):
            found.append((match[1] or match[2]).replace("-", "_"))
    return tuple(dict.fromkeys(found))


def parse_options(content: str) -> tuple[tuple[str, str], ...]:
    """(module, option) of the `options MODULE A=1 B=2` lines of a modprobe.d(5) file about GPU modules."""
    found = []
    for line in content.replace("\\\n", " ").splitlines():
        words = line.split()
        if len(words) > 2 and words[0] == "options" and _GPU_MODULE.fullmatch(words[1]):
            found += [(words[1].replace("-", "_"), word) for word in words[2:]]
    return tuple(found)


def parse_dates(content: str) -> tuple[tuple[str, int], ...]:
    """(path, seconds since 1970) of `stat -c '%Y %n'`."""
    lines = (line.partition(" ") for line in content.splitlines())
    return tuple((path, int(when)) for when, space, path in lines if space and re.fullmatch(r"[0-9]{1,12}", when))


def parse_log(content: str) -> tuple[str, ...]:
    """The relevant lines of `journalctl -o short-monotonic` or `dmesg`, without the host's name, newest last."""
    found, stamp = [], ""
    for line in content.splitlines():
        match = _LINE.match(line)
        stamp = match[1] if match else stamp
        # the later lines of one message (NVRM's `fallen off the bus`) are indented and have no time of their own
        message = match[2] if match else line.strip() if line[:1].isspace() else ""
        if stamp and message and _RELEVANT.search(message.lower()):
            found.append(f"{stamp} {message}")
    return tuple(found)[-_MOST_LINES:]


def log_damage(content: str) -> str | None:
    """Why this cannot be the whole output of journalctl or dmesg: each message begins with its time, the later lines
    of one are indented."""
    for number, line in enumerate(content.splitlines(), 1):
        if line[:1].strip() and not _TIME.match(line) and not line.startswith(("-- ", "Hint: ")):
            return f"damaged: line {number} has no time"
    return None


def reduce_log(content: bytes) -> bytes:
    """The log's relevant lines unchanged, for a recording; also its first, which shows that the log was read."""
    lines = content.decode("utf-8", "replace").splitlines()
    kept, head = lines[:1], ""
    for line in lines[1:]:
        timed = _LINE.match(line) is not None
        head = line if timed else head
        if _RELEVANT.search(line.lower()):
            # a later line of a message is useless without the line that has the time
            kept += [line] if timed or kept[-1] == head else [head, line]
    return "".join(f"{line}\n" for line in kept).encode()


def is_relevant(message: str) -> bool:
    """Whether a line of the log is one that the checks look for."""
    return _RELEVANT.search(message.lower()) is not None


def module_name(file: str) -> str | None:
    """`nvidia-uvm.ko.zst` → nvidia_uvm; None if it is no GPU module."""
    name, count = _SUFFIX.subn("", file)
    return name.replace("-", "_") if count and _GPU_MODULE.fullmatch(name) else None


def read_kernel(machine: Machine, gaps: Gaps) -> Kernel:
    """Everything except `log`, which `read_log` gets from a process that may be slow."""
    cmdline = text(machine, "/proc/cmdline", gaps)
    loaded = text(machine, "/proc/modules", gaps)
    release = word(machine, "/proc/sys/kernel/osrelease", gaps)
    boot = names(machine, "/boot", gaps)
    installed = _installed(boot)
    next_boot, because = decide_next_boot(machine, installed, gaps)
    sources = names(machine, "/usr/src", gaps)
    words = parse_cmdline(cmdline) if cmdline is not None else None
    blacklisted, options = _modprobe(machine, words or (), gaps)
    restricted = whole_number(machine, "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", gaps)
    return Kernel(
        release=release,
        version=word(machine, "/proc/version", gaps),
        cmdline=words,
        # a kernel that was built without modules has no such file
        loaded=parse_modules(loaded) if loaded is not None else (None if exists(machine, "/proc/modules") else ()),
        installed=installed,
        next_boot=next_boot,
        next_boot_because=because,
        headers=None if sources is None else _after("linux-headers-", sources),
        modules=_module_files(machine, gaps),
        dkms=read_dkms(machine, gaps),
        blacklisted=blacklisted,
        module_options=options,
        initrds=_initrds(machine, boot, gaps),
        userns_restricted=None if restricted is None else restricted == 1,
        boot_id=word(machine, "/proc/sys/kernel/random/boot_id", gaps),
        uptime_seconds=_uptime(text(machine, "/proc/uptime", gaps)),
    )


def read_log(machine: Machine, gaps: Gaps, patience: float = 4.0) -> tuple[str, ...] | None:
    """The kernel log since boot; None without permission. journalctl first: dmesg's buffer loses its beginning."""
    said = []
    for argv, share in ((JOURNAL, 0.7), (DMESG, 0.3)):
        outcome = machine.run(argv, timeout=patience * share)
        content = output(outcome, argv[0], gaps)
        if (why := log_damage(content)) is not None:
            gaps.note(argv[0], why)
        # hints and garbage are no log: without a message with a time, nothing can be concluded from it
        if outcome.ok and any(_LINE.match(line) for line in content.splitlines()):
            return parse_log(content)
        if outcome.problem not in ("", ABSENT):
            said.append(f"{argv[0]} {outcome.problem}")
    timed_out = any(TIMED_OUT in word for word in said)
    gaps.note("kernel log", "; ".join(said) if timed_out else "needs group adm or root")
    return None


def read_dates(
    machine: Machine, kernel: Kernel, gaps: Gaps, patience: float = 1.0
) -> tuple[tuple[str, int], ...] | None:
    """When the initrd of each kernel and the administrator's own modprobe.d files about GPU modules were changed.

    The packages' files in /usr/lib are left out: their dates are the package's, and their scripts build the initrd.
    """
    files = {file for *_, file in (*(kernel.blacklisted or ()), *(kernel.module_options or ()))}
    own = sorted(file for file in files if file.startswith("/etc/modprobe.d/"))
    if not own or not kernel.initrds or on_path(machine, "stat") is None:
        return None
    paths = [*(f"/boot/initrd.img-{release}" for release, _ in kernel.initrds), *own]
    outcome = machine.run(("stat", "-c", "%Y %n", *paths), timeout=patience)
    if outcome.rc is None:
        gaps.note("stat", outcome.problem)
        return None
    return parse_dates(output(outcome, "stat", gaps))


def _initrds(machine: Machine, boot: tuple[str, ...] | None, gaps: Gaps) -> tuple[tuple[str, int], ...] | None:
    if boot is None:
        return None
    found = []
    for release in _after("initrd.img-", boot):
        try:
            found.append((release, machine.stat(f"/boot/initrd.img-{release}").size))
        except Unreadable as error:
            gaps.failed(error)
    return tuple(found)


def _uptime(content: str | None) -> float | None:
    match = re.match(r"[0-9]{1,12}(?:\.[0-9]+)?", content or "")
    return float(match[0]) if match else None


def _installed(boot: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if boot is None:
        return None
    releases = [name for name in _after("vmlinuz-", boot) if not name.endswith((".old", ".efi.signed", ".dpkg-new"))]
    return tuple(sorted(releases, key=version_key))


def _after(prefix: str, found: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted((n[len(prefix) :] for n in found if n.startswith(prefix) and n != prefix), key=version_key))


def _module_files(machine: Machine, gaps: Gaps) -> tuple[ModuleFile, ...] | None:
    releases = names(machine, "/lib/modules", gaps)
    if releases is None:
        return None
    found = []
    for release in sorted(releases, key=version_key):
        top = f"/lib/modules/{release}"
        # Ubuntu's prebuilt modules: kernel/nvidia-580-open and the like
        prebuilt = [name for name in names(machine, f"{top}/kernel", gaps) or () if name.startswith("nvidia-")]
        folders = [*_FOLDERS, *((f"kernel/{name}", "prebuilt") for name in prebuilt)]
        for folder, origin in folders:
            for file in names(machine, f"{top}/{folder}", gaps) or ():
                name = module_name(file)
                if name is not None:
                    found.append(ModuleFile(name=name, kernel=release, path=f"{top}/{folder}/{file}", origin=origin))
    return tuple(found)


def _modprobe(
    machine: Machine, cmdline: tuple[str, ...], gaps: Gaps
) -> tuple[tuple[tuple[str, str], ...] | None, tuple[tuple[str, str, str], ...] | None]:
    """(module, file) of each blacklist and (module, option, file) of each option; None if a folder cannot be read."""
    files: dict[str, str] = {}
    for folder in ("/usr/lib/modprobe.d", "/run/modprobe.d", "/etc/modprobe.d"):
        found = names(machine, folder, gaps)
        if found is None:
            return None, None
        # a file in /etc overrides one of the same name in /run and /usr/lib
        files.update({name: f"{folder}/{name}" for name in found if name.endswith(".conf")})
    pairs, options = [], []
    for _, path in sorted(files.items()):
        content = text(machine, path, gaps) or ""
        pairs += [(module, path) for module in parse_blacklist(content)]
        options += [(module, option, path) for module, option in parse_options(content)]
    for option in cmdline:
        key, _, value = option.partition("=")
        if key in ("modprobe.blacklist", "module_blacklist", "rd.driver.blacklist"):
            pairs += [(m.replace("-", "_"), "/proc/cmdline") for m in value.split(",") if _GPU_MODULE.fullmatch(m)]
    return tuple(dict.fromkeys(pairs)), tuple(options)
