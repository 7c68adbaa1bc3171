"""Groups, services, kernel modules and the firmware's keys: how their state is read and changed."""

from __future__ import annotations

import time

from checks.facts.gaps import Gaps, exists
from checks.facts.kernel import read_kernel
from checks.facts.person import parse_group
from machine.errors import OutsideFailed
from machine.local import Unreadable
from provision.apply_context import ApplyContext
from provision.model import KernelModule, MokEnroll, Service, UserGroup
from provision.plan.container_engine import CDI_REFRESH
from provision.plan.driver import dkms
from provision.plan.driver.boot_guard import HOOK
from provision.system import apt, mok

DOCKER = "docker.service"
ON = ("enabled", "enabled-runtime", "static", "indirect", "generated", "alias", "linked")


def is_member(action: UserGroup, context: ApplyContext) -> bool:
    """Whether the group database has the person in all of these groups (when removing: in none of them)."""
    if action.change == "delete":
        return not set(action.groups) & set(group_names(context))
    there = set(memberships(action.user, context))
    return set(action.groups) <= there if action.change == "add" else not set(action.groups) & there


def memberships(user: str, context: ApplyContext) -> tuple[str, ...]:
    """Supplementary groups of the person, by /etc/group."""
    return tuple(name for name, _, members in _groups(context) if user in members)


def group_names(context: ApplyContext) -> tuple[str, ...]:
    return tuple(name for name, _, _ in _groups(context))


def is_unused_group(group: str, context: ApplyContext) -> bool:
    """A system group (GID below 1000) without members that is nobody's primary group."""
    row = next(((gid, members) for name, gid, members in _groups(context) if name == group), None)
    try:
        passwd = context.machine.read("/etc/passwd").decode("utf-8", "replace")
    except Unreadable:
        return False
    own = {line.split(":")[3] for line in passwd.splitlines() if line.count(":") >= 6}
    return row is not None and row[0] < 1000 and not row[1] and str(row[0]) not in own


def _groups(context: ApplyContext) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    try:
        return parse_group(context.machine.read("/etc/group").decode("utf-8", "replace"))
    except Unreadable:
        return ()


def change_groups(action: UserGroup, context: ApplyContext) -> None:
    there = set(memberships(action.user, context))
    if action.change == "add":
        missing = [name for name in action.groups if name not in there]
        commands: list[tuple[str, ...]] = [("usermod", "--append", "--groups", ",".join(missing), action.user)]
    elif action.change == "delete":
        commands = [("groupdel", name) for name in action.groups if name in group_names(context)]
    else:
        commands = [("gpasswd", "--delete", action.user, name) for name in action.groups if name in there]
    for argv in commands:
        _run(
            context,
            argv,
            "group.failed",
            "Check that the user and the groups exist (getent passwd, getent group).",
        )


def unit_state(unit: str, context: ApplyContext) -> str:
    """systemctl is-enabled: enabled, disabled, static, not-found …; empty when systemd could not be asked."""
    outcome = context.machine.run(("systemctl", "is-enabled", unit), timeout=20, env=apt.ENVIRONMENT)
    return outcome.stdout.strip().splitlines()[0] if outcome.stdout.strip() else ""


def is_active(unit: str, context: ApplyContext) -> bool:
    return context.machine.run(("systemctl", "is-active", "--quiet", unit), timeout=20, env=apt.ENVIRONMENT).ok


def is_service_ready(action: Service, context: ApplyContext) -> bool:
    """Whether the unit is as wanted. A reload has no state of its own; for Docker its runtimes show it."""
    if action.change == "enable":
        runs = not context.systemd or not _starts_at_once(action) or is_active(action.unit, context)
        return runs and unit_state(action.unit, context) in ON
    if action.change == "disable":
        return unit_state(action.unit, context) not in ("enabled", "enabled-runtime")
    if action.change == "stop":
        return not context.systemd or not is_active(action.unit, context)
    if not context.systemd:
        # nothing to reload: it reads its settings when it starts
        return True
    if action.unit == CDI_REFRESH:
        return _cdi_has_no_groups(context)
    return action.unit == DOCKER and _docker_has_runtimes(context)


def _starts_at_once(action: Service) -> bool:
    """Path units only watch files, so they start at once; units for hardware start with the reboot."""
    return action.unit.endswith(".path")


