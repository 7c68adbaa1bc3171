"""The content of Ubuntu's archive in these tests: kernels, their tools, DKMS, Docker, compilers, NVIDIA's drivers.

Names, versions and relations are those of noble as far as they matter for what apt decides; contents are stand-ins.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.lab.provision.deb import File, Package, script, text
from tests.machines.hardware import Kernel

INSIDE = Path(__file__).parent / "inside"
ARCHIVE = "0ubuntu0.24.04.1"
OPEN_MODULES = ("nvidia", "nvidia-drm", "nvidia-modeset", "nvidia-peermem", "nvidia-uvm")
# what a hook for kernels is called with: the release and the image's path
_KERNEL_HOOKS = "run-parts --report --exit-on-error --arg={release} --arg=/boot/vmlinuz-{release} /etc/kernel/{when}.d"


def inside(name: str) -> File:
    return File((INSIDE / name).read_bytes(), 0o755)


def kernel(row: Kernel) -> tuple[Package, ...]:
    """One kernel release: image, modules, headers; without the metas."""
    release, version = row.release, row.version
    top = f"usr/lib/modules/{release}"
    return (
        Package(
            f"linux-image-{release}",
            version,
            f"linux-modules-{release}",
            files={f"boot/vmlinuz-{release}": File(b"kernel\n", 0o600)},
            scripts={
                "postinst": _hooks_if_there(release, "postinst"),
                "postrm": f"rm -f /boot/initrd.img-{release}\n{_hooks_if_there(release, 'postrm')}",
            },
        ),
        Package(
            f"linux-modules-{release}",
            version,
            files={
                f"boot/System.map-{release}": text("map\n"),
                f"{top}/modules.dep": text(""),
                f"{top}/kernel/drivers/gpu/drm/nouveau/nouveau.ko.zst": text("in-tree\n"),
                f"{top}/kernel/drivers/gpu/drm/amd/amdgpu/amdgpu.ko.zst": text("in-tree\n"),
            },
        ),
        Package(f"linux-modules-extra-{release}", version, f"linux-modules-{release}"),
        Package(
            f"linux-headers-{release}",
            version,
            files={
                f"{top}/build": File(link=f"/usr/src/linux-headers-{release}"),
                f"usr/src/linux-headers-{release}/Makefile": text("VERSION = 6\n"),
            },
            scripts={"postinst": _hooks_if_there(release, "header_postinst")},
        ),
    )


def metas(row: Kernel) -> tuple[Package, ...]:
    """The metas that follow updates: the newest kernel of its flavour."""
    return (
        Package(
            f"linux-image-{row.meta}", row.version, f"linux-image-{row.release}, linux-modules-extra-{row.release}"
        ),
        Package(f"linux-headers-{row.meta}", row.version, f"linux-headers-{row.release}"),
        Package(
            f"linux-{row.meta}",
            row.version,
            f"linux-image-{row.meta} (= {row.version}), linux-headers-{row.meta} (= {row.version})",
        ),
    )


def _hooks_if_there(release: str, when: str) -> str:
    return f"[ -d /etc/kernel/{when}.d ] || exit 0\n{_KERNEL_HOOKS.format(release=release, when=when)}"


def system() -> tuple[Package, ...]:
    """What a fresh Ubuntu has and these tests need: makers of initramfs and boot menu, and mokutil."""
    return (
        Package(
            "initramfs-tools",
            "0.142ubuntu25.8",
            arch="all",
            files={
                "usr/sbin/update-initramfs": inside("update-initramfs"),
                "etc/kernel/postinst.d/initramfs-tools": script('#!/bin/sh\nexec update-initramfs -c -k "$1"\n'),
            },
        ),
        Package(
            "grub2-common",
            "2.12-1ubuntu7.3",
            files={
                "usr/sbin/update-grub": inside("update-grub"),
                "usr/sbin/grub-probe": script("#!/bin/sh\necho 5f0c2b7a-9d1e-4c35-8a64-2e7f1b903c58\n"),
                "etc/kernel/postinst.d/zz-update-grub": script("#!/bin/sh\nexec update-grub\n"),
                "etc/kernel/postrm.d/zz-update-grub": script("#!/bin/sh\nexec update-grub\n"),
            },
        ),
        Package("mokutil", "0.6.0-2build3", files={"usr/bin/mokutil": inside("mokutil")}),
    )


def dkms() -> Package:
    hook = script('#!/bin/sh\nexec dkms autoinstall "$1"\n')
    return Package(
        "dkms",
        "3.0.11-1ubuntu13",
        "gcc, make",
        arch="all",
        files={
            "usr/sbin/dkms": inside("dkms"),
            "etc/kernel/postinst.d/dkms": hook,
            "etc/kernel/header_postinst.d/dkms": hook,
        },
    )


def dkms_module(
    package: Package, name: str, version: str, modules: Iterable[str], fails: str = "", seconds: float = 0.2
) -> Package:
    """The package with a module in it that DKMS builds here; `fails`: releases (a pattern) that it cannot build for."""
    source = version.partition("-")[0] if name == "nvidia" else version
    settings = (
        f"MODULES=\"{' '.join(modules)}\"\nFAILS='{fails}'\nSECONDS={seconds}\n"
        f"MODULE_VERSION={source.partition('-')[0]}\nOPEN={int('open' in package.name or name == 'amdgpu')}\n"
    )
    return package._replace(
        files={**package.files, f"usr/src/{name}-{source}/dkms.conf": text(settings)},
        scripts={
            "postinst": f'[ "$1" = configure ] || exit 0\ndkms install {name} {source}',
            "prerm": f"dkms remove {name} {source}",
        },
    )


def tools() -> tuple[Package, ...]:
    """Compilers and headers: what Triton wants."""
    return (
        Package("gcc", "4:13.2.0-7ubuntu1", "gcc-13", files={"usr/bin/gcc": File(link="gcc-13")}),
        Package(
            "gcc-13", "13.3.0-6ubuntu2~24.04", files={"usr/bin/gcc-13": script("#!/bin/sh\necho 'gcc-13 13.3.0'\n")}
        ),
        Package("g++", "4:13.2.0-7ubuntu1", "gcc"),
        Package("make", "4.3-4.1build2"),
        Package("build-essential", "12.10ubuntu1", "gcc, g++, make"),
        Package("python3-dev", "3.12.3-0ubuntu2.1", "python3.12-dev"),
        Package("python3.12-dev", "3.12.3-1ubuntu0.13"),
        Package("python3-venv", "3.12.3-0ubuntu2.1"),
        Package("libatomic1", "14.2.0-4ubuntu2~24.04"),
        Package("libquadmath0", "14.2.0-4ubuntu2~24.04"),
        # Ubuntu's own ROCm tools: what AMD's pin has to win against
        Package("rocminfo", "5.7.1-3build1"),
        Package("linux-firmware", "20240318.git3b128b60-0ubuntu2.27", arch="all"),
    )


def docker() -> tuple[Package, ...]:
    unit = (
        "[Unit]\nDescription=Docker Application Container Engine\n[Service]\nType=notify\nExecStart=/usr/bin/dockerd\n"
        "ExecReload=/bin/kill -s HUP $MAINPID\n[Install]\nWantedBy=multi-user.target\n"
    )
    started = (
        "getent group docker >/dev/null || groupadd --system docker\n"
        "if [ -d /run/systemd/system ]; then\n  systemctl daemon-reload\n  systemctl enable --quiet docker.service\n"
        "  systemctl restart docker.service || true\nelse\n  systemctl enable --quiet docker.service || true\nfi"
    )
    stopped = 'if [ -d /run/systemd/system ] && [ "$1" = remove ]; then systemctl stop docker.service || true; fi'
    gone = (
        'if [ "$1" = remove ]; then systemctl disable --quiet docker.service 2>/dev/null || true; fi\n'
        "rm -f /run/docker-stand-in.json /run/docker.sock\n"
        # as docker.io's own: what makes a purge a catastrophe
        'if [ "$1" = purge ]; then rm -rf /var/lib/docker; fi'
    )
    return (
        Package(
            "docker.io",
            "29.1.3-0ubuntu3~24.04.2",
            "containerd (>= 1.7), runc",
            files={
                "usr/bin/docker": inside("docker.py"),
                "usr/bin/dockerd": inside("dockerd.py"),
                "usr/lib/systemd/system/docker.service": text(unit),
            },
            scripts={"postinst": started, "prerm": stopped, "postrm": gone},
            size=64,
        ),
        Package("containerd", "2.2.1-0ubuntu1~24.04.3", "runc"),
        Package("runc", "1.3.4-0ubuntu1~24.04.1"),
        Package("docker-buildx", "0.30.1-0ubuntu1~24.04.1"),
    )


def nvidia_libraries(version: str, stub: bytes) -> dict[str, File]:
    """User space that NVML's binding can load: it answers for the module that is loaded, or says what is wrong."""
    folder = "usr/lib/x86_64-linux-gnu"
    return {
        f"{folder}/libnvidia-ml.so.{version}": File(for_version(stub, version)),
        f"{folder}/libnvidia-ml.so.1": File(link=f"libnvidia-ml.so.{version}"),
        f"{folder}/libcuda.so.{version}": text("cuda\n"),
        f"{folder}/libcuda.so.1": File(link=f"libcuda.so.{version}"),
    }


