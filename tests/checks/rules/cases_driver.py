"""Driver, modules, kernel and Secure Boot. Log lines are the real tools' words, with their sources."""

from __future__ import annotations

from checks.facts.host import Amd, Host, Nvidia, Unread
from tests.checks.rules.case import FAIL, PASS, WARN, Blind, Fault, LookAlike
from tests.checks.rules.cases_card import UNREADABLE_LOG, said
from tests.checks.rules.hosts import (
    KERNEL,
    NEWER,
    amd_card,
    built,
    but,
    healthy_amd,
    healthy_nvidia,
    module,
    nvidia_card,
    nvml,
    package,
    raphael,
)

N, A = healthy_nvidia(), healthy_amd()

# nothing of NVIDIA's installed, nouveau on the card: a fresh Ubuntu Desktop
FRESH = but(
    N,
    cards=(nvidia_card(driver="nouveau"),),
    kernel={"loaded": ("nouveau",), "modules": (module("nouveau", origin="in-tree"),), "blacklisted": ()},
    nvidia=Nvidia(device_nodes=(), runfile=False, nvml_problem="absent"),
    apt={"packages": ()},
)
# installed, but no module is loaded and nothing holds the card
UNLOADED = but(
    N,
    cards=(nvidia_card(driver=None),),
    kernel={"loaded": ()},
    nvidia={
        "module_version": None,
        "open_module": None,
        "nvml": None,
        "nvml_problem": "not-loaded",
        "device_nodes": (),
    },
)
BUILT_HERE = (package("nvidia-dkms-610-open", "610.43.02-0ubuntu0.24.04.1"),)
DKMS = but(
    UNLOADED,
    kernel={
        "modules": (module("nvidia", origin="dkms"),),
        "dkms": (built("nvidia", "610.43.02"),),
        "headers": (KERNEL,),
    },
    apt={"packages": BUILT_HERE},
)
AMDGPU_DKMS = but(
    A,
    kernel={
        "dkms": (built("amdgpu", "6.16.13", state="added", log="error: implicit declaration of function 'drm_foo'"),),
        "modules": (module("amdgpu", origin="in-tree"),),
    },
)


def driver(version: str, open_module: bool = True, device: str = "2204") -> Host:
    return but(
        N,
        cards=(nvidia_card(device=device),),
        nvidia={
            "module_version": version,
            "library_version": version,
            "nvml_driver": version,
            "open_module": open_module,
        },
    )


REFUSED = "[    3.1] Loading of module with unavailable key is rejected"


def unlisted(host: Host) -> Host:
    """NVML answers and lists no card."""
    return but(host, nvidia={"nvml": ()})


