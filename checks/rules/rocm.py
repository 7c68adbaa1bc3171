"""ROCm on the host: may this session use the card, and is there one ROCm only?"""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import DeviceNode, Host
from checks.model import Finding, Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards
from checks.rules.finding import Seen, by_hand, command, error, info, unread, warning
from checks.rules.installed import packages

# packages that only Ubuntu's own archive has; AMD's repositories call theirs differently
_UBUNTUS = ("libhsa-runtime64-1", "libamdhip64-5", "libamdhip64-6", "libhiprtc-builtins5", "librocblas0", "libhipblas0")
_CONTAINERS = ("docker", "podman", "lxc", "container", "systemd-nspawn", "oci")


def _in_container(host: Host) -> bool:
    return (host.os.virtualisation or "").startswith(_CONTAINERS)


def _shown(node: DeviceNode) -> Seen:
    mode = "?" if node.mode is None else f"{node.mode & 0o7777:04o}"
    return node.path, f"mode {mode}, group {node.group_name or node.group}"


def _groups(host: Host, source: tuple[str, ...] | None) -> str:
    return ", ".join(source) if source is not None else "not known"


def _in_database_only(host: Host, group: str | None) -> bool:
    """A fresh login would have the group, this session does not."""
    person = host.person
    return bool(group) and group in (person.database_groups or ()) and group not in (person.groups or ())


def _let_in(host: Host, node: DeviceNode) -> Fix:
    user = host.person.user or "$USER"
    if _in_container(host):
        return by_hand(
            f"Start the container with --device={node.path} and --group-add {node.group} (the host's number)."
        )
    if _in_database_only(host, node.group_name):
        return by_hand(f"{user} is in {node.group_name} already: log out and in again.", relogin=True)
    return command(
        f"Put {user} into the groups render and video, then log in again.",
        *("usermod", "-aG", "render,video", user),
        sudo=True,
        relogin=True,
        verify=("id", "-nG", user),
    )


@check(
    "rocm.kfd-access",
    "This session may use /dev/kfd",
    about="ROCm computes through /dev/kfd. Decided by access(2) for the user who asks, not by group lists and not "
    "for root; /dev/kfd has no `uaccess`, so being at the desktop does not help. Without access: `Unable to open "
    "/dev/kfd read-write: Permission denied`.",
    by_hand="`sudo usermod -aG render,video $USER`, then log out and in (for a service restart it). In a "
    "container: `--device=/dev/kfd --group-add $(getent group render | cut -d: -f3)`.",
    causes=("rocm.render-group", "driver.bound", "kernel.firmware", "kernel.amdgpu-floor"),
)
def kfd_access(host: Host, catalogue: Catalogue) -> Verdict:
    if not cards.training(host, catalogue, cards.AMD):
        return Skip(cards.none_of(host, catalogue, cards.AMD))
    node = host.amd.kfd
    if node is None:
        if any("/dev/kfd" in gap.source for gap in host.unread):
            return unread(host, "Whether this session may use /dev/kfd", ("/dev/kfd",), "Make /dev readable.")
        if not host.amd.loaded and not _in_container(host):
            return Skip("amdgpu is not loaded, so there is no /dev/kfd: see driver.bound.")
        return (
            error(
                "/dev/kfd",
                "/dev/kfd is missing.",
                "ROCm computes through it; without it PyTorch finds no GPU.",
                [("/dev/kfd", "absent"), ("/proc/modules", f"amdgpu {'loaded' if host.amd.loaded else 'not loaded'}")],
                by_hand("Start the container with --device=/dev/kfd --device=/dev/dri.")
                if _in_container(host)
                else by_hand("Read what amdgpu said: sudo journalctl -k -b | grep -iE 'amdgpu|kfd'."),
            ),
        )
    if node.usable is None:
        return Unknown("Whether this session may use /dev/kfd is not known.")
    if node.usable:
        return Ok("This session can open /dev/kfd.")
    return (
        error(
            node.path,
            f"{host.person.user or 'This user'} may not use {node.path}.",
            "ROCm cannot open it, so PyTorch finds no GPU. As root it works, which misleads.",
            [_shown(node), ("groups of this session", _groups(host, host.person.groups))],
            _let_in(host, node),
        ),
    )


