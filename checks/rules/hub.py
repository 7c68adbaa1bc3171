"""Hugging Face: a token where one is needed and nobody else's, downloads allowed, room in the cache."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Ok, Skip, Unknown, Verdict, check
from checks.rules import needs
from checks.rules.finding import Seen, by_hand, command, info, warning
from checks.rules.resources import FOREIGN, GB, MODEL
from checks.rules.session import not_theirs


@check(
    "hub.token",
    "There is a Hugging Face token for gated models",
    about="Some models ask you to accept their licence first; without a token of such an account the download ends "
    "with 401 or 403 (`gated repo`). Models without a gate need none, so its absence is only said. Looks whether "
    "HF_TOKEN is set or the token's file is there; the token itself is never read.",
    by_hand="Accept the licence on the model's page, make a read token at huggingface.co/settings/tokens, and give "
    "it to `hf auth login`. `hf auth whoami` shows whose it is. Or take a model without a gate: `base_model` in the "
    "recipe.",
    needs=(needs.CARD,),
)
def token(host: Host, catalogue: Catalogue) -> Verdict:
    if host.hub.token:
        return Ok(
            f"There is one ({host.hub.token_file or 'HF_TOKEN'}); whether a model's gate lets it in is the hub's word."
        )
    if (unseen := not_theirs(host, "The token")) is not None:
        return unseen
    if host.hub.token is None:
        return Unknown("Whether there is a token is not known: the session has no HOME.")
    return (
        info(
            "Hugging Face",
            "No Hugging Face token: models behind a licence gate cannot be downloaded.",
            "Mistral 7B or its mirrors may ask for one; the download says 401 or 403 then.",
            [("HF_TOKEN", "not set"), ("token file", "absent")],
            command("Log in, if the model asks for it.", "hf", "auth", "login", verify=("hf", "auth", "whoami")),
        ),
    )


@check(
    "hub.token-file",
    "Nobody else can read the Hugging Face token",
    about="The token's file is written with the usual permissions, readable for all. In a home that others may "
    "enter, every account of the machine can take it, and with a write token your models. Judged by the modes of the "
    "file and of the folders above it.",
    by_hand="`chmod 600 ~/.cache/huggingface/token ~/.cache/huggingface/stored_tokens`. On a machine that others "
    "use, make a new token on the hub and revoke the old one.",
)
def token_file(host: Host, catalogue: Catalogue) -> Verdict:
    if not host.hub.token_file:
        return Skip("There is no token file.")
    if host.hub.readable_by_others is None:
        return Unknown(f"Who may read {host.hub.token_file} is not known.")
    if not host.hub.readable_by_others:
        return Ok("Only you can read it.")
    return (
        warning(
            host.hub.token_file,
            "Every account of this machine can read your Hugging Face token.",
            "Whoever has it downloads, and with a write token changes, models in your name.",
            [(host.hub.token_file, "readable for others, and so is the way to it")],
            command("Close it.", "chmod", "600", host.hub.token_file),
        ),
    )


@check(
    "hub.offline",
    "Downloads from Hugging Face are allowed",
    about="HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbid every download: a model that is not in the cache ends with "
    "`OfflineModeIsEnabled`. Meant on machines without network; left over in a start file it puzzles. A warning only "
    "where there is no cache at all.",
    by_hand="`unset HF_HUB_OFFLINE TRANSFORMERS_OFFLINE`, and remove them from your shell's start files; or fetch "
    "the model first: `HF_HUB_OFFLINE=0 hf download MODEL`.",
    needs=(needs.CARD,),
)
def offline(host: Host, catalogue: Catalogue) -> Verdict:
    if not host.hub.offline:
        return not_theirs(host, "The environment") or Ok("Neither HF_HUB_OFFLINE nor TRANSFORMERS_OFFLINE is set.")
    return (
        (info if host.hub.cached else warning)(
            "environment",
            f"{host.hub.offline} forbids downloads.",
            "Models and datasets come from the cache only."
            if host.hub.cached
            else "There is no cache yet, so no model can be loaded.",
            [("environment", host.hub.offline), (host.hub.cache or "cache", "there" if host.hub.cached else "absent")],
            by_hand("Unset it for the download; keep it where the machine has no network."),
        ),
    )


@check(
    "hub.cache",
    "The model cache has room and fits",
    about="HF_HOME or HF_HUB_CACHE can put the cache on another disk. It needs 14.5 GB for Mistral 7B, and links: on "
    "NTFS, exFAT and the like each version of a model is stored again, and loading is slow; network drives stall. "
    "Judged only where one of these variables is set, else resources.disk looks at the home.",
    by_hand="`df -hT $HF_HOME`. Set HF_HOME to a folder on ext4, xfs or btrfs with room; `hf cache ls` shows what is "
    "in it.",
    needs=(needs.CARD,),
)
def cache(host: Host, catalogue: Catalogue) -> Verdict:
    if not host.hub.cache_chosen:
        return Skip("The cache is in its usual place in the home: see resources.disk and resources.file-system.")
    disk = next((row for row in host.resources.disks or () if row.purpose == "models"), None)
    if disk is None or disk.free is None:
        return Unknown(f"How much room {host.hub.cache} has is not known.")
    seen: list[Seen] = [(f"file system of {disk.path}", f"{disk.free / GB:.1f} GB free, {disk.fstype}")]
    fix = by_hand("Set HF_HOME to a folder on ext4, xfs or btrfs with room for the models.")
    findings = []
    if disk.free < MODEL:
        summary = f"Only {disk.free / GB:.1f} GB are free for the model cache {disk.path}."
        findings.append(warning(disk.path, summary, "Mistral 7B is a download of 14.5 GB.", seen, fix))
    if (disk.fstype or "") in FOREIGN:
        why = "Models are stored several times without links, and loading from it is slow or stalls."
        findings.append(warning(disk.path, f"The model cache {disk.path} is on {disk.fstype}.", why, seen, fix))
    return tuple(findings) or Ok(f"{disk.free / GB:.0f} GB are free for {disk.path} ({disk.fstype}).")
