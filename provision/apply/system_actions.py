"""Groups, services and the firmware's keys: asked, changed, asked again."""

from __future__ import annotations

import time

from checks.facts.gaps import Gaps, exists
from checks.facts.kernel import read_kernel
from checks.facts.person import parse_group
from machine.errors import OutsideFailed
from machine.local import Unreadable
from provision.apply_context import Site
from provision.model import KernelModule, MokEnroll, Service, UserGroup
from provision.plan.boot_guard import HOOK
from provision.system import apt, mok

DOCKER = "docker.service"
ON = ("enabled", "enabled-runtime", "static", "indirect", "generated", "alias", "linked")


def member(action: UserGroup, site: Site) -> bool:
    """Whether the group database has the person in all of these groups (or, on the way back, in none of them)."""
    if action.change == "delete":
        return not set(action.groups) & set(group_names(site))
    there = set(memberships(action.user, site))
    return set(action.groups) <= there if action.change == "add" else not set(action.groups) & there


def memberships(user: str, site: Site) -> tuple[str, ...]:
    """Supplementary groups of the person, by /etc/group."""
    return tuple(name for name, _, members in _groups(site) if user in members)


def group_names(site: Site) -> tuple[str, ...]:
    return tuple(name for name, _, _ in _groups(site))


def unused(group: str, site: Site) -> bool:
    """A system's group (below 1000) without members, and nobody's own."""
    row = next(((gid, members) for name, gid, members in _groups(site) if name == group), None)
    try:
        passwd = site.machine.read("/etc/passwd").decode("utf-8", "replace")
    except Unreadable:
        return False
    own = {line.split(":")[3] for line in passwd.splitlines() if line.count(":") >= 6}
    return row is not None and row[0] < 1000 and not row[1] and str(row[0]) not in own


def _groups(site: Site) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    try:
        return parse_group(site.machine.read("/etc/group").decode("utf-8", "replace"))
    except Unreadable:
        return ()


def change_groups(action: UserGroup, site: Site, title: str) -> None:
    there = set(memberships(action.user, site))
    if action.change == "add":
        missing = [name for name in action.groups if name not in there]
        commands: list[tuple[str, ...]] = [("usermod", "--append", "--groups", ",".join(missing), action.user)]
    elif action.change == "delete":
        commands = [("groupdel", name) for name in action.groups if name in group_names(site)]
    else:
        commands = [("gpasswd", "--delete", action.user, name) for name in action.groups if name in there]
    for argv in commands:
        _run(site, argv, title, "group.failed", "See that the user and the groups exist (getent passwd, getent group).")


def enabled(unit: str, site: Site) -> str:
    """systemctl is-enabled: enabled, disabled, static, not-found …; empty when systemd could not be asked."""
    outcome = site.machine.run(("systemctl", "is-enabled", unit), timeout=20, env=apt.ENVIRONMENT)
    return outcome.stdout.strip().splitlines()[0] if outcome.stdout.strip() else ""


def active(unit: str, site: Site) -> bool:
    return site.machine.run(("systemctl", "is-active", "--quiet", unit), timeout=20, env=apt.ENVIRONMENT).ok


def served(action: Service, site: Site) -> bool:
    """Whether the unit is as wanted. A reload has no state of its own: for Docker its runtimes tell."""
    if action.change == "enable":
        runs = not site.systemd or not _started(action) or active(action.unit, site)
        return runs and enabled(action.unit, site) in ON
    if action.change == "disable":
        return enabled(action.unit, site) not in ("enabled", "enabled-runtime")
    if action.change == "stop":
        return not site.systemd or not active(action.unit, site)
    if not site.systemd:
        # nobody to tell: what it reads is read when it starts
        return True
    return action.unit == DOCKER and _docker_knows(site)


def _started(action: Service) -> bool:
    """Path units only watch, so they are started at once; what drives hardware waits for the restart."""
    return action.unit.endswith(".path")


def _docker_knows(site: Site) -> bool:
    import msgspec

    try:
        settings = msgspec.json.decode(site.machine.read("/etc/docker/daemon.json"))
        wanted = set(settings.get("runtimes", {})) if isinstance(settings, dict) else set()
    except (Unreadable, msgspec.MsgspecError):
        wanted = set()
    outcome = site.machine.run(("docker", "info", "--format", "{{json .Runtimes}}"), timeout=20)
    if not outcome.ok:
        return False
    try:
        known = msgspec.json.decode(outcome.stdout.strip().encode() or b"{}")
    except msgspec.MsgspecError:
        return False
    return isinstance(known, dict) and wanted <= set(known)


def serve(action: Service, site: Site, title: str) -> None:
    unit, change = action.unit, action.change
    again = f"See why: systemctl status {unit}; journalctl -u {unit} -e"
    if change in ("reload", "restart"):
        if not site.systemd:
            return
        verb = change if active(unit, site) else "start"
        _run(site, ("systemctl", verb, unit), title, "service.failed", again)
        for _ in range(40):
            if unit != DOCKER or _docker_knows(site):
                return
            time.sleep(0.25)
        raise OutsideFailed(
            "service.deaf", f"{title.rstrip('.')}: docker does not know its new runtime.", "It was told to read its "
            "settings again and has not taken them over within 10 seconds.", again,
        )  # fmt: skip
    if change == "enable" and enabled(unit, site) in ("", "not-found"):
        _run(site, ("systemctl", "daemon-reload"), title, "service.failed", again) if site.systemd else None
    if change == "enable":
        if enabled(unit, site) not in ON:
            _run(site, ("systemctl", "enable", unit), title, "service.failed", again)
        if site.systemd and _started(action):
            _run(site, ("systemctl", "start", unit), title, "service.failed", again)
    elif change == "disable":
        _run(site, ("systemctl", "disable", unit), title, "service.failed", again)
    elif change == "stop" and site.systemd:
        _run(site, ("systemctl", "stop", unit), title, "service.failed", again)


def chosen(action: KernelModule, site: Site) -> bool:
    """Whether no older kernel is kept as the default although the newest one has its module."""
    if not exists(site.machine, action.file):
        return True
    kernel = read_kernel(site.machine, Gaps())
    newest = kernel.installed[-1] if kernel.installed else None
    return newest not in {file.kernel for file in kernel.modules or () if file.name == action.name}


def choose(action: KernelModule, site: Site, title: str) -> None:
    for argv in ((HOOK,), ("update-grub",)):
        _run(site, argv, title, "kernel.choice", f"Look at {action.file}; sudo update-grub")


def enrolled(action: MokEnroll, site: Site) -> bool:
    return mok.ask(site.machine, action.certificate, action.module).enrolled


def _run(site: Site, argv: tuple[str, ...], title: str, code: str, next: str) -> None:
    outcome = site.machine.run(argv, timeout=120, env=apt.ENVIRONMENT)
    if not outcome.ok:
        said = (outcome.stderr or outcome.stdout or outcome.problem).strip()
        why = f"{' '.join(argv)}: {said[-300:] or f'ended with {outcome.rc}'}"
        raise OutsideFailed(code, f"{title.rstrip('.')}: {argv[0]} failed.", why, next)
