"""NVIDIA: the loaded module, its libraries and device nodes, NVML's answer, toolkits, container pieces."""

from __future__ import annotations

import re
from typing import NamedTuple

from checks.facts.bindings import BindingDocument, parse_document
from checks.facts.gaps import Gaps, exists, names, target, text, word
from checks.facts.host import ASLEEP, Nvidia, NvmlGpu
from checks.facts.pci import DEVICES, asleep, parse_hex
from checks.facts.resources import UNITS
from machine.library_paths import BINDING_LIBRARY, library_folders
from machine.local import Machine, Outcome

# the driver's installer (.run) leaves its uninstaller; Debian packages have none
RUNFILE = "/usr/bin/nvidia-uninstall"
CDI_FOLDERS = ("/etc/cdi", "/run/cdi")
# the toolkit's own package has its version; machines that use only CDI have just the base package
TOOLKIT_PACKAGES = ("nvidia-container-toolkit", "nvidia-container-toolkit-base")
_CDI_LIMIT = 1 << 20
# fields and the version that added them (CDI's SPEC.md, "Released versions", 2026-08-21); unknown fields fail the file
_CDI_FIELDS = (("additionalGids", "0.7.0"), ("intelRdt", "0.7.0"), ("netDevices", "1.1.0"))
FABRIC_MANAGER = "invocation:nvidia-fabricmanager.service"
_VERSION = r"[0-9]{2,4}(?:\.[0-9]{1,4}){1,3}"


def parse_proc_version(content: str) -> tuple[str | None, bool | None]:
    """Version of the loaded module and whether it is the open one, from /proc/driver/nvidia/version."""
    line = next((line for line in content.splitlines() if line.startswith("NVRM version:")), "")
    match = re.search(rf"Kernel Module\b(?: for \S+)?\s+({_VERSION})", line)
    return (match[1] if match else None), ("Open Kernel Module" in line if line else None)


def parse_library(link: str) -> str | None:
    """`libnvidia-ml.so.580.95.05` → 580.95.05."""
    match = re.search(rf"\.so\.({_VERSION})$", link)
    return match[1] if match else None


def parse_cdi(content: str) -> tuple[str | None, str | None]:
    """The spec's kind (nvidia.com/gpu) and the driver version in the names of the libraries that it mounts."""
    kind = re.search(r"(?:^|[{,])\s*[\"']?kind[\"']?\s*:\s*[\"']?([\w.-]+/[\w.-]+)", content, re.MULTILINE)
    version = re.search(rf"lib(?:cuda|nvidia-ml)\.so\.({_VERSION})", content)
    return (kind[1] if kind else None), (version[1] if version else None)


def parse_cdi_schema(content: str) -> str | None:
    """The version of the CDI specification that a reader must know: the declared one, or that of the newest field."""
    declared = re.search(
        r"(?:^|[{,])\s*[\"']?cdiVersion[\"']?\s*:\s*[\"']?v?([0-9]+\.[0-9]+\.[0-9]+)", content, re.MULTILINE
    )
    used = [since for field, since in _CDI_FIELDS if re.search(rf"[\"']?\b{field}[\"']?\s*:", content)]
    found = [declared[1], *used] if declared else used
    return max(found, key=lambda version: [int(part) for part in version.split(".")], default=None)


def parse_cdi_nodes(content: str) -> tuple[str, ...]:
    """The device files of cards that the description names: /dev/nvidia0, /dev/dri/renderD128."""
    named = re.findall(r"[\"']?\bpath[\"']?\s*:\s*[\"']?(/dev/(?:nvidia[0-9]+|dri/(?:card|renderD)[0-9]+))\b", content)
    return tuple(sorted(set(named)))


def parse_no_cgroups(content: str) -> bool:
    """`no-cgroups = true` of nvidia-container-runtime's config.toml; commented out it is false."""
    return re.search(r"^\s*no-cgroups\s*=\s*true\b", content, re.MULTILINE) is not None


def parse_compat(content: str) -> tuple[str, ...]:
    """Folders of cuda-compat in a file of /etc/ld.so.conf.d."""
    lines = (line.split("#")[0].strip() for line in content.splitlines())
    return tuple(line.rstrip("/") for line in lines if re.fullmatch(r"/\S*cuda\S*/compat/?", line))


class Nvml(BindingDocument[NvmlGpu], frozen=True):
    """NVML's document."""


def ask(machine: Machine, patience: float, gaps: Gaps) -> Outcome:
    """NVML's document; not queried while every NVIDIA card is asleep, because a query would wake them."""
    if asleep(machine, "10de", gaps):
        return Outcome((), None, "", "", 0.0, ASLEEP)
    return machine.binding("nvidia", patience)


def parse_nvml(outcome: Outcome) -> Nvml:
    found = parse_document(outcome, Nvml)
    assert isinstance(found, Nvml)
    return found