FAULTS = (
    Fault("driver.present", FRESH, FAIL, "No NVIDIA driver is installed"),
    Fault(
        "driver.present", but(FRESH, cards=(nvidia_card(device="ffff", driver="nouveau"),)), WARN, "No NVIDIA driver"
    ),
    Fault(
        "driver.present",
        but(A, cards=(amd_card(driver=None),), amd=Amd(loaded=False), kernel={"modules": ()}),
        FAIL,
        "no amdgpu module",
    ),
    Fault("driver.bound", but(UNLOADED, cards=(nvidia_card(driver="nouveau"),)), FAIL, "is bound to nouveau"),
    # beclab/Olares PR#3963: the Rust driver of the 7.0 kernels binds first
    Fault("driver.bound", but(UNLOADED, cards=(nvidia_card(driver="NovaCore"),)), FAIL, "is bound to NovaCore"),
    Fault("driver.bound", UNLOADED, FAIL, "is bound to no driver"),
    Fault(
        "driver.bound",
        but(
            A,
            cards=(amd_card(driver=None),),
            amd=Amd(loaded=False),
            kernel={"loaded": (), "blacklisted": (("amdgpu", "/etc/modprobe.d/blacklist-gpu.conf"),)},
        ),
        FAIL,
        "should be bound to amdgpu",
    ),
    Fault(
        "driver.bound",
        but(A, cards=(amd_card(driver=None),), kernel={"loaded": (), "cmdline": ("ro", "nomodeset")}),
        FAIL,
        "should be bound to amdgpu",
    ),
    Fault(
        "driver.module",
        but(UNLOADED, kernel={"release": NEWER, "next_boot": NEWER}),
        FAIL,
        "missing for the running kernel",
    ),
    Fault("driver.next-boot", but(N, kernel={"next_boot": NEWER}), WARN, "has no nvidia module"),
    Fault("driver.next-boot", but(A, kernel={"next_boot": NEWER}), WARN, "has no amdgpu module"),
    Fault(
        "driver.dkms",
        but(DKMS, kernel={"modules": (), "dkms": (built("nvidia", "610.43.02", None, "added", "Error 2"),)}),
        FAIL,
        "has not built nvidia",
    ),
    # ROCm/amdgpu#192: the kernel is newer than the package; the kernel's own driver steps in
    Fault("driver.dkms", AMDGPU_DKMS, WARN, "amdgpu 6.16.13 does not compile"),
    Fault("driver.dkms", but(DKMS, kernel={"next_boot": NEWER}), WARN, f"nvidia for kernel {NEWER}"),
    Fault(
        "driver.mismatch",
        but(N, nvidia={"library_version": "595.91.07", "nvml": None, "nvml_problem": "mismatch"}),
        FAIL,
        "loaded driver has version 595.84",
    ),
    Fault("driver.too-old", driver("550.163.01"), WARN, "too old for the preferred stack cu130; only cu126 works"),
    Fault("driver.too-old", driver("470.256.02"), FAIL, "too old: cu130 needs 580"),
    # compared as numbers: 95 is less than 580
    Fault("driver.too-old", driver("95.580.1"), FAIL, "too old"),
    # open-gpu#872
    Fault("driver.flavour", driver("580.95.05", open_module=False, device="2b85"), FAIL, "needs the open"),
    Fault("driver.flavour", driver("580.95.05", open_module=True, device="1db6"), FAIL, "needs the proprietary"),
    Fault(
        "driver.dropped",
        unlisted(driver("595.84", open_module=False, device="1db6")),
        FAIL,
        "does not support Volta",
    ),
    Fault(
        "driver.dropped",
        unlisted(driver("550.163.01", device="2b85")),
        FAIL,
        "does not support Blackwell",
    ),
    Fault(
        "driver.dropped",
        unlisted(driver("470.256.02", open_module=False, device="2684")),
        FAIL,
        "does not support Ada",
    ),
    Fault("driver.nvml", UNLOADED, FAIL, "module is not loaded"),
    Fault("driver.nvml", but(N, nvidia={"nvml": None, "nvml_problem": "absent"}), FAIL, "libnvidia-ml.so.1 is missing"),
    Fault("driver.nvml", but(N, nvidia={"nvml": None, "nvml_problem": "Unknown Error"}), FAIL, "Unknown Error"),
    Fault(
        "driver.nvml",
        but(N, cards=(nvidia_card(), nvidia_card(slot="0000:41:00.0"))),
        FAIL,
        "NVML does not list the card",
    ),
    Fault("driver.nvml", but(N, nvidia={"nvml": (nvml(problem="lost"),)}), FAIL, "lost"),
    # Cyridd/cmpunlocker#4, 580
    Fault(
        "driver.init",
        but(
            said(N, "[ 21.0] NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x22:0x56:894)"),
            nvidia={"nvml": None, "nvml_problem": "not-loaded"},
        ),
        FAIL,
        "could not initialise the card",
    ),
    # bayasdev/envycontrol#54: its udev rule removes the card from the bus
    Fault(
        "driver.switched-off",
        but(
            N,
            cards=(),
            kernel={
                "blacklisted": (("nvidia", "/etc/modprobe.d/blacklist-nvidia.conf"),),
                "written_by": (("/etc/modprobe.d/blacklist-nvidia.conf", "EnvyControl"),),
            },
        ),
        FAIL,
        "EnvyControl has switched",
    ),
    Fault("driver.uvm", but(N, nvidia={"device_nodes": ("/dev/nvidia0", "/dev/nvidiactl")}), WARN, "uvm is missing"),
    Fault("driver.runfile", but(N, nvidia={"runfile": True}), WARN, ".run file"),
    Fault(
        "driver.persistence",
        but(N, os={"graphical": False}, nvidia={"nvml": (nvml(persistence=False),)}),
        PASS,
        "Persistence mode is off",
    ),
    Fault(
        "secureboot.module", but(said(DKMS, REFUSED), firmware={"mok_key_enrolled": False}), FAIL, "Secure Boot refuses"
    ),
    # the words of kernel 6.11 and newer, which name the module; mokutil is not there to ask
    Fault(
        "secureboot.module",
        said(DKMS, "[    3.1] nvidia: loading of module with unavailable key is rejected"),
        FAIL,
        "Secure Boot refuses",
    ),
    # linux-surface#906, modprobe's words in the journal
    Fault(
        "secureboot.module",
        said(DKMS, "[    3.1] modprobe: ERROR: could not insert 'nvidia': Key was rejected by service"),
        FAIL,
        "Secure Boot refuses",
    ),
    Fault("secureboot.module", but(DKMS, firmware={"mok_key_enrolled": False}), FAIL, "Secure Boot refuses"),
    Fault("secureboot.mok-pending", but(DKMS, firmware={"mok_pending": True}), WARN, "is waiting to be enrolled"),
    Fault("secureboot.shim-off", but(N, firmware={"shim_validation_disabled": True}), PASS, "validation is disabled"),
    Fault("kernel.reboot-pending", but(N, kernel={"next_boot": NEWER}), WARN, f"kernel {NEWER} is installed"),
    Fault(
        "kernel.reboot-pending",
        but(N, apt={"reboot_required": True, "reboot_packages": ("libnvidia-compute-595", "linux-base")}),
        WARN,
        "A reboot is pending",
    ),
    Fault(
        "kernel.headers", but(DKMS, kernel={"headers": (), "modules": ()}), FAIL, f"linux-headers-{KERNEL} is missing"
    ),
    Fault("kernel.headers", but(DKMS, kernel={"next_boot": NEWER}), WARN, f"linux-headers-{NEWER} is missing"),
    Fault(
        "kernel.amdgpu-floor",
        but(A, cards=(amd_card(device="7550", revision="c0"),), kernel={"release": "6.8.0-134-generic"}),
        FAIL,
        "too old for the card: its amdgpu needs 6.14",
    ),
    # geerlingguy/raspberry-pi-pcie-devices#680
    Fault(
        "kernel.firmware",
        but(
            said(A, "[ 5.8] amdgpu 0000:03:00.0: Direct firmware load for amdgpu/sdma_6_0_3.bin failed with error -2"),
            cards=(amd_card(driver=None),),
        ),
        FAIL,
        "did not find",
    ),
    # siderolabs/talos#12544
    Fault(
        "kernel.firmware",
        said(
            A,
            "[ 4.8] amdgpu 0000:03:00.0: amdgpu: failed to load ucode SMC(0x32)",
            "[ 4.8] amdgpu 0000:03:00.0: amdgpu: psp gfx command LOAD_IP_FW(0x6) failed and response status is (0x8)",
        ),
        FAIL,
        "(PSP) did not load",
    ),
    Fault(
        "kernel.firmware",
        said(A, "[ 5.8] amdgpu 0000:03:00.0: Direct firmware load for amdgpu/vcn_4_0_0.bin failed with error -2"),
        WARN,
        "did not find",
    ),
    # ROCm/legacy-rocm-build#1214
    Fault(
        "kernel.pcie-atomics",
        said(A, "[    7.0] kfd kfd: amdgpu: skipped device 1002:744c, PCI rejects atomics"),
        FAIL,
        "does not support PCI Express atomics",
    ),
    # ROCm/legacy-rocm-build#2429: KFD took the card, PyTorch's kernels fail
    Fault(
        "kernel.pcie-atomics",
        said(A, "[    4.1] amdgpu 0000:03:00.0: amdgpu: PCIE atomic ops is not supported"),
        WARN,
        "although KFD took the card",
    ),
    # ROCm/amdgpu#151: the two numbers are firmware versions
    Fault(
        "kernel.pcie-atomics",
        said(A, "[    7.2] kfd kfd: amdgpu: skipped device 1002:744c, PCI rejects atomics 494<509"),
        FAIL,
        "does not support PCI Express atomics",
    ),
    Fault(
        "kernel.iommu", but(A, cards=(amd_card(), amd_card(slot="0000:43:00.0"))), WARN, "translates addresses between"
    ),
)

