"""What keeps a driver from its card, in the words of many machines: the summary, the fix, and what must not be said.

Rows name the public report or the source that wrote the file or message; `the same …` is another situation of it.
"""

from __future__ import annotations

from typing import NamedTuple

from checks.catalogue import catalogue
from checks.facts.host import AptSource, Host, ModuleFile, Nvidia, Os, Package
from checks.facts.kernel import parse_blacklist, parse_log, parse_writer
from checks.model import Finding, FixKind
from checks.registry import ALL
from checks.runner import judge
from tests.checks.rules.cases_card import said
from tests.checks.rules.cases_driver import DKMS, UNLOADED, A, N
from tests.checks.rules.hosts import KERNEL, NEWER, OLDER, amd_card, built, but, module, nvidia_card, package
from tests.subjects import for_each

CHECKS = {check.id: check for check in ALL}
# a fix that repeats what failed, or that does not change what the next boot does
NO_REPEAT = ("dpkg --configure -a", "dkms autoinstall")


class Row(NamedTuple):
    """`summary` and `fix` are in the finding's summary and in its fix (text and command); `never` in neither."""

    source: str
    check: str
    host: Host
    summary: str
    fix: tuple[str, ...]
    never: tuple[str, ...] = ()


def finding(check: str, host: Host) -> Finding:
    result = judge(CHECKS[check], host, catalogue())
    assert result.findings, (check, result.status, result.reason)
    return result.findings[0]


def on(host: Host, id: str, version: str | None = None, apt: bool = True, graphical: bool = True) -> Host:
    """The same machine with another distribution; without apt nothing of dpkg is known."""
    changed = but(host, os={"id": id, "version_id": version, "pretty": id, "graphical": graphical})
    return changed if apt else but(changed, apt={"packages": None, "sources": None})


# --- a switch of hybrid graphics has put the card away
PRIME = "/usr/lib/modprobe.d/blacklist-nvidia.conf"


def switched_off(writer: str | None, file: str = PRIME) -> Host:
    return but(
        UNLOADED,
        kernel={"blacklisted": (("nvidia", file),), "written_by": ((file, writer),) if writer else ()},
    )


# --- what NVIDIA's module writes about a card; parsed from the output of journalctl, dmesg and dmesg of other kernels
OPEN_580 = """[    3.226000] host kernel: NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:2204)
               NVRM: installed in this system is not supported by open
               NVRM: nvidia.ko because it does not include the required GPU
               NVRM: System Processor (GSP).
[    3.339000] host kernel: nvidia 0000:01:00.0: probe with driver nvidia failed with error -1
[    3.452000] host kernel: NVRM: None of the NVIDIA devices were initialized.
"""
OPEN_DMESG = OPEN_580.replace("host kernel: ", "")
# one printk a line, as syslog writes them
OPEN_LINES = OPEN_580.replace("               NVRM", "[    3.226000] host kernel: NVRM")
OPEN_ONLY = """[    7.107000] NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:2204)
               NVRM: installed in this system requires use of the NVIDIA open kernel modules.
[    7.108000] nvidia: probe of 0000:01:00.0 failed with error -1
"""
# NixOS/nixos-hardware#1880; the machine's name is the card's, there is no address in it
LEGACY = """[   12.001000] NVRM: The NVIDIA NVIDIA GeForce GTX 1050 GPU installed in this system is
               NVRM:  supported through the NVIDIA 580.xx Legacy drivers. Please
               NVRM:  visit http://www.nvidia.com/object/unix.html for more
               NVRM:  information.  The 595.71.05 NVIDIA driver will ignore
               NVRM:  this GPU.  Continuing probe...
[   12.002000] NVRM: No NVIDIA GPU found.
"""
TOO_NEW = """[    5.001000] NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:2204)
               NVRM: installed in this system is not supported by the
               NVRM: NVIDIA 550.144.03 driver release.
               NVRM: Please see 'Appendix A - Supported NVIDIA GPU Products'
"""


def wrote(host: Host, log: str) -> Host:
    return but(host, kernel={"log": parse_log(log)})


DRIVER_580_OPEN = but(
    UNLOADED,
    apt={"packages": (package("nvidia-driver-580-open", "580.126.09-0ubuntu0.24.04.1"),)},
    nvidia={"library_version": "580.126.09", "nvml_driver": None},
)
DRIVER_595_OPEN = but(UNLOADED, nvidia={"library_version": "595.71.05", "nvml_driver": None})

# --- Secure Boot
SIGNED = but(DKMS, firmware={"mok_key_enrolled": True, "secure_boot": True})
MAINLINE = "6.18.7-061807-generic"
UNAVAILABLE = "[    3.2] Loading of module with unavailable key is rejected"


def signed(release: str, line: str = UNAVAILABLE, **firmware: object) -> Host:
    """A module that DKMS has signed with the enrolled key, refused by this kernel."""
    host = but(SIGNED, kernel={"release": release, "modules": (module("nvidia", release, "dkms"),)}, firmware=firmware)
    return said(host, line)


