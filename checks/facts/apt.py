"""dpkg and apt: the packages that matter, repositories, pins, locks, pending reboots, unattended upgrades."""

from __future__ import annotations

import re

from checks.facts.apt_settings import parse_settings as parse_settings
from checks.facts.apt_sources import read_sources
from checks.facts.deb822 import paragraphs
from checks.facts.gaps import Gaps, exists, names, raw, text, word
from checks.facts.host import Apt, AptPreference, AptSource, Package
from machine.local import Machine, Unreadable
from machine.patterns import lazy_pattern

STATUS = "/var/lib/dpkg/status"
# a desktop's status file has 3 to 6 MB
STATUS_LIMIT = 64 << 20
# Families of names that a check or plan uses: vendors' drivers and libraries, kernels, DKMS, engines, compilers,
# Python, Secure Boot, display managers. All others are left out of Host (and out of recordings).
_FAMILIES = lazy_pattern(
    rb"(?:lib)?nvidia-|(?:lib)?cuda|libcu(?:blas|dnn|fft|sparse|solver|rand)|libnccl|libnv|"
    rb"xserver-xorg-(?:video-)?(?:nvidia|amdgpu|nouveau)|screen-resolution-extra$|"
    rb"linux-(?:image|headers|modules|objects|signatures|generic|hwe|lowlatency|oem|firmware|virtual|cloud|aws|gcp|azure|oracle)|"
    rb"(?:lib)?rocm|libamdhip|librocblas|amdrocm|amdgpu|(?:lib)?hip|(?:lib)?hsa|comgr|miopen|migraphx|rccl|amd-smi|amd-container|(?:lib)?drm-amdgpu|"
    rb"libdrm-amdgpu|libdrm2|mesa-|libgl1-mesa|"
    rb"dkms$|docker|containerd|runc$|podman|moby|buildah$|crun$|libnvidia|"
    rb"gcc(?:-[0-9]+)?$|g\+\+(?:-[0-9]+)?$|cpp$|clang(?:-[0-9]+)?$|make$|build-essential$|libc6-dev$|libatomic1$|libquadmath0$|"
    rb"python3(?:\.[0-9]+)?(?:-(?:venv|dev|pip|minimal|full))?$|libpython3(?:\.[0-9]+)?-(?:dev|stdlib)$|"
    rb"shim|mokutil$|sbsigntool|grub|kmod$|initramfs-tools|dracut|"
    rb"ubuntu-drivers|ubuntu-(?:desktop|server)|kubuntu-desktop|xubuntu-desktop|gdm3$|lightdm$|sddm$|xorg$|steam|"
    rb"unattended-upgrades$|needrestart$|systemd-oomd$|earlyoom$|snapd$|ubuntu-release-upgrader-core$"
)
_UNFINISHED = ("half-installed", "half-configured", "unpacked", "triggers-awaited", "triggers-pending")
# every Status that dpkg writes (dpkg-query(1): desired action, error flag, state)
_STATUS_LINES = frozenset(
    f"Status: {wanted} {flag} {state}".encode()
    for wanted in ("unknown", "install", "hold", "deinstall", "purge")
    for flag in ("ok", "reinstreq")
    for state in ("not-installed", "config-files", "installed", *_UNFINISHED)
)
# ASCII names, values in one line; a list continues in lines that begin with a blank
_FIELD = lazy_pattern(
    rb"(?:Package|Version|Architecture): [!-~]+|Status: [ -~]+|"
    rb"(?!(?:Package|Version|Architecture|Status):)[A-Z][\w-]*:[^\x00-\x08\x0b-\x1f\x7f]*|"
    rb" [^\x00-\x08\x0b-\x1f\x7f]*"
)
# whose repositories a GPU machine depends on (AptSource.owner)
_VENDORS = ("nvidia", "nvidia-toolkit", "amd-rocm", "amd-graphics", "amd-toolkit", "docker")
LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock")


def is_relevant(package: str) -> bool:
    """Whether a package of this name is of the families above."""
    return _FAMILIES.match(package.encode("utf-8", "surrogateescape")) is not None


