"""AMD: the amdgpu module, /dev/kfd and render nodes, the KFD topology, memory and sensors, ROCm installs."""

from __future__ import annotations

import os
import re

import msgspec

from checks.facts.bindings import BindingDocument, parse_document
from checks.facts.gaps import Gaps, exists, names, on_path, target, text, whole_number, word
from checks.facts.host import ASLEEP, Amd, AmdGpu, DeviceNode, Frozen, KfdNode, RocmInstall
from checks.facts.pci import DEVICES, SLOT, asleep, parse_hex, slot_of
from checks.facts.person import parse_group
from machine.library_paths import rocm_folders
from machine.local import DENIED, Machine, Outcome, Unreadable

AMD_SMI = ("amd-smi", "static", "--asic", "--bus", "--json")
FEATURE_MASK = "/sys/module/amdgpu/parameters/ppfeaturemask"
TOPOLOGY = "/sys/class/kfd/kfd/topology/nodes"
# amdgpu's hwmon channels by their label (Documentation/gpu/amdgpu/thermal.rst)
_SENSORS = {"edge": "temperature_edge", "junction": "temperature_junction", "mem": "temperature_memory"}


def parse_properties(content: str) -> dict[str, int]:
    """`name number` lines of a KFD node."""
    pairs = (line.split() for line in content.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and re.fullmatch(r"[0-9]{1,20}", pair[1])}


def parse_gfx(number: int) -> str | None:
    """gfx_target_version: 110000 → gfx1100, 90010 → gfx90a, 100306 → gfx1036 (minor and stepping are hex digits)."""
    major, minor, step = number // 10000, number // 100 % 100, number % 100
    return f"gfx{major}{minor:x}{step:x}" if 0 < number < 1_000_000 and minor < 16 and step < 16 else None


def parse_node(index: int, content: str) -> KfdNode | None:
    """A GPU node; None for a CPU's (no SIMDs)."""
    found = parse_properties(content)
    if not found.get("simd_count") and not found.get("gfx_target_version"):
        return None
    location = found.get("location_id")
    slot = None
    if location is not None and location < 1 << 16:
        # bus, device and function packed as in PCI's requester id
        slot = f"{found.get('domain', 0) & 0xFFFFFFFF:04x}:{location >> 8:02x}:{location >> 3 & 31:02x}.{location & 7}"
    return KfdNode(index=index, gfx=parse_gfx(found.get("gfx_target_version", 0)), slot=slot)


def parse_ras(content: str) -> int | None:
    """Uncorrected errors in a RAS counter (`ue: 0`, `ce: 3`)."""
    match = re.search(r"^ue: ([0-9]{1,20})$", content, re.MULTILINE)
    return int(match[1]) if match else None


class SmiGpu(Frozen, frozen=True):
    """The values that sysfs does not have."""

    slot: str | None = None
    problem: str | None = None


class Smi(BindingDocument[SmiGpu], frozen=True):
    """amdsmi's document, or the output of `amd-smi` instead."""

    library: str | None = None


class _Bus(Frozen, frozen=True):
    bdf: str | None = None


class _ListedGpu(Frozen, frozen=True):
    bus: _Bus | None = None


class _Listed(Frozen, frozen=True):
    gpu_data: tuple[_ListedGpu, ...] = ()


def parse_smi(outcome: Outcome) -> Smi:
    if outcome.argv and outcome.argv[0].rpartition("/")[2] == AMD_SMI[0]:
        return parse_amd_smi(outcome) or Smi(problem="unreadable answer")
    found = parse_document(outcome, Smi)
    assert isinstance(found, Smi)
    return found


