"""May the person use the card? /dev/kfd, render nodes, and groups that count from the next login on."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import DeviceNode, Host
from checks.model import Finding, Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import Seen, by_hand, command, error, info, unread
from checks.rules.session import as_root, groups, in_container, may_use, not_theirs, user


def _shown(node: DeviceNode) -> Seen:
    mode = "?" if node.mode is None else f"{node.mode & 0o7777:04o}"
    return node.path, f"mode {mode}, group {node.group_name or node.group}"


def _unknown(host: Host, device: str) -> Unknown:
    if as_root(host):
        return Unknown(f"Root may use {device} in any case. Run the doctor without sudo, as the user who trains.")
    return Unknown(f"Whether this session may use {device} is not known.")


def _groups(source: tuple[str, ...] | None) -> str:
    return ", ".join(source) if source is not None else "not known"


def _in_database_only(host: Host, group: str | None) -> bool:
    """A fresh login would have the group, this session does not."""
    person = host.person
    return bool(group) and group in (person.database_groups or ()) and group not in (person.groups or ())


def _let_in(host: Host, node: DeviceNode) -> Fix:
    name = user(host) or "$USER"
    if in_container(host):
        return by_hand(
            f"Start the container with --device={node.path} and --group-add {node.group} (the host's number)."
        )
    if _in_database_only(host, node.group_name):
        return by_hand(f"{name} is in {node.group_name} already: log out and in again.", relogin=True)
    return command(
        f"Put {name} into the groups render and video, then log in again.",
        *("usermod", "-aG", "render,video", name),
        sudo=True,
        relogin=True,
        verify=("id", "-nG", name),
    )


@check(
    "rocm.kfd-access",
    "This session may use /dev/kfd",
    about="ROCm computes through /dev/kfd. Decided by access(2) for the user who asks, not by group lists and not "
    "for root; /dev/kfd has no `uaccess`, so being at the desktop does not help. Without access: `Unable to open "
    "/dev/kfd read-write: Permission denied`.",
    by_hand="`sudo usermod -aG render,video $USER`, then log out and in (for a service restart it). In a "
    "container: `--device=/dev/kfd --group-add $(getent group render | cut -d: -f3)`.",
    needs=(needs.AMD_CARD,),
    causes=("rocm.render-group", "driver.bound", "kernel.firmware", "kernel.amdgpu-floor"),
)
def kfd_access(host: Host, catalogue: Catalogue) -> Verdict:
    node = host.amd.kfd
    if node is None:
        if any("/dev/kfd" in gap.source for gap in host.unread):
            return unread(host, "Whether this session may use /dev/kfd", ("/dev/kfd",), "Make /dev readable.")
        if not host.amd.loaded and not in_container(host):
            return Skip("amdgpu is not loaded, so there is no /dev/kfd: see driver.bound.")
        return (
            error(
                "/dev/kfd",
                "/dev/kfd is missing.",
                "ROCm computes through it; without it PyTorch finds no GPU.",
                [("/dev/kfd", "absent"), ("/proc/modules", f"amdgpu {'loaded' if host.amd.loaded else 'not loaded'}")],
                by_hand("Start the container with --device=/dev/kfd --device=/dev/dri.")
                if in_container(host)
                else by_hand("Read what amdgpu said: sudo journalctl -k -b | grep -iE 'amdgpu|kfd'."),
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
            f"{user(host) or 'This user'} may not use {node.path}.",
            "ROCm cannot open it, so PyTorch finds no GPU. As root it works, which misleads.",
            [_shown(node), ("groups", _groups(groups(host)))],
            _let_in(host, node),
        ),
    )


@check(
    "rocm.render-access",
    "This session may use the card's render node",
    about="ROCm allocates memory through /dev/dri/renderD*. The desktop's user gets access by `uaccess`, the same "
    "user over SSH or in a service does not. Decided by access(2) for the node that belongs to the card.",
    by_hand="`sudo usermod -aG render,video $USER`, then log out and in.",
    needs=(needs.AMD_CARD,),
    causes=("rocm.render-group", "driver.bound"),
)
def render_access(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    if host.amd.render is None:
        return unread(host, "Which render nodes there are", ("/dev/dri",), "Make /dev/dri readable.")
    findings: list[Finding] = []
    known: list[str] = []
    unknown: list[str] = []
    for card in ours:
        node = next((row for row in host.amd.render if cards.place(row.slot) == cards.place(card.slot)), None)
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
                    f"{user(host) or 'This user'} may not use {node.path}.",
                    "ROCm cannot allocate the card's memory without it.",
                    [_shown(node), ("groups", _groups(groups(host)))],
                    _let_in(host, node),
                )
            )
    if findings:
        return tuple(findings)
    if unknown:
        return _unknown(host, ", ".join(unknown))
    if not known:
        return Skip("The card has no render node while its driver is not bound: see driver.bound.")
    return Ok(f"{user(host) or 'This user'} can open {', '.join(known)}.")


@check(
    "rocm.render-group",
    "This session has the groups that its user has",
    about="A group added with usermod counts from the next login on. A session that is older, or a tmux server, "
    "IDE or service started before, lacks it although `id USER` shows it. Reported only where access is in fact "
    "denied.",
    by_hand="Log out of the desktop or SSH session and in again (for tmux: `tmux kill-server`); as a stopgap "
    "`newgrp render`. For services: `sudo systemctl restart user@$(id -u)`.",
    needs=(needs.AMD_CARD,),
)
def render_group(host: Host, catalogue: Catalogue) -> Verdict:
    if (unseen := not_theirs(host, "The session")) is not None:
        return unseen
    denied = [node for node in (host.amd.kfd, *(host.amd.render or ())) if node is not None and node.usable is False]
    if not denied:
        return Ok("No device of the card is denied to this session.")
    if host.person.groups is None or host.person.database_groups is None:
        return Unknown("The groups of this session or of its user are not known: /etc/group cannot be read.")
    missing = dict.fromkeys(n.group_name for n in denied if n.group_name and _in_database_only(host, n.group_name))
    if not missing:
        return Ok("The session's groups are those of its user.")
    names = ", ".join(missing)
    return (
        error(
            host.person.user or "this user",
            f"{host.person.user} is in {names}, but this session is older than that.",
            "Groups are given at login; this session cannot use the card until the next one.",
            [
                ("/etc/group", _groups(host.person.database_groups)),
                ("groups of this session", _groups(host.person.groups)),
            ],
            by_hand(
                "Log out and in again; end tmux servers and editors that stay.", relogin=True, verify=("id", "-nG")
            ),
        ),
    )


@check(
    "rocm.open-to-all",
    "The card is not open to every account",
    about="A udev rule with mode 0666 lets every local account, services included, use the card and read its "
    "memory. AMD documents it as a short cut; groups do the same without that. Only said.",
    by_hand='Remove MODE="0666" from the rules in /etc/udev/rules.d, run `sudo udevadm control --reload` and '
    "`sudo udevadm trigger`, and use the groups render and video.",
    needs=(needs.AMD_CARD,),
)
def open_to_all(host: Host, catalogue: Catalogue) -> Verdict:
    node = host.amd.kfd
    if node is None or node.mode is None:
        return Skip("There is no /dev/kfd to look at.")
    if not node.mode & 0o002:
        return Ok("/dev/kfd is open to its group only.")
    return (
        info(
            node.path,
            "Every local account may use the card.",
            "Whoever can open /dev/kfd can start work on the card and may read what others left in its memory.",
            [_shown(node)],
            by_hand(
                "On a machine with several users take groups instead: gpu-setup doctor --explain rocm.open-to-all."
            ),
        ),
    )
