"""Modules that DKMS builds on this machine: whether the kernel that boots next has one, and the build if not."""

from __future__ import annotations

from checks.facts.gaps import Gaps
from checks.facts.host import Host, Kernel
from checks.facts.kernel import read_kernel
from machine.errors import OutsideFailed
from provision.apply_context import ApplyContext
from provision.model import KernelModule, State, Step
from provision.system import apt


def module_step(host: Host, module: str, title: str, driver: Step) -> Step:
    """The step after a DKMS driver: DKMS silently skips a kernel whose headers are missing."""
    missing = missing_kernels(module, host)
    done = driver.state is State.DONE and missing == ()
    return Step(
        id=f"{module}-module",
        title=f"Verify that the kernel that boots next has {title}",
        action=KernelModule(name=module, change="build"),
        state=State.DONE if done else State.TODO,
        because="DKMS skips a kernel whose headers are missing, and reports it only in its log: the machine would boot "
        "without its GPU.",
        commands=()
        if done
        else tuple(
            ("dkms", "autoinstall", "--kernelver", release)
            for release in (missing or (host.kernel.next_boot or "RELEASE",))
        ),
        undo="" if done else "DKMS removes its modules with its packages",
    )


def missing_kernels(module: str, host: Host) -> tuple[str, ...] | None:
    """The next kernel, if it has no DKMS module; None where that could not be read."""
    return None if host.kernel.modules is None else _missing(module, host.kernel)


def kernels_without_module(action: KernelModule, context: ApplyContext) -> tuple[str, ...]:
    """The kernel that boots next, if it has no module, read again from the machine."""
    return _missing(action.name, read_kernel(context.machine, Gaps()))


def _missing(module: str, kernel: Kernel) -> tuple[str, ...]:
    have = {file.kernel for file in kernel.modules or () if file.name == module and file.origin == "dkms"}
    upcoming = kernel.next_boot or kernel.release
    return (upcoming,) if upcoming and upcoming not in have else ()


def build_module(action: KernelModule, context: ApplyContext) -> None:
    """Run DKMS again for the kernel that it skipped; a failure names the log to read."""
    for release in kernels_without_module(action, context):
        outcome = apt.call(context, ("dkms", "autoinstall", "--kernelver", release))
        if release in kernels_without_module(action, context):
            said = outcome.stdout.strip()[-300:] or outcome.problem or "it printed nothing"
            raise OutsideFailed(
                "module.not-built",
                f"{context.title}: the kernel {release} has no {action.name} module.",
                f"DKMS did not build it: {said}",
                f"Check that its headers are installed (linux-headers-{release}), and DKMS's log: "
                f"/var/lib/dkms/{action.name}/*/build/make.log. This step changed nothing else. Then: gpu-setup apply",
            )
