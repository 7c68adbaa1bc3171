"""Modules that DKMS builds on this machine: whether the kernel that starts next has one, and building it if not."""

from __future__ import annotations

from checks.facts.gaps import Gaps
from checks.facts.host import Host, Kernel
from checks.facts.kernel import read_kernel
from machine.errors import OutsideFailed
from provision.apply_context import ApplyContext
from provision.model import KernelModule, State, Step
from provision.system import apt


def module_step(host: Host, module: str, title: str, driver: Step) -> Step:
    """The step after a DKMS driver: DKMS passes over a kernel whose headers are missing without a word."""
    missing = missing_kernels(module, host)
    done = driver.state is State.DONE and missing == ()
    return Step(
        id=f"{module}-module",
        title=f"See that the kernel that starts next has {title}",
        action=KernelModule(name=module, change="build"),
        state=State.DONE if done else State.TODO,
        because="DKMS leaves a kernel out whose headers are not there, and says so only in its log: the machine would "
        "start without its card.",
        commands=()
        if done
        else tuple(
            ("dkms", "autoinstall", "--kernelver", release)
            for release in (missing or (host.kernel.next_boot or "RELEASE",))
        ),
        undo="" if done else "DKMS takes its modules away with its packages",
    )


def missing_kernels(module: str, host: Host) -> tuple[str, ...] | None:
    """The next kernel, if it has no DKMS module; None where that could not be read."""
    return None if host.kernel.modules is None else _missing(module, host.kernel)


def kernels_without_module(action: KernelModule, context: ApplyContext) -> tuple[str, ...]:
    """Read afresh: the kernel that starts next, if it has no module."""
    return _missing(action.name, read_kernel(context.machine, Gaps()))


def _missing(module: str, kernel: Kernel) -> tuple[str, ...]:
    have = {file.kernel for file in kernel.modules or () if file.name == module and file.origin == "dkms"}
    upcoming = kernel.next_boot or kernel.release
    return (upcoming,) if upcoming and upcoming not in have else ()


def build_module(action: KernelModule, context: ApplyContext, stage: str, title: str) -> None:
    """DKMS once more for what it left out; its failure is told with the log to read."""
    for release in kernels_without_module(action, context):
        outcome = apt.call(context, stage, ("dkms", "autoinstall", "--kernelver", release))
        if release in kernels_without_module(action, context):
            said = outcome.stdout.strip()[-300:] or outcome.problem or "it said nothing"
            raise OutsideFailed(
                "module.not-built",
                f"{title.rstrip('.')}: the kernel {release} has no {action.name} module.",
                f"DKMS did not build it: {said}",
                f"Are its headers there (linux-headers-{release})? DKMS's log: /var/lib/dkms/{action.name}/*/build/"
                "make.log. Nothing else was changed by this step; then: gpu-setup apply",
            )
