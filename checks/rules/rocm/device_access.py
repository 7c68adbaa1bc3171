"""Whether the user has permission for the card: /dev/kfd, render nodes, and groups."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import DeviceNode, Host
from checks.model import Finding, Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import Seen, by_hand, cannot_determine, command, error, info
from checks.rules.session import as_root, groups, hidden_by_sudo, in_container, may_use, user

# the group that the kernel shows for one that a user namespace does not map (/proc/sys/kernel/overflowgid)
OVERFLOW = 65534
_PROXMOX = (
    "On the host, pass {0} with a group that this container has: Proxmox `pct set ID -dev0 {0},gid=GID` (GID: the "
    "group render in here), Incus and LXD a `unix-char` device with `gid`."
)


def _permissions(node: DeviceNode) -> Seen:
    mode = "?" if node.mode is None else f"{node.mode & 0o7777:04o}"
    return node.path, f"mode {mode}, group {node.group_name or node.group}"


def _unknown(host: Host, device: str) -> Unknown:
    if as_root(host):
        return Unknown(f"Root can always open {device}. Run the doctor without sudo, as the user who trains.")
    return Unknown(f"Cannot determine whether this session can open {device}.")


def _groups(source: tuple[str, ...] | None) -> str:
    return ", ".join(source) if source is not None else "not known"


def _in_database_only(host: Host, group: str | None) -> bool:
    """A new login would have the group, this session does not."""
    person = host.person
    return bool(group) and group in (person.database_groups or ()) and group not in (person.groups or ())


def _lacks_permission(host: Host, node: DeviceNode) -> str:
    name, group = user(host) or "This user", node.group_name
    if node.group == OVERFLOW and in_container(host):
        return f"{name} lacks permission for {node.path}: its group on the host is not mapped into this container."
    outside = group and group not in (groups(host) or ())
    return f"{name} lacks permission for {node.path}" + (f" (not in group {group})." if outside else ".")


def _from_the_host(host: Host, node: DeviceNode) -> str:
    """What whoever starts this container must do."""
    kind = host.os.virtualisation or ""
    if kind.startswith("lxc"):
        return _PROXMOX.format(node.path)
    if node.group == OVERFLOW:
        return (
            "On the host, be a member of the node's group (`ls -l /dev/kfd /dev/dri`), and start the container with "
            "podman, `--group-add keep-groups` (needs crun) and `--device=/dev/kfd --device=/dev/dri`. Rootless Docker "
            "cannot do this: use podman or the system's Docker. (distrobox: `--additional-flags`.)"
        )
    if str(node.group) in (host.person.groups or ()) or node.group_name in (host.person.groups or ()):
        return (
            "The session has the node's group, so the host refuses it otherwise: pass "
            f"--device={node.path}; with SELinux (Fedora) run `sudo setsebool -P container_use_devices on` on the host."
        )
    return f"Start the container with --device={node.path} and --group-add {node.group} (the host's number)."


def _grant_access(host: Host, node: DeviceNode) -> Fix:
    name = user(host) or "$USER"
    if in_container(host):
        return by_hand(_from_the_host(host, node))
    if _in_database_only(host, node.group_name):
        return by_hand(f"{name} is already in {node.group_name}: log out and log in again.", relogin=True)
    if {"render", "video"} <= set(host.person.database_groups or ()):
        return by_hand(
            f"{name} is in render and video, which {node.path} does not let in: it should belong to render with mode "
            "0660. Look for a rule about it in /etc/udev/rules.d, then run `sudo udevadm control --reload` and `sudo "
            "udevadm trigger`."
        )
    return command(
        f"Add {name} to the groups render and video, then log in again.",
        *("usermod", "-aG", "render,video", name),
        sudo=True,
        relogin=True,
        verify=("id", "-nG", name),
    )


@check(
    "rocm.kfd-access",
    "This session can open /dev/kfd",
    about="ROCm computes through /dev/kfd. Decided by access(2) for the user who runs the doctor, not by group lists "
    "and not for root. Being logged in at the desktop does not help, because udev grants no `uaccess` to /dev/kfd. "
    "Without access: `Unable to open /dev/kfd read-write: Permission denied`.",
    by_hand="Run `sudo usermod -aG render,video $USER`, then log out and log in again (for a service, restart it). In "
    "a container: `--device=/dev/kfd --group-add $(getent group render | cut -d: -f3)`.",
    needs=(needs.AMD_CARD,),
    causes=("rocm.render-group", "driver.bound", "kernel.firmware", "kernel.amdgpu-floor"),
)
def kfd_access(host: Host, catalogue: Catalogue) -> Verdict:
    node = host.amd.kfd
    if node is None:
        if any("/dev/kfd" in gap.source for gap in host.unread):
            return cannot_determine(
                host, "whether this session can open /dev/kfd", ("/dev/kfd",), "Make /dev readable."
            )
        if not host.amd.loaded and not in_container(host):
            return Skip("amdgpu is not loaded, so there is no /dev/kfd: see driver.bound.")
        return (
            error(
                "/dev/kfd",
                "/dev/kfd is missing.",
                "ROCm computes through it; without it PyTorch finds no GPU.",
                [("/dev/kfd", "missing"), ("/proc/modules", f"amdgpu {'loaded' if host.amd.loaded else 'not loaded'}")],
                by_hand(
                    _PROXMOX.format("/dev/kfd")
                    if (host.os.virtualisation or "").startswith("lxc")
                    else "Start the container with --device=/dev/kfd --device=/dev/dri."
                )
                if in_container(host)
                else by_hand("Read amdgpu's messages: sudo journalctl -k -b | grep -iE 'amdgpu|kfd'."),
            ),
        )
    usable = may_use(host, node, uaccess=False)
    if usable is None:
        return _unknown(host, "/dev/kfd")
    if usable:
        return Ok(f"{user(host) or 'This user'} can open /dev/kfd.")
    return (
        error(
            node.path,
            _lacks_permission(host, node),
            "ROCm cannot open it, so PyTorch finds no GPU."
            + ("" if in_container(host) else " It works as root, so the cause is easy to miss."),
            [_permissions(node), ("groups", _groups(groups(host)))],
            _grant_access(host, node),
        ),
    )


@check(
    "rocm.render-access",
    "This session can open the card's render node",
    about="ROCm allocates memory through /dev/dri/renderD*. The user at the desktop gets access through `uaccess`; the "
    "same user over SSH or in a service does not. Decided by access(2) for the render node of the card.",
    by_hand="Run `sudo usermod -aG render,video $USER`, then log out and log in again.",
    needs=(needs.AMD_CARD,),
    causes=("rocm.render-group", "driver.bound"),
)
def render_access(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    if host.amd.render is None:
        return cannot_determine(host, "which render nodes exist", ("/dev/dri",), "Make /dev/dri readable.")
    findings: list[Finding] = []
    known: list[str] = []
    unknown: list[str] = []
    for card in ours:
        node = next(
            (row for row in host.amd.render if cards.bus_address(row.slot) == cards.bus_address(card.slot)), None
        )
        if node is None:
            continue
        usable = may_use(host, node, uaccess=True)
        if usable is None:
            unknown.append(node.path)
            continue
        known.append(node.path)
        if not usable:
            findings.append(
                error(
                    f"{node.path} of {cards.subject(card, catalogue)}",
                    _lacks_permission(host, node),
                    "ROCm cannot allocate the card's memory without it.",
                    [_permissions(node), ("groups", _groups(groups(host)))],
                    _grant_access(host, node),
                )
            )
    if findings:
        return tuple(findings)
    if unknown:
        return _unknown(host, ", ".join(unknown))
    if not known and in_container(host):
        return (
            error(
                "/dev/dri",
                "The card's render node is missing in this container.",
                "ROCm allocates the card's memory through it; without it PyTorch finds no GPU.",
                [("/dev/dri", ", ".join(row.path for row in host.amd.render) or "no render node")],
                by_hand(
                    _PROXMOX.format("/dev/dri/renderD128")
                    if (host.os.virtualisation or "").startswith("lxc")
                    else "Start the container with --device=/dev/kfd --device=/dev/dri."
                ),
            ),
        )
    if not known:
        return Skip("The card has no render node, because its driver is not bound: see driver.bound.")
    return Ok(f"{user(host) or 'This user'} can open {', '.join(known)}.")


@check(
    "rocm.render-group",
    "This session has all groups of its user",
    about="A group added with usermod takes effect at the next login. Older sessions, and tmux servers, IDEs or "
    "services that were started before, do not have it although `id USER` lists it. Reported only if access is "
    "actually denied.",
    by_hand="Log out of the desktop or SSH session and log in again (for tmux: `tmux kill-server`); `newgrp render` is "
    "a temporary workaround. For services: `sudo systemctl restart user@$(id -u)`.",
    needs=(needs.AMD_CARD,),
)
def render_group(host: Host, catalogue: Catalogue) -> Verdict:
    if (hidden := hidden_by_sudo(host, "The session")) is not None:
        return hidden
    denied = [node for node in (host.amd.kfd, *(host.amd.render or ())) if node is not None and node.usable is False]
    if not denied:
        return Ok("This session can open all device files of the card.")
    if host.person.groups is None or host.person.database_groups is None:
        return Unknown("Cannot determine the groups of this session or of its user: /etc/group cannot be read.")
    missing = dict.fromkeys(n.group_name for n in denied if n.group_name and _in_database_only(host, n.group_name))
    if not missing:
        return Ok("This session has all groups of its user.")
    names = ", ".join(missing)
    return (
        error(
            host.person.user or "this user",
            f"{host.person.user} is in {names}, but this session is older than that and does not have it.",
            "Groups take effect at login; this session cannot use the card until the user logs in again.",
            [
                ("/etc/group", _groups(host.person.database_groups)),
                ("groups of this session", _groups(host.person.groups)),
            ],
            by_hand(
                "Log out and log in again; stop tmux servers and editors that are still running.",
                relogin=True,
                verify=("id", "-nG"),
            ),
        ),
    )


@check(
    "rocm.open-to-all",
    "Not every local account can use the card",
    about="A udev rule with mode 0666 lets every local account, including services, use the card and read its memory. "
    "AMD documents it as a shortcut; groups give access without this risk. Informational only.",
    by_hand='Remove MODE="0666" from the rules in /etc/udev/rules.d, run `sudo udevadm control --reload` and '
    "`sudo udevadm trigger`, and use the groups render and video.",
    needs=(needs.AMD_CARD,),
)
def open_to_all(host: Host, catalogue: Catalogue) -> Verdict:
    node = host.amd.kfd
    if node is None or node.mode is None:
        return Skip("There is no /dev/kfd to check.")
    if not node.mode & 0o002:
        return Ok("Only members of its group can open /dev/kfd.")
    return (
        info(
            node.path,
            "Every local account can use the card.",
            "Anyone who can open /dev/kfd can run programs on the card and may read other users' data in its memory.",
            [_permissions(node)],
            by_hand(
                "On a machine with several users, use groups instead: gpu-setup doctor --explain rocm.open-to-all."
            ),
        ),
    )