def parse_status(content: bytes) -> tuple[tuple[Package, ...], tuple[str, ...]]:
    """Packages of the families above, and the names of all packages in an unfinished state.

    By hand: python-debian takes seconds for a desktop's file, and only 200 of 2,500 paragraphs matter.
    """
    packages, broken = [], []
    own = content.find(b"Package: dpkg\n")
    native = re.search(rb"^Architecture: (\S+)$", content[own : content.find(b"\n\n", own)], re.MULTILINE)
    for paragraph in content.split(b"\n\n"):
        head = paragraph.lstrip(b"\n")
        if not head.startswith(b"Package: "):
            continue
        name = head[9 : head.find(b"\n") if b"\n" in head else len(head)].strip()
        matters = _FAMILIES.match(name) is not None
        words = _field(head, b"Status").decode("ascii", "replace").split()
        if len(words) != 3 or words[2] == "not-installed":
            continue
        finished = words[2] not in _UNFINISHED and words[1] == "ok"
        if not matters and finished:
            continue
        arch = _field(head, b"Architecture")
        called = name.decode("utf-8", "replace")
        if native and arch not in (native[1], b"all", b""):
            called += ":" + arch.decode("utf-8", "replace")
        if not finished:
            broken.append(called)
        if matters:
            version = _field(head, b"Version").decode("utf-8", "replace").strip()
            packages.append(Package(name=called, version=version, state=words[2], held=words[0] == "hold"))
    return tuple(sorted(packages, key=lambda p: p.name)), tuple(sorted(broken))


def _field(paragraph: bytes, name: bytes) -> bytes:
    """A field of a paragraph that begins with another; a regular expression takes ten times as long."""
    at = paragraph.find(b"\n" + name + b": ")
    return paragraph[at + len(name) + 3 :].partition(b"\n")[0] if at >= 0 else b""


def status_damage(content: bytes) -> str | None:
    """Why this cannot be the whole status file of dpkg. Only the paragraphs that matter are checked line by line."""
    if not content.endswith(b"\n"):
        return "damaged: the last line is incomplete"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "damaged: it is not text"
    for number, paragraph in enumerate(content.strip(b"\n").split(b"\n\n"), 1):
        at = paragraph.find(b"\nStatus: ") + 1
        status = paragraph[at : paragraph.find(b"\n", at)] if at else b""
        known = paragraph.startswith(b"Package: ") and status in _STATUS_LINES
        versioned = not status.endswith(b" installed") or b"\nVersion: " in paragraph
        end = paragraph.find(b"\n")
        lines = paragraph.split(b"\n") if _FAMILIES.match(paragraph[9:end]) else ()
        # what follows a name that was broken in two is no field
        whole_name = paragraph[end + 1 : end + 2].isupper()
        if not known or not versioned or not whole_name or not all(map(_FIELD.fullmatch, lines)):
            return f"damaged: paragraph {number} cannot be understood"
    return None


def reduce_status(content: bytes) -> bytes:
    """The status file with only the fields and packages that `parse_status` reads, for a recording."""
    kept = []
    for paragraph in content.split(b"\n\n"):
        name = re.search(rb"^Package: (\S+)$", paragraph, re.MULTILINE)
        status = re.search(rb"^Status: \S+ (\S+) (\S+)$", paragraph, re.MULTILINE)
        if name is None or status is None:
            continue
        finished = status[1] == b"ok" and status[2].decode("ascii", "replace") not in _UNFINISHED
        if _FAMILIES.match(name[1]) or name[1] == b"dpkg" or not finished:
            fields = re.findall(rb"^(?:Package|Status|Architecture|Version): .*$", paragraph, re.MULTILINE)
            kept.append(b"\n".join(fields) + b"\n")
    return b"\n".join(kept)


def parse_pins(file: str, content: str) -> tuple[AptPreference, ...]:
    """apt_preferences(5): one pin for each paragraph with a package and a pin."""
    found = []
    for fields in paragraphs(content):
        if fields.get("package") and fields.get("pin"):
            priority = re.fullmatch(r"-?[0-9]{1,6}", fields.get("pin-priority", "").strip())
            packages = " ".join(fields["package"].split())
            pin = " ".join(fields["pin"].split())
            found.append(
                AptPreference(file=file, packages=packages, pin=pin, priority=int(priority[0]) if priority else None)
            )
    return tuple(found)


def parse_lock_pids(content: str, inode: int) -> tuple[int, ...]:
    """Processes that hold a lock on the file with this inode (/proc/locks)."""
    pattern = re.compile(rf"^[0-9]+: \S+\s+\S+\s+WRITE ([0-9]{{1,10}}) [0-9a-f]+:[0-9a-f]+:{inode} ", re.MULTILINE)
    return tuple(int(pid) for pid in pattern.findall(content))


def list_name(source: AptSource) -> str:
    """The prefix of the names of a repository's lists in /var/lib/apt/lists (apt's URItoFileName)."""
    place = source.uri.partition("://")[2].rpartition("@")[2].rstrip("/").replace("$(ARCH)", "amd64")
    return place.replace("_", "%5f").replace("/", "_") + "_"