# --- DKMS
COMPILE = "nvidia-drm-drv.c:212:6: error: 'struct drm_mode_config_funcs' has no member named 'output_poll_changed'"


def not_built(log: str, **kernel: object) -> Host:
    return but(
        DKMS,
        kernel={
            "modules": (module("nvidia", OLDER, "dkms"),),
            "dkms": (built("nvidia", "565.77", KERNEL, "added", log), built("nvidia", "565.77", OLDER)),
            "installed": (OLDER, KERNEL),
            **kernel,
        },
    )


def amdgpu_dkms(version: str, *, release: str = KERNEL, log: str = "", **parts: object) -> Host:
    host = but(
        A,
        kernel={
            "release": release,
            "next_boot": release,
            "dkms": (built("amdgpu", version, release, "added", log),),
            "modules": (module("amdgpu", release, "in-tree"),),
        },
        apt={"broken": ("amdgpu-dkms",), "packages": (package("amdgpu-dkms", f"1:{version}", "half-configured"),)},
    )
    return but(host, **parts)


# --- two sources
UBUNTU_580 = (
    package("nvidia-driver-580-open", "580.95.05-0ubuntu0.24.04.1"),
    package("linux-modules-nvidia-580-open-generic", "6.17.0-35.35~24.04.1"),
)


def prebuilt(branch: str, kernel: str = KERNEL) -> ModuleFile:
    folder = f"/lib/modules/{kernel}/kernel/nvidia-{branch}-open"
    return ModuleFile(name="nvidia", kernel=kernel, path=f"{folder}/nvidia.ko.zst", origin="prebuilt")


def loaded(version: str, library: str, files: tuple[ModuleFile, ...], *packages: Package, **parts: object) -> Host:
    """The module is loaded, the library on disk has another version."""
    host = but(
        N,
        kernel={"modules": files},
        nvidia={
            "module_version": version,
            "library_version": library,
            "nvml": None,
            "nvml_driver": None,
            "nvml_problem": "mismatch",
        },
        apt={"packages": packages},
    )
    return but(host, **parts)


HALF = (
    package("libnvidia-compute", "590.44.01-1ubuntu1", "unpacked"),
    package("libnvidia-cfg1", "590.44.01-1ubuntu1", "half-installed"),
)
STAYS_580 = loaded("580.95.05", "590.44.01", (prebuilt("580"),), *UBUNTU_580, *HALF)


def repository(name: str) -> AptSource:
    uri = f"https://developer.download.nvidia.com/compute/cuda/repos/{name}/x86_64/"
    return AptSource(file=f"/etc/apt/sources.list.d/cuda-{name}-x86_64.list", uri=uri, suite="/", owner="nvidia")


def no_amdgpu(*words: str, **kernel: object) -> Host:
    return but(A, cards=(amd_card(driver=None),), kernel={"loaded": (), "cmdline": ("ro", *words), **kernel})


def gave_up(*lines: str, **parts: object) -> Host:
    return but(said(but(A, cards=(amd_card(driver=None),)), *lines), **parts)


NO_ROOM = (
    "[ 4.1] amdgpu 0000:03:00.0: amdgpu: Fatal error during GPU init",
    "[ 4.2] amdgpu: probe of 0000:03:00.0 failed with error -12",
)
NO_ROM = (
    "[ 4.0] amdgpu: Unable to locate a BIOS ROM",
    "[ 4.1] amdgpu 0000:03:00.0: amdgpu: Fatal error during GPU init",
    "[ 4.2] amdgpu 0000:03:00.0: probe with driver amdgpu failed with error -22",
)

NO_DRIVER = but(
    N,
    cards=(nvidia_card(driver="nouveau"),),
    kernel={"loaded": ("nouveau",), "modules": ()},
    nvidia=Nvidia(device_nodes=(), runfile=False, nvml_problem="absent"),
    apt={"packages": ()},
)

