"""Environments with PyTorch, Hugging Face, variables that come back with each login, libraries in the way."""

from __future__ import annotations

from typing import Any

from checks.facts.host import Disk, Host, Hub, TrainingEnvironment
from tests.checks.rules.case import FAIL, PASS, WARN, Blind, Fault, LookAlike
from tests.checks.rules.hosts import (
    GB,
    LIBRARIES,
    but,
    healthy_amd,
    healthy_nvidia,
    no_gpu,
    nvidia_card,
    nvml,
    two_vendors,
)

N, A, NONE = healthy_nvidia(), healthy_amd(), no_gpu()
CUDA = ("cpu", "cuda118", "cuda126", "cuda128", "cuda130")
ROCM = ("cpu", "rocm64", "rocm72", "rocm714")


def env(**facts: Any) -> TrainingEnvironment:
    """The active environment of someone with an NVIDIA card."""
    defaults: dict[str, Any] = {
        "path": "/home/alex/venv",
        "owner": "active",
        "python": "3.12",
        "torch": "2.13.0+cu130",
        "torch_cuda": "13.0",
        "bitsandbytes": "0.50.2",
        "bitsandbytes_libraries": CUDA,
    }
    return TrainingEnvironment(**(defaults | facts))


def rocm(**facts: Any) -> TrainingEnvironment:
    return env(
        **(
            {"torch": "2.13.0+rocm7.2", "torch_cuda": None, "torch_hip": "7.2.53211", "bitsandbytes_libraries": ROCM}
            | facts
        )
    )


def own(stack: str, **facts: Any) -> TrainingEnvironment:
    return env(
        **({"path": f"/home/alex/.local/share/gpu-setup/env/{stack}", "owner": "gpu-setup", "stack": stack} | facts)
    )


def has(host: Host, *environments: TrainingEnvironment) -> Host:
    return but(host, python={"environments": environments})


def blackwell(*environments: TrainingEnvironment) -> Host:
    gpu = nvml(name="NVIDIA GeForce RTX 5090", compute_capability="12.0")
    return has(but(N, cards=(nvidia_card(device="2b85"),), nvidia={"nvml": (gpu,)}), *environments)


def volta(*environments: TrainingEnvironment) -> Host:
    gpu = nvml(name="Tesla V100-SXM2-16GB", compute_capability="7.0")
    return has(but(N, cards=(nvidia_card(device="1db1"),), nvidia={"nvml": (gpu,)}), *environments)


def files(host: Host, *rows: tuple[str, str, str]) -> Host:
    return but(host, person={"start_files": rows})


def hub(host: Host, **facts: Any) -> Host:
    return but(host, hub=Hub(**({"token": True, "cached": True} | facts)))


def moved(**facts: Any) -> Host:
    """HF_HOME points to another disk."""
    disk = Disk(**({"purpose": "models", "path": "/data/hf/hub", "free": 700 * GB, "fstype": "ext4"} | facts))
    host = hub(N, cache="/data/hf/hub", cache_chosen=True)
    return but(host, resources={"disks": (*(host.resources.disks or ()), disk)})


def libcuda(*versions: tuple[str, str]) -> Host:
    return but(N, nvidia={"libcuda": tuple(path for path, _ in versions), "libcuda_versions": versions})


def sudo(host: Host) -> Host:
    return but(host, person={"uid": 0, "user": "root", "sudo_user": "alex", "sudo_groups": host.person.groups})


BASHRC, ENVIRONMENT = "/home/alex/.bashrc", "/etc/environment"
DRIVERS, COPIED = (f"{LIBRARIES}/libcuda.so.1", "595.84"), ("/usr/local/lib/libcuda.so.1", "570.124.06")
COMPAT = "/usr/local/cuda-13.0/compat"
CPU = env(torch="2.13.0+cpu", torch_cuda=None, bitsandbytes_libraries=None, bitsandbytes=None)

