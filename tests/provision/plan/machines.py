"""Hosts for the plan's examples: an Ubuntu 24.04 with everything readable, and the cards of the examples."""

from __future__ import annotations

import msgspec

from checks.facts.host import (
    Amd,
    Apt,
    AptSource,
    DeviceNode,
    Docker,
    Firmware,
    Host,
    Kernel,
    KfdNode,
    ModuleFile,
    Nvidia,
    NvmlGpu,
    Os,
    Package,
    PciCard,
    Person,
    PythonFacts,
    Resources,
)

GA = "6.8.0-88-generic"
HWE = "6.17.0-14-generic"


def card(
    vendor: str,
    device: str,
    *,
    slot: str = "0000:01:00.0",
    revision: str = "a1",
    driver: str | None = None,
    monitor: bool = False,
) -> PciCard:
    return PciCard(
        slot=slot,
        vendor=vendor,
        device=device,
        revision=revision,
        driver=driver,
        connectors_connected=("card1-DP-1",) if monitor else (),
    )


RTX_3090_TI = card("10de", "2203", driver="nouveau", monitor=True)
RTX_6000_ADA = card("10de", "26b1", driver="nouveau")
V100 = card("10de", "1db4", driver="nouveau")
RTX_5090 = card("10de", "2b85")
RX_7900_XT = card("1002", "744c", slot="0000:03:00.0", revision="cc", driver="amdgpu", monitor=True)
RX_9070_XT = card("1002", "7550", slot="0000:03:00.0", revision="c0")
W7900 = card("1002", "7448", slot="0000:03:00.0", revision="00", driver="amdgpu")
RX_6700_XT = card("1002", "73df", slot="0000:03:00.0", revision="c1", driver="amdgpu")
RAPHAEL = card("1002", "164e", slot="0000:0f:00.0", revision="c1", driver="amdgpu")


def packages(*names: str, version: str = "1.0-0ubuntu0.24.04.1") -> tuple[Package, ...]:
    return tuple(Package(name=name, version=version, state="installed") for name in names)


def meta(flavour: str, release: str) -> Package:
    return Package(name=f"linux-image-{flavour}", version=release.rpartition("-")[0] + ".14", state="installed")


def ubuntu(
    *cards: PciCard,
    desktop: bool = True,
    secure_boot: bool = True,
    release: str = HWE,
    flavour: str = "generic-hwe-24.04",
    installed: tuple[Package, ...] = (),
    groups: tuple[str, ...] = ("ada", "sudo"),
    **more: object,
) -> Host:
    """Ubuntu 24.04 fresh from the installer; `more` replaces whole parts of the Host."""
    host = Host(
        os=Os(
            id="ubuntu",
            version_id="24.04",
            codename="noble",
            pretty="Ubuntu 24.04.4 LTS",
            arch="x86_64",
            virtualisation="none",
            graphical=desktop,
        ),
        kernel=Kernel(
            release=release,
            cmdline=("quiet", "splash"),
            loaded=tuple(dict.fromkeys(pci.driver for pci in cards if pci.driver)),
            installed=(release,),
            next_boot=release,
            modules=(ModuleFile(name="amdgpu", kernel=release, path="", origin="in-tree"),),
            blacklisted=(),
        ),
        firmware=Firmware(uefi=True, secure_boot=secure_boot, mok_key_enrolled=False, mok_pending=False),
        cards=cards,
        nvidia=Nvidia(nvml_problem="absent", runfile=False, cdi_specs=()),
        amd=Amd(loaded=any(pci.driver == "amdgpu" for pci in cards)),
        apt=Apt(
            packages=(meta(flavour, release), *installed),
            sources=(AptSource(file="ubuntu.sources", uri="http://archive.ubuntu.com/ubuntu", owner="ubuntu"),),
            pins=(),
            interrupted=False,
            broken=(),
        ),
        docker=Docker(),
        python=PythonFacts(),
        resources=Resources(),
        person=Person(uid=1000, user="ada", groups=groups, database_groups=groups),
        taken_at="2026-11-24T12:00:00Z",
        machine="example",
    )
    return msgspec.structs.replace(host, **more)


def toolkit(version: str) -> tuple[Package, ...]:
    """NVIDIA's container toolkit, all four packages of it."""
    names = ("nvidia-container-toolkit", "nvidia-container-toolkit-base")
    return packages(*names, "libnvidia-container-tools", "libnvidia-container1", version=version)


def healthy_3090(**more: object) -> Host:
    """Archive driver 580 at work on a desktop, Docker with the nvidia runtime, CDI described."""
    host = ubuntu(
        card("10de", "2204", driver="nvidia", monitor=True),
        installed=packages(
            "nvidia-driver-580-open",
            "linux-modules-nvidia-580-open-generic-hwe-24.04",
            "docker.io",
            "docker-buildx",
            "build-essential",
            "python3-dev",
        )
        + toolkit("1.20.0-1"),
        nvidia=Nvidia(
            module_version="580.173.02",
            open_module=True,
            nvml=(NvmlGpu(slot="0000:01:00.0", name="NVIDIA GeForce RTX 3090", persistence=False),),
            nvml_driver="580.173.02",
            runfile=False,
            container_toolkit="1.20.0",
            cdi_specs=("/var/run/cdi/nvidia.yaml",),
        ),
        docker=Docker(kind="docker.io", version="28.2.2", answers=True, runtimes=("io.containerd.runc.v2", "nvidia")),
    )
    kernel = msgspec.structs.replace(
        host.kernel, modules=(ModuleFile(name="nvidia", kernel=HWE, path="", origin="prebuilt"),)
    )
    return msgspec.structs.replace(host, kernel=kernel, **more)


def amd_at_work(gfx: str, *groups: str) -> Amd:
    return Amd(
        loaded=True,
        kfd=DeviceNode(path="/dev/kfd", mode=0o660, group=992, group_name="render", usable="render" in groups),
        render=(DeviceNode(path="/dev/dri/renderD128", mode=0o660, group=992, group_name="render"),),
        nodes=(KfdNode(index=1, gfx=gfx, slot="0000:03:00.0"),),
        rocm=(),
    )