def read_nvidia(machine: Machine, gaps: Gaps) -> Nvidia:
    """Everything except NVML's answer, which read.py gets from a child process and adds with `_with_nvml`."""
    version, opened = parse_proc_version(text(machine, "/proc/driver/nvidia/version", gaps) or "")
    version = version or word(machine, "/sys/module/nvidia/version", gaps)
    nodes = names(machine, "/dev", gaps)
    folders = library_folders("nvidia", machine.session().environ, lambda path: names(machine, path, gaps) or ())
    specs = _cdi(machine, gaps)
    libcuda = tuple(f"{f}/libcuda.so.1" for f in folders if exists(machine, f"{f}/libcuda.so.1"))
    switches = _switches(machine, gaps) if version else None
    units = names(machine, UNITS, gaps) if switches else None
    cgroups = text(machine, "/etc/nvidia-container-runtime/config.toml", gaps)
    return Nvidia(
        module_version=version,
        open_module=opened,
        library_version=_library_version(machine, folders, gaps),
        libcuda=libcuda,
        libcuda_versions=tuple(
            (path, found) for path in libcuda if (found := parse_library(target(machine, path, gaps) or "")) is not None
        ),
        compat_folders=_compat(machine, gaps),
        firmware=_firmware(machine, gaps),
        nvswitches=switches,
        fabric_manager=None if units is None else FABRIC_MANAGER in units,
        no_cgroups=None if cgroups is None else parse_no_cgroups(cgroups),
        device_nodes=None if nodes is None else tuple(f"/dev/{name}" for name in nodes if name.startswith("nvidia")),
        runfile=exists(machine, RUNFILE),
        cuda_toolkits=_toolkits(machine, gaps),
        cdi_specs=None if specs is None else tuple(row.path for row in specs),
        cdi_versions=None if specs is None else tuple((row.path, row.driver) for row in specs if row.driver),
        cdi_schemas=None if specs is None else tuple((row.path, row.schema) for row in specs if row.schema),
        cdi_missing=None if specs is None else tuple((row.path, node) for row in specs for node in row.missing),
    )


def _library_version(machine: Machine, folders: tuple[str, ...], gaps: Gaps) -> str | None:
    links = (target(machine, f"{folder}/{BINDING_LIBRARY['nvidia']}", gaps) for folder in folders)
    return next((version for link in links if link and (version := parse_library(link))), None)


def _toolkits(machine: Machine, gaps: Gaps) -> tuple[str, ...] | None:
    """Versions of CUDA toolkits with a compiler; the runtime packages make the same folders without one."""
    found = names(machine, "/usr/local", gaps)
    if found is None:
        return None
    versions = [match[1] for name in found if (match := re.fullmatch(r"cuda-([0-9]{1,3}\.[0-9]{1,3})", name))]
    return tuple(version for version in versions if exists(machine, f"/usr/local/cuda-{version}/bin/nvcc"))


def _compat(machine: Machine, gaps: Gaps) -> tuple[str, ...] | None:
    """cuda-compat folders in the loader's configuration that contain a libcuda."""
    folder = "/etc/ld.so.conf.d"
    held = names(machine, folder, gaps)
    if held is None:
        return None
    files = (text(machine, f"{folder}/{name}", gaps) or "" for name in held if "cuda" in name or "nvidia" in name)
    found = dict.fromkeys(path for content in files for path in parse_compat(content))
    return tuple(path for path in found if exists(machine, f"{path}/libcuda.so.1"))


def _firmware(machine: Machine, gaps: Gaps) -> tuple[str, ...] | None:
    top = "/lib/firmware/nvidia"
    found = names(machine, top, gaps)
    if found is None:
        return None
    versions = [name for name in found if re.fullmatch(_VERSION, name)]
    return tuple(v for v in versions if any(n.startswith("gsp") for n in names(machine, f"{top}/{v}", gaps) or ()))


def _switches(machine: Machine, gaps: Gaps) -> int | None:
    """NVSwitch chips: bridges of class 0680 by NVIDIA."""
    slots = names(machine, DEVICES, gaps)
    if slots is None:
        return None
    others = [s for s in slots if (parse_hex(word(machine, f"{DEVICES}/{s}/class", gaps), 6) or "")[:4] == "0680"]
    return sum(parse_hex(word(machine, f"{DEVICES}/{slot}/vendor", gaps), 4) == "10de" for slot in others)


class _Cdi(NamedTuple):
    """A description of NVIDIA's cards. `missing`: device files in it that do not exist."""

    path: str
    driver: str | None
    schema: str | None
    missing: tuple[str, ...]


def _cdi(machine: Machine, gaps: Gaps) -> tuple[_Cdi, ...] | None:
    found = []
    for folder in CDI_FOLDERS:
        held = names(machine, folder, gaps)
        if held is None:
            return None
        for path in (f"{folder}/{name}" for name in held if name.endswith((".yaml", ".yml", ".json"))):
            content = text(machine, path, gaps, _CDI_LIMIT) or ""
            kind, version = parse_cdi(content)
            if kind and kind.startswith("nvidia.com/"):
                missing = tuple(node for node in parse_cdi_nodes(content) if not exists(machine, node))
                found.append(_Cdi(path, version, parse_cdi_schema(content), missing))
    return tuple(found)
