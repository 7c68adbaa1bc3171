"""Facts about software: packages and repositories, the container engine, Python, training environments, the hub."""

from __future__ import annotations

from checks.facts.frozen import Frozen


class Package(Frozen, frozen=True):
    """`state` is dpkg's: installed, half-configured, half-installed, unpacked, config-files; `held` by apt-mark."""

    name: str
    version: str
    state: str
    held: bool = False


class AptSource(Frozen, frozen=True):
    """One enabled repository.

    `owner`: ubuntu, nvidia, nvidia-toolkit, amd-rocm, amd-graphics, amd-toolkit, docker, ppa, other.
    """

    file: str
    uri: str
    suite: str | None = None
    signed_by: str | None = None
    owner: str = "other"


class AptPin(Frozen, frozen=True):
    file: str
    packages: str
    pin: str
    priority: int | None = None


class Apt(Frozen, frozen=True):
    """Only packages that matter here: drivers, kernels, headers, ROCm, CUDA, DKMS, Docker, compilers, Python.

    `missing_keys` are the Signed-By files of vendors' repositories that are not there; `unfetched` the vendors'
    repositories of which apt holds no list although it holds others (None: it holds none at all).
    """

    packages: tuple[Package, ...] | None = None
    sources: tuple[AptSource, ...] | None = None
    pins: tuple[AptPin, ...] | None = None
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
    """`kind`: docker.io, docker-ce, snap, podman, desktop, other; None: no engine found.

    `problem`: why it does not answer: not-running, permission-denied, timed-out, or the client's words.
    `daemon_json_valid` is None when there is no such file, `daemon_json_runtimes` what it names. `rootless_kit` is the
    program that a rootless engine of this person's starts with, `userns_profiles` the AppArmor profiles that let such
    programs make user namespaces.
    """

    kind: str | None = None
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
    rootless_kit: str | None = None
    userns_profiles: tuple[str, ...] | None = None


class TrainingEnvironment(Frozen, frozen=True):
    """A Python environment that holds torch or bitsandbytes, read as files.

    `owner`: active (VIRTUAL_ENV or CONDA_PREFIX of this session) or gpu-setup; `stack` is the latter's stack by its
    folder's name. `torch_cuda` and `torch_hip` are the versions that torch was built with, both None for a build
    without GPU; `bitsandbytes_libraries` are like `cuda130`, `rocm72`, `cpu`.
    """

    path: str
    owner: str
    stack: str | None = None
    python: str | None = None
    torch: str | None = None
    torch_cuda: str | None = None
    torch_hip: str | None = None
    bitsandbytes: str | None = None
    bitsandbytes_libraries: tuple[str, ...] | None = None


class PythonFacts(Frozen, frozen=True):
    """The system's python3 and what Triton needs at run time: a C compiler and Python.h."""

    path: str | None = None
    version: str | None = None
    compiler: str | None = None
    headers: bool | None = None
    venv: bool | None = None
    environments: tuple[TrainingEnvironment, ...] | None = None


class Hub(Frozen, frozen=True):
    """Hugging Face on this machine. `token`: there is one, its value is never read; `token_file` where it lies.

    `readable_by_others`: another account can open that file. `offline` is the variable that forbids downloads, with
    its value; `cached`: the cache's folder at `cache` is there; `cache_chosen`: a variable put it there.
    """

    token: bool | None = None
    token_file: str | None = None
    readable_by_others: bool | None = None
    offline: str | None = None
    cache: str | None = None
    cache_chosen: bool = False
    cached: bool | None = None
