"""ROCm on the host: one only, of one archive, within reach, and not told a wrong architecture."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Ok, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import by_hand, command, info, unread, warning
from checks.rules.installed import packages
from checks.rules.session import not_theirs

# packages that only Ubuntu's own archive has; AMD's repositories call theirs differently
_UBUNTUS = ("libhsa-runtime64-1", "libamdhip64-5", "libamdhip64-6", "libhiprtc-builtins5", "librocblas0", "libhipblas0")


@check(
    "rocm.several-installs",
    "There is one ROCm on the host",
    about="ROCm up to 7.2, 7.14 and 10 use different folders and packages and do not mix: a program finds one's "
    "compiler and another's libraries. Reads /opt/rocm* and their version files. The training environment brings "
    "its own.",
    by_hand="Remove the old one first: `sudo amdgpu-install --uninstall --rocmrelease=all`, or `sudo apt-get "
    "remove` its packages, then its files in /etc/apt/sources.list.d.",
    needs=(needs.AMD_CARD,),
)
def several_installs(host: Host, catalogue: Catalogue) -> Verdict:
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
    needs=(needs.AMD_CARD,),
)
def ubuntu_packages(host: Host, catalogue: Catalogue) -> Verdict:
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
    needs=(needs.AMD_CARD, needs.ROCM_ON_HOST),
)
def path(host: Host, catalogue: Catalogue) -> Verdict:
    if host.amd.rocm_on_path is None:
        return Unknown("PATH is not known in this recording.")
    if host.amd.rocm_on_path:
        return Ok("rocminfo is on PATH.")
    return (
        warning(
            "ROCm",
            "ROCm is installed, but its tools are not on PATH.",
            "bitsandbytes and build scripts look for rocminfo there and guess without it.",
            [(row.path, row.version) for row in host.amd.rocm or ()],
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
    needs=(needs.AMD_CARD,),
)
def override(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    value = host.person.environ.get("HSA_OVERRIDE_GFX_VERSION", "").strip()
    if not value:
        return not_theirs(host, "The environment") or Ok("It is not set.")
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


@check(
    "rocm.version",
    "The host's ROCm is new enough for the card's stacks",
    about="The training wheels bring their own ROCm, so the host's version does not matter to them. Programs that are "
    "built on the host use the host's, and an old one has no compiler for newer cards. Compares /opt/rocm with the "
    "oldest stack that has kernels for the card. Only said.",
    by_hand="Remove it (`sudo amdgpu-install --uninstall`, or `sudo apt-get remove` its packages) and install a newer "
    "one if you build for the card yourself; training needs none on the host.",
    needs=(needs.AMD_CARD, needs.ROCM_ON_HOST),
)
def version(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    wanted = [
        cards.numbers(stack.runtime.removeprefix("rocm "))
        for card in ours
        for stack in cards.stacks(card, catalogue)
        if stack.runtime.startswith("rocm ")
    ]
    newest = max(host.amd.rocm or (), key=lambda row: cards.numbers(row.version))
    have = cards.numbers(newest.version)
    if not wanted or not have:
        return Unknown("The version of the host's ROCm, or what the card needs, is not known.")
    oldest = min(wanted)
    if have >= oldest:
        return Ok(f"ROCm {newest.version}.")
    needed = ".".join(map(str, oldest))
    return (
        info(
            "ROCm",
            f"The host's ROCm {newest.version} is older than {needed}, the oldest that a stack for the card uses.",
            "What is built with it may not run on the card; the training wheels are not affected.",
            [(newest.path, newest.version), ("stacks of the catalogue", f"ROCm {needed} or newer")],
            by_hand("Leave it, remove it, or install a newer one: gpu-setup doctor --explain rocm.version."),
        ),
    )