FAULTS = (
    Fault("python.torch-build", has(N, CPU), WARN, "is a CPU-only build"),
    Fault("python.torch-build", has(N, env(torch="2.7.0+xpu", torch_cuda=None)), WARN, "built for Intel's GPUs"),
    # `pip install axolotl` over a ROCm build
    Fault("python.torch-build", has(A, env()), WARN, "is built for CUDA; the card is AMD"),
    Fault("python.torch-build", has(N, rocm()), WARN, "is built for ROCm; the card is NVIDIA"),
    Fault("python.torch-build", has(A, own("rocm7.2", torch="2.13.0")), FAIL, "is built for CUDA"),
    Fault("python.torch-arch", blackwell(env(torch="2.6.0+cu124", torch_cuda="12.4")), WARN, "no kernels for the card"),
    Fault("python.torch-arch", blackwell(env(torch="2.13.0+cu126", torch_cuda="12.6")), WARN, "(12.0)"),
    Fault("python.torch-arch", volta(env()), WARN, "(7.0)"),
    Fault("python.torch-arch", volta(own("cu126", torch="2.13.0+cu132", torch_cuda="13.2")), FAIL, "(7.0)"),
    Fault(
        "python.bitsandbytes", has(N, env(bitsandbytes_libraries=("cpu", "cuda126"))), WARN, "no library for CUDA 13.0"
    ),
    Fault("python.bitsandbytes", has(A, rocm(bitsandbytes_libraries=CUDA)), WARN, "no library for ROCm (HIP) 7.2"),
    # bitsandbytes#2014
    Fault(
        "python.bitsandbytes",
        has(A, rocm(torch="2.13.0+rocm10.0.0", torch_hip="7.15.26401", bitsandbytes="0.49.2")),
        WARN,
        "older than 0.50.0",
    ),
    Fault(
        "python.bitsandbytes", has(N, own("cu130", bitsandbytes_libraries=("cpu",))), FAIL, "no library for CUDA 13.0"
    ),
    Fault(
        "python.bitsandbytes",
        but(has(N, env()), person={"environ": {"BNB_CUDA_VERSION": "121"}}),
        WARN,
        "BNB_CUDA_VERSION=121",
    ),
    Fault("hub.token", hub(N, token=False), PASS, "No Hugging Face token"),
    Fault("hub.token-file", hub(N, token_file="/home/alex/t", readable_by_others=True), WARN, "Every account"),
    Fault("hub.offline", hub(N, offline="HF_HUB_OFFLINE=1", cached=False), WARN, "HF_HUB_OFFLINE=1 disables"),
    Fault("hub.offline", hub(N, offline="TRANSFORMERS_OFFLINE=1"), PASS, "TRANSFORMERS_OFFLINE=1 disables"),
    Fault("hub.cache", moved(free=6 * GB), WARN, "Only 6.0 GB"),
    Fault("hub.cache", moved(fstype="exfat"), WARN, "exfat"),
    Fault("runtime.start-files", files(N, (BASHRC, "CUDA_VISIBLE_DEVICES", "")), WARN, "hides cards"),
    Fault("runtime.start-files", files(N, (ENVIRONMENT, "CUDA_VISIBLE_DEVICES", "2")), WARN, ENVIRONMENT),
    Fault(
        "runtime.start-files", files(A, (BASHRC, "HSA_OVERRIDE_GFX_VERSION", "10.3.0")), WARN, "another architecture"
    ),
    Fault(
        "runtime.start-files",
        files(N, (BASHRC, "LD_LIBRARY_PATH", "/usr/local/cuda/lib64/stubs:$LD_LIBRARY_PATH")),
        WARN,
        "stubs",
    ),
    Fault("runtime.libcuda", libcuda(COPIED, DRIVERS), WARN, "the first has version 570.124.06, the driver 595.84"),
    Fault("runtime.libcuda", libcuda(DRIVERS, COPIED), PASS, "like the driver"),
    Fault("runtime.cuda-compat", but(N, nvidia={"compat_folders": (COMPAT,)}), FAIL, COMPAT),
    Fault(
        "runtime.cuda-compat",
        but(N, cards=(nvidia_card(device="20b5"),), nvidia={"compat_folders": (COMPAT,)}),
        PASS,
        COMPAT,
    ),
)

