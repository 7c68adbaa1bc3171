"""Upgrades kernel and driver together: in one transaction, and only when the next kernel has its module."""

from __future__ import annotations

import re

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.facts.kernel import version_key
from machine.errors import Refused
from machine.local import LocalMachine, Machine
from provision.model import AptInstall, Plan, Refusal, State, Step, WantedPackage, seal
from provision.plan.comparison import with_answers
from provision.plan.driver.boot_guard import choice_step, guard_step
from provision.plan.driver.driver_set import members
from provision.plan.driver.installed_driver import installed_driver
from provision.plan.driver.kernels import flavours
from provision.plan.driver.nvidia import FORBIDDEN
from provision.plan.package_steps import PRESENT, names, reboot_step, with_repair
from provision.plan.planner import host_digest, host_facts
from provision.resolve.apt_sandbox import UnknownPackages, open_sandbox
from provision.resolve.resolver import next_kernel, with_versions
from provision.system.apt_simulation import AptChange
from provision.target import DriverSource, PlanTarget

_RELEASE = re.compile(r"-[0-9]+\.[0-9]+\.[0-9]+-[0-9]+-")
_META = re.compile(r"linux-modules-nvidia-([0-9]{3}(?:-server)?(?:-open)?)-[a-z].*")


def plan_update(host: Host, catalogue: Catalogue, machine: Machine) -> Plan:
    """The upgrade of kernel and driver to what the archive has now; refused while the new kernel has no module.

    Only on the machine itself, because only its apt knows what is newer. Raises Refused elsewhere.
    """
    if not isinstance(machine, LocalMachine):
        raise Refused("update.elsewhere", "Only apt on the machine itself knows what is newer.")
    if repair := with_repair(host, ()):
        return _new_plan(host, repair, (), None, ("Kernel and driver are checked once dpkg is repaired.",))
    wanted = installed_set(host, catalogue)
    if not wanted:
        return _new_plan(host, (), (), 0, ("No kernel package and no driver package is installed: nothing to update.",))
    with open_sandbox(machine, (), (), ()) as sandbox:
        if problem := sandbox.update():
            raise problem
        action = _update_action(host, catalogue, wanted)
        try:
            change = sandbox.simulate(("install", *(name for name, _ in wanted)))
        except UnknownPackages as error:
            raise Refused("update.unknown", f"apt no longer has {error}.", "", "gpu-setup doctor") from error
        size = sandbox.size(("install", *(name for name, _ in wanted)))
        notes = tuple(sandbox.notes)
    if refusal := missing_module(host, action, change):
        return _new_plan(host, (), (refusal,), 0, notes)
    return _new_plan(host, _steps(action, change), (), size, notes)


def installed_set(host: Host, catalogue: Catalogue) -> tuple[tuple[str, str], ...]:
    """(name, version) of the installed kernel meta packages and of all packages that must match them: NVIDIA's driver
    packages, AMD's DKMS driver.
    """
    metas = {
        name
        for flavour in flavours(host, catalogue)
        for key in ("kernel.image", "kernel.headers")
        for name in names(catalogue, key, flavour=flavour)
    } | {f"linux-{flavour}" for flavour in flavours(host, catalogue)}
    metas |= {name for key in ("amdgpu.dkms", "amdgpu.dkms.firmware") for name in names(catalogue, key)}
    metas |= {package.name for package in members(host, catalogue)}
    return tuple(
        (package.name, package.version)
        for package in host.apt.packages or ()
        if package.state in PRESENT and package.name in metas and not _RELEASE.search(package.name)
    )


