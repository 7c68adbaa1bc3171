"""`Host`: what this machine is, read once and passed on. None: not known; an empty tuple: read, and there is none."""

from __future__ import annotations

from typing import Literal

import msgspec

from checks.facts.frozen import Frozen as Frozen
from checks.facts.software import Apt as Apt
from checks.facts.software import AptPreference as AptPreference
from checks.facts.software import AptSource as AptSource
from checks.facts.software import Docker as Docker
from checks.facts.software import Hub as Hub
from checks.facts.software import Package as Package
from checks.facts.software import PythonFacts as PythonFacts
from checks.facts.software import TrainingEnvironment as TrainingEnvironment

# the `problem` of a library that was not queried, because a query would wake its cards
ASLEEP = "asleep"
# the driver of a card in WSL: the module of WSL's kernel that passes calls to the driver in Windows
WINDOWS_DRIVER = "dxgkrnl"

# of a flood in the kernel log this many lines of one form are kept: its first and its last
LOG_FLOOD = 40

ModuleOrigin = Literal["dkms", "prebuilt", "in-tree", "runfile", "other"]
DkmsState = Literal["added", "built", "installed"]
DiskPurpose = Literal["home", "tmp", "docker", "boot", "state", "cache", "models"]


class Unread(Frozen, frozen=True):
    """A source that could not be read, and why (`absent` is not listed: absence is a fact, not a gap)."""

    source: str
    reason: str


class Os(Frozen, frozen=True):
    """`virtualisation`: none, kvm, vmware, wsl, docker, podman …; `graphical`: the machine boots to a graphical login.

    `clock_synchronised`: None if systemd does not set the clock. `login_sleep`: after how many seconds the login screen
    suspends the machine on mains power (0: never, None: no file sets it), `login_sleep_source` the file that sets it.
    `virtual_networks`: bridges of libvirt and LXD (virbr0, lxdbr0), whose network Docker can block.
    """

    id: str | None = None
    version_id: str | None = None
    codename: str | None = None
    pretty: str | None = None
    arch: str | None = None
    virtualisation: str | None = None
    graphical: bool | None = None
    clock_synchronised: bool | None = None
    virtual_networks: tuple[str, ...] | None = None
    login_sleep: int | None = None
    login_sleep_source: str | None = None


class Wsl(Frozen, frozen=True):
    """Linux under Windows. `generation`: WSL 1 or 2; `dxg`: /dev/dxg exists, through which it reaches the GPU.

    `libraries` are the files in /usr/lib/wsl/lib, which Windows provides with its GPU driver; `rocdxg`: ROCm's
    librocdxg is installed, which reaches an AMD card through /dev/dxg. `container`: this is a container in WSL, by its
    manager (docker, podman).
    """

    generation: int
    dxg: bool | None = None
    libraries: tuple[str, ...] | None = None
    rocdxg: bool = False
    container: str | None = None


class ModuleFile(Frozen, frozen=True):
    """A kernel module's file for one installed kernel.

    `origin` by its folder: dkms (updates/dkms), prebuilt (kernel/nvidia-NNN…), runfile (kernel/drivers/video).
    """

    name: str
    kernel: str
    path: str
    origin: ModuleOrigin


class DkmsBuild(Frozen, frozen=True):
    """One module version under /var/lib/dkms; `log_tail` is the end of make.log if its build failed."""

    module: str
    version: str
    kernel: str | None
    state: DkmsState
    log_tail: str | None = None


class Kernel(Frozen, frozen=True):
    """`installed` are the releases with a /boot/vmlinuz, oldest first; `next_boot` the one that GRUB boots by default.

    `next_boot_because` is how that was decided. `initrds` pairs a release with its initrd's size in bytes.
    `module_options` are (module, option, file) of the GPU modules; `written_by` pairs a modprobe.d file with the
    program that wrote it; `boot_parameters` are (file, parameter) of those in the boot loader's files that keep a GPU's
    driver away (nomodeset, modprobe.blacklist=amdgpu). `dates` pairs an initrd or modprobe.d file with
    the time of its last change (seconds since 1970). `userns_restricted`: AppArmor lets only programs with a profile
    create user namespaces. `log`: lines of the kernel log since boot that are about a GPU, PCIe, Xid, modules,
    firmware, OOM (None: not readable).
    """

    release: str | None = None
    version: str | None = None
    cmdline: tuple[str, ...] | None = None
    loaded: tuple[str, ...] | None = None
    installed: tuple[str, ...] | None = None
    next_boot: str | None = None
    next_boot_because: str | None = None
    headers: tuple[str, ...] | None = None
    modules: tuple[ModuleFile, ...] | None = None
    dkms: tuple[DkmsBuild, ...] | None = None
    blacklisted: tuple[tuple[str, str], ...] | None = None
    module_options: tuple[tuple[str, str, str], ...] | None = None
    written_by: tuple[tuple[str, str], ...] = ()
    boot_parameters: tuple[tuple[str, str], ...] = ()
    initrds: tuple[tuple[str, int], ...] | None = None
    dates: tuple[tuple[str, int], ...] | None = None
    userns_restricted: bool | None = None
    log: tuple[str, ...] | None = None
    boot_id: str | None = None
    uptime_seconds: float | None = None


