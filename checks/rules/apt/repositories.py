"""The vendors' repositories: their keys, their package lists, and their priority over Ubuntu's packages."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue, Repository
from checks.facts.host import AptPreference, AptSource, Host, Package
from checks.model import Ok, Skip, Verdict, check
from checks.rules import needs
from checks.rules.finding import by_hand, cannot_determine, command, error, provision, warning
from checks.rules.installed import packages

_DPKG = "/var/lib/dpkg/status"
KEY_FILE = r"/(?:usr/share|etc/apt)/keyrings/[\w.-]+\.gpg"
# AMD's versions end with its release and a build number (rocminfo 1.0.0.70001-42~24.04)
_PIN = (
    "write /etc/apt/preferences.d/rocm-pin-600 (Package: *, Pin: release o=repo.radeon.com, Pin-Priority: 600), run "
    "sudo apt-get update, then "
)
_AMDS = r"\.[0-9]{5,6}-[0-9]+"


@check(
    "apt.keys",
    "The vendors' repositories have their keys",
    about="A repository's Signed-By names the file with its key. If that file is missing, apt reports `NO_PUBKEY` and "
    "ignores the repository. Checked for NVIDIA's, AMD's and Docker's repositories. Only `sudo apt-get update` shows a "
    "key that has expired or was replaced (NVIDIA's old A4B469963BF863CC).",
    by_hand="`sudo apt-get update` names the key. For NVIDIA reinstall cuda-keyring; for the others download the key "
    "as their install guide says, into the file that Signed-By names.",
    needs=(needs.CARD,),
)
def keys(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.sources is None or host.apt.missing_keys is None:
        return cannot_determine(
            host, "whether the repositories' keys are installed", ("/etc/apt",), "Make /etc/apt readable."
        )
    rows = {row.signed_by: row for row in host.apt.sources if row.signed_by in host.apt.missing_keys}
    ours = keys_to_install(host, catalogue)
    return tuple(
        error(
            f"apt source {row.uri}",
            f"The key file {path} is missing.",
            "apt cannot verify the repository (NO_PUBKEY) and ignores it: its driver or toolkit cannot be installed.",
            [(row.file, f"Signed-By: {path}"), (str(path), "missing")],
            provision(
                "Run `gpu-setup apply` to install the vendor's key, verified by its fingerprint.",
                verify=("apt-get", "update"),
            )
            if path in ours
            else by_hand(
                "Install the vendor's key into that file, as its installation guide says; or delete the repository's "
                "file if you do not need it.",
                verify=("apt-get", "update"),
            ),
        )
        for path, row in rows.items()
    ) or Ok("Every vendor's repository has its key file.")


def keys_to_install(host: Host, catalogue: Catalogue) -> dict[str, Repository]:
    """The missing key files whose key is known by its fingerprint, each with the repository that it is for.

    apt reads a binary key only from a file that is called .gpg.
    """
    found = {}
    for source in host.apt.sources or ():
        path = source.signed_by
        if path in (host.apt.missing_keys or ()) and path is not None and re.fullmatch(KEY_FILE, path):
            rows = [row for row in catalogue.repositories if row.owner == source.owner and row.fingerprints]
            row = next((row for row in rows if _server(row.uris[0]) == _server(source.uri)), None)
            if row is not None:
                found[path] = row
    return found


def _server(uri: str) -> str:
    return uri.partition("://")[2].partition("/")[0]


@check(
    "apt.fetched",
    "apt has fetched the vendors' repositories",
    about="`apt-get update` stores a list of each repository in /var/lib/apt/lists. If only some repositories have a "
    "list, the others failed (key, 404, certificate) or were added later: apt does not know their packages. Read from "
    "the names of those files, without network.",
    by_hand="Run `sudo apt-get update` and read its messages about that repository: NO_PUBKEY and EXPKEYSIG are about "
    "the key, 404 about a release that was moved, certificate errors about clock or proxy.",
    needs=(needs.CARD,),
    causes=("apt.keys", "apt.signed-by-conflict", "apt.amd-sources", "os.clock"),
)
def fetched(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.sources is None:
        return cannot_determine(host, "which repositories are enabled", ("/etc/apt",), "Make /etc/apt readable.")
    if host.apt.unfetched is None:
        return Skip("apt has no lists yet: `sudo apt-get update` fetches them.")
    return tuple(
        warning(
            f"apt source {row.uri}",
            "apt has no list of this repository, although it has lists of others.",
            "Its packages cannot be installed or upgraded until `apt-get update` succeeds for it.",
            [(row.file, row.uri), ("/var/lib/apt/lists", "no list of it")],
            command("Fetch the list, and read apt's messages about this repository.", "apt-get", "update", sudo=True),
        )
        for row in host.apt.unfetched
    ) or Ok("apt has a list of every vendor's repository.")


@check(
    "apt.amd-pin",
    "AMD's ROCm packages take priority over Ubuntu's",
    about="Ubuntu has rocminfo, hipcc and other packages with the same names as in AMD's repository up to 7.2, but "
    "with higher version numbers. Without a pin priority above 500 for repo.radeon.com the next upgrade installs "
    "Ubuntu's packages, and ROCm breaks. From 7.14 on AMD's packages have different names and need no pin.",
    by_hand="Write /etc/apt/preferences.d/rocm-pin-600 with the names of ROCm's packages, `Pin: release "
    "o=repo.radeon.com`, `Pin-Priority: 600`, and remove Ubuntu's packages of these names (`sudo apt-get remove "
    "rocminfo hipcc`). `apt-cache policy rocminfo` shows which archive has priority.",
    needs=(needs.AMD_CARD,),
    causes=("rocm.ubuntu-packages",),
)
def amd_pin(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.sources is None or host.apt.pins is None:
        return cannot_determine(
            host, "which repositories and pins are configured", ("/etc/apt",), "Make /etc/apt readable."
        )
    theirs = legacy_rocm_sources(host)
    if not theirs:
        return Ok("No AMD repository needs a pin.")
    pins = [pin for pin in host.apt.pins if is_rocm_pin(pin)]
    ubuntus = ubuntus_rocm(host, catalogue)
    if not ubuntus and pins:
        return Ok(f"{pins[0].file} sets the pin.")
    source: tuple[str, object] = (theirs[0].file, theirs[0].uri)
    missing: list[tuple[str, object]] = [] if pins else [("/etc/apt/preferences.d", "no pin for repo.radeon.com")]
    if ubuntus:
        named = " and ".join(f"{row.name} {row.version}" for row in ubuntus)
        write = "" if pins else " to write the pin (priority 600 for repo.radeon.com) and"
        yourself = f"{'' if pins else _PIN}sudo apt-get remove {' '.join(row.name for row in ubuntus)}"
        return (
            warning(
                "apt",
                f"{named} from Ubuntu is installed, which AMD's ROCm packages cannot replace.",
                "Its version number is higher than that of AMD's package, so AMD's meta packages have unmet "
                f"dependencies.{'' if pins else ' The pin for repo.radeon.com is missing.'}",
                [*((_DPKG, f"{row.name} {row.version}") for row in ubuntus), source, *missing],
                provision(
                    f"Run `gpu-setup apply`{write} to remove Ubuntu's package. By hand: {yourself}.",
                    verify=("apt-cache", "policy", ubuntus[0].name),
                ),
            ),
        )
    return (
        warning(
            "apt",
            "Ubuntu's ROCm packages take priority over AMD's: the pin is missing.",
            "Ubuntu's rocminfo and hipcc have higher version numbers; the next upgrade mixes both archives.",
            [source, *missing],
            provision("Run `gpu-setup apply` to write the pin.", verify=("apt-cache", "policy", "rocminfo")),
        ),
    )


def legacy_rocm_sources(host: Host) -> tuple[AptSource, ...]:
    """Enabled repositories of ROCm up to 7.2, of any release."""
    return tuple(row for row in host.apt.sources or () if row.owner == "amd-rocm" and "repo.radeon.com" in row.uri)


def is_rocm_pin(pin: AptPreference) -> bool:
    return "radeon" in pin.pin and (pin.priority or 0) > 500


def ubuntus_rocm(host: Host, catalogue: Catalogue) -> tuple[Package, ...]:
    """Ubuntu's packages that have the names of AMD's: AMD's need exactly their own version of each."""
    names = catalogue.package("rocm.ubuntu-names").names
    return tuple(row for row in packages(host, *names) if row.name in names and not re.search(_AMDS, row.version))
