"""The content of the vendors' repositories in these tests, with the catalogue's names."""

from __future__ import annotations

from tests.lab.provision.deb import Package, script, text
from tests.lab.provision.ubuntu_packages import (
    NOUVEAU_OFF,
    OPEN_MODULES,
    PERSISTENCED,
    dkms_module,
    inside,
    nvidia_libraries,
)

TOOLKIT = "1.20.0-1"
# a production branch, and a feature branch that a machine without a lock would run into
NVIDIA = ("595.84", "610.43.02")
AMDGPU = "7.1.3-2391402.24.04"
LEGACY = "7.2.4.70204-93~24.04"

_REFRESH = (
    "[Unit]\nDescription=Refresh NVIDIA CDI specification file\n[Service]\nType=oneshot\n"
    "ExecCondition=/usr/bin/test -e /sys/module/nvidia/version\nExecStart=/usr/bin/nvidia-ctk cdi generate\n"
    "[Install]\nWantedBy=multi-user.target\n"
)
_REFRESH_PATH = (
    "[Unit]\nDescription=Trigger CDI refresh on NVIDIA driver install / uninstall events\n"
    "[Path]\nPathChanged=/usr/bin/nvidia-smi\n[Install]\nWantedBy=multi-user.target\n"
)


def nvidia_cuda(stub: bytes, fails: str = "", seconds: float = 0.2) -> list[Package]:
    """NVIDIA's own repository: names without a branch, newest first unless a pinning package is there.

    `fails`: kernels (a pattern) for which the module does not build.
    """
    found: list[Package] = []
    for driver in NVIDIA:
        version, branch = f"{driver}-1ubuntu1", driver.partition(".")[0]
        exact = f"(= {version})"
        common = f"nvidia-kernel-common {exact}"
        found += [
            Package("nvidia-kernel-common", version, files={"usr/lib/modprobe.d/nvidia.conf": NOUVEAU_OFF}),
            Package("libnvidia-compute", version, files=nvidia_libraries(driver, stub), size=256),
            Package("libnvidia-gl", version, f"libnvidia-compute {exact}"),
            Package(
                "nvidia-persistenced",
                version,
                files={"usr/lib/systemd/system/nvidia-persistenced.service": PERSISTENCED},
            ),
            Package("nvidia-driver", version, f"libnvidia-gl {exact}, libnvidia-compute {exact}, nvidia-persistenced"),
            Package("nvidia-open", version, f"nvidia-driver {exact}, nvidia-dkms-open {exact}"),
            Package("cuda-drivers", version, f"nvidia-driver {exact}, nvidia-dkms {exact}"),
            *(
                dkms_module(
                    Package(f"nvidia-dkms{kind}", version, f"dkms, {common}"),
                    "nvidia",
                    driver,
                    OPEN_MODULES,
                    fails,
                    seconds,
                )
                for kind in ("", "-open")
            ),
            Package(
                f"nvidia-driver-pinning-{branch}",
                f"{branch}-1ubuntu1",
                arch="all",
                files={
                    f"etc/apt/preferences.d/nvidia-driver-pinning-{branch}": text(
                        f"Package: nvidia-* libnvidia-* cuda-drivers*\nPin: version {branch}.*\nPin-Priority: 1000\n"
                    )
                },
            ),
        ]
    found += [
        Package("cuda-nvcc-13-0", "13.0.88-1", files={"usr/local/cuda-13.0/bin/nvcc": script("#!/bin/sh\n")}),
        Package("cuda-toolkit-13-0", "13.0.2-1", "cuda-nvcc-13-0"),
    ]
    return found


