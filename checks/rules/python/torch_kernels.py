"""Whether a build of PyTorch has kernels for a GPU.

What is installed beside it counts first (files of ROCm libraries), then the table of published wheels, then what its
CUDA can compile at all. Everything else is not known: a build from source has what its builder wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from checks.catalogue import Build, Catalogue, CudaCompiler
from checks.facts.host import TrainingEnvironment
from checks.rules.cards import numbers
from checks.rules.finding import Seen

Version = tuple[int, ...]
NAMES = {"cuda": "CUDA", "rocm": "ROCm"}
# 2.7.1+cu128, 2.9.0.dev20250901+rocm6.4; without the tag: what PyPI calls its own
_PUBLISHED = r"(\d+\.\d+)\.\d+(\.dev\d+|rc\d+)?(\+(?:cu\d+|rocm\d+(?:\.\d+)*))?"


class Runtime(NamedTuple):
    """What torch was built for: `kind` is cuda or rocm."""

    kind: str
    version: Version

    def __str__(self) -> str:
        return f"{NAMES[self.kind]} {'.'.join(map(str, self.version))}"


class Kernels(NamedTuple):
    """`has` None: not known. `seen` is the evidence, `because` a sentence for a person."""

    has: bool | None
    seen: tuple[Seen, ...]
    because: str


def runtime_of(env: TrainingEnvironment) -> Runtime | None:
    """None for a build without GPU. ROCm's number is in the version's tag; torch/version.py has HIP's."""
    if env.torch_hip:
        tag = re.search(r"\+rocm(\d+(?:\.\d+)+)", env.torch or "")
        return Runtime("rocm", numbers(tag[1] if tag else env.torch_hip)[:2])
    return Runtime("cuda", numbers(env.torch_cuda)[:2]) if env.torch_cuda else None


def kernels_for(env: TrainingEnvironment, target: str, machine: str | None, catalogue: Catalogue) -> Kernels:
    """Whether torch in this environment has kernels for `target` (8.6, gfx1100); it must be built for the vendor.

    `machine` is the CPU's architecture as `uname -m` has it.
    """
    runtime = runtime_of(env)
    if runtime is None:
        return Kernels(None, (), f"PyTorch {env.torch} is built for the CPU only.")
    if env.rocm_targets:
        seen = (f"{env.path}: the GPUs that its ROCm libraries are for", ", ".join(env.rocm_targets))
        return Kernels(any(_is_of(target, name) for name in env.rocm_targets), (seen,), "")
    own = next((row for row in catalogue.stacks if row.name == env.stack and env.torch in row.usable_builds), None)
    if own is not None and own.runs(target):
        return Kernels(True, ((f"stack {own.name}", ", ".join(own.targets)),), "")
    return _by_table(env, runtime, target, machine or "x86_64", catalogue) or _by_compiler(
        env, runtime, target, catalogue
    )


def _is_of(target: str, name: str) -> bool:
    """`gfx1101` is of the family gfx110X."""
    return re.fullmatch(name.replace("X", "[0-9a-f]"), target) is not None


def _by_table(
    env: TrainingEnvironment, runtime: Runtime, target: str, machine: str, catalogue: Catalogue
) -> Kernels | None:
    """What the wheels of download.pytorch.org say; None: this is none of them, or they do not agree."""
    published = re.fullmatch(_PUBLISHED, env.torch or "")
    if published is None:
        return None
    names = (f"{runtime.kind} {'.'.join(map(str, runtime.version))}", runtime.kind)
    rows = [row for row in catalogue.torch_builds if row.machine == machine and set(names) & set(row.runtimes)]
    release = numbers(published[1])
    nightly = published[2] is not None
    # a nightly build may be as old as the release before, or as new as the one after it
    nearby = [row for row in rows if _first(row, nightly) <= release <= _last(row, nightly)]
    sure = bool(nearby)
    if not nearby:
        older = [row for row in rows if numbers(row.until) < release]
        newer = [row for row in rows if numbers(row.since) > release]
        nearby = [*older[-1:], *newer[:1]]
        sure = bool(older and newer)
    answers = {has_target(row, target) for row in nearby}
    if len(answers) != 1:
        return None
    has = answers.pop()
    # conda-forge and distributions build for more GPUs, under a version without a tag
    if not has and not (sure and published[3]):
        return None
    with_rocblas = " (torch and rocBLAS)" if runtime.kind == "rocm" else ""
    seen = (f"wheels of PyTorch {published[1]} for {runtime}{with_rocblas}", ", ".join(nearby[-1].targets))
    return Kernels(has, (seen,), "")


def _first(row: Build, nightly: bool) -> Version:
    major, minor = numbers(row.since)
    return major, minor - nightly


def _last(row: Build, nightly: bool) -> Version:
    major, minor = numbers(row.until)
    return major, minor + nightly


def has_target(row: Build, target: str) -> bool:
    """Whether these wheels run on a GPU of this architecture."""
    if target.startswith("gfx"):
        return target in row.targets
    wanted = numbers(target)
    return any(runs_on(numbers(built), wanted) for built in row.targets) or (
        row.ptx is not None and numbers(row.ptx) <= wanted
    )


def runs_on(built: Version, wanted: Version) -> bool:
    """Machine code for compute capability X.Y runs on X.Z, Z >= Y (CUDA C++ Programming Guide)."""
    return built[:1] == wanted[:1] and built <= wanted


def _by_compiler(env: TrainingEnvironment, runtime: Runtime, target: str, catalogue: Catalogue) -> Kernels:
    """What no build with this CUDA can have. ROCm has no such limit that is known here."""
    row = None if runtime.kind == "rocm" else _compiler(target, catalogue.cuda_compilers)
    if row is not None:
        last = f" to {row.until}" if row.until else " on"
        seen = (f"CUDA that compiles for {target}", f"{row.since}{last}")
        if runtime.version < numbers(row.since) or (row.until and runtime.version > numbers(row.until)):
            return Kernels(False, (seen,), f"{runtime} cannot compile code for it: `no kernel image is available`.")
    why = f"PyTorch {env.torch} is none of the published builds whose architectures are known."
    return Kernels(None, (), why)


def _compiler(target: str, rows: Iterable[CudaCompiler]) -> CudaCompiler | None:
    by_capability = {row.capability: row for row in rows}
    return by_capability.get(target) or by_capability.get(target.partition(".")[0])