@check(
    "rocm.render-access",
    "This session may use the card's render node",
    about="ROCm allocates memory through /dev/dri/renderD*. The desktop's user gets access by `uaccess`, the same "
    "user over SSH or in a service does not. Decided by access(2) for the node that belongs to the card.",
    by_hand="`sudo usermod -aG render,video $USER`, then log out and in.",
    causes=("rocm.render-group", "driver.bound"),
)
def render_access(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    if not ours:
        return Skip(cards.none_of(host, catalogue, cards.AMD))
    if host.amd.render is None:
        return unread(host, "Which render nodes there are", ("/dev/dri",), "Make /dev/dri readable.")
    findings: list[Finding] = []
    known = []
    for card in ours:
        node = next((row for row in host.amd.render if cards.place(row.slot) == cards.place(card.slot)), None)
        if node is None or node.usable is None:
            continue
        known.append(node.path)
        if not node.usable:
            findings.append(
                error(
                    f"{node.path} of {cards.subject(card, catalogue)}",
                    f"{host.person.user or 'This user'} may not use {node.path}.",
                    "ROCm cannot allocate the card's memory without it.",
                    [_shown(node), ("groups of this session", _groups(host, host.person.groups))],
                    _let_in(host, node),
                )
            )
    if findings:
        return tuple(findings)
    if not known:
        return Skip("The card has no render node while its driver is not bound: see driver.bound.")
    return Ok(f"This session can open {', '.join(known)}.")


@check(
    "rocm.render-group",
    "This session has the groups that its user has",
    about="A group added with usermod counts from the next login on. A session that is older, or a tmux server, "
    "IDE or service started before, lacks it although `id USER` shows it. Reported only where access is in fact "
    "denied.",
    by_hand="Log out of the desktop or SSH session and in again (for tmux: `tmux kill-server`); as a stopgap "
    "`newgrp render`. For services: `sudo systemctl restart user@$(id -u)`.",
)
def render_group(host: Host, catalogue: Catalogue) -> Verdict:
    if not cards.training(host, catalogue, cards.AMD):
        return Skip(cards.none_of(host, catalogue, cards.AMD))
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
                ("/etc/group", _groups(host, host.person.database_groups)),
                ("groups of this session", _groups(host, host.person.groups)),
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
)
def open_to_all(host: Host, catalogue: Catalogue) -> Verdict:
    if not cards.training(host, catalogue, cards.AMD):
        return Skip(cards.none_of(host, catalogue, cards.AMD))
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


@check(
    "rocm.several-installs",
    "There is one ROCm on the host",
    about="ROCm up to 7.2, 7.14 and 10 use different folders and packages and do not mix: a program finds one's "
    "compiler and another's libraries. Reads /opt/rocm* and their version files. The training environment brings "
    "its own.",
    by_hand="Remove the old one first: `sudo amdgpu-install --uninstall --rocmrelease=all`, or `sudo apt-get "
    "remove` its packages, then its files in /etc/apt/sources.list.d.",
)
def several_installs(host: Host, catalogue: Catalogue) -> Verdict:
    if not cards.training(host, catalogue, cards.AMD):
        return Skip(cards.none_of(host, catalogue, cards.AMD))
    if host.amd.rocm is None:
        return unread(host, "Which ROCm is installed", ("/opt",), "Make /opt readable.")
    versions = {cards.numbers(row.version)[:2]: row for row in host.amd.rocm if row.version}
    if len(versions) < 2:
        return Ok(
            f"ROCm {host.amd.rocm[0].version or ''} is the only one." if host.amd.rocm else "No ROCm on the host."
        )
    return (
        warning(
            "ROCm",
            "Several ROCm versions are installed: " + ", ".join(str(row.version) for row in versions.values()) + ".",
            "Tools of one find libraries of the other; AMD asks to remove ROCm up to 7.2 before 7.14 or 10.",
            [(row.path, row.version) for row in versions.values()],
            by_hand("Keep one and remove the others: gpu-setup doctor --explain rocm.several-installs."),
        ),
    )