def missing_module(host: Host, action: AptInstall, change: AptChange) -> Refusal | None:
    """The refusal if the next kernel would have no module; None if it would have one."""
    if slipped := change.matching(action.forbid):
        why = f"apt would build the module here ({', '.join(slipped)}), because the archive has no prebuilt one."
        return _refuse_for_now(host, why)
    meta = next((match for wanted in action.packages if (match := _META.fullmatch(wanted.name))), None)
    # also a kernel that is already installed, and that the next-boot guard does not boot
    coming = (next_kernel(host, change), *(host.kernel.installed or ()))
    upcoming = max(filter(None, coming), key=version_key, default=None)
    if meta is None or upcoming is None:
        return None
    module = f"linux-modules-nvidia-{meta[1]}-{upcoming}"
    here = {package.name for package in host.apt.packages or () if package.state in PRESENT}
    if change.version(module) is not None or module in here:
        return None
    return _refuse_for_now(host, f"The kernel {upcoming} would have no module: {module} is not in the archive yet.")


def _refuse_for_now(host: Host, why: str) -> Refusal:
    return Refusal(
        code="update.no-module",
        what="Kernel and driver are not updated now.",
        why=why,
        next=f"The kernel {host.kernel.release or 'that runs'} and its driver are kept; try again in some days.",
    )


def _has_dkms_driver(host: Host) -> bool:
    return any(
        package.name.startswith("nvidia-dkms-") and package.state in PRESENT for package in host.apt.packages or ()
    )


def _steps(action: AptInstall, change: AptChange) -> tuple[Step, ...]:
    if change.empty:
        return (
            Step(
                id="update",
                title="Kernel and driver",
                action=action,
                state=State.DONE,
                because="The archive has nothing newer.",
            ),
        )
    whole = with_versions(action, change)
    assert isinstance(whole, AptInstall)
    return _open_steps(whole)


def _update_action(host: Host, catalogue: Catalogue, wanted: tuple[tuple[str, str], ...]) -> AptInstall:
    action = AptInstall(packages=tuple(WantedPackage(name=n, installed=v) for n, v in wanted), upgrade=True)
    if installed_driver(host, catalogue).source is not DriverSource.ARCHIVE or _has_dkms_driver(host):
        return action
    forbid = tuple(name for key in FORBIDDEN for name in catalogue.package(key).fill(branch="*"))
    return msgspec.structs.replace(action, forbid=forbid)


def plan_requested_update(host: Host, catalogue: Catalogue, given: Plan) -> Plan:
    """The update of this machine, with what apt answered to the given plan; asks nothing."""
    if repair := with_repair(host, ()):
        return _new_plan(host, repair, (), None, ())
    action = _update_action(host, catalogue, installed_set(host, catalogue))
    asked = next((step.action for step in given.steps if step.id == "update"), None)
    whole = with_answers(action, asked)
    assert isinstance(whole, AptInstall)
    return _new_plan(host, _open_steps(whole), (), None, ())


def _open_steps(action: AptInstall) -> tuple[Step, ...]:
    """`action`: with apt's answers."""
    changed = sum(wanted.version != wanted.installed for wanted in (*action.packages, *action.brings))
    step = Step(
        id="update",
        title=f"Upgrade kernel and driver in one transaction ({changed} packages)",
        action=action,
        state=State.TODO,
        because="The next kernel has its module. A kernel or a driver alone would leave the machine without its GPU.",
        commands=(("apt-get", "install", "--yes", *(wanted.name for wanted in action.packages)),),
        undo="installs the old package files again, which are kept; the older kernel is kept in GRUB's menu",
    )
    module = "nvidia" if any("nvidia" in wanted.name for wanted in action.packages) else "amdgpu"
    restart = reboot_step("The new kernel and its driver are used from the next boot.")
    return (guard_step(module), step, choice_step(module), restart)


def _new_plan(
    host: Host, steps: tuple[Step, ...], refusals: tuple[Refusal, ...], size: int | None, notes: tuple[str, ...]
) -> Plan:
    return seal(
        Plan(
            machine=host.machine,
            vendor=None,
            target=PlanTarget(),
            steps=steps,
            reboots=sum(step.id == "reboot" for step in steps),
            download_bytes=size,
            download_note="" if size is not None else "Not known yet.",
            refusals=refusals,
            notes=notes,
            host_digest=host_digest(host),
            facts=host_facts(host),
        )
    )