def read_apt(machine: Machine, gaps: Gaps) -> Apt:
    """Everything except the lock's holder. On a machine without dpkg every field is None."""
    status = raw(machine, STATUS, gaps, STATUS_LIMIT)
    if status is not None and (why := status_damage(status)) is not None:
        gaps.note(STATUS, why)
    # dpkg always has some package: an empty or overwritten file gives no information
    known = status is not None and re.search(rb"^Status: \S+ \S+ \S+$", status, re.MULTILINE) is not None
    packages, broken = parse_status(status) if status is not None and known else (None, None)
    if status is not None and not known:
        gaps.note(STATUS, "no package in it")
    updates = names(machine, "/var/lib/dpkg/updates", gaps)
    waiting = text(machine, "/run/reboot-required.pkgs", gaps)
    reboot = exists(machine, "/run/reboot-required")
    settings = _settings(machine, gaps)
    installed = any(p.name == "unattended-upgrades" and p.state == "installed" for p in packages or ())
    wanted = settings.get("apt::periodic::unattended-upgrade")
    blocks = settings.get("unattended-upgrade::package-blacklist", ())
    restart = settings.get("unattended-upgrade::automatic-reboot", "false")
    sources = read_sources(machine, gaps)
    return Apt(
        packages=packages,
        sources=sources,
        missing_keys=_missing_keys(machine, sources, gaps),
        unfetched=_not_fetched(machine, sources, gaps),
        pins=_pins(machine, gaps),
        # dpkg writes numbered files there while it works; a remaining one means that it was interrupted
        interrupted=None if updates is None or status is None else any(name.isdecimal() for name in updates),
        broken=broken,
        reboot_required=reboot,
        reboot_packages=tuple(dict.fromkeys(waiting.split())) if waiting is not None else (() if not reboot else None),
        unattended=None if packages is None else installed and wanted not in (None, "", "0"),
        unattended_blocks=blocks if isinstance(blocks, tuple) else (),
        unattended_reboot=restart.lower() in ("true", "1", "yes") if isinstance(restart, str) else None,
    )


def _pins(machine: Machine, gaps: Gaps) -> tuple[AptPreference, ...] | None:
    files = ["/etc/apt/preferences"]
    held = names(machine, "/etc/apt/preferences.d", gaps)
    if held is None:
        return None
    # apt reads names without an ending or with .pref (apt_preferences(5))
    files += [f"/etc/apt/preferences.d/{n}" for n in held if re.fullmatch(r"[\w-]+(?:\.pref)?", n)]
    return tuple(pin for path in files for pin in parse_pins(path, text(machine, path, gaps) or ""))


def _missing_keys(machine: Machine, sources: tuple[AptSource, ...] | None, gaps: Gaps) -> tuple[str, ...] | None:
    """Signed-By files that do not exist, although their folder has others."""
    wanted = dict.fromkeys(s.signed_by for s in sources or () if s.owner in _VENDORS and s.signed_by)
    files = [path for path in wanted if path and path.startswith("/")]
    return None if sources is None else tuple(p for p in files if _listed(machine, p, gaps) is False)


def _listed(machine: Machine, path: str, gaps: Gaps) -> bool | None:
    folder, _, name = path.rpartition("/")
    held = names(machine, folder, gaps)
    return name in held if held else None


def _not_fetched(machine: Machine, sources: tuple[AptSource, ...] | None, gaps: Gaps) -> tuple[AptSource, ...] | None:
    """Vendors' repositories without a list; None if apt has no list of any vendor's or of Ubuntu's repositories."""
    vendors = [source for source in sources or () if source.owner in _VENDORS and "://" in source.uri]
    if not vendors:
        return None if sources is None else ()
    lists = [name for name in names(machine, "/var/lib/apt/lists", gaps) or () if name.endswith("Release")]
    return tuple(s for s in vendors if not any(n.startswith(list_name(s)) for n in lists)) if lists else None


def _settings(machine: Machine, gaps: Gaps) -> dict[str, str | tuple[str, ...]]:
    found: dict[str, str | tuple[str, ...]] = {}
    for name in names(machine, "/etc/apt/apt.conf.d", gaps) or ():
        if re.fullmatch(r"[\w-]+(?:\.conf)?", name):
            found.update(parse_settings(text(machine, f"/etc/apt/apt.conf.d/{name}", gaps) or ""))
    return found


def lock_holder(machine: Machine, gaps: Gaps) -> str | None:
    """`unattended-upgr (1234)`; None when nobody holds a lock of apt or dpkg."""
    content = text(machine, "/proc/locks", gaps)
    for path in LOCKS if content else ():
        try:
            inode = machine.stat(path).inode
        except Unreadable:
            continue
        for pid in parse_lock_pids(content or "", inode) if inode else ():
            return f"{word(machine, f'/proc/{pid}/comm', gaps) or 'a process'} ({pid})"
    return None