LOOK_ALIKES = (
    LookAlike("driver.present", but(N, nvidia={"nvml": None, "nvml_problem": "timed-out"}), "installed, only silent"),
    LookAlike(
        "driver.present", but(A, amd=Amd(loaded=False), cards=(amd_card(driver=None),)), "the module is on the disk"
    ),
    LookAlike("driver.bound", FRESH, "nouveau is right while no driver is installed"),
    LookAlike(
        "driver.bound",
        but(N, kernel={"loaded": ("nvidia", "nouveau")}),
        "nouveau is loaded for an old card, ours belongs to nvidia",
    ),
    LookAlike("driver.module", but(N, kernel={"modules": ()}), "it is loaded, wherever it came from"),
    LookAlike("driver.module", FRESH, "nothing is installed yet"),
    LookAlike(
        "driver.next-boot",
        but(N, kernel={"next_boot": NEWER, "modules": (module("nvidia"), module("nvidia", NEWER))}),
        "the next kernel has its module",
    ),
    LookAlike(
        "driver.dkms",
        but(N, kernel={"dkms": (built("v4l2loopback", "0.12.7", None, "added"),)}),
        "another module's build failed",
    ),
    LookAlike(
        "driver.dkms",
        but(DKMS, kernel={"dkms": (built("nvidia", "595.84", None, "added"), built("nvidia", "610.43.02"))}),
        "an older version is not built, the newer one is",
    ),
    LookAlike("driver.mismatch", but(N, apt={"reboot_required": True}), "a reboot is pending for something else"),
    LookAlike("driver.too-old", driver("580.65.06"), "exactly the floor"),
    LookAlike("driver.too-old", driver("610.43.02"), "newer"),
    LookAlike("driver.flavour", driver("580.95.05", open_module=False), "Ampere takes both"),
    LookAlike("driver.flavour", driver("580.95.05", open_module=True, device="2b85"), "Blackwell with the open module"),
    LookAlike("driver.dropped", driver("580.95.05", open_module=False, device="1db6"), "580 still drives Volta"),
    LookAlike("driver.dropped", driver("595.84", open_module=False, device="1db6"), "NVML lists the card"),
    LookAlike("driver.dropped", driver("520.56.06", open_module=False, device="2684"), "the first for Ada"),
    LookAlike("driver.dropped", driver("460.106.00", open_module=False), "455 and later drive Ampere"),
    LookAlike("driver.nvml", FRESH, "not installed is not silent"),
    LookAlike(
        "driver.init",
        said(N, "[ 21.0] NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x26:0xffff:1470)"),
        "it failed once and is up now",
    ),
    LookAlike(
        "driver.switched-off",
        but(N, cards=(), kernel={"blacklisted": (("nvidia", "/etc/modprobe.d/mine.conf"),)}),
        "a person's own file on a machine without a card",
    ),
    LookAlike("driver.uvm", UNLOADED, "nothing is loaded: driver.bound's affair"),
    LookAlike("driver.runfile", N, "from apt"),
    LookAlike("driver.persistence", but(N, nvidia={"nvml": (nvml(persistence=False),)}), "the desktop keeps it awake"),
    LookAlike("secureboot.module", said(N, REFUSED), "another module was refused; nvidia is loaded"),
    LookAlike(
        "secureboot.module",
        said(UNLOADED, "[    3.1] vboxdrv: loading of module with unavailable key is rejected"),
        "the line names VirtualBox's module, ours is Canonical's",
    ),
    LookAlike(
        "secureboot.module",
        but(
            said(
                DKMS,
                "[ 3.1] nvidia: module verification failed: signature and/or required key missing - tainting kernel",
            ),
            firmware={"secure_boot": False},
        ),
        "said where unsigned modules are allowed",
    ),
    LookAlike(
        "secureboot.module",
        but(DKMS, firmware={"shim_validation_disabled": True, "mok_key_enrolled": False}),
        "shim checks nothing",
    ),
    LookAlike(
        "secureboot.mok-pending", but(N, firmware={"secure_boot": False, "mok_pending": True}), "Secure Boot is off"
    ),
    LookAlike("secureboot.shim-off", N, "validation is on"),
    LookAlike(
        "kernel.reboot-pending",
        but(N, apt={"reboot_required": True, "reboot_packages": ("dbus", "libc6")}),
        "the restart is not about kernel or driver",
    ),
    LookAlike("kernel.headers", but(N, kernel={"headers": ()}), "prebuilt modules need no headers"),
    LookAlike("kernel.amdgpu-floor", but(A, kernel={"release": "6.8.0-134-generic"}), "RDNA3 runs on 6.8"),
    LookAlike(
        "kernel.amdgpu-floor",
        but(
            A,
            cards=(amd_card(device="7550", revision="c0"),),
            kernel={"release": "6.8.0-134-generic"},
            amd={"module_version": "6.16.13"},
        ),
        "amdgpu-dkms brings its own driver",
    ),
    # ROCm/legacy-rocm-build#912; the others are said on most machines
    LookAlike(
        "kernel.firmware",
        said(
            A,
            "[ 3.3] amdgpu 0000:03:00.0: Direct firmware load for amdgpu/vega20_ta.bin failed with error -2",
            "[ 3.3] amdgpu 0000:03:00.0: Direct firmware load for amdgpu/psp_13_0_0_cap.bin failed with error -2",
            "[ 3.3] iwlwifi 0000:04:00.0: Direct firmware load for iwlwifi-ty-a0-gf-a0-84.ucode failed with error -2",
            "[ 3.4] amdgpu 0000:03:00.0: amdgpu: psp gfx command LOAD_TA(0x1) failed and response status is (0x7)",
        ),
        "what amdgpu does without, and the network card",
    ),
    LookAlike(
        "kernel.pcie-atomics",
        said(
            but(A, cards=(amd_card(), raphael())),
            "[    4.1] amdgpu 0000:0e:00.0: amdgpu: PCIE atomic ops is not supported",
        ),
        "about the integrated graphics",
    ),
    LookAlike(
        "kernel.pcie-atomics",
        said(A, "[    7.0] kfd kfd: amdgpu: skipped device 1002:164e, PCI rejects atomics"),
        "the integrated graphics were skipped",
    ),
    LookAlike("kernel.iommu", A, "one card"),
    LookAlike(
        "kernel.iommu",
        but(A, cards=(amd_card(), amd_card(slot="0000:43:00.0")), kernel={"cmdline": ("ro", "iommu=pt")}),
        "iommu=pt is set",
    ),
)