def parse_amd_smi(outcome: Outcome) -> Smi | None:
    """What `amd-smi … --json` lists: an array up to ROCm 6, `{"gpu_data": […]}` since ROCm 7; None for anything else.

    Lines before the document are Python's warnings about amd-smi itself.
    """
    start = next((n for n, sign in enumerate(outcome.stdout) if sign in "[{"), None)
    if not outcome.ok or start is None:
        return None
    content = outcome.stdout[start:].encode("utf-8", "replace")
    try:
        listed = msgspec.json.decode(content, type=_Listed | tuple[_ListedGpu, ...])
    except (msgspec.MsgspecError, RecursionError):
        return None
    rows = listed.gpu_data if isinstance(listed, _Listed) else listed
    slots = (row.bus.bdf.lower() if row.bus and row.bus.bdf else None for row in rows)
    return Smi(gpus=tuple(SmiGpu(slot=slot) for slot in slots if slot and SLOT.fullmatch(slot)))


def reduce_amd_smi(stdout: bytes) -> bytes:
    """The addresses alone, for a recording: the rest holds serial numbers and ids."""
    found = parse_amd_smi(Outcome(AMD_SMI, 0, stdout.decode("utf-8", "replace"), "", 0.0))
    rows = [{"bus": {"bdf": gpu.slot}} for gpu in found.gpus] if found else None
    return b"redacted\n" if rows is None else msgspec.json.encode({"gpu_data": rows}) + b"\n"


def ask(machine: Machine, patience: float, gaps: Gaps) -> Outcome:
    """Query AMD's library: through the host's amd-smi, which matches it, else through a binding.

    Neither is queried while every AMD card is asleep: both would wake them.
    """
    if asleep(machine, "1002", gaps):
        return Outcome((), None, "", "", 0.0, ASLEEP)
    tool = _amd_smi(machine)
    if tool is None:
        return machine.binding("amd", patience)
    listed = machine.run((tool, *AMD_SMI[1:]), timeout=patience / 2)
    return listed if parse_amd_smi(listed) is not None else machine.binding("amd", patience / 2)


def _amd_smi(machine: Machine) -> str | None:
    """The path of amd-smi where amdgpu is loaded; ROCm's folder is often not on PATH."""
    if not exists(machine, "/sys/module/amdgpu"):
        return None
    folders = rocm_folders(lambda folder: names(machine, folder, Gaps()) or ())
    candidates = (f"{folder}/bin/amd-smi" for folder in folders)
    return on_path(machine, AMD_SMI[0]) or next((path for path in candidates if machine.access(path, os.X_OK)), None)


def read_amd(machine: Machine, gaps: Gaps) -> Amd:
    """Everything except amdsmi's answer, which read.py gets from a child process."""
    groups = {gid: name for name, gid, _ in parse_group(text(machine, "/etc/group", gaps) or "")}
    rocm = _rocm(machine, gaps)
    return Amd(
        loaded=exists(machine, "/sys/module/amdgpu"),
        module_version=word(machine, "/sys/module/amdgpu/version", gaps),
        kfd=_node(machine, "/dev/kfd", None, groups),
        render=_render(machine, groups, gaps),
        nodes=_nodes(machine, gaps),
        gpus=_gpus(machine, gaps),
        rocm=rocm,
        rocm_on_path=on_path(machine, "rocminfo") is not None,
        feature_mask=whole_number(machine, FEATURE_MASK, gaps),
    )


def _node(machine: Machine, path: str, slot: str | None, groups: dict[int, str]) -> DeviceNode | None:
    usable = machine.access(path, os.R_OK | os.W_OK)
    if usable is None:
        return None
    try:
        entry = machine.stat(path)
    except Unreadable:
        return DeviceNode(path=path, usable=usable, slot=slot)
    return DeviceNode(
        path=path, mode=entry.mode, group=entry.gid, group_name=groups.get(entry.gid), usable=usable, slot=slot
    )


def _render(machine: Machine, groups: dict[int, str], gaps: Gaps) -> tuple[DeviceNode, ...] | None:
    """AMD's render nodes; a node whose card is not known is kept, because it may be AMD's."""
    found = names(machine, "/dev/dri", gaps)
    if found is None:
        return None
    nodes = []
    for name in found:
        if not name.startswith("renderD"):
            continue
        slot = slot_of(machine, name, gaps)
        if slot and parse_hex(word(machine, f"{DEVICES}/{slot}/vendor", gaps), 4) != "1002":
            continue
        node = _node(machine, f"/dev/dri/{name}", slot, groups)
        if node is not None:
            nodes.append(node)
    return tuple(nodes)