ROWS = (
    # canonical/nvidia-prime, prime-select: write_blacklist
    Row("nvidia-prime#20", "driver.bound", switched_off("nvidia-prime"), "no driver",
        ("sudo prime-select on-demand",), ("Remove the",)),
    Row("pop-os/system76-power src/graphics.rs", "driver.bound",
        switched_off("system76-power", "/etc/modprobe.d/system76-power.conf"), "no driver",
        ("sudo system76-power graphics hybrid",), ("Remove the",)),
    Row("bayasdev/envycontrol", "driver.bound", switched_off("EnvyControl", "/etc/modprobe.d/blacklist-nvidia.conf"),
        "no driver", ("sudo envycontrol --switch hybrid",), ("Remove the",)),
    Row("asus-linux supergfxctl src/lib.rs", "driver.bound",
        switched_off("supergfxd", "/etc/modprobe.d/supergfxd.conf"), "no driver",
        ("sudo supergfxctl --mode Hybrid",), ("Remove the",)),
    Row("Askannz/optimus-manager modules/", "driver.bound",
        switched_off("optimus-manager", "/etc/modprobe.d/optimus-manager.conf"), "no driver",
        ("sudo optimus-manager --switch hybrid",), ("Remove the",)),
    Row("a person's own file", "driver.bound", switched_off(None, "/etc/modprobe.d/no-gpu.conf"), "no driver",
        ("/etc/modprobe.d/no-gpu.conf", "alias … off", "update-initramfs -u"), ("prime-select",)),
    Row("the same on Fedora", "driver.bound",
        on(switched_off(None, "/etc/modprobe.d/no-gpu.conf"), "fedora", "43", apt=False), "no driver",
        ("sudo dracut --force",), ("update-initramfs", "apt")),
    Row("the same on Arch", "driver.bound",
        on(switched_off(None, "/etc/modprobe.d/no-gpu.conf"), "arch", apt=False), "no driver",
        ("sudo mkinitcpio -P",), ("update-initramfs", "apt")),
    # nouveau was in the initramfs
    Row("nouveau on the card, blacklisted since", "driver.bound",
        but(UNLOADED, cards=(nvidia_card(driver="nouveau"),),
            kernel={"blacklisted": (("nouveau", "/etc/modprobe.d/nvidia-installer-disable-nouveau.conf"),)}),
        "bound to nouveau", ("sudo update-initramfs -u -k all",), ("systemctl reboot",)),
    Row("the same on openSUSE", "driver.bound",
        on(but(UNLOADED, cards=(nvidia_card(driver="nouveau"),),
               kernel={"blacklisted": (("nouveau", "/etc/modprobe.d/nvidia-default.conf"),)}), "opensuse-leap", "15.6",
           apt=False), "bound to nouveau", ("sudo dracut --force",), ("update-initramfs", "apt")),
    # parameters
    Row("ROCm/legacy-rocm-build#4426", "driver.bound", no_amdgpu("modprobe.blacklist=amdgpu"), "no driver",
        ("sudo modprobe amdgpu", "/etc/default/grub", "sudo update-grub", "If that is intended"),
        ("update-initramfs",)),
    Row("two modules in one word", "driver.bound", no_amdgpu("modprobe.blacklist=nouveau,amdgpu"), "no driver",
        ("modprobe.blacklist=nouveau,amdgpu", "sudo modprobe amdgpu"), ("update-initramfs",)),
    # the kernel itself refuses such a module: loading it by hand does not help
    Row("kernel-parameters.txt: module_blacklist", "driver.bound", no_amdgpu("module_blacklist=amdgpu"), "no driver",
        ("module_blacklist=amdgpu", "sudo update-grub"), ("modprobe amdgpu",)),
    Row("ROCm/legacy-rocm-build#1010", "driver.bound", no_amdgpu("nomodeset"), "no driver",
        ("nomodeset", "sudo update-grub"), ("modprobe.blacklist",)),
    Row("a cloud image's file", "driver.bound",
        no_amdgpu("nomodeset", boot_parameters=(("/etc/default/grub.d/50-cloudimg-settings.cfg", "nomodeset"),)),
        "no driver", ("/etc/default/grub.d/50-cloudimg-settings.cfg",), ("(/etc/default/grub or",)),
    Row("pop-os/kernelstub", "driver.bound", on(no_amdgpu("nomodeset"), "pop", "24.04"), "no driver",
        ("sudo kernelstub --delete-options nomodeset",), ("update-grub",)),
    Row("Fedora, grubby", "driver.bound", on(no_amdgpu("nomodeset"), "fedora", "43", apt=False), "no driver",
        ("sudo grubby --update-kernel=ALL --remove-args=nomodeset",), ("update-grub",)),
    Row("Arch, grub-mkconfig", "driver.bound", on(no_amdgpu("nomodeset"), "arch", apt=False), "no driver",
        ("sudo grub-mkconfig -o /boot/grub/grub.cfg",), ("update-grub",)),
    # the driver started and gave up
    Row("ROCm/rocm-install-on-linux#615", "driver.bound", gave_up(*NO_ROOM), "no driver",
        ("-12", "Above 4G Decoding", "MMIO"), ("modprobe", "journalctl")),
    Row("the same in a guest", "driver.bound", gave_up(*NO_ROOM, os={"virtualisation": "kvm"}), "no driver",
        ("-12", "On the host"), ("In the BIOS",)),
    Row("isc30/ryzen-gpu-passthrough-proxmox#117", "driver.bound", gave_up(*NO_ROM, os={"virtualisation": "kvm"}),
        "no driver", ("romfile=",), ("modprobe", "BIOS:")),
    Row("another reason", "driver.bound", gave_up(
        "[ 4.0] amdgpu 0000:03:00.0: amdgpu: get invalid ip discovery binary signature", NO_ROM[1], NO_ROM[2]),
        "no driver", ("first message above",), ("modprobe",)),
    # open or proprietary, in the module's words
    Row("pop-os/cosmic-epoch#3411", "driver.flavour", wrote(DRIVER_580_OPEN, OPEN_580), "has no GSP",
        ("apply", "nvidia-driver-580)"), ("modprobe", "-open", "open module of the same")),
    Row("the same with dmesg", "driver.flavour", wrote(DRIVER_580_OPEN, OPEN_DMESG), "has no GSP", ("apply",)),
    Row("the same, a time on each line", "driver.flavour", wrote(DRIVER_580_OPEN, OPEN_LINES), "has no GSP",
        ("apply",)),
    Row("the same on Linux Mint", "driver.flavour", on(wrote(DRIVER_580_OPEN, OPEN_580), "linuxmint", "22.2"),
        "has no GSP", ("sudo apt-get install nvidia-driver-580",), ("-open", "gpu-setup apply")),
    Row("branch 595 has no module for it at all", "driver.flavour",
        on(wrote(DRIVER_595_OPEN, OPEN_580), "linuxmint", "22.2"), "has no GSP",
        ("nvidia-driver-580",), ("595", "gpu-setup apply")),
    Row("the same on Arch", "driver.flavour", on(wrote(DRIVER_595_OPEN, OPEN_580), "arch", apt=False), "has no GSP",
        ("nvidia-580xx-dkms",), ("apt",)),
    Row("NVIDIA/open-gpu-kernel-modules#872", "driver.flavour", wrote(UNLOADED, OPEN_ONLY), "requires the open one",
        ("apply",)),
    Row("NixOS/nixos-hardware#1880", "driver.dropped", wrote(UNLOADED, LEGACY), "580 is the last branch", ("apply",)),
    Row("the same on Fedora (Nvidia-Fedora-Guide#20)", "driver.dropped",
        on(wrote(UNLOADED, LEGACY), "fedora", "44", apt=False), "580 is the last branch", ("akmod-nvidia-580xx",),
        ("apt",)),
    Row("an old driver and a new card", "driver.dropped", wrote(UNLOADED, TOO_NEW), "550.144.03 does not support",
        ("apply",)),
    Row("siderolabs/extensions#227: a slice of a card", "driver.dropped",
        but(wrote(UNLOADED, TOO_NEW), os={"virtualisation": "kvm"}), "550.144.03 does not support", ("GRID driver",),
        ("newer branch", "gpu-setup apply")),
    # Secure Boot
    Row("pop-os/linux#447", "secureboot.module", signed(MAINLINE), "does not trust enrolled keys",
        ("kernel of your distribution", "Secure Boot off"), ("mokutil --import", "mokutil --test-key", "apply")),
    Row("deepin-community/kernel#2144", "secureboot.module",
        on(signed("6.18.48-amd64-desktop-rolling", machine_keyring=False), "deepin", "25"),
        "does not trust enrolled keys", ("kernel of your distribution",), ("mokutil --import",)),
    Row("CachyOS/linux-cachyos#743: no MokListTrustedRT", "secureboot.module",
        on(signed("6.17.0-pop", machine_keyring=True, mok_trusted=False), "cachyos", apt=False),
        "does not trust enrolled keys", ("mokutil --trust-mok",), ("apt",)),
    Row("xanmod", "secureboot.module", signed("6.17.8-x64v3-xanmod1"), "does not trust enrolled keys",
        ("kernel of your distribution",)),
    Row("Ubuntu's kernel trusts the key: another one signed", "secureboot.module",
        but(signed(KERNEL), apt={"packages": (package("nvidia-dkms-580-open", "580.95.05-0ubuntu0.24.04.1"),)}),
        "another key than the one that is enrolled", ("sudo dpkg-reconfigure nvidia-dkms-580-open",),
        ("mokutil --import",)),
    Row("linux-surface#906", "secureboot.module",
        signed(KERNEL, "[ 3.1] modprobe: ERROR: could not insert 'nvidia': Key was rejected by service",
               mok_key_enrolled=False), "not enrolled", ("apply",)),
    Row("Fedora's akmods", "secureboot.module",
        on(signed("6.17.7-300.fc43.x86_64", mok_key_enrolled=False,
                  mok_certificate="/etc/pki/akmods/certs/public_key.der"), "fedora", "43", apt=False),
        "not enrolled", ("sudo mokutil --import /etc/pki/akmods/certs/public_key.der",), ("apply", "apt")),
    Row("signing.c: no signature", "secureboot.module",
        signed(KERNEL, "[ 3.1] nvidia: loading of unsigned module is rejected"), "no signature", ("sign",),
        ("enrol the key again",)),
    Row("lockdown's words", "secureboot.module",
        signed(KERNEL, "[ 3.1] Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7"),
        "no signature", ("sign",)),
    Row("linux 5.4", "secureboot.module",
        signed(KERNEL, "[ 3.1] PKCS#7 signature not signed with a trusted key", mok_key_enrolled=None),
        "does not trust the key that signed it", ("apply",), ("not enrolled",)),
    Row("module.sig_enforce without Secure Boot", "secureboot.module",
        but(signed(KERNEL, "[ 3.1] nvidia: loading of unsigned module is rejected", secure_boot=False,
                   mok_key_enrolled=None), kernel={"cmdline": ("ro", "module.sig_enforce=1")}),
        "lockdown or module.sig_enforce", ("sign",), ("Secure Boot refuses",)),
    # DKMS
    Row("pop-os/linux#350", "driver.dkms", on(not_built(COMPILE), "pop", "24.04"), "does not compile",
        ("newer driver branch", OLDER, "system76-driver-nvidia"), (*NO_REPEAT, "gpu-setup apply")),
    Row("the same with the branch's packages", "driver.dkms",
        on(but(not_built(COMPILE), apt={"packages": (
            package("nvidia-driver-565-open", "565.77-1pop0~1740585746~24.04~4a96b41"),)}), "pop", "24.04"),
        "does not compile", ("sudo apt-get install nvidia-driver-580-open", OLDER), (*NO_REPEAT, "system76-driver")),
    Row("the same on Ubuntu 24.04", "driver.dkms", not_built(COMPILE), "does not compile", ("apply", OLDER), NO_REPEAT),
    Row("the same on Fedora", "driver.dkms", on(not_built(COMPILE), "fedora", "43", apt=False), "does not compile",
        ("akmod-nvidia",), (*NO_REPEAT, "apt")),
    Row("modpost, 535 on a 6.x kernel", "driver.dkms",
        not_built("ERROR: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol '__rcu_read_lock'"),
        "does not compile", ("newer driver branch",), NO_REPEAT),
    Row("clearlinux/distribution#1133", "driver.dkms", not_built("*** Failed CC version check. Bailing out! ***"),
        "has not built", ("another compiler",), ("newer driver branch",)),
    Row("aws-samples/amazon-eks-machine-learning-with-terraform-and-kubeflow#107", "driver.dkms",
        not_built("gcc: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'",
                  version="Linux version 6.8.0 (x86_64-linux-gnu-gcc-12 (Ubuntu 12.3.0) 12.3.0) #1 SMP"),
        "has not built", ("sudo apt-get install gcc-12",), ("newer driver branch",)),
    Row("the compiler of the kernel failed itself", "driver.dkms",
        not_built("gcc-13: error: unrecognized command-line option '-fmin-function-alignment=16'",
                  version="Linux version 6.17.0 (x86_64-linux-gnu-gcc-13 (Ubuntu 13.3.0) 13.3.0) #1 SMP"),
        "has not built", ("another compiler",), ("install gcc-13",)),
    Row("dkms's own words", "driver.dkms",
        not_built(f"Error! Your kernel headers for kernel {KERNEL} cannot be found."), "has not built",
        (f"linux-headers-{KERNEL}",), ("newer driver branch",)),
    Row("a full disk", "driver.dkms", not_built("fatal error: error writing to /tmp/cc1: No space left on device"),
        "has not built", ("disk space",), ("newer driver branch",)),
    Row("the OOM killer", "driver.dkms", not_built("gcc: fatal error: Killed signal terminated program cc1"),
        "has not built", ("memory",), ("newer driver branch",)),
    Row("a log that shows nothing", "driver.dkms", not_built("make: *** [Makefile:115: modules] Error 2"),
        "has not built", ("dkms autoinstall",)),
    # amdgpu-dkms
    Row("ROCm/amdgpu#192", "kernel.amdgpu-dkms", amdgpu_dkms("6.12.12-2164967.24.04", release="6.14.0-24-generic"),
        "6.14.0-24-generic is newer", ("sudo apt-get remove amdgpu-dkms",), NO_REPEAT),
    Row("the same, dpkg", "apt.dpkg", amdgpu_dkms("6.12.12-2164967.24.04", release="6.14.0-24-generic"),
        "amdgpu-dkms", ("sudo apt-get remove amdgpu-dkms",), NO_REPEAT),
    Row("ROCm/legacy-rocm-build#3701: the kernel's packages wait for it", "apt.dpkg",
        but(amdgpu_dkms("6.7.0-1787201.22.04", release="6.8.0-44-generic",
                        log="drm_dp_mst.c:9:1: error: too few arguments to function 'drm_dp_mst_topology_mgr_init'"),
            apt={"broken": ("linux-headers-6.8.0-44-generic", "linux-headers-generic"),
                 "packages": (package("amdgpu-dkms", "1:6.7.0-1787201.22.04"),)}),
        "linux-headers-6.8.0-44-generic", ("sudo apt-get remove amdgpu-dkms",), NO_REPEAT),
    Row("another module's build stops them", "apt.dpkg",
        but(N, kernel={"dkms": (built("v4l2loopback", "0.12.7", NEWER, "added", "v4l2loopback.c:1: error: x"),)},
            apt={"broken": (f"linux-headers-{NEWER}",)}),
        f"linux-headers-{NEWER}", ("v4l2loopback-dkms", "update or remove")),
    # ROCm/legacy-rocm-build#5111: the kernel is not newer than the package, a backport changed it
    Row("a backport in a stable kernel", "kernel.amdgpu-dkms",
        amdgpu_dkms("6.16.13-2341068.24.04", release="6.12.100+deb13-amd64",
                    log="amdgpu_device.c:1752:13: error: too few arguments to function 'pci_resize_resource'",
                    os={"id": "debian", "version_id": "13"}),
        "does not compile", ("sudo apt-get remove amdgpu-dkms",), NO_REPEAT),
    Row("RDNA4 on a kernel that is too old for it", "kernel.amdgpu-dkms",
        amdgpu_dkms("6.8.5-2041575.24.04", release="6.11.0-29-generic",
                    cards=(amd_card(device="7550", revision="c0"),)),
        "is newer", ("newer amdgpu-dkms",), ("Remove amdgpu-dkms", *NO_REPEAT)),
    # two versions of one driver
    Row("prodopsy.com/broken-nvidia-cuda-install", "driver.mismatch", STAYS_580, "590.44.01",
        ("apt.mixed-sources",), ("Reboot to load", "systemctl reboot")),
    Row("the same, its cause", "apt.mixed-sources", STAYS_580, "from NVIDIA and Ubuntu",
        ("libnvidia-compute libnvidia-cfg1", "--fix-broken install", "Ubuntu"), ("systemctl reboot",)),
    Row("the same, dpkg", "apt.dpkg", but(STAYS_580, apt={"broken": ("libnvidia-cfg1", "libnvidia-compute")}),
        "libnvidia-cfg1", ("--force-remove-reinstreq",), NO_REPEAT),
    Row("nothing incomplete: apt does it at once", "apt.mixed-sources",
        loaded("580.95.05", "590.44.01", (prebuilt("580"),), *UBUNTU_580,
               package("libnvidia-compute", "590.44.01-1ubuntu1")),
        "from NVIDIA and Ubuntu", ("sudo apt-get install nvidia-driver-580-open libnvidia-compute-",), ("--force",)),
    Row("an upgrade that waits for the reboot", "driver.mismatch",
        loaded("580.95.05", "580.126.09", (prebuilt("580"),), *UBUNTU_580), "580.126.09", ("systemctl reboot",)),
    Row("DKMS has built the new version", "driver.mismatch",
        loaded("575.57.08", "580.95.05", (module("nvidia", KERNEL, "dkms"),),
               kernel={"modules": (module("nvidia", KERNEL, "dkms"),), "dkms": (built("nvidia", "580.95.05"),)}),
        "580.95.05", ("systemctl reboot",)),
    Row("DKMS still has the old version", "driver.mismatch",
        loaded("575.57.08", "580.95.05", (module("nvidia", KERNEL, "dkms"),),
               package("libnvidia-compute-580", "580.95.05-0ubuntu0.24.04.1"),
               kernel={"modules": (module("nvidia", KERNEL, "dkms"),), "dkms": (built("nvidia", "575.57.08"),)}),
        "580.95.05", ("libnvidia-compute-580",), ("systemctl reboot",)),
    Row("the next kernel has no module", "driver.mismatch",
        loaded("580.95.05", "580.126.09", (prebuilt("580"),), *UBUNTU_580, kernel={
            "modules": (prebuilt("580"),), "next_boot": NEWER}), "580.126.09", ("Do not reboot",),
        ("systemctl reboot",)),
    Row("inside a container", "driver.mismatch",
        but(STAYS_580, os={"virtualisation": "docker"}), "590.44.01", ("Restart the container",), ("sudo",)),
    Row("a .run installer and packages", "driver.mismatch", but(STAYS_580, nvidia={"runfile": True}), "590.44.01",
        ("sudo /usr/bin/nvidia-uninstall",), ("systemctl reboot",)),
    Row("a second copy of the library", "driver.mismatch",
        loaded("580.95.05", "580.95.05", (prebuilt("580"),), *UBUNTU_580), "both 580.95.05",
        ("ldconfig -p",), ("systemctl reboot",)),
    Row("Ubuntu and the PPA", "apt.mixed-sources",
        loaded("580.95.05", "580.126.09", (prebuilt("580"),), *UBUNTU_580,
               package("libnvidia-compute-580", "580.126.09-0ubuntu0~gpu24.04.1")),
        "from Ubuntu and the graphics-drivers PPA", ("gpu-setup apply", "libnvidia-compute-580"), ("-580-",)),
    Row("the same names elsewhere", "apt.mixed-sources",
        on(loaded("580.95.05", "580.126.09", (prebuilt("580"),), *UBUNTU_580,
                  package("libnvidia-compute-580", "580.126.09-1ubuntu1")), "linuxmint", "22"),
        "from NVIDIA and Ubuntu", ("--allow-downgrades libnvidia-compute-580=",), ("-580-", "gpu-setup apply")),
    Row("Debian and its backports", "apt.mixed-sources",
        on(loaded("535.247.01", "550.163.01", (), package("nvidia-driver", "535.247.01-1~deb12u1"),
                  package("libnvidia-compute", "550.163.01-1~bpo12+1")), "debian", "12"),
        "Debian and Debian's backports", ("nvidia-driver",)),
    Row("a repository of another release", "apt.mixed-sources", but(N, apt={"sources": (repository("ubuntu2204"),)}),
        "ubuntu2204 is for another release", ("sudo rm", "ubuntu2404")),
    Row("a repository of another distribution", "apt.mixed-sources",
        but(N, apt={"sources": (repository("debian12"), repository("ubuntu2404"))}),
        "debian12 is for another release", ("cuda-debian12",)),
    # other systems
    Row("Arch after an update of the kernel", "driver.module",
        on(but(UNLOADED, kernel={
            "release": "6.17.5-arch1-1", "modules": (module("nvidia", "6.17.7-arch1-1", "dkms"),)}), "arch", apt=False),
        "missing for the running kernel", ("reboot into 6.17.7-arch1-1",), ("apt",)),
    Row("Fedora after an update of the kernel", "driver.module",
        on(but(UNLOADED, kernel={"release": "6.17.7-300.fc43.x86_64", "modules": (
            module("amdgpu", "6.17.7-300.fc43.x86_64", "in-tree"),
            module("nvidia", "6.17.4-300.fc43.x86_64", "dkms"))}),
           "fedora", "43", apt=False), "missing for the running kernel",
        ("sudo akmods --force --kernels 6.17.7-300.fc43.x86_64",), ("apt",)),
    Row("Fedora, RPM Fusion", "driver.present",
        on(NO_DRIVER, "fedora", "43", apt=False),
        "No NVIDIA driver", ("sudo dnf install akmod-nvidia", "RPM Fusion"), ("gpu-setup apply", "apt")),
    Row("Debian without ubuntu-drivers", "driver.present", on(NO_DRIVER, "debian", "13"), "No NVIDIA driver",
        ("non-free", "sudo apt-get install nvidia-driver"), ("gpu-setup apply", "run `ubuntu-drivers")),
    Row("Ubuntu 22.04", "driver.present", on(NO_DRIVER, "ubuntu", "22.04"), "No NVIDIA driver",
        ("sudo ubuntu-drivers install",), ("gpu-setup apply",)),
    Row("Ubuntu 22.04 Server", "driver.present", on(NO_DRIVER, "ubuntu", "22.04", graphical=False),
        "No NVIDIA driver", ("sudo ubuntu-drivers install --gpgpu",), ("gpu-setup apply",)),
    Row("deepin, which has no row", "driver.present", on(NO_DRIVER, "deepin", "25"), "No NVIDIA driver",
        ("for deepin", "its own packages"), ("gpu-setup apply", "ubuntu-drivers")),
    Row("Void, which has no row and no apt", "driver.bound", on(no_amdgpu("nomodeset"), "void", apt=False),
        "no driver", ("Remove `nomodeset`",), ("update-grub", "apt")),
    Row("a compiler on Arch", "python.compiler", on(but(N, python={"compiler": None}), "arch", apt=False),
        "No C compiler", ("sudo pacman -S base-devel",), ("apt",)),
    Row("headers on Fedora", "kernel.headers",
        on(but(DKMS, kernel={"release": "6.17.7-300.fc43.x86_64", "next_boot": "6.17.7-300.fc43.x86_64",
                             "headers": ()}), "fedora", "43", apt=False),
        "headers", ("sudo dnf install kernel-devel-6.17.7-300.fc43.x86_64",), ("apt",)),
    Row("ROCm/legacy-rocm-build#5657", "apt.amd-sources",
        but(A, os={"version_id": "25.04", "codename": "plucky"}, apt={
            "packages": (package("librocm-smi64-1", "6.1.2-1"), package("rocm-core", "7.1.0.70100-20~24.04")),
            "sources": (AptSource(file="/etc/apt/sources.list.d/rocm.list", suite="noble", owner="amd-rocm",
                                  uri="https://repo.radeon.com/rocm/apt/7.1"),)}),
        "is for Ubuntu 24.04 (noble), this is Ubuntu 25.04", ("one source",), ("gpu-setup apply",)),
    # left from a guide to pass cards through
    Row("vfio.conf, and the driver is installed", "gpu.kept-for-vm",
        but(N, cards=(nvidia_card(driver="vfio-pci"),), kernel={
            "module_options": (("vfio_pci", "ids=10de:2204,10de:1aef", "/etc/modprobe.d/vfio.conf"),)}),
        "reserved for a virtual machine", ("remove 10de:2204 from /etc/modprobe.d/vfio.conf", "leave it")),
    Row("the kernel command line", "gpu.kept-for-vm",
        but(N, cards=(nvidia_card(driver="vfio-pci"),), kernel={"cmdline": ("ro", "vfio-pci.ids=10de:2204")}),
        "reserved for a virtual machine", ("remove 10de:2204 from /proc/cmdline",)),
    # ROCm/rocm-install-on-linux#583
    Row("rocm-install-on-linux#583", "apt.amd-pin",
        but(A, apt={"packages": (package("rocminfo", "5.7.1-3build1"),), "sources": (
            AptSource(file="/etc/apt/sources.list.d/rocm.list", uri="https://repo.radeon.com/rocm/apt/7.0.1",
                      suite="noble", owner="amd-rocm"),)}),
        "rocminfo 5.7.1-3build1", ("Pin-Priority: 600", "sudo apt-get remove rocminfo", "gpu-setup apply"), ()),
)  # fmt: skip