BLIND = (
    Blind(
        "driver.present",
        but(
            FRESH,
            apt={"packages": None},
            kernel={"modules": None},
            unread=(Unread(source="/var/lib/dpkg/status", reason="too-large"),),
        ),
        "too-large",
    ),
    Blind("driver.nvml", but(N, nvidia={"nvml": None, "nvml_problem": "timed-out"}), "nvidia-smi"),
    Blind("driver.nvml", but(N, nvidia={"nvml": None, "nvml_problem": "no-binding"}), "nvidia-smi"),
    Blind("driver.init", but(N, kernel={"log": None}, unread=UNREADABLE_LOG), "adm"),
    Blind(
        "driver.next-boot",
        but(N, kernel={"next_boot": None}, unread=(Unread(source="/boot", reason="denied"),)),
        "denied",
    ),
    Blind("driver.module", but(UNLOADED, kernel={"modules": None}), "/lib/modules"),
    Blind("driver.dkms", but(N, kernel={"dkms": None}), "/var/lib/dkms"),
    Blind("driver.flavour", but(N, nvidia={"open_module": None}, apt={"packages": ()}), "not loaded"),
    Blind("driver.uvm", but(N, nvidia={"device_nodes": None}), "/dev"),
    Blind("driver.runfile", but(N, nvidia={"runfile": None}), "/usr/bin"),
    Blind("driver.mismatch", but(N, nvidia={"library_version": None, "nvml": None}), "libnvidia-ml"),
    Blind("driver.persistence", but(N, os={"graphical": False}, nvidia={"nvml": None}), "driver.nvml"),
    Blind("secureboot.module", but(N, firmware={"secure_boot": None}), "mokutil --sb-state"),
    Blind("secureboot.module", but(DKMS, kernel={"log": None}, unread=UNREADABLE_LOG), "adm"),
    Blind("secureboot.mok-pending", but(N, firmware={"mok_pending": None}), "mokutil --list-new"),
    Blind("kernel.firmware", but(A, kernel={"log": None}, unread=UNREADABLE_LOG), "adm"),
    Blind("kernel.pcie-atomics", but(A, kernel={"log": None}, unread=UNREADABLE_LOG), "adm"),
    Blind("kernel.headers", but(DKMS, kernel={"headers": None}), "/usr/src"),
    Blind("kernel.amdgpu-floor", but(A, kernel={"release": None}), "release"),
    Blind("kernel.reboot-pending", but(N, kernel={"next_boot": None}, apt={"reboot_required": None}), "/boot"),
    Blind(
        "kernel.iommu",
        but(A, cards=tuple(amd_card(slot=slot, iommu_group_type=None) for slot in ("0000:03:00.0", "0000:43:00.0"))),
        "IOMMU",
    ),
)