def _cdi_has_no_groups(context: ApplyContext) -> bool:
    """Whether NVIDIA's toolkit wrote its description without the field that older engines refuse."""
    try:
        return b"additionalGids" not in context.machine.read("/run/cdi/nvidia.yaml")
    except Unreadable:
        return False


def _docker_has_runtimes(context: ApplyContext) -> bool:
    import msgspec

    try:
        settings = msgspec.json.decode(context.machine.read("/etc/docker/daemon.json"))
        wanted = set(settings.get("runtimes", {})) if isinstance(settings, dict) else set()
    except (Unreadable, msgspec.MsgspecError):
        wanted = set()
    outcome = context.machine.run(("docker", "info", "--format", "{{json .Runtimes}}"), timeout=20)
    if not outcome.ok:
        return False
    try:
        known = msgspec.json.decode(outcome.stdout.strip().encode() or b"{}")
    except msgspec.MsgspecError:
        return False
    return isinstance(known, dict) and wanted <= set(known)


def change_service(action: Service, context: ApplyContext) -> None:
    unit, change = action.unit, action.change
    again = f"Find out why: systemctl status {unit}; journalctl -u {unit} -e"
    if change in ("reload", "restart"):
        if not context.systemd:
            return
        if unit == CDI_REFRESH:
            # its settings changed a step earlier
            _run(context, ("systemctl", "daemon-reload"), "service.failed", again)
        verb = change if is_active(unit, context) else "start"
        _run(context, ("systemctl", verb, unit), "service.failed", again)
        for _ in range(40):
            if unit != DOCKER or _docker_has_runtimes(context):
                return
            time.sleep(0.25)
        raise OutsideFailed(
            "service.deaf", f"{context.title}: Docker does not have its new runtime.", "Docker was reloaded and did "
            "not use its new settings within 10 seconds.", again,
        )  # fmt: skip
    if change == "enable" and unit_state(unit, context) in ("", "not-found"):
        _run(context, ("systemctl", "daemon-reload"), "service.failed", again) if context.systemd else None
    if change == "enable":
        if unit_state(unit, context) not in ON:
            _run(context, ("systemctl", "enable", unit), "service.failed", again)
        if context.systemd and _starts_at_once(action):
            _run(context, ("systemctl", "start", unit), "service.failed", again)
    elif change == "disable":
        _run(context, ("systemctl", "disable", unit), "service.failed", again)
    elif change == "stop" and context.systemd:
        _run(context, ("systemctl", "stop", unit), "service.failed", again)


def is_module_ready(action: KernelModule, context: ApplyContext) -> bool:
    """`build`: the next kernel has the module; `choose`: the newest kernel is the default if it has the module."""
    if action.change == "build":
        return not dkms.kernels_without_module(action, context)
    return action.change == "choose" and _is_newest_kernel_allowed(action, context)


def _is_newest_kernel_allowed(action: KernelModule, context: ApplyContext) -> bool:
    """Whether no older kernel is kept as the default although the newest one has its module."""
    if not exists(context.machine, action.file):
        return True
    kernel = read_kernel(context.machine, Gaps())
    newest = kernel.installed[-1] if kernel.installed else None
    return newest not in {file.kernel for file in kernel.modules or () if file.name == action.name}


def change_module(action: KernelModule, context: ApplyContext) -> None:
    if action.change == "build":
        dkms.build_module(action, context)
    elif action.change == "choose":
        for argv in ((HOOK,), ("update-grub",)):
            _run(context, argv, "kernel.choice", f"Check {action.file}; sudo update-grub")
    else:
        raise AssertionError(f"{action.change} is done by a person")


def is_enrolled(action: MokEnroll, context: ApplyContext) -> bool:
    return mok.read_mok_key(context.machine, action.certificate, action.module).enrolled


def _run(context: ApplyContext, argv: tuple[str, ...], code: str, next: str) -> None:
    outcome = context.machine.run(argv, timeout=120, env=apt.ENVIRONMENT)
    if not outcome.ok:
        said = (outcome.stderr or outcome.stdout or outcome.problem).strip()
        why = f"{' '.join(argv)}: {said[-300:] or f'exit status {outcome.rc}'}"
        raise OutsideFailed(code, f"{context.title}: {argv[0]} failed.", why, next)
