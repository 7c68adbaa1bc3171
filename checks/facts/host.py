"""`Host`: what this machine is, read once and passed on. None means "not known"; an empty tuple means "looked, none"."""

from __future__ import annotations

import msgspec


class Frozen(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every fact: immutable, keyword-only."""


class Unread(Frozen):
    """A source that could not be read, and why (`absent` is not listed: absence is a fact, not a gap)."""

    source: str
    reason: str


class Os(Frozen):
    """`virtualisation`: none, kvm, vmware, wsl, docker, podman, lxc …; `graphical`: the default target is graphical."""

    id: str | None = None
    version_id: str | None = None
    codename: str | None = None
    pretty: str | None = None
    arch: str | None = None
    virtualisation: str | None = None
    graphical: bool | None = None


class ModuleFile(Frozen):
    """A kernel module's file for one installed kernel. `origin`: dkms (updates/dkms), prebuilt (kernel/nvidia-NNN…), in-tree."""

    name: str
    kernel: str
    path: str
    origin: str


class DkmsBuild(Frozen):
    """One line of /var/lib/dkms: `state` is added, built or installed; `log_tail` ends a failed build's make.log."""

    module: str
    version: str
    kernel: str | None
    state: str
    log_tail: str | None = None


class Kernel(Frozen):
    """`installed` are the releases with a /boot/vmlinuz, oldest first; `next_boot` the one that GRUB takes by default.

    `log` holds kernel-log lines since boot that name a GPU, PCIe, Xid, amdgpu, nouveau, modules, OOM (None: not readable).
    """

    release: str | None = None
    version: str | None = None
    cmdline: tuple[str, ...] | None = None
    loaded: tuple[str, ...] | None = None
    installed: tuple[str, ...] | None = None
    next_boot: str | None = None
    headers: tuple[str, ...] | None = None
    modules: tuple[ModuleFile, ...] | None = None
    dkms: tuple[DkmsBuild, ...] | None = None
    blacklisted: tuple[tuple[str, str], ...] | None = None
    log: tuple[str, ...] | None = None
    boot_id: str | None = None
    uptime_seconds: float | None = None


class Firmware(Frozen):
    """`mok_enrolled`: subjects of enrolled keys; `mok_pending`: a key waits for MokManager; None: cannot be asked."""

    uefi: bool | None = None
    secure_boot: bool | None = None
    shim_validation_disabled: bool | None = None
    lockdown: str | None = None
    mok_enrolled: tuple[str, ...] | None = None
    mok_key_present: bool | None = None
    mok_key_enrolled: bool | None = None
    mok_pending: bool | None = None
    bios_vendor: str | None = None
    board: str | None = None


class Link(Frozen):
    """PCIe link of a device: speed in GT/s, width in lanes."""

    speed: float | None = None
    width: int | None = None
    max_speed: float | None = None
    max_width: int | None = None


class PciCard(Frozen):
    """A display, 3D or accelerator function. Ids are lower-case hex without 0x; `driver` is the bound module's name."""

    slot: str
    vendor: str
    device: str
    revision: str | None = None
    subsystem: str | None = None
    class_code: str | None = None
    driver: str | None = None
    boot_vga: bool | None = None
    power_state: str | None = None
    link: Link | None = None
    bar_bytes: tuple[int, ...] | None = None
    aer_correctable: int | None = None
    connectors_connected: tuple[str, ...] | None = None
    iommu_group_type: str | None = None


class NvmlGpu(Frozen):
    """One GPU as NVML sees it; memory in bytes, power in watts, temperature in Celsius."""

    uuid: str | None = None
    slot: str | None = None
    name: str | None = None
    memory_total: int | None = None
    memory_used: int | None = None
    temperature: int | None = None
    power_limit: float | None = None
    power_default: float | None = None
    power_max: float | None = None
    compute_mode: str | None = None
    mig: bool | None = None
    persistence: bool | None = None
    throttle_reasons: int | None = None
    processes: tuple[tuple[int, str], ...] | None = None
    compute_capability: str | None = None
    problem: str | None = None


class Nvidia(Frozen):
    """`module_version` is the loaded module's; `library_version` that of libnvidia-ml.so.1's target on disk.

    `nvml_problem`: None when NVML answered; else absent, timed-out, mismatch, lost or NVML's own words.
    """

    module_version: str | None = None
    open_module: bool | None = None
    library_version: str | None = None
    device_nodes: tuple[str, ...] | None = None
    nvml: tuple[NvmlGpu, ...] | None = None
    nvml_driver: str | None = None
    nvml_cuda: str | None = None
    nvml_problem: str | None = None
    runfile: bool | None = None
    cuda_toolkits: tuple[str, ...] | None = None
    container_toolkit: str | None = None
    cdi_specs: tuple[str, ...] | None = None
    stub: bool = False


class DeviceNode(Frozen):
    """/dev/kfd or a render node: `usable` is what access(2) says for this session, not what root could do."""

    path: str
    mode: int | None = None
    group: int | None = None
    group_name: str | None = None
    usable: bool | None = None
    slot: str | None = None


class KfdNode(Frozen):
    """A GPU node of the KFD topology: `gfx` like gfx1100, `slot` from location_id and domain."""

    index: int
    gfx: str | None = None
    slot: str | None = None


class AmdGpu(Frozen):
    """One card from sysfs and hwmon: bytes, watts, Celsius. `vram_visible` < `vram_total` means no Resizable BAR."""

    slot: str
    vram_total: int | None = None
    vram_visible: int | None = None
    vram_used: int | None = None
    power_cap: float | None = None
    power_cap_default: float | None = None
    temperature_edge: float | None = None
    temperature_junction: float | None = None
    temperature_memory: float | None = None


class RocmInstall(Frozen):
    path: str
    version: str | None = None


class Amd(Frozen):
    """`module_version` is amdgpu-dkms's own number, None for the in-tree module; `amdsmi_problem` as `nvml_problem`."""

    loaded: bool | None = None
    module_version: str | None = None
    kfd: DeviceNode | None = None
    render: tuple[DeviceNode, ...] | None = None
    nodes: tuple[KfdNode, ...] | None = None
    gpus: tuple[AmdGpu, ...] | None = None
    rocm: tuple[RocmInstall, ...] | None = None
    rocm_on_path: bool | None = None
    amdsmi_gpus: int | None = None
    amdsmi_problem: str | None = None
    stub: bool = False


class Package(Frozen):
    """`state` is dpkg's: installed, half-configured, half-installed, unpacked, config-files; `held` by apt-mark."""

    name: str
    version: str
    state: str
    held: bool = False


class AptSource(Frozen):
    """One enabled repository. `owner`: ubuntu, nvidia, nvidia-toolkit, amd-rocm, amd-graphics, docker, other."""

    file: str
    uri: str
    suite: str | None = None
    signed_by: str | None = None
    owner: str = "other"


class AptPin(Frozen):
    file: str
    packages: str
    pin: str
    priority: int | None = None


class Apt(Frozen):
    """Only packages that matter here: drivers, kernels, headers, ROCm, CUDA, DKMS, Docker, compilers, Python."""

    packages: tuple[Package, ...] | None = None
    sources: tuple[AptSource, ...] | None = None
    pins: tuple[AptPin, ...] | None = None
    interrupted: bool | None = None
    broken: tuple[str, ...] | None = None
    lock_holder: str | None = None
    reboot_required: bool | None = None
    reboot_packages: tuple[str, ...] | None = None
    unattended: bool | None = None
    unattended_blocks: tuple[str, ...] | None = None


class Docker(Frozen):
    """`kind`: docker.io, docker-ce, snap, podman, desktop; None: no engine found. `problem`: why it does not answer."""

    kind: str | None = None
    path: str | None = None
    version: str | None = None
    answers: bool | None = None
    problem: str | None = None
    runtimes: tuple[str, ...] | None = None
    cdi_dirs: tuple[str, ...] | None = None
    rootless: bool | None = None
    cgroup_driver: str | None = None
    root_dir: str | None = None
    daemon_json_valid: bool | None = None
    daemon_json_problem: str | None = None


class PythonFacts(Frozen):
    """The system's python3 and what Triton needs at run time: a C compiler and Python.h."""

    path: str | None = None
    version: str | None = None
    compiler: str | None = None
    headers: bool | None = None
    venv: bool | None = None


class Disk(Frozen):
    """Bytes. `purpose`: home, tmp, docker, boot, state."""

    purpose: str
    path: str
    free: int | None = None
    total: int | None = None
    inodes_free: int | None = None
    fstype: str | None = None
    noexec: bool | None = None


class Resources(Frozen):
    """Bytes. `oom_killers`: units that may end a big process early (systemd-oomd, earlyoom) and are active."""

    cores: int | None = None
    cpu: str | None = None
    memory_total: int | None = None
    memory_available: int | None = None
    swap_total: int | None = None
    swap_free: int | None = None
    shm_total: int | None = None
    disks: tuple[Disk, ...] | None = None
    oom_killers: tuple[str, ...] | None = None
    cgroup_memory_max: int | None = None


class Person(Frozen):
    """Who runs the tool. `groups` are this process's, `database_groups` what a fresh login would get.

    `environ` holds only the variables that change how a GPU is found (CUDA_VISIBLE_DEVICES, HSA_OVERRIDE…, LD_LIBRARY_PATH …).
    """

    uid: int | None = None
    user: str | None = None
    groups: tuple[str, ...] | None = None
    database_groups: tuple[str, ...] | None = None
    environ: dict[str, str] = {}
    ssh: bool | None = None


class Host(Frozen):
    os: Os
    kernel: Kernel
    firmware: Firmware
    cards: tuple[PciCard, ...] | None
    nvidia: Nvidia
    amd: Amd
    apt: Apt
    docker: Docker
    python: PythonFacts
    resources: Resources
    person: Person
    unread: tuple[Unread, ...] = ()
    taken_at: str = ""
    machine: str = ""