def for_version(stub: bytes, version: str) -> bytes:
    """The compiled stand-in with this driver's version in place of the room that it keeps for it."""
    room = b"@VERSION" + b"@" * 24
    assert room in stub
    return stub.replace(room, version.encode().ljust(len(room), b"\0"))


NOUVEAU_OFF = text("# This file was installed by nvidia-kernel-common\nblacklist nouveau\nalias nouveau off\n")
PERSISTENCED = text(
    "[Unit]\nDescription=NVIDIA Persistence Daemon\n[Service]\nExecStart=/bin/sleep infinity\n"
    "[Install]\nWantedBy=multi-user.target\n"
)


def nvidia_branch(number: int, driver: str, kernels: Iterable[Kernel], stub: bytes) -> tuple[Package, ...]:
    """One driver branch: user space, DKMS, and prebuilt modules for `kernels`, which a driver's DKMS clause may take.

    The metas of the modules only *provide* nvidia-dkms: apt prefers the real DKMS package unless both are named.
    """
    version = f"{driver}-{ARCHIVE}"
    upgraded = "command -v update-initramfs >/dev/null && update-initramfs -u -k all || true"
    packages = [
        Package(
            f"nvidia-kernel-common-{number}",
            version,
            files={f"usr/lib/modprobe.d/nvidia-graphics-drivers-{number}.conf": NOUVEAU_OFF},
            scripts={"postinst": upgraded, "postrm": upgraded},
        ),
        Package(f"nvidia-firmware-{number}-{driver}", version),
        Package(f"libnvidia-compute-{number}", version, files=nvidia_libraries(driver, stub), size=256),
        Package(f"libnvidia-gl-{number}", version, f"libnvidia-compute-{number} (= {version})"),
        Package(
            f"nvidia-utils-{number}",
            version,
            f"libnvidia-compute-{number}",
            files={"usr/bin/nvidia-smi": script("#!/bin/sh\necho NVIDIA-SMI\n")},
        ),
        Package(
            f"nvidia-compute-utils-{number}",
            version,
            f"libnvidia-compute-{number}",
            files={"usr/lib/systemd/system/nvidia-persistenced.service": PERSISTENCED},
        ),
    ]
    for kind in ("", "-open"):
        common = f"nvidia-kernel-common-{number} (= {version}), nvidia-firmware-{number}-{driver}"
        user = f"nvidia-utils-{number} (= {version}), nvidia-compute-utils-{number} (= {version})"
        module = f"nvidia-dkms-{number}{kind} (<= {driver}-1), nvidia-dkms-{number}{kind} (>= {driver})"
        packages += [
            Package(f"nvidia-kernel-source-{number}{kind}", version),
            dkms_module(
                Package(
                    f"nvidia-dkms-{number}{kind}",
                    version,
                    f"dkms, nvidia-kernel-source-{number}{kind} (= {version}), {common}",
                ),
                "nvidia",
                driver,
                OPEN_MODULES,
            ),
            Package(
                f"nvidia-driver-{number}{kind}",
                version,
                f"libnvidia-gl-{number} (= {version}), {module}, {common}, {user}",
            ),
            Package(
                f"nvidia-headless-no-dkms-{number}{kind}",
                version,
                f"libnvidia-compute-{number} (= {version}), nvidia-compute-utils-{number} (= {version}), {common}",
            ),
        ]
        for row in kernels:
            packages += prebuilt(number, kind, driver, row, version)
    return tuple(packages)


