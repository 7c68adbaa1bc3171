"""What each source looks like when it is whole, and which facts come from it.

The kernel writes a value or table of /proc and /sys at once and ends it with a line end (seq_file, sysfs_emit), so
that an incomplete one can be noticed. Files that people type may lack the last line end; there each line is checked.
"""

from __future__ import annotations

import re
from functools import cache

import msgspec

from checks.facts.apt_settings import is_complete
from checks.facts.deb822 import paragraphs

KERNEL = ("/proc/", "/sys/")
_EFI = "/sys/firmware/efi/"
# No text has them, but ESC in a shell's start-up file; zeros are what a power failure leaves of a file that was being
# written.
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f\ufffd\ud800-\udfff]")
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
    (r"/opt/.*/\.info/version", r"[0-9]+(?:\.[0-9]+)+[A-Za-z0-9_.+~-]*"),
)
# The fields that each paragraph must have (apt refuses others).
_FIELDS = (
    (r"/etc/apt/sources\.list\.d/.*\.sources", ("types", "uris")),
    (r"/etc/apt/preferences.*", ("package", "pin")),
)
_COMMENT = re.compile(r"^#.*\n?", re.MULTILINE)
_NO_FIELD = re.compile(r"(?:\A|\n[ \t]*\n)[ \t]+\S")
# nvidia-ctk writes them and ends the last line
_ENDED = ("/etc/cdi/", "/run/cdi/")

_DEVICE = r"/sys/bus/pci/devices/[^/]+"
_SELF = r".*/devices/.*"
# Where a link of sysfs points to; a PCI device's to the folder of the same name.
_LINK = (
    (_DEVICE, _SELF),
    (rf"{_DEVICE}/driver", r".*/drivers/[^/]+"),
    (rf"{_DEVICE}/iommu_group", r".*/iommu_groups/[0-9]+"),
    (r"/sys/class/drm/[^/]+/device", r"(?:\.\./)+[\w:./-]+"),
)
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
    (rf"{_DEVICE}/resource", ("cards.bar_bytes",)),
    (rf"{_DEVICE}/iommu_group|/sys/kernel/iommu_groups/.*", ("cards.iommu_group_type",)),
    (rf"{_DEVICE}/mem_info_.*", _MEMORY),
    (rf"{_DEVICE}/hwmon.*", _SENSORS),
    (rf"{_DEVICE}/ras/.*", ("amd.gpus.ecc_uncorrected",)),
    (r"/sys/class/drm.*", ("cards.connectors_connected", "amd.render")),
    (r"/sys/class/kfd/.*", ("amd.nodes",)),
    (r"/sys/module/amdgpu.*", ("amd.loaded", "amd.module_version")),
    (
        r"/sys/module/nvidia/version|/proc/driver/nvidia/version",
        ("nvidia.module_version", "nvidia.open_module", "nvidia.nvswitches", "nvidia.fabric_manager"),
    ),
    (r"/sys/class/dmi/id/(?:sys_vendor|product_name)", ("os.virtualisation",)),
    (r"/sys/class/dmi/id/(?:bios_vendor|board_.*)", ("firmware.bios_vendor", "firmware.board")),
    (r"/sys/class/net", ("os.virtual_networks",)),
    (rf"{_EFI}efivars/SecureBoot-.*", ("firmware.secure_boot", "firmware.mok_enrolled", "firmware.mok_key_enrolled",
                                        "firmware.mok_pending")),
    (rf"{_EFI}efivars/MokSBStateRT-.*", ("firmware.shim_validation_disabled",)),
    (r"/sys/kernel/security/lockdown", ("firmware.lockdown",)),
    (r"/sys/fs/cgroup/.*|/proc/self/cgroup", ("resources.cgroup_memory_max",)),
    (r"/proc/sys/kernel/osrelease", ("kernel.release", "os.virtualisation")),
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
    (r"/usr/src", ("kernel.headers",)),
    (r"/lib/modules.*", ("kernel.modules",)),
    (r"/var/lib/dkms.*", ("kernel.dkms",)),
    (r"/(?:etc|usr/lib|run)/modprobe\.d.*", ("kernel.blacklisted", "kernel.module_options", "kernel.dates")),
    (r"/etc/os-release", ("os.id", "os.version_id", "os.codename", "os.pretty")),
    (r"/run/systemd/units", ("os.clock_synchronised", "resources.oom_killers", "nvidia.fabric_manager")),
    (r"/run/systemd/container", ("os.virtualisation",)),
    (r"/(?:etc|usr/lib)/systemd/system/default\.target", ("os.graphical", *_LOGIN)),
    (r"/etc/systemd/system/display-manager\.service", ("os.graphical", *_LOGIN)),
    (r"/etc/systemd/system/(?:suspend|sleep)\.target|/etc/gdm3/.*|/etc/dconf/.*|/usr/share/glib.*", _LOGIN),
    (r"/etc/group", (*_GROUPS, "amd.kfd.group_name", "amd.render.group_name")),
    (r"/etc/passwd", _GROUPS),
    (r"/var/lib/dpkg/status", (*_PACKAGES, "nvidia.container_toolkit", "docker.kind", "docker.version")),
    (r"/var/lib/dpkg/updates", ("apt.interrupted",)),
    (r"/etc/apt/sources\.list.*", ("apt.sources", "apt.missing_keys", "apt.unfetched")),
    (r"/etc/apt/preferences.*", ("apt.pins",)),
    (r"/etc/apt/apt\.conf\.d.*", ("apt.unattended", "apt.unattended_blocks", "apt.unattended_reboot")),
    (r"/var/lib/apt/lists", ("apt.unfetched",)),
    (r".*/keyrings|/etc/apt/trusted.*", ("apt.missing_keys",)),
    (r"/run/reboot-required.*", ("apt.reboot_required", "apt.reboot_packages")),
    (r"/dev", ("nvidia.device_nodes",)),
    (r"/dev/kfd", ("amd.kfd",)),
    (r"/dev/dri.*", ("amd.render",)),
    (r".*/libnvidia-ml\.so.*", ("nvidia.library_version",)),
    (r".*/libcuda\.so.*", ("nvidia.libcuda_versions",)),
    (r"/etc/ld\.so\.conf\.d.*", _LIBRARIES),
    (r"/lib/firmware/nvidia.*", ("nvidia.firmware",)),
    (r"/etc/nvidia-container-runtime/.*", ("nvidia.no_cgroups",)),
    (r"/usr/local", ("nvidia.cuda_toolkits",)),
    (r"/(?:etc|run)/cdi.*", ("nvidia.cdi_specs", "nvidia.cdi_versions")),
    (r"/opt.*", ("amd.rocm", "amd.rocm_on_path", *_SMI)),
    (r"docker info", ("docker",)),
    (r".*/docker", ("docker.kind",)),
    (r"/.*daemon\.json", ("docker.daemon_json_valid", "docker.daemon_json_problem", "docker.daemon_json_runtimes")),
    (r"/etc/apparmor\.d", ("docker.userns_profiles",)),
    (r".*/python3?|/usr/include/python.*", ("python.path", "python.version", "python.headers", "python.venv")),
    (r".*/environments|.*/lib|.*/(?:torch|bitsandbytes)/.*|.*/bitsandbytes", ("python.environments",)),
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


