"""What keeps a driver off at the next boot, which module it loads, and what failed in this one."""

from __future__ import annotations

from checks.facts.host import (
    Amd,
    Apt,
    DkmsBuild,
    Docker,
    Firmware,
    Host,
    Kernel,
    ModuleFile,
    Nvidia,
    Os,
    PciCard,
    Person,
    PythonFacts,
    Resources,
)
from checks.rules import next_boot
from checks.rules.next_boot import Block
from tests.subjects import for_each

SLOT = "0000:03:00.0"
AMD = PciCard(slot=SLOT, vendor="1002", device="744c")
NVIDIA = PciCard(slot=SLOT, vendor="10de", device="2204")
GA, HWE = "6.8.0-88-generic", "6.17.0-14-generic"


def host_of(kernel: Kernel, nvidia: Nvidia | None = None, apt: Apt | None = None) -> Host:
    return Host(
        os=Os(),
        kernel=kernel,
        firmware=Firmware(),
        cards=(),
        nvidia=nvidia or Nvidia(),
        amd=Amd(),
        apt=apt or Apt(),
        docker=Docker(),
        python=PythonFacts(),
        resources=Resources(),
        person=Person(),
    )


@for_each(
    ("line", "module", "words"),
    [
        (("quiet", "nomodeset"), "amdgpu", ["nomodeset"]),
        (("nomodeset",), "nvidia", []),
        (("ro", "recovery", "nomodeset", "dis_ucode_ldr"), "amdgpu", []),
        (("modprobe.blacklist=amdgpu",), "amdgpu", ["modprobe.blacklist=amdgpu"]),
        (("modprobe.blacklist=nouveau,nvidia",), "nvidia", ["modprobe.blacklist=nouveau,nvidia"]),
        (("modprobe.blacklist=nouveau", "rd.driver.blacklist=nouveau,nova-core"), "nvidia", []),
        (("module_blacklist=radeon,amdgpu",), "amdgpu", ["module_blacklist=radeon,amdgpu"]),
        (("rd.driver.blacklist=nvidia",), "nvidia", ["rd.driver.blacklist=nvidia"]),
        (("amdgpu.modeset=0", "amdgpu.runpm=0"), "amdgpu", ["amdgpu.modeset=0"]),
        (("nouveau.modeset=0", "nvidia-drm.modeset=1"), "nvidia", []),
    ],
)
def test_parameters_of_the_kernel(line: tuple[str, ...], module: str, words: list[str]) -> None:
    found = next_boot.blocks(host_of(kernel=Kernel(cmdline=line)), module)
    assert [block.words for block in found] == words
    assert all(block.on_line and block.file == "/etc/default/grub" for block in found)


def test_a_parameter_is_in_the_boot_loaders_file_that_has_it() -> None:
    own = ("/etc/default/grub.d/50-gpu.cfg", "nomodeset")
    assert next_boot.blocks(host_of(kernel=Kernel(cmdline=("nomodeset",), boot_parameters=(own,))), "amdgpu") == (
        Block(*own, on_line=True),
    )


def test_files_of_modprobe_and_the_programs_that_wrote_them() -> None:
    prime, mine = "/usr/lib/modprobe.d/blacklist-nvidia.conf", "/etc/modprobe.d/mine.conf"
    kernel = Kernel(
        cmdline=(),
        blacklisted=(("nvidia", prime), ("nvidia_drm", prime), ("nvidia", mine), ("nouveau", mine), ("amdgpu", mine)),
        written_by=((prime, "nvidia-prime"),),
        module_options=(("amdgpu", "modeset=0", mine), ("amdgpu", "runpm=0", mine), ("nvidia_drm", "modeset=0", mine)),
    )
    assert next_boot.blocks(host_of(kernel=kernel), "nvidia") == (
        Block(prime, "blacklist nvidia", program="nvidia-prime", argv=("prime-select", "on-demand")),
        Block(mine, "blacklist nvidia"),
    )
    assert [block.words for block in next_boot.blocks(host_of(kernel=kernel), "amdgpu")] == [
        "blacklist amdgpu",
        "options amdgpu modeset=0",
    ]