def prebuilt(number: int, kind: str, driver: str, row: Kernel, version: str) -> tuple[Package, ...]:
    """Modules of a branch for one kernel, signed by Canonical, and the flavour's meta."""
    top = f"usr/lib/modules/{row.release}/kernel/nvidia-{number}{kind}"
    module = text(f"version={driver}\nopen={int(bool(kind))}\nsigned=canonical\n")
    # Canonical's versions are those of the kernel that they were built for
    built = f"{row.version}+1"
    common = f"nvidia-kernel-common-{number} (>= {driver})"
    return (
        Package(
            f"linux-modules-nvidia-{number}{kind}-{row.release}",
            built,
            f"linux-image-{row.release}, {common}",
            files={f"{top}/{name}.ko": module for name in OPEN_MODULES},
        ),
        Package(
            f"linux-modules-nvidia-{number}{kind}-{row.meta}",
            built,
            f"linux-modules-nvidia-{number}{kind}-{row.release} (= {built}), {common}",
            provides=f"nvidia-dkms-{number}{kind} (= {version}), nvidia-prebuilt-kernel",
        ),
    )


BRANCHES = {580: "580.159.04", 595: "595.84"}


def archive(kernels: tuple[Kernel, ...], stub: bytes, modules_for: tuple[Kernel, ...] | None = None) -> list[Package]:
    """All of it. `kernels`: releases that the archive has, the newest of each flavour last; `modules_for`: those that
    prebuilt modules exist for (a module that lags is missing there)."""
    found = [package for row in kernels for package in kernel(row)]
    newest = {row.meta: row for row in kernels}
    found += [package for row in newest.values() for package in metas(row)]
    found += [*system(), *tools(), *docker(), dkms()]
    covered = kernels if modules_for is None else modules_for
    for number, driver in BRANCHES.items():
        found += nvidia_branch(number, driver, covered, stub)
    # of each name the last one: a flavour's meta follows its newest kernel
    return list({(package.name, package.version): package for package in found}.values())