class Firmware(Frozen, frozen=True):
    """`mok_enrolled`: subjects of enrolled keys; `mok_pending`: a key is waiting to be enrolled; None: not known.

    `mok_certificate` is the certificate of the key that DKMS signs with (None: no key yet); `mok_key_enrolled` is
    about it. `mok_trusted`: shim lets the kernel trust enrolled keys (MokListTrustedRT); `machine_keyring`: the
    running kernel was built to take them for modules (CONFIG_INTEGRITY_MACHINE_KEYRING).
    """

    uefi: bool | None = None
    secure_boot: bool | None = None
    shim_validation_disabled: bool | None = None
    lockdown: str | None = None
    mok_enrolled: tuple[str, ...] | None = None
    mok_key_present: bool | None = None
    mok_key_enrolled: bool | None = None
    mok_pending: bool | None = None
    mok_certificate: str | None = None
    mok_trusted: bool | None = None
    machine_keyring: bool | None = None
    bios_vendor: str | None = None
    board: str | None = None


class Link(Frozen, frozen=True):
    """PCIe link of a device: speed in GT/s, width in lanes."""

    speed: float | None = None
    width: int | None = None
    max_speed: float | None = None
    max_width: int | None = None


class Bridge(Frozen, frozen=True):
    """A bridge or switch port between the card and the CPU, with its own link."""

    slot: str
    link: Link | None = None
    aer_correctable: int | None = None


class PciCard(Frozen, frozen=True):
    """A display, 3D or accelerator function. Ids are lower-case hex without 0x; `driver` is the bound module's name.

    `bar_bytes` are the sizes of BAR 0 to 5, 0 for one that is not used. `link` is None for a card asleep in D3cold.
    `bridges` are those between the card and the CPU, the nearest first; None: not read (other vendors), or asleep.
    `reported_target` and `reported_name` are what a running driver says it is: NVML's compute capability and product
    name, KFD's gfx target. They have the last word over every table.
    A card in WSL (driver dxgkrnl) is on no bus: NVML reports it, and `device` is empty where NVML does not know it.
    `external`: the firmware calls its port one for external devices (Thunderbolt); None: it does not say.
    """

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
    bridges: tuple[Bridge, ...] | None = None
    reported_target: str | None = None
    reported_name: str | None = None
    external: bool | None = None


class NvmlGpu(Frozen, frozen=True):
    """One GPU as NVML sees it; memory in bytes, power in watts, temperature in Celsius, `device` its PCI id.

    `ecc_uncorrected` counts since the driver was loaded; `rows_remapped` is the number of replaced memory rows,
    `rows_pending`: more are replaced at the next reset, `rows_failed`: no spare row was left. None: no such counter.
    """

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
    mig_instances: int | None = None
    persistence: bool | None = None
    throttle_reasons: int | None = None
    utilisation: int | None = None
    ecc_uncorrected: int | None = None
    rows_remapped: int | None = None
    rows_pending: bool | None = None
    rows_failed: bool | None = None
    processes: tuple[tuple[int, str], ...] | None = None
    compute_capability: str | None = None
    device: str | None = None
    problem: str | None = None


