"""Whose session is judged: a doctor that runs as root must not take root's rights and variables for the person's."""

from __future__ import annotations

from checks.facts.host import DeviceNode, Host
from checks.model import Unknown

_CONTAINERS = ("docker", "podman", "lxc", "container", "systemd-nspawn", "oci")


def in_container(host: Host) -> bool:
    return (host.os.virtualisation or "").startswith(_CONTAINERS)


def as_root(host: Host) -> bool:
    """Root on a machine (in a container root is who trains)."""
    return host.person.uid == 0 and not in_container(host)


def user(host: Host) -> str | None:
    """Who trains: under sudo the person who called it."""
    return host.person.sudo_user if as_root(host) else host.person.user


def groups(host: Host) -> tuple[str, ...] | None:
    """The groups that count: of this session, or under sudo of a fresh login of the person who called it."""
    return host.person.sudo_groups if as_root(host) else host.person.groups


def may_use(host: Host, node: DeviceNode, uaccess: bool) -> bool | None:
    """Whether the person may use this device; None: not known.

    access(2) says it for the session that asks. Root may use everything, so as root the node's mode and the caller's
    groups decide; with `uaccess` udev may give more than these say to whoever sits at the desktop.
    """
    if not as_root(host):
        return node.usable
    if node.mode is None:
        return None
    if node.mode & 0o006 == 0o006:
        return True
    if not host.person.sudo_user or host.person.sudo_groups is None or node.group_name is None:
        return None
    member = node.mode & 0o060 == 0o060 and node.group_name in host.person.sudo_groups
    return True if member else None if uaccess else False


def not_theirs(host: Host, what: str) -> Unknown | None:
    """The verdict where root would look at its own environment instead of the person's; None where it is theirs."""
    if not (as_root(host) and host.person.sudo_user):
        return None
    return Unknown(f"{what} of {host.person.sudo_user} cannot be seen under sudo. Run the doctor without sudo.")