def nvidia_toolkit() -> list[Package]:
    enable = (
        "if [ -d /run/systemd/system ]; then\n  systemctl daemon-reload\n"
        "  systemctl enable --quiet --now nvidia-cdi-refresh.path\n"
        "  systemctl enable --quiet --now nvidia-cdi-refresh.service || true\nfi"
    )
    both = "nvidia-cdi-refresh.path nvidia-cdi-refresh.service"
    gone = f'if [ "$1" = remove ]; then systemctl disable --quiet --now {both} || true; fi'
    same = f"(= {TOOLKIT})"
    return [
        Package("libnvidia-container1", TOOLKIT),
        Package("libnvidia-container-tools", TOOLKIT, f"libnvidia-container1 {same}"),
        Package(
            "nvidia-container-toolkit-base",
            TOOLKIT,
            files={
                "usr/bin/nvidia-ctk": inside("nvidia-ctk"),
                "usr/bin/nvidia-container-runtime": script("#!/bin/sh\n"),
                "usr/lib/systemd/system/nvidia-cdi-refresh.service": text(_REFRESH),
                "usr/lib/systemd/system/nvidia-cdi-refresh.path": text(_REFRESH_PATH),
            },
            scripts={"postinst": enable, "prerm": gone},
        ),
        Package(
            "nvidia-container-toolkit",
            TOOLKIT,
            f"nvidia-container-toolkit-base {same}, libnvidia-container-tools {same}, libnvidia-container1 {same}",
        ),
    ]


def amdgpu(fails: str = "", seconds: float = 0.2, version: str = AMDGPU) -> list[Package]:
    """AMD's driver, its firmware, and the Mesa and libdrm that nobody asked for."""
    module = Package(
        "amdgpu-dkms", f"1:{version}", f"dkms, amdgpu-dkms-firmware (= 1:{version}), autoconf, automake", arch="all"
    )
    names = ("amdgpu", "amdkcl", "amdttm", "amd-sched", "amddrm_buddy")
    return [
        dkms_module(module, "amdgpu", version, names, fails, seconds),
        Package("amdgpu-dkms-firmware", f"1:{version}", arch="all"),
        Package("libdrm-amdgpu1", "1:2.4.130.3150-2391402.24.04"),
        Package("autoconf", "2.71-3"),
        Package("automake", "1:1.16.5-1.3ubuntu1"),
    ]


def rocm_legacy() -> list[Package]:
    core = f"rocm-core (= {LEGACY})"
    return [
        Package("rocm-core", LEGACY, files={"opt/rocm-7.2.4/.info/version": text("7.2.4\n")}),
        Package("rocminfo", f"1.0.0.{LEGACY.partition('.')[2]}", core),
        Package("hsa-rocr", f"1.18.0.{LEGACY.partition('.')[2]}", core),
        Package("rocm-hip-runtime", LEGACY, f"{core}, hsa-rocr, rocminfo"),
        Package("rocm", LEGACY, f"{core}, rocm-hip-runtime (= {LEGACY})"),
    ]


def rocm_core(short: str, version: str, targets: tuple[str, ...] = ("gfx1100", "gfx1201")) -> list[Package]:
    """ROCm from 7.14 on: one package for each target, /opt/rocm/core-X.Y; it cannot be beside ROCm 7.2."""
    found = [
        Package(
            f"amdrocm-runtime{short}",
            f"{version}-24.04",
            conflicts="rocm-core",
            files={f"opt/rocm/core-{short}/.info/version": text(f"{version}\n")},
        )
    ]
    found += [
        Package(
            f"amdrocm{short}-{target}",
            f"{version}-24.04",
            f"amdrocm-runtime{short} (= {version}-24.04), libatomic1, libquadmath0",
        )
        for target in targets
    ]
    return found


def standard(stub: bytes) -> dict[str, list[Package]]:
    """Every vendor repository of the catalogue that something is installed from."""
    return {
        "nvidia.cuda": nvidia_cuda(stub),
        "nvidia.container-toolkit": nvidia_toolkit(),
        "amd.driver": amdgpu(),
        "amd.driver.legacy": amdgpu(version="6.16.13-2278356.24.04"),
        "amd.rocm.legacy": rocm_legacy(),
        "amd.rocm.7.14": rocm_core("7.14", "7.14.0"),
        "amd.rocm.10": rocm_core("10.0", "10.0.0"),
    }