@check(
    "rocm.ubuntu-packages",
    "ROCm's parts come from one archive",
    about="Ubuntu has ROCm packages of its own, older ones, under the same or similar names. Beside AMD's they put "
    "another libhsa-runtime or libamdhip on the system: `hipErrorNoBinaryForGpu`, or tools that see no GPU.",
    by_hand="`sudo apt-get remove libamdhip64-5 libhsa-runtime64-1`, and keep a pin for AMD's repository in "
    "/etc/apt/preferences.d.",
)
def ubuntu_packages(host: Host, catalogue: Catalogue) -> Verdict:
    if not cards.training(host, catalogue, cards.AMD):
        return Skip(cards.none_of(host, catalogue, cards.AMD))
    if host.apt.packages is None:
        return unread(host, "Which packages are installed", ("dpkg",), "Make /var/lib/dpkg/status readable.")
    strays = [row for row in packages(host, *_UBUNTUS) if row.name in _UBUNTUS]
    if not strays or not host.amd.rocm:
        return Ok("ROCm's packages are not mixed.")
    return (
        warning(
            "ROCm",
            f"Ubuntu's ROCm packages stand beside AMD's: {', '.join(row.name for row in strays)}.",
            "Programs load one archive's library with the other's runtime.",
            [("/var/lib/dpkg/status", f"{row.name} {row.version}") for row in strays]
            + [(row.path, row.version) for row in host.amd.rocm],
            command(
                "Remove Ubuntu's.", "apt-get", "remove", *(row.name for row in strays), sudo=True, verify=("rocminfo",)
            ),
        ),
    )


@check(
    "rocm.path",
    "ROCm's tools are on PATH",
    about="bitsandbytes asks `rocminfo` for the card's architecture when it is imported. Where ROCm is installed "
    "on the host but its bin folder is not on PATH, it guesses. Not judged where the host has no ROCm.",
    by_hand="Add `export PATH=$PATH:/opt/rocm/bin` to ~/.profile and log in again.",
)
def path(host: Host, catalogue: Catalogue) -> Verdict:
    if not cards.training(host, catalogue, cards.AMD):
        return Skip(cards.none_of(host, catalogue, cards.AMD))
    if not host.amd.rocm:
        return Skip("No ROCm is installed on the host; the training environment brings its own.")
    if host.amd.rocm_on_path is None:
        return Unknown("PATH is not known in this recording.")
    if host.amd.rocm_on_path:
        return Ok("rocminfo is on PATH.")
    return (
        warning(
            "ROCm",
            "ROCm is installed, but its tools are not on PATH.",
            "bitsandbytes and build scripts look for rocminfo there and guess without it.",
            [(row.path, row.version) for row in host.amd.rocm],
            by_hand("Add /opt/rocm/bin to PATH in ~/.profile.", relogin=True, verify=("rocminfo",)),
        ),
    )


@check(
    "rocm.override",
    "HSA_OVERRIDE_GFX_VERSION is not set",
    about="The variable makes ROCm treat the card as another architecture. For a card that the wheels have kernels "
    "for it only harms: crashes, hangs, wrong results. Read from this session's environment.",
    by_hand="Remove it from ~/.bashrc, ~/.profile, /etc/environment and unit files; `unset "
    "HSA_OVERRIDE_GFX_VERSION` in open shells.",
)
def override(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    if not ours:
        return Skip(cards.none_of(host, catalogue, cards.AMD))
    value = host.person.environ.get("HSA_OVERRIDE_GFX_VERSION", "").strip()
    if not value:
        return Ok("It is not set.")
    targets = {row.target for card in ours if (row := cards.known(card, catalogue))}
    same = targets == {_gfx(value)}
    return (
        (info if same else warning)(
            "environment",
            f"HSA_OVERRIDE_GFX_VERSION={value} is set"
            + (", which is what the card is anyway." if same else f", but the card is {', '.join(sorted(targets))}."),
            "It changes nothing now, and will harm with another card."
            if same
            else "The wheels have kernels for this card; with the override ROCm runs those of another one.",
            [("environment", f"HSA_OVERRIDE_GFX_VERSION={value}")],
            by_hand("Remove it from ~/.bashrc, ~/.profile and /etc/environment; in this shell: unset it."),
        ),
    )


def _gfx(version: str) -> str:
    """`11.0.0` is gfx1100, `9.0.10` gfx90a: minor and stepping are one hexadecimal digit each."""
    parts = cards.numbers(version)
    return f"gfx{parts[0]}{parts[1]:x}{parts[2]:x}" if len(parts) == 3 else version
