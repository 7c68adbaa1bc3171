"""ROCm on the host: one version, from one archive, and on PATH."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import AptSource, Host, Package
from checks.model import Finding, Ok, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import by_hand, cannot_determine, command, info, warning
from checks.rules.installed import packages

# packages that only Ubuntu's own archive has; AMD's repositories use other names
_UBUNTU_ONLY = (
    "libhsa-runtime64-1",
    "libamdhip64-5",
    "libamdhip64-6",
    "libhiprtc-builtins5",
    "librocblas0",
    "libhipblas0",
)
# packages that both have, Ubuntu's with the higher number: ROCm/legacy-rocm-build#3656, #6367, #1899
_IN_BOTH = ("rocminfo", "rocm-cmake", "hipcc", "rocm-device-libs")
# AMD's numbers carry ROCm's release in five or six digits: 1.0.0.70204-93~24.04
_AMDS_NUMBER = r".*\.\d{5,6}-.*"


@check(
    "rocm.several-installs",
    "At most one ROCm is installed on the host",
    about="ROCm up to 7.2, ROCm 7.14 and ROCm 10 use different folders and packages, and cannot be mixed: a program "
    "may find the compiler of one and the libraries of another. Reads /opt/rocm* and the version files there. The "
    "training environment includes its own ROCm.",
    by_hand="Remove the old version first: `sudo amdgpu-install --uninstall --rocmrelease=all`, or `sudo apt-get "
    "remove` its packages, then its files in /etc/apt/sources.list.d.",
    needs=(needs.AMD_CARD,),
)
def several_installs(host: Host, catalogue: Catalogue) -> Verdict:
    if host.amd.rocm is None:
        return cannot_determine(host, "which ROCm is installed", ("/opt",), "Make /opt readable.")
    if not host.amd.rocm:
        return Ok("ROCm is not installed on the host.")
    versions = {cards.numbers(row.version)[:2]: row for row in host.amd.rocm if row.version}
    unknown = [row.path for row in host.amd.rocm if not row.version]
    if len(versions) < 2:
        if unknown and len(host.amd.rocm) > 1:
            return Unknown(f"Cannot determine which ROCm is in {', '.join(unknown)}: it has no version file.")
        return Ok(f"ROCm {host.amd.rocm[0].version or f'in {host.amd.rocm[0].path}'} is the only one.")
    return (
        warning(
            "ROCm",
            "Several ROCm versions are installed: " + ", ".join(str(row.version) for row in versions.values()) + ".",
            "Tools of one version load libraries of another; AMD requires removing ROCm up to 7.2 before 7.14 or 10.",
            [(row.path, row.version) for row in versions.values()],
            by_hand("Keep one version and remove the others: gpu-setup doctor --explain rocm.several-installs."),
        ),
    )


@check(
    "rocm.ubuntu-packages",
    "ROCm packages come from one archive",
    about="Ubuntu has its own, older ROCm packages with the same or similar names. Together with AMD's packages they "
    "put a second libhsa-runtime or libamdhip on the system: `hipErrorNoBinaryForGpu`, or tools that find no GPU. "
    "Ubuntu's rocminfo, hipcc, rocm-cmake and rocm-device-libs have higher numbers than AMD's, so that apt keeps them "
    "and AMD's packages cannot be installed: `Depends: rocminfo (= 1.0.0.…) but 5.7.1-3build1 is to be installed`.",
    by_hand="Run `sudo apt-get remove` with the names of Ubuntu's packages, and keep a pin for AMD's repository in "
    "/etc/apt/preferences.d (apt.amd-pin).",
    needs=(needs.AMD_CARD,),
)
def ubuntu_packages(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.packages is None:
        return cannot_determine(host, "which packages are installed", ("dpkg",), "Make /var/lib/dpkg/status readable.")
    from_ubuntu = [row for row in packages(host, *_UBUNTU_ONLY) if row.name in _UBUNTU_ONLY]
    outranking = [
        row for row in packages(host, *_IN_BOTH) if row.name in _IN_BOTH and not re.fullmatch(_AMDS_NUMBER, row.version)
    ]
    repositories = [row for row in host.apt.sources or () if row.owner == "amd-rocm"]
    if outranking and (repositories or host.amd.rocm):
        return (_outranks([*outranking, *from_ubuntu], repositories, host),)
    if not from_ubuntu or not host.amd.rocm:
        return Ok("ROCm packages are not mixed.")
    return (
        warning(
            "ROCm",
            f"Ubuntu's ROCm packages are installed together with AMD's: {', '.join(row.name for row in from_ubuntu)}.",
            "Programs load a library of one archive with the runtime of the other.",
            [("/var/lib/dpkg/status", f"{row.name} {row.version}") for row in from_ubuntu]
            + [(row.path, row.version) for row in host.amd.rocm],
            command(
                "Remove Ubuntu's packages.",
                "apt-get",
                "remove",
                *(row.name for row in from_ubuntu),
                sudo=True,
                verify=("rocminfo",),
            ),
        ),
    )


def _outranks(installed: list[Package], repositories: list[AptSource], host: Host) -> Finding:
    listed = ", ".join(f"{row.name} {row.version}" for row in installed)
    return warning(
        "ROCm",
        f"Ubuntu's ROCm packages are installed beside AMD's {'repository' if repositories else 'ROCm'}: {listed}.",
        "AMD's packages need their own of the same names, whose numbers are lower: apt keeps Ubuntu's, and AMD's "
        "cannot be installed (`but … is to be installed`), or tools of one archive work with libraries of the other.",
        [("/var/lib/dpkg/status", f"{row.name} {row.version}") for row in installed]
        + [(row.file, row.uri) for row in repositories]
        + [(row.path, row.version) for row in host.amd.rocm or ()],
        command(
            "Remove Ubuntu's packages, and pin AMD's repository in /etc/apt/preferences.d (`Pin: origin "
            "repo.radeon.com`, `Pin-Priority: 600`): without the pin the next installation brings them back.",
            *("apt-get", "remove", *(row.name for row in installed)),
            sudo=True,
        ),
    )


@check(
    "rocm.path",
    "ROCm's tools are on PATH",
    about="When it is imported, bitsandbytes runs `rocminfo` to get the card's architecture. If ROCm is installed on "
    "the host but its bin folder is not on PATH, bitsandbytes guesses. Skipped if the host has no ROCm.",
    by_hand="Add `export PATH=$PATH:/opt/rocm/bin` to ~/.profile and log in again.",
    needs=(needs.AMD_CARD, needs.ROCM_ON_HOST),
)
def path(host: Host, catalogue: Catalogue) -> Verdict:
    if host.amd.rocm_on_path is None:
        return Unknown("PATH is not in this recording.")
    if host.amd.rocm_on_path:
        return Ok("rocminfo is on PATH.")
    return (
        warning(
            "ROCm",
            "ROCm is installed, but its tools are not on PATH.",
            "bitsandbytes and build scripts need rocminfo; without it they guess the architecture.",
            [(row.path, row.version) for row in host.amd.rocm or ()],
            by_hand("Add /opt/rocm/bin to PATH in ~/.profile.", relogin=True, verify=("rocminfo",)),
        ),
    )


@check(
    "rocm.version",
    "The host's ROCm is new enough for the card's stacks",
    about="The training wheels include their own ROCm, so they do not depend on the host's version. Programs that you "
    "build on the host use the host's ROCm, and an old version cannot compile for newer cards. Compares /opt/rocm with "
    "the oldest stack that has kernels for the card. Informational only.",
    by_hand="Remove it (`sudo amdgpu-install --uninstall`, or `sudo apt-get remove` its packages). Install a newer "
    "version only if you build programs for the card yourself; training needs no ROCm on the host.",
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
        return Unknown("Cannot determine the version of the host's ROCm, or the version that the card needs.")
    oldest = min(wanted)
    if have >= oldest:
        return Ok(f"ROCm {newest.version}.")
    needed = ".".join(map(str, oldest))
    return (
        info(
            "ROCm",
            f"The host's ROCm {newest.version} is older than {needed}, the oldest that a stack for the card uses.",
            "Programs built with it may not run on the card; the training wheels are not affected.",
            [(newest.path, newest.version), ("stacks of the catalogue", f"ROCm {needed} or newer")],
            by_hand("Keep it, remove it, or install a newer version: gpu-setup doctor --explain rocm.version."),
        ),
    )
