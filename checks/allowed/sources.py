"""Every source of a recording, and what of it may be kept: a row a source, the first that matches counts.

A source that has no row keeps nothing but that it exists. What a reducer keeps is scrubbed afterwards like any other
text (machine/scrub.py). This module is the recorder's `Allowed`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

from checks.allowed import engine, kernel, packages, people
from checks.allowed.people import document as document
from checks.allowed.people import variable as variable
from checks.allowed.words import Reducer, as_it_is, each_line, join, lines, lists, phrases, word
from checks.allowed.words import path as path
from checks.facts import amd, apt, login_environment, nvidia
from checks.facts.environments import DISTRIBUTION, ROCBLAS
from checks.facts.forms import answer_damage, damage
from machine.identities import REDACTED, Identities
from machine.patterns import lazy_pattern


def _cgroup(line: str, who: Identities) -> str:
    number, _, rest = line.partition(":")
    controllers, _, place = rest.partition(":")
    return f"{number}:{word(controllers, who)}:{path(place, who)}" if number.isdecimal() else REDACTED


def _dated(line: str, who: Identities) -> str:
    when, _, place = line.partition(" ")
    return f"{when} {path(place, who)}"


_CPU = lazy_pattern(r"(?:processor|model name|flags)\s*:.*|")

# What is kept of a damaged source ends with this, so that the recording does not look whole where the machine was not.
_DAMAGED = "\0"
# a path (a pattern for the whole of it)
FILES: tuple[tuple[str, Reducer], ...] = (
    (r"/sys/class/dmi/id/\w+", word),
    (r"/sys/(?:bus/pci|class/(?:drm|kfd)|kernel/(?:iommu_groups|security)|module|fs/cgroup|firmware/efi)/.*", as_it_is),
    (r"/proc/cmdline", kernel.command_line),
    (r"/proc/version", kernel.version),
    (r"/proc/driver/nvidia/version", kernel.nvidia_version),
    (r"/proc/cpuinfo", lines(_CPU.pattern)),
    (r"/proc/meminfo", lines(r"[\w()]+:\s+\d+(?: kB)?")),
    (r"/proc/modules", lines(r"\w+ \d+ -?\d+ [\w,-]+ \w+ 0x[0-9a-f]+(?: \(\w+\))?")),
    (r"/proc/locks", lines(r"\d+: [A-Z -]+ \d+ [0-9a-f]+:[0-9a-f]+:\d+ \d+ \w+")),
    (r"/proc/uptime|/proc/sys/kernel/apparmor_\w+", lines(r"[\d. ]+")),
    (r"/proc/sys/kernel/random/boot_id", lines(r"[0-9a-f-]{36}|uuid-[0-9a-f]{8}")),
    (r"/proc/sys/kernel/(?:arch|osrelease)|/proc/\d+/comm|/run/systemd/container", word),
    (r"/proc/self/cgroup", each_line(_cgroup)),
    (r"/etc/os-release", people.os_release),
    (r"/etc/environment", people.start_file),
    (r"/etc/(?:passwd|group)", people.accounts),
    (r"/etc/apt/sources\.list(?:\.d/.*\.list)?", packages.sources_list),
    (r"/etc/apt/sources\.list\.d/.*\.sources", packages.sources),
    (r"/etc/apt/preferences(?:\.d/.*)?", packages.preferences),
    (r"/etc/apt/apt\.conf\.d/.*", packages.settings),
    (r"/var/lib/dpkg/status", packages.dpkg_status),
    (r"/run/reboot-required\.pkgs", each_line(packages.package)),
    (r"/etc/default/grub(?:\.d/.*)?", kernel.grub_defaults),
    (r"/etc/kernel/cmdline", kernel.boot_line),
    (r"/boot/config-.*", lines(r"(?:# )?CONFIG_INTEGRITY_MACHINE_KEYRING(?:=y| is not set)")),
    (r"/boot/grub/grubenv", kernel.grub_environment),
    (r"(?:/etc|/usr/lib|/run)/modprobe\.d/.*", kernel.modprobe),
    (r"/var/lib/dkms/.*/make\.log", kernel.make_log),
    (r"/etc/dkms/framework\.conf(?:\.d/.*)?", kernel.dkms_settings),
    (r".*/daemon\.json", engine.daemon_json),
    (r"(?:/etc|/run)/cdi/.*", engine.cdi),
    (r"/etc/nvidia-container-runtime/config\.toml", lines(r"\s*no-cgroups\s*=\s*(?:true|false)\s*")),
    (r"/etc/ld\.so\.conf\.d/.*", lambda value, who: join(path(one, who) for one in nvidia.parse_compat(value))),
    (r".*/torch/version\.py", lines(r"(?:__version__|cuda|hip)(?:\s*:[^=]+)?\s*=\s*(?:['\"][\w.+-]{1,40}['\"]|None)")),
    (r".*/bitsandbytes/__init__\.py", lines(r"__version__\s*=\s*['\"][\w.+-]{1,40}['\"]")),
    (r".*/pyvenv\.cfg", lines(r"(?:uv|virtualenv)\s*=\s*[\d.]{1,20}")),
    (r".*/patchlevel\.h", lines(r"#define\s+PY_VERSION\s+\"[\w.+]{1,20}\"")),
    (r".*/\.info/version", word),
    (r"/etc/gdm3/.*|/etc/dconf/.*|/usr/share/glib-2\.0/.*", people.login_sleep),
)
# a folder: the names in it that are read; each is then reduced like a path
NAMES: tuple[tuple[str, str], ...] = (
    (r"/boot", r"(?:vmlinuz|initrd\.img|System\.map|config)-.*"),
    (r"/dev", r"nvidia.*|kfd|dri|dxg"),
    (r"/opt", r"rocm.*"),
    (r"/usr/local", r"cuda.*"),
    (r"/usr/src", r"linux-.*|nvidia-.*|amdgpu-.*"),
    (r"/sys/class/net", r"(?:virbr|lxdbr|incusbr)\d+"),
    (r"/etc/apparmor\.d", r".*(?:rootlesskit|podman|buildah|crun).*"),
    (r"/var/lib/dpkg/updates", r"\d+"),
    (r"/var/lib/apt/lists", r".*Release|lock"),
    (r".*/site-packages/bitsandbytes", r"libbitsandbytes_\w+\.so|__init__\.py"),
    (r".*/rocblas/library", ROCBLAS),
    (r".*/site-packages", f"torch|bitsandbytes|{DISTRIBUTION}"),
)
# a command's first word: its stdout; of stderr only known phrases are kept
OUTPUTS: Mapping[str, Reducer] = {
    "journalctl": kernel.log,
    "dmesg": kernel.log,
    "docker": engine.info,
    "mokutil": kernel.keys,
    "amd-smi": lambda value, who: amd.reduce_amd_smi(value.encode("utf-8", "replace")).decode(),
    "stat": each_line(_dated),
}


def reducer_of(place: str) -> Reducer | None:
    """The reducer of the file at this path; None: it has no row."""
    if login_environment.is_start_file(place):
        return people.start_file
    return next((reducer for pattern, reducer in FILES if re.fullmatch(pattern, place, re.DOTALL)), None)


def file(place: str, data: bytes, who: Identities) -> bytes:
    """What a recording keeps of the file."""
    reducer = reducer_of(place)
    if reducer is as_it_is or not data.strip():
        return data
    if reducer is None:
        return f"{REDACTED}\n".encode()
    kept = reducer(data.decode("utf-8", "surrogateescape"), who).encode("utf-8", "surrogateescape")
    damaged = apt.status_damage(data) if place == apt.STATUS else damage(place, data)
    return kept + _DAMAGED.encode() if damaged else kept


def name(folder: str, found: str, who: Identities) -> str | None:
    """What a recording keeps of this name in the folder; None: nothing."""
    wanted = next((pattern for place, pattern in NAMES if re.fullmatch(place, folder)), ".*")
    if not re.fullmatch(wanted, found, re.DOTALL):
        return None
    if folder.endswith(("/site-packages", "/rocblas/library")):
        return found
    if folder == "/run/systemd/units":
        return found if found.removeprefix("invocation:") in lists()["units"] else None
    if folder == "/var/lib/apt/lists":
        return packages.list_name(found, who)
    return posixpath.basename(path(f"{folder}/{found}", who))


def output(argv: Iterable[str], said: str, who: Identities) -> str:
    """What a recording keeps of a command's stdout."""
    program = posixpath.basename(next(iter(argv), ""))
    if not said.strip():
        return said
    kept = OUTPUTS[program](said, who) if program in OUTPUTS else f"{REDACTED}\n"
    ended = program not in ("docker", "amd-smi")
    return kept + _DAMAGED if answer_damage(said, ended) else kept


messages = phrases


def mount_options(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(one for one in found if one in lists()["mount_options"])


def file_system(kind: str) -> str:
    return kind if kind in lists()["file_systems"] or not kind else "other"