@for_each("row", ROWS, ids=lambda row: f"{row.check}: {row.source}")
def test_the_fix_fits_the_obstacle(row: Row) -> None:
    found = finding(row.check, row.host)
    assert found.fix is not None
    sudo = "sudo " * found.fix.needs_sudo
    shown = f"{found.fix.text} {sudo}{' '.join(found.fix.argv)}"
    assert row.summary in found.summary
    assert [word for word in row.fix if word not in shown] == [], shown
    assert [word for word in row.never if word in f"{found.summary} {shown}"] == [], shown
    # a command of another system, or the text of a plan that refuses this one
    assert found.fix.kind is not FixKind.PROVISION or row.host.os.version_id == "24.04"


@for_each("row", ROWS, ids=lambda row: f"{row.check}: {row.source}")
def test_no_summary_is_contradicted_by_its_evidence(row: Row) -> None:
    for found in judge(CHECKS[row.check], row.host, catalogue()).findings:
        seen = " ".join(f"{evidence.source} {evidence.value}" for evidence in found.evidence)
        assert not ("is not enrolled" in found.summary and "test-key enrolled" in seen)
        assert not ("both" not in found.summary and "580.95.05, its libraries 580.95.05" in found.summary)


@for_each(
    ("file", "content", "writer", "blocked"),
    (
        ("blacklist-nvidia.conf", "# Do not modify\n# This file was generated by nvidia-prime\nalias nvidia off",
         "nvidia-prime", ("nvidia",)),
        ("system76-power.conf", "# Automatically generated by system76-power\nalias nvidia off\n", "system76-power",
         ("nvidia",)),
        ("blacklist-nvidia.conf", "# Automatically generated by EnvyControl\n\nblacklist nvidia\n", "EnvyControl",
         ("nvidia",)),
        ("supergfxd.conf", "# Automatically generated by supergfxd\nblacklist nvidia\nblacklist nvidia-drm\n",
         "supergfxd", ("nvidia", "nvidia_drm")),
        ("optimus-manager.conf", "blacklist nouveau\nblacklist nvidia\n", "optimus-manager", ("nouveau", "nvidia")),
        ("bumblebee.conf", "# This file is installed by bumblebee, do NOT edit!\nblacklist nvidia\n", "bumblebee",
         ("nvidia",)),
        ("nvidia-installer-disable-nouveau.conf", "# generated by nvidia-installer\nblacklist nouveau\n",
         "nvidia-installer", ("nouveau",)),
        ("nvidia-graphics-drivers.conf", "# This file was installed by nvidia-kernel-common\nblacklist nouveau\n",
         None, ("nouveau",)),
        ("mine.conf", "# written by me\ninstall nvidia /bin/false\n", None, ("nvidia",)),
        ("mine.conf", "install amdgpu /usr/bin/true # for VMs\n", None, ("amdgpu",)),
        ("mine.conf", "alias nvidia nvidia-current\ninstall nvidia /sbin/modprobe --ignore-install nvidia\n", None, ()),
    ),
    ids=str,
)  # fmt: skip
def test_who_wrote_a_modprobe_file_and_what_it_blocks(
    file: str, content: str, writer: str | None, blocked: tuple[str, ...]
) -> None:
    assert parse_writer(f"/etc/modprobe.d/{file}", content) == writer
    assert parse_blacklist(content) == blocked


def test_a_healthy_machine_of_each_system_has_no_finding_of_these_checks() -> None:
    for row in catalogue().distributions:
        for host in (N, A):
            other = but(host, os=Os(id=row.ids[0], version_id="1", virtualisation="none"))
            for check in ("driver.bound", "driver.mismatch", "driver.flavour", "driver.dropped", "secureboot.module"):
                assert not judge(CHECKS[check], other, catalogue()).findings, (row.name, check)