@for_each(
    ("module", "card", "line"),
    [
        # kernels up to 6.10 and from 6.11 on
        ("amdgpu", AMD, f"amdgpu: probe of {SLOT} failed with error -12"),
        ("amdgpu", AMD, f"amdgpu {SLOT}: probe with driver amdgpu failed with error -22"),
        ("amdgpu", AMD, f"amdgpu {SLOT}: amdgpu: Fatal error during GPU init"),
        ("nvidia", NVIDIA, f"nvidia: probe of {SLOT} failed with error -1"),
        ("nvidia", NVIDIA, f"nvidia {SLOT}: probe with driver nvidia failed with error -1"),
        ("nvidia", NVIDIA, "NVRM: None of the NVIDIA devices were initialized."),
        ("nvidia", NVIDIA, "NVRM: The NVIDIA probe routine failed for 1 device(s)."),
        ("nvidia", NVIDIA, "NVRM: No NVIDIA GPU found."),
        ("nvidia", NVIDIA, "Loading of module with unavailable key is rejected"),
        ("nvidia", NVIDIA, "nvidia: version magic '6.8.0-31-generic SMP' should be '6.8.0-88-generic SMP'"),
    ],
)
def test_the_driver_did_not_take_the_card_in_this_boot(module: str, card: PciCard, line: str) -> None:
    host = host_of(kernel=Kernel(log=(f"[    4.153000] {line}",), loaded=()), nvidia=Nvidia())
    assert line in (next_boot.failed_line(host, module, card) or "")
    other = PciCard(slot="0000:0b:00.0", vendor=card.vendor, device=card.device)
    assert (next_boot.failed_line(host, module, other) is None) == (SLOT in line)


@for_each(
    "line",
    [
        f"amdgpu {SLOT}: amdgpu: SMU is initialized successfully!",
        f"nouveau: probe of {SLOT} failed with error -12",
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.95.05",
    ],
)
def test_other_lines_are_no_failure(line: str) -> None:
    host = host_of(kernel=Kernel(log=(f"[    4.1] {line}",), loaded=()), nvidia=Nvidia())
    assert next_boot.failed_line(host, "amdgpu", AMD) is None
    assert next_boot.failed_line(host, "nvidia", NVIDIA) is None


def kernel_with(path: str, origin: str = "prebuilt", **more: object) -> Kernel:
    file = ModuleFile(name="nvidia", kernel=HWE, path=f"/lib/modules/{HWE}/{path}/nvidia.ko", origin=origin)  # type: ignore[arg-type]
    return Kernel(release=GA, next_boot=HWE, modules=(file,), **more)  # type: ignore[arg-type]


def test_whether_the_module_of_the_next_boot_matches_the_libraries() -> None:
    nvidia = Nvidia(library_version="580.95.05")
    matches = host_of(kernel=kernel_with("kernel/nvidia-580-open"), nvidia=nvidia)
    assert next_boot.nvidia_matches(matches) is True
    newer = host_of(kernel=matches.kernel, nvidia=Nvidia(library_version="590.44.01"))
    assert next_boot.nvidia_matches(newer) is False
    build = DkmsBuild(module="nvidia", version="580.126.09", kernel=HWE, state="installed")
    built = host_of(kernel=kernel_with("updates/dkms", "dkms", dkms=(build,)), nvidia=nvidia)
    assert next_boot.nvidia_matches(built) is False
    assert next_boot.nvidia_matches(host_of(kernel=Kernel(release=HWE, modules=()), nvidia=nvidia)) is None


def test_a_build_that_failed_is_not_one_that_was_never_tried() -> None:
    tried = DkmsBuild(module="nvidia", version="565.77", kernel=HWE, state="added", log_tail="nvidia.c:1: error: …")
    assert next_boot.failed_build(host_of(kernel=Kernel(next_boot=HWE, dkms=(tried,))), "nvidia") == tried
    never = DkmsBuild(module="nvidia", version="565.77", kernel=HWE, state="added")
    for other in (
        never,
        DkmsBuild(module="nvidia", version="565.77", kernel=GA, state="added", log_tail="nvidia.c:1: error: …"),
    ):
        assert next_boot.failed_build(host_of(kernel=Kernel(next_boot=HWE, dkms=(other,))), "nvidia") is None


def test_an_older_kernel_that_was_chosen_in_the_menu() -> None:
    kernel = Kernel(release=GA, next_boot=HWE, installed=(GA, HWE))
    assert next_boot.older_kernel_is_chosen(host_of(kernel=kernel, apt=Apt(reboot_required=False)))
    # the newer one was installed since, or nothing is known of that
    assert not next_boot.older_kernel_is_chosen(host_of(kernel=kernel, apt=Apt(reboot_required=True)))
    assert not next_boot.older_kernel_is_chosen(host_of(kernel=kernel, apt=Apt()))
    same = Kernel(release=HWE, next_boot=HWE, installed=(GA, HWE))
    assert not next_boot.older_kernel_is_chosen(host_of(kernel=same, apt=Apt(reboot_required=False)))
