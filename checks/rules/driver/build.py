"""Why a DKMS build failed, read from the end of its make.log; a build over the same sources fails again."""

from __future__ import annotations

import re
from typing import Literal

from checks.facts.host import DkmsBuild, Host
from checks.rules import cards

Problem = Literal["disk", "memory", "compiler", "headers", "source"]
# Lines of make, cc, dkms and NVIDIA's conftest.sh, the likeliest cause first. `source`: the driver's sources do not fit
# this kernel (pop-os/linux#350, ROCm/amdgpu#192, ROCm/legacy-rocm-build#5111: error lines of the compiler; modpost's
# `GPL-incompatible module nvidia.ko uses GPL-only symbol`). Compilers: clearlinux/distribution#1133.
_COMPILER = (
    r"Failed CC version check|cc_version_check|Compiler version check failed|unrecognized command[- ]line option|"
    r"gcc(?:-\d+)?: (?:command )?not found"
)
_HEADERS = (
    r"kernel headers for kernel \S+ cannot be found|No rule to make target '?modules'?|/build: No such file|"
    r"scripts/\S+: (?:not found|No such file)|Kernel configuration is invalid"
)
_SIGNS: tuple[tuple[Problem, str], ...] = (
    ("disk", r"No space left on device"),
    ("memory", r"\bKilled\b|[Oo]ut of memory|Cannot allocate memory"),
    ("compiler", _COMPILER),
    ("headers", _HEADERS),
    ("source", r"\berror: |GPL-incompatible module|ERROR: modpost: "),
)


def problem_of(log: str | None) -> Problem | None:
    """What stopped the build; None where the log does not show it."""
    return next((problem for problem, pattern in _SIGNS if re.search(pattern, log or "")), None)


def reason_line(log: str | None) -> str | None:
    """The first line of the log that shows the problem."""
    pattern = next((pattern for _, pattern in _SIGNS if re.search(pattern, log or "")), None)
    return next((line.strip() for line in (log or "").splitlines() if pattern and re.search(pattern, line)), None)


def outdated_amdgpu(host: Host) -> tuple[str, ...]:
    """Of the running and the next kernel those that are newer than amdgpu-dkms supports and have no build of it."""
    builds = [build for build in host.kernel.dkms or () if build.module == "amdgpu"]
    base = max((cards.numbers(build.version)[:2] for build in builds), default=())
    return tuple(
        kernel
        for kernel in dict.fromkeys((host.kernel.release, host.kernel.next_boot))
        if kernel
        and base
        and cards.numbers(kernel)[:2] > base
        and not any(build.kernel == kernel and build.state == "installed" for build in builds)
    )


def build_failure(host: Host, module: str) -> str | None:
    """Why DKMS cannot build this driver here, as a sentence; None where nothing shows that it cannot."""
    failed = [row for row in host.kernel.dkms or () if row.module.startswith(module) and does_not_build(row)]
    if failed:
        return f"{failed[0].module} {failed[0].version} does not compile on kernel {failed[0].kernel or 'this'}."
    outdated = outdated_amdgpu(host) if module == "amdgpu" else ()
    return f"amdgpu-dkms does not support kernel {outdated[0]}." if outdated else None


def does_not_build(build: DkmsBuild) -> bool:
    return build.state == "added" and problem_of(build.log_tail) == "source"