class Nvidia(Frozen, frozen=True):
    """`module_version` is the loaded module's; `library_version` that of libnvidia-ml.so.1's target on disk.

    `nvml_problem`: None if NVML responded; else absent, timed-out, asleep, mismatch, lost or NVML's message.
    `libcuda` are the paths of libcuda.so.1 in the loader's folders; more than one can be a fault.
    `cdi_specs` are paths; `cdi_versions` pairs such a path with the driver version in its library names, `cdi_schemas`
    with the version of the CDI specification that an engine must know to read it, `cdi_missing` with a device file of
    a card that it names and that does not exist.
    `libcuda_versions` pairs such a path with its version; `compat_folders` are cuda-compat folders listed in
    /etc/ld.so.conf.d. `firmware` are the versions of GSP firmware under /lib/firmware/nvidia.
    `nvswitches` counts NVSwitch chips; `fabric_manager`: its service is active. `no_cgroups` as in
    nvidia-container-runtime's config.toml (None: no such file).
    """

    module_version: str | None = None
    open_module: bool | None = None
    library_version: str | None = None
    libcuda: tuple[str, ...] | None = None
    device_nodes: tuple[str, ...] | None = None
    nvml: tuple[NvmlGpu, ...] | None = None
    nvml_driver: str | None = None
    nvml_cuda: str | None = None
    nvml_problem: str | None = None
    runfile: bool | None = None
    cuda_toolkits: tuple[str, ...] | None = None
    container_toolkit: str | None = None
    cdi_specs: tuple[str, ...] | None = None
    cdi_versions: tuple[tuple[str, str], ...] | None = None
    cdi_schemas: tuple[tuple[str, str], ...] | None = None
    cdi_missing: tuple[tuple[str, str], ...] | None = None
    libcuda_versions: tuple[tuple[str, str], ...] | None = None
    compat_folders: tuple[str, ...] | None = None
    firmware: tuple[str, ...] | None = None
    nvswitches: int | None = None
    fabric_manager: bool | None = None
    no_cgroups: bool | None = None
    stub: bool = False


class DeviceNode(Frozen, frozen=True):
    """/dev/kfd or a render node. `usable`: access(2) allows this session to open it (root could always open it)."""

    path: str
    mode: int | None = None
    group: int | None = None
    group_name: str | None = None
    usable: bool | None = None
    slot: str | None = None


class KfdNode(Frozen, frozen=True):
    """A GPU node of the KFD topology: `gfx` like gfx1100, `slot` from location_id and domain."""

    index: int
    gfx: str | None = None
    slot: str | None = None


class AmdGpu(Frozen, frozen=True):
    """One card from sysfs and hwmon: bytes, watts, Celsius. `vram_visible` < `vram_total` means no Resizable BAR.

    `ecc_uncorrected` counts memory errors that could not be corrected (RAS); None: the card has no such counter.
    """

    slot: str
    vram_total: int | None = None
    vram_visible: int | None = None
    vram_used: int | None = None
    power_cap: float | None = None
    power_cap_default: float | None = None
    temperature_edge: float | None = None
    temperature_junction: float | None = None
    temperature_memory: float | None = None
    ecc_uncorrected: int | None = None


class RocmInstall(Frozen, frozen=True):
    path: str
    version: str | None = None


class Amd(Frozen, frozen=True):
    """`module_version` is amdgpu-dkms's own number, None for the in-tree module; `amdsmi_problem` as `nvml_problem`.

    `amdsmi_slots` are the cards that amd-smi or AMD's library lists, `amdsmi_detail` its message about a problem.
    `feature_mask` is the loaded module's ppfeaturemask.
    """

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
    amdsmi_slots: tuple[str, ...] | None = None
    amdsmi_detail: str | None = None
    feature_mask: int | None = None
    stub: bool = False


class Disk(Frozen, frozen=True):
    """The file system of a folder, in bytes. `purpose` models: Hugging Face's cache, if it is on another disk."""

    purpose: DiskPurpose
    path: str
    free: int | None = None
    total: int | None = None
    inodes_free: int | None = None
    fstype: str | None = None
    noexec: bool | None = None


class Resources(Frozen, frozen=True):
    """Bytes. `oom_killers`: active units that may kill a large process early (systemd-oomd, earlyoom)."""

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


class Person(Frozen, frozen=True):
    """The user who runs the tool. `groups` are this process's, `database_groups` those of a new login.

    `environ` has only the variables that change how a GPU is found (CUDA_VISIBLE_DEVICES, HSA_…, LD_LIBRARY_PATH …).
    `start_files` are (file, variable, value) of such variables that a login would set. `sudo_user` is the user
    who called sudo, `sudo_groups` the groups of their next login.
    """

    uid: int | None = None
    user: str | None = None
    groups: tuple[str, ...] | None = None
    database_groups: tuple[str, ...] | None = None
    environ: dict[str, str] = msgspec.field(default_factory=dict)
    ssh: bool | None = None
    start_files: tuple[tuple[str, str, str], ...] | None = None
    sudo_user: str | None = None
    sudo_groups: tuple[str, ...] | None = None


class Host(Frozen, frozen=True):
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
    hub: Hub = Hub()
    wsl: Wsl | None = None
    unread: tuple[Unread, ...] = ()
    taken_at: str = ""
    machine: str = ""
