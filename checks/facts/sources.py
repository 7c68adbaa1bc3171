"""The facts that come from each source: where a source is damaged, these are not known."""

from __future__ import annotations

import re
from functools import cache

_DEVICE = r"/sys/bus/pci/devices/[^/]+"
_EFIVARS = "/sys/firmware/efi/efivars"
_NVML = ("nvidia.nvml", "nvidia.nvml_driver", "nvidia.nvml_cuda", "nvidia.nvml_problem")
_SMI = ("amd.amdsmi_gpus", "amd.amdsmi_problem", "amd.amdsmi_slots", "amd.amdsmi_detail")
# facts that are read only where there is a card that can train, and those about cards
_BY_CARD = (
    "cards",
    "amd.gpus",
    "amd.render",
    "nvidia.nvswitches",
    "hub",
    "python.environments",
    "person.start_files",
    "kernel.dates",
)
_MEMORY = ("amd.gpus.vram_total", "amd.gpus.vram_visible", "amd.gpus.vram_used")
_SENSORS = tuple(f"amd.gpus.{name}" for name in (
    "power_cap", "power_cap_default", "temperature_edge", "temperature_junction", "temperature_memory"
))  # fmt: skip
_MEMINFO = tuple(f"resources.{name}" for name in ("memory_total", "memory_available", "swap_total", "swap_free"))
_LIBRARIES = ("nvidia.compat_folders", "nvidia.library_version", "nvidia.libcuda", "nvidia.libcuda_versions")
_PACKAGES = tuple(f"apt.{name}" for name in ("packages", "broken", "interrupted", "unattended"))
_LOGIN = ("os.login_sleep", "os.login_sleep_source")
_GROUPS = ("person.groups", "person.database_groups", "person.sudo_groups")
# Sources and the facts that come from them, as paths in Host; all rows that match count. A fact stands for its parts.
_FACTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (rf"/sys/bus/pci/devices|{_DEVICE}/(?:class|vendor|device)", _BY_CARD),
    (_DEVICE, ("cards.bridges",)),
    (rf"{_DEVICE}/revision", ("cards.revision",)),
    (rf"{_DEVICE}/subsystem_.*", ("cards.subsystem",)),
    (rf"{_DEVICE}/current_link_(speed|width)", (r"cards.link.\1", r"cards.bridges.link.\1")),
    (rf"{_DEVICE}/max_link_(speed|width)", (r"cards.link.max_\1", r"cards.bridges.link.max_\1")),
    (rf"{_DEVICE}/aer_dev_correctable", ("cards.aer_correctable", "cards.bridges.aer_correctable")),
    (rf"{_DEVICE}/driver", ("cards.driver", "amd.gpus")),
    (rf"{_DEVICE}/power_state", ("cards.power_state", "cards.link", "cards.bridges", *_SENSORS)),
    (rf"{_DEVICE}/boot_vga", ("cards.boot_vga",)),
    (rf"{_DEVICE}/removable", ("cards.external",)),
    (rf"{_DEVICE}/resource", ("cards.bar_bytes",)),
    (rf"{_DEVICE}/iommu_group|/sys/kernel/iommu_groups/.*", ("cards.iommu_group_type",)),
    (rf"{_DEVICE}/mem_info_.*", _MEMORY),
    (rf"{_DEVICE}/hwmon.*", _SENSORS),
    (rf"{_DEVICE}/ras/.*", ("amd.gpus.ecc_uncorrected",)),
    (r"/sys/class/drm.*", ("cards.connectors_connected", "amd.render")),
    (r"/sys/class/kfd/.*", ("amd.nodes",)),
    (r"/sys/module/amdgpu/parameters/.*", ("amd.feature_mask",)),
    (r"/sys/module/amdgpu.*", ("amd.loaded", "amd.module_version")),
    (
        r"/sys/module/nvidia/version|/proc/driver/nvidia/version",
        ("nvidia.module_version", "nvidia.open_module", "nvidia.nvswitches", "nvidia.fabric_manager"),
    ),
    (r"/sys/class/dmi/id/(?:sys_vendor|product_name)", ("os.virtualisation",)),
    (r"/sys/class/dmi/id/(?:bios_vendor|board_.*)", ("firmware.bios_vendor", "firmware.board")),
    (r"/sys/class/net", ("os.virtual_networks",)),
    (rf"{_EFIVARS}/SecureBoot-.*", ("firmware.secure_boot", "firmware.mok_enrolled", "firmware.mok_key_enrolled",
                                        "firmware.mok_pending", "firmware.machine_keyring")),
    (rf"{_EFIVARS}/MokSBStateRT-.*", ("firmware.shim_validation_disabled",)),
    (r"/sys/kernel/security/lockdown", ("firmware.lockdown",)),
    (r"/sys/fs/cgroup/.*|/proc/self/cgroup", ("resources.cgroup_memory_max",)),
    (r"/proc/sys/kernel/osrelease", ("kernel.release", "os.virtualisation", "wsl")),
    (r"/proc/sys/kernel/arch", ("os.arch",)),
    (r"/proc/sys/kernel/apparmor_.*", ("kernel.userns_restricted",)),
    (r"/proc/sys/kernel/random/boot_id", ("kernel.boot_id",)),
    (r"/proc/version", ("kernel.version",)),
    (r"/proc/uptime", ("kernel.uptime_seconds",)),
    (r"/proc/cmdline", ("kernel.cmdline", "kernel.blacklisted")),
    (r"/proc/modules", ("kernel.loaded",)),
    (r"/proc/cpuinfo", ("resources.cores", "resources.cpu", "os.virtualisation")),
    (r"/proc/meminfo", _MEMINFO),
    (r"/proc/locks|/proc/[0-9]+/comm|/var/lib/(?:dpkg|apt)/.*lock.*|/var/cache/apt/.*", ("apt.lock_holder",)),
    (r"/boot", ("kernel.installed", "kernel.initrds", "kernel.next_boot", "kernel.next_boot_because", "kernel.dates")),
    (r"/boot/initrd.*|stat", ("kernel.initrds", "kernel.dates")),
    (r"/boot/grub/.*|/etc/default/grub.*", ("kernel.next_boot", "kernel.next_boot_because")),
    (r"/etc/default/grub.*|/etc/kernel/cmdline", ("kernel.boot_parameters",)),
    (r"/usr/src", ("kernel.headers",)),
    (r"/lib/modules.*", ("kernel.modules",)),
    (r"/var/lib/dkms.*", ("kernel.dkms",)),
    (r"/(?:etc|usr/lib|run)/modprobe\.d.*", ("kernel.blacklisted", "kernel.module_options", "kernel.written_by",
                                                     "kernel.dates")),
    (r"/etc/os-release", ("os.id", "os.version_id", "os.codename", "os.pretty")),
    (r"/run/systemd/units", ("os.clock_synchronised", "resources.oom_killers", "nvidia.fabric_manager")),
    (r"/run/systemd/units", ("docker.running",)),
    (r"/run/systemd/container", ("os.virtualisation", "wsl.container")),
    (r"/(?:etc|usr/lib)/systemd/system/default\.target", ("os.graphical", *_LOGIN)),
    (r"/etc/systemd/system/display-manager\.service", ("os.graphical", *_LOGIN)),
    (r"/etc/systemd/system/(?:suspend|sleep)\.target|/etc/gdm3/.*|/etc/dconf/.*|/usr/share/glib.*", _LOGIN),
    (r"/etc/group", (*_GROUPS, "amd.kfd.group_name", "amd.render.group_name")),
    (r"/etc/passwd", _GROUPS),
    (r"/var/lib/dpkg/status", (*_PACKAGES, "nvidia.container_toolkit")),
    (r"/var/lib/dpkg/status", ("docker.kind", "docker.version", "docker.installed")),
    (r"/var/lib/dpkg/updates", ("apt.interrupted",)),
    (r"/etc/apt/sources\.list.*", ("apt.sources", "apt.missing_keys", "apt.unfetched")),
    (r"/etc/apt/preferences.*", ("apt.pins",)),
    (r"/etc/apt/apt\.conf\.d.*", ("apt.unattended", "apt.unattended_blocks", "apt.unattended_reboot")),
    (r"/var/lib/apt/lists", ("apt.unfetched",)),
    (r".*/keyrings|/etc/apt/trusted.*", ("apt.missing_keys",)),
    (r"/run/reboot-required.*", ("apt.reboot_required", "apt.reboot_packages")),
    (r"/dev", ("nvidia.device_nodes", "wsl.dxg")),
    (r"/usr/lib/wsl/lib", ("wsl.libraries",)),
    (r"/dev/kfd", ("amd.kfd",)),
    (r"/dev/dri.*", ("amd.render",)),
    (r".*/libnvidia-ml\.so.*", ("nvidia.library_version",)),
    (r".*/libcuda\.so.*", ("nvidia.libcuda_versions",)),
    (r"/etc/ld\.so\.conf\.d.*", _LIBRARIES),
    (r"/lib/firmware/nvidia.*", ("nvidia.firmware",)),
    (r"/etc/nvidia-container-runtime/.*", ("nvidia.no_cgroups",)),
    (r"/usr/local", ("nvidia.cuda_toolkits",)),
    (r"/(?:etc|run)/cdi.*", ("nvidia.cdi_specs", "nvidia.cdi_versions", "nvidia.cdi_schemas", "nvidia.cdi_missing")),
    (r"/opt.*", ("amd.rocm", "amd.rocm_on_path", *_SMI)),
    (r"docker info", ("docker",)),
    (r".*/docker", ("docker.kind",)),
    (r"/.*daemon\.json", ("docker.daemon_json_valid", "docker.daemon_json_problem", "docker.daemon_json_runtimes")),
    (r"/etc/apparmor\.d", ("docker.userns_profiles",)),
    (r".*/python3?|/usr/include/python.*", ("python.path", "python.version", "python.headers", "python.venv")),
    (r".*/environments|.*/lib|.*/site-packages.*|.*/pyvenv\.cfg", ("python.environments",)),
    (r"/etc/environment(?:\.d.*)?|/etc/profile\.d.*|.*/\.(?:profile|bash_profile|bashrc|zsh.*|config/.*)",
     ("person.start_files",)),
    (r"nvml", _NVML),
    (r"amdsmi", _SMI),
    # that the log may not be read (`kernel log`) is no damage: the checks of the log say what would make it readable
    (r"journalctl|dmesg", ("kernel.log",)),
    (r"mokutil.*|.*/dkms/framework\.conf.*",
     ("firmware.mok_enrolled", "firmware.mok_pending", "firmware.mok_key_enrolled", "firmware.mok_certificate")),
    (r"file system of .*|disks", ("resources.disks", "resources.shm_total")),
    # a probe that crashed
    (r"pci", _BY_CARD),
    (r"(apt|os|kernel|firmware|nvidia|amd|python|resources|person|hub|docker)", (r"\1",)),
    (r"environments", ("python.environments",)),
    (r"dates", ("kernel.dates",)),
)  # fmt: skip


@cache
def facts_from(source: str) -> tuple[str, ...]:
    """The facts that come from the source of a gap, as paths in Host (`kernel.release`)."""
    found = [(re.fullmatch(pattern, source), facts) for pattern, facts in _FACTS]
    return tuple(dict.fromkeys(match.expand(fact) for match, facts in found if match for fact in facts))
