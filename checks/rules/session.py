"""Whose session is checked: under sudo the doctor must not report root's permissions and variables as the user's."""

from __future__ import annotations

from checks.facts.host import DeviceNode, Host
from checks.model import Unknown

_CONTAINERS = ("docker", "podman", "lxc", "container", "systemd-nspawn", "oci")


def in_container(host: Host) -> bool:
    return (host.os.virtualisation or "").startswith(_CONTAINERS)


def as_root(host: Host) -> bool:
    """Whether the doctor runs as root on a machine. (In a container root is the user who trains.)"""
    return host.person.uid == 0 and not in_container(host)


def user(host: Host) -> str | None:
    """The user who trains: under sudo, the user who called sudo."""
    return host.person.sudo_user if as_root(host) else host.person.user


def groups(host: Host) -> tuple[str, ...] | None:
    """The groups that count: this session's, or under sudo those of a new login of the user who called sudo."""
    return host.person.sudo_groups if as_root(host) else host.person.groups


def may_use(host: Host, node: DeviceNode, uaccess: bool) -> bool | None:
    """Whether the user may open this device; None: not known.

    access(2) answers for the current session. Root may use everything, so under root the node's mode and the caller's
    groups decide; with `uaccess`, udev may allow more to the user who is logged in at the desktop.
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


def hidden_by_sudo(host: Host, what: str) -> Unknown | None:
    """Unknown where the doctor would see root's own `what` instead of the user's; None where it sees the user's."""
    if not (as_root(host) and host.person.sudo_user):
        return None
    return Unknown(f"{what} of {host.person.sudo_user} cannot be seen under sudo. Run the doctor without sudo.")