LOOK_ALIKES = (
    LookAlike("python.torch-build", has(N, env()), "CUDA for NVIDIA"),
    LookAlike("python.torch-build", has(A, rocm()), "ROCm for AMD"),
    LookAlike("python.torch-build", has(two_vendors(), env(), rocm()), "two vendors, one environment for each"),
    LookAlike(
        "python.torch-build", has(N, own("cpu", torch="2.13.0+cpu", torch_cuda=None)), "built before the card came"
    ),
    LookAlike("python.torch-build", has(NONE, CPU), "without a card the CPU build is correct"),
    LookAlike("python.torch-arch", blackwell(env()), "CUDA 13"),
    LookAlike(
        "python.torch-arch",
        blackwell(env(torch="2.9.0+cu128", torch_cuda="12.8")),
        "12.8 has Blackwell; no row says so",
    ),
    LookAlike("python.torch-arch", volta(env(torch="2.13.0+cu126", torch_cuda="12.6")), "CUDA 12.6 still has Volta"),
    LookAlike("python.torch-arch", has(N, CPU), "no GPU build at all: torch-build says it"),
    LookAlike("python.bitsandbytes", has(N, env(torch_cuda="13.2")), "the nearest of the same major version is taken"),
    LookAlike("python.bitsandbytes", has(A, rocm(bitsandbytes="0.49.2")), "ROCm 7.2 gets the right name"),
    LookAlike("python.bitsandbytes", has(N, env(bitsandbytes=None)), "not installed"),
    LookAlike("hub.token", N, "there is one"),
    LookAlike("hub.token-file", hub(N, token_file="/home/alex/t", readable_by_others=False), "a closed home"),
    LookAlike("hub.token-file", hub(N), "HF_TOKEN, no file"),
    LookAlike("hub.offline", N, "not set"),
    LookAlike("hub.cache", N, "in its usual place"),
    LookAlike("hub.cache", moved(), "ext4 with room"),
    LookAlike("runtime.start-files", files(N, (BASHRC, "CUDA_VISIBLE_DEVICES", "0")), "a card that exists"),
    LookAlike(
        "runtime.start-files", files(N, (BASHRC, "HSA_OVERRIDE_GFX_VERSION", "10.3.0")), "AMD's variable, NVIDIA's card"
    ),
    LookAlike(
        "runtime.start-files",
        files(N, (BASHRC, "LD_LIBRARY_PATH", "/usr/local/cuda/lib64:$LD_LIBRARY_PATH")),
        "NVIDIA's guide",
    ),
    LookAlike("runtime.libcuda", libcuda(DRIVERS, ("/usr/lib/libcuda.so.1", "595.84")), "one version under two names"),
    LookAlike(
        "runtime.libcuda", but(libcuda(COPIED, DRIVERS), os={"virtualisation": "docker"}), "a container's mounts"
    ),
    LookAlike("runtime.cuda-compat", N, "none"),
    LookAlike(
        "runtime.cuda-compat",
        but(N, os={"virtualisation": "docker"}, nvidia={"compat_folders": (COMPAT,)}),
        "NVIDIA's images bring it, and its runtime leaves it out where it does not fit",
    ),
)

BLIND = (
    Blind("python.torch-build", but(N, python={"environments": None}), "environments"),
    Blind("python.torch-arch", but(N, python={"environments": None}), "environments"),
    Blind("python.bitsandbytes", but(N, python={"environments": None}), "environments"),
    Blind("hub.token", hub(N, token=None), "HOME"),
    Blind("hub.token-file", hub(N, token_file="/home/alex/t", readable_by_others=None), "/home/alex/t"),
    Blind("hub.cache", hub(N, cache="/data/hf/hub", cache_chosen=True), "/data/hf/hub"),
    Blind("runtime.start-files", but(N, person={"start_files": None}), "as the user"),
    Blind("runtime.cuda-compat", but(N, nvidia={"compat_folders": None}), "/etc/ld.so.conf.d"),
    # root's environment and home are not the person's
    Blind("runtime.visible-devices", sudo(N), "without sudo"),
    Blind("runtime.ld-library-path", sudo(N), "without sudo"),
    Blind("runtime.start-files", sudo(N), "without sudo"),
    Blind("rocm.override", sudo(A), "without sudo"),
    Blind("hub.token", sudo(hub(N, token=False)), "without sudo"),
    Blind("hub.offline", sudo(N), "without sudo"),
)