def damage(path: str, content: bytes) -> str | None:
    """Why this cannot be the whole content of the file at `path`; None if nothing is wrong with it."""
    text = content.decode("utf-8", "replace")
    if path.endswith(_FREE):
        return None
    if path.startswith(_ANY_ENCODING):
        text = text.replace("\ufffd", "?")
    if _CONTROL.search(text) or (path.startswith(KERNEL) and "\r" in text):
        return "damaged: it is not text"
    if path.startswith(KERNEL):
        if not text:
            return None if path in _MAYBE_EMPTY else "damaged: it is empty"
        if not text.endswith("\n") or (path.startswith("/sys/") and text.endswith("\n\n")):
            return "damaged: the last line is incomplete"
        form = _WHOLE.get(path) or (_WHOLE.get(path.rpartition("/")[2]) if path.startswith("/sys/") else None)
        return (
            None if form is None or re.fullmatch(form, text, re.ASCII) else "damaged: its content cannot be understood"
        )
    if path.endswith(_NEVER_EMPTY) and not text.strip():
        return "damaged: it is empty"
    if path.endswith(".json"):
        try:
            msgspec.json.decode(content)
        except (msgspec.MsgspecError, RecursionError):
            return "damaged: it is not JSON"
    elif path.startswith(_ENDED) and not text.endswith("\n"):
        return "damaged: the last line is incomplete"
    if path.startswith("/etc/apt/apt.conf.d/") and not is_complete(text):
        return "damaged: a quote, a bracket or the last `;` is missing"
    fields = next((fields for pattern, fields in _FIELDS if re.fullmatch(pattern, path)), ())
    if fields and not all(found.get(name) for found in paragraphs(text) for name in fields):
        return f"damaged: a paragraph has no {' or '.join(fields)}"
    if fields and _NO_FIELD.search(_COMMENT.sub("", text)):
        return "damaged: a line continues no field"
    line = next((line for pattern, line in _LINE if re.fullmatch(pattern, path)), None)
    if line is not None:
        for number, found in enumerate(text.replace("\\\n", " ").splitlines(), 1):
            if not re.fullmatch(line, found):
                return f"damaged: line {number} cannot be understood"
    return None


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


@cache
def facts_from(source: str) -> tuple[str, ...]:
    """The facts that come from the source of a gap, as paths in Host (`kernel.release`)."""
    found = [(re.fullmatch(pattern, source), facts) for pattern, facts in _FACTS]
    return tuple(dict.fromkeys(match.expand(fact) for match, facts in found if match for fact in facts))
