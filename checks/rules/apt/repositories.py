"""The vendors' repositories: signed by a key that is there, fetched, and not outdone by Ubuntu's packages."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Ok, Skip, Verdict, check
from checks.rules import needs
from checks.rules.finding import command, error, provision, unread, warning


@check(
    "apt.keys",
    "The vendors' repositories have their keys",
    about="A repository's Signed-By names the file that holds its key. Where that file is gone apt says `NO_PUBKEY` "
    "and takes nothing from the repository. Judged for NVIDIA's, AMD's and Docker's repositories. A key that has "
    "expired or was exchanged (NVIDIA's old A4B469963BF863CC) shows only in what `sudo apt-get update` says.",
    by_hand="`sudo apt-get update` names the key. For NVIDIA install cuda-keyring anew, for the others fetch the key "
    "as their install guide says, into the file that Signed-By names.",
    needs=(needs.CARD,),
)
def keys(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.sources is None or host.apt.missing_keys is None:
        return unread(host, "Whether the repositories' keys are there", ("/etc/apt",), "Make /etc/apt readable.")
    rows = {row.signed_by: row for row in host.apt.sources if row.signed_by in host.apt.missing_keys}
    return tuple(
        error(
            f"apt source {row.uri}",
            f"The key file {path} is missing.",
            "apt cannot verify the repository (NO_PUBKEY) and ignores it: no driver or toolkit comes from it.",
            [(row.file, f"Signed-By: {path}"), (str(path), "absent")],
            provision("The plan writes the vendor's key, checked by its fingerprint.", verify=("apt-get", "update")),
        )
        for path, row in rows.items()
    ) or Ok("Every vendor's repository has its key file.")


@check(
    "apt.fetched",
    "The vendors' repositories have been fetched",
    about="After `apt-get update` each repository's list lies in /var/lib/apt/lists. One that has none, while others "
    "have, was refused (key, 404, certificate) or was added since: its packages do not exist for apt. Read from the "
    "names of those files, without network.",
    by_hand="`sudo apt-get update` and read what it says about that repository: NO_PUBKEY and EXPKEYSIG are about "
    "the key, 404 about a release that moved, certificate errors about clock or proxy.",
    needs=(needs.CARD,),
    causes=("apt.keys", "apt.signed-by-conflict", "apt.amd-sources", "os.clock"),
)
def fetched(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.sources is None:
        return unread(host, "Which repositories are enabled", ("/etc/apt",), "Make /etc/apt readable.")
    if host.apt.unfetched is None:
        return Skip("apt holds no lists yet: `sudo apt-get update` fetches them.")
    return tuple(
        warning(
            f"apt source {row.uri}",
            "apt has no list of this repository, though it has others.",
            "Its packages cannot be installed or upgraded until `apt-get update` gets through.",
            [(row.file, row.uri), ("/var/lib/apt/lists", "no list of it")],
            command("Fetch it, and read what apt says of it.", "apt-get", "update", sudo=True),
        )
        for row in host.apt.unfetched
    ) or Ok("apt has a list of every vendor's repository.")


@check(
    "apt.amd-pin",
    "AMD's ROCm packages win over Ubuntu's",
    about="Ubuntu has rocminfo, hipcc and others under the same names as AMD's repository up to 7.2, with higher "
    "version numbers. Without a pin of more than 500 for repo.radeon.com the next upgrade takes Ubuntu's, and ROCm "
    "falls apart. From 7.14 on AMD's packages have names of their own and need none.",
    by_hand="Write /etc/apt/preferences.d/rocm-pin-600 with the names of ROCm's packages, `Pin: release "
    "o=repo.radeon.com`, `Pin-Priority: 600`. `apt-cache policy rocminfo` shows who wins.",
    needs=(needs.AMD_CARD,),
)
def amd_pin(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.sources is None or host.apt.pins is None:
        return unread(host, "Which repositories and pins there are", ("/etc/apt",), "Make /etc/apt readable.")
    theirs = [row for row in host.apt.sources if row.owner == "amd-rocm" and "repo.radeon.com" in row.uri]
    if not theirs:
        return Ok("No repository of AMD's needs a pin.")
    kept = [pin for pin in host.apt.pins if "radeon" in pin.pin and (pin.priority or 0) > 500]
    if kept:
        return Ok(f"{kept[0].file} has it.")
    return (
        warning(
            "apt",
            "Ubuntu's ROCm packages outrank AMD's: there is no pin.",
            "Ubuntu's rocminfo and hipcc have higher numbers; the next upgrade mixes both archives.",
            [(theirs[0].file, theirs[0].uri), ("/etc/apt/preferences.d", "no pin for repo.radeon.com")],
            provision("The plan writes the pin.", verify=("apt-cache", "policy", "rocminfo")),
        ),
    )