def _nodes(machine: Machine, gaps: Gaps) -> tuple[KfdNode, ...] | None:
    found = names(machine, TOPOLOGY, gaps)
    if found is None:
        return None
    numbers = sorted(int(name) for name in found if re.fullmatch(r"[0-9]{1,4}", name))
    nodes = []
    for number in numbers:
        path = f"{TOPOLOGY}/{number}/properties"
        own = Gaps()
        node = parse_node(number, text(machine, path, own) or "")
        for gap in own.all():
            # a container may not read about cards that it was not given (kfd_devcgroup_check_permission)
            if not gap.reason.startswith(DENIED):
                gaps.note(gap.source, gap.reason)
        if node is not None and node.slot is None:
            gaps.note(path, "damaged: it has no location_id")
        nodes.append(node)
    return tuple(node for node in nodes if node is not None)


def _gpus(machine: Machine, gaps: Gaps) -> tuple[AmdGpu, ...] | None:
    found = names(machine, DEVICES, gaps)
    if found is None:
        return None
    bound = (
        s
        for s in found
        if SLOT.fullmatch(s) and (target(machine, f"{DEVICES}/{s}/driver", gaps) or "").endswith("/amdgpu")
    )
    return tuple(_gpu(machine, slot, gaps) for slot in bound)


def _gpu(machine: Machine, slot: str, gaps: Gaps) -> AmdGpu:
    at = f"{DEVICES}/{slot}"
    memory = {
        name: whole_number(machine, f"{at}/mem_info_{name}", gaps)
        for name in ("vram_total", "vis_vram_total", "vram_used")
    }
    # reading a sensor wakes a sleeping card (amdgpu_hwmon takes a runtime-PM reference)
    awake = word(machine, f"{at}/power_state", gaps) in (None, "D0", "unknown")
    sensors = _sensors(machine, at, gaps) if awake else {}
    return AmdGpu(
        slot=slot,
        vram_total=memory["vram_total"],
        vram_visible=memory["vis_vram_total"],
        vram_used=memory["vram_used"],
        ecc_uncorrected=parse_ras(text(machine, f"{at}/ras/umc_err_count", gaps) or ""),
        **sensors,
    )


def _sensors(machine: Machine, at: str, gaps: Gaps) -> dict[str, float | None]:
    """Watts and Celsius; hwmon has microwatts and thousandths."""
    folder = next(iter(names(machine, f"{at}/hwmon", gaps) or ()), None)
    if folder is None:
        return {}
    held = names(machine, f"{at}/hwmon/{folder}", gaps) or ()
    found: dict[str, float | None] = {}
    for name, field in (("power1_cap", "power_cap"), ("power1_cap_default", "power_cap_default")):
        watts = whole_number(machine, f"{at}/hwmon/{folder}/{name}", gaps) if name in held else None
        found[field] = None if watts is None else watts / 1e6
    for label in (name for name in held if re.fullmatch(r"temp[0-9]{1,2}_label", name)):
        sensor = _SENSORS.get(word(machine, f"{at}/hwmon/{folder}/{label}", gaps) or "")
        degrees = whole_number(machine, f"{at}/hwmon/{folder}/{label[:-5]}input", gaps) if sensor else None
        if sensor and degrees is not None:
            found[sensor] = degrees / 1e3
    return found


def _rocm(machine: Machine, gaps: Gaps) -> tuple[RocmInstall, ...] | None:
    """ROCm folders with a version file; /opt/rocm itself only if it is not a link to another."""
    if names(machine, "/opt", gaps) is None:
        return None
    found = []
    for path in rocm_folders(lambda folder: names(machine, folder, gaps) or ()):
        version = None if target(machine, path, gaps) else word(machine, f"{path}/.info/version", gaps)
        named = re.search(r"(?:rocm|core)-([0-9]+(?:\.[0-9]+)+)$", path)
        if version or (named and exists(machine, f"{path}/bin")):
            found.append(RocmInstall(path=path, version=version or (named[1] if named else None)))
    return tuple(found)
