"""Facts about software: packages and repositories, the container engine, Python, training environments, the hub."""

from __future__ import annotations

from typing import Literal

from checks.facts.frozen import Frozen

RepositoryOwner = Literal[
    "ubuntu", "nvidia", "nvidia-toolkit", "amd-rocm", "amd-graphics", "amd-toolkit", "docker", "ppa", "other"
]
EngineKind = Literal["docker.io", "docker-ce", "snap", "podman", "desktop", "other"]
EnvironmentOwner = Literal["active", "gpu-setup"]
EnvironmentKind = Literal["venv", "uv", "conda", "pipx", "user"]


class Package(Frozen, frozen=True):
    """`state` is dpkg's: installed, half-configured, half-installed, unpacked, config-files; `held` by apt-mark."""

    name: str
    version: str
    state: str
    held: bool = False


class AptSource(Frozen, frozen=True):
    """One enabled repository."""

    file: str
    uri: str
    suite: str | None = None
    signed_by: str | None = None
    owner: RepositoryOwner = "other"


class AptPreference(Frozen, frozen=True):
    """One pin of apt_preferences(5)."""

    file: str
    packages: str
    pin: str
    priority: int | None = None


class Apt(Frozen, frozen=True):
    """Only packages that matter here: drivers, kernels, headers, ROCm, CUDA, DKMS, Docker, compilers, Python.

    `missing_keys` are the Signed-By files of vendors' repositories that do not exist; `unfetched` the vendors'
    repositories without a list, although apt has lists of others (None: apt has no list at all).
    """

    packages: tuple[Package, ...] | None = None
    sources: tuple[AptSource, ...] | None = None
    pins: tuple[AptPreference, ...] | None = None
    interrupted: bool | None = None
    broken: tuple[str, ...] | None = None
    lock_holder: str | None = None
    reboot_required: bool | None = None
    reboot_packages: tuple[str, ...] | None = None
    unattended: bool | None = None
    unattended_blocks: tuple[str, ...] | None = None
    unattended_reboot: bool | None = None
    missing_keys: tuple[str, ...] | None = None
    unfetched: tuple[AptSource, ...] | None = None


class Docker(Frozen, frozen=True):
    """`kind` is the engine that answers, or that would; None if no engine was found.

    `problem`: why it does not respond: not-running, permission-denied, timed-out, or the client's message.
    `daemon_json_valid` is None if there is no such file, `daemon_json_runtimes` are the runtimes in it.
    `installed` are all engines here, by package or snap; `running` (where there are several) the active services.
    `rootless_kit` is the program that starts this user's rootless engine, `userns_profiles` the AppArmor profiles
    that let such programs create user namespaces.
    """

    kind: EngineKind | None = None
    path: str | None = None
    version: str | None = None
    answers: bool | None = None
    problem: str | None = None
    runtimes: tuple[str, ...] | None = None
    cdi_dirs: tuple[str, ...] | None = None
    rootless: bool | None = None
    cgroup_driver: str | None = None
    root_dir: str | None = None
    daemon_json_valid: bool | None = None
    daemon_json_problem: str | None = None
    daemon_json_runtimes: tuple[str, ...] | None = None
    installed: tuple[EngineKind, ...] = ()
    running: tuple[EngineKind, ...] = ()
    rootless_kit: str | None = None
    userns_profiles: tuple[str, ...] | None = None


class TrainingEnvironment(Frozen, frozen=True):
    """A Python environment with torch or bitsandbytes, read as files.

    `owner` active: VIRTUAL_ENV or CONDA_PREFIX of this session; gpu-setup: made by gpu-setup, with its `stack`.
    `torch_cuda` and `torch_hip` are the versions that torch was built with, both None for a build without GPU;
    `bitsandbytes_libraries` are like `cuda130`, `rocm72`, `cpu`. `kind`: what made it, as far as that decides how
    packages are installed in it (`uv`: it has no pip; `user`: no environment, but ~/.local). `companions`: names and
    versions of installed packages that belong to one build of torch (torchvision, xformers …); None: not known.
    `rocm_targets`: the GPUs (gfx names, X for any digit) that the ROCm libraries in it have kernels for; None: it has
    none, or their names do not say it. `project_lock`: the lock file of the project that the environment belongs to.
    """

    path: str
    owner: EnvironmentOwner
    stack: str | None = None
    python: str | None = None
    torch: str | None = None
    torch_cuda: str | None = None
    torch_hip: str | None = None
    bitsandbytes: str | None = None
    bitsandbytes_libraries: tuple[str, ...] | None = None
    kind: EnvironmentKind = "venv"
    companions: tuple[tuple[str, str], ...] | None = None
    rocm_targets: tuple[str, ...] | None = None
    project_lock: str | None = None


class PythonFacts(Frozen, frozen=True):
    """The system's python3 and what Triton needs at run time: a C compiler and Python.h.

    `missing_compiler` is the program that CC names, where there is no such program.
    """

    path: str | None = None
    version: str | None = None
    compiler: str | None = None
    missing_compiler: str | None = None
    headers: bool | None = None
    venv: bool | None = None
    environments: tuple[TrainingEnvironment, ...] | None = None


class Hub(Frozen, frozen=True):
    """Hugging Face on this machine. `token`: a token is set (its value is never read); `token_file` is its file.

    `readable_by_others`: another account can open that file. `offline` is the variable that disables downloads, with
    its value; `cached`: the cache's folder `cache` exists; `cache_chosen`: a variable sets that folder.
    """

    token: bool | None = None
    token_file: str | None = None
    readable_by_others: bool | None = None
    offline: str | None = None
    cache: str | None = None
    cache_chosen: bool = False
    cached: bool | None = None
