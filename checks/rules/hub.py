"""Hugging Face: a token that nobody else can read, downloads allowed, space in the cache."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Ok, Skip, Unknown, Verdict, check
from checks.rules import needs
from checks.rules.finding import Seen, by_hand, command, info, warning
from checks.rules.resources import FOREIGN, GB, MODEL
from checks.rules.session import hidden_by_sudo


@check(
    "hub.token",
    "A Hugging Face token is set up (for gated models)",
    about="For some models you must accept a licence first; without a token of an account that did, the download fails "
    "with 401 or 403 (`gated repo`). Other models need no token, so a missing one is informational only. Checks "
    "whether HF_TOKEN is set or the token file exists; the token itself is never read.",
    by_hand="Accept the licence on the model's page, create a read token at huggingface.co/settings/tokens, and enter "
    "it in `hf auth login`. `hf auth whoami` shows the account. Or use a model that is not gated: `base_model` in the "
    "recipe.",
    needs=(needs.GPU,),
)
def token(host: Host, catalogue: Catalogue) -> Verdict:
    if host.hub.token:
        return Ok(
            f"A token is set ({host.hub.token_file or 'HF_TOKEN'}); the hub decides which gated models it can download."
        )
    if (hidden := hidden_by_sudo(host, "The token")) is not None:
        return hidden
    if host.hub.token is None:
        return Unknown("Cannot determine whether there is a token: the session has no HOME.")
    return (
        info(
            "Hugging Face",
            "No Hugging Face token is set up: gated models cannot be downloaded.",
            "Mistral 7B or its mirrors may need one; the download then fails with 401 or 403.",
            [("HF_TOKEN", "not set"), ("token file", "missing")],
            command("Log in if the model needs it.", "hf", "auth", "login", verify=("hf", "auth", "whoami")),
        ),
    )


@check(
    "hub.token-file",
    "Nobody else can read the Hugging Face token",
    about="The token file is created readable for everyone. If other users can enter your home folder, every account "
    "on the machine can read the token; with a write token they can change your models. Decided by the modes of the "
    "file and of the folders above it.",
    by_hand="Run `chmod 600 ~/.cache/huggingface/token ~/.cache/huggingface/stored_tokens`. If other people use the "
    "machine, create a new token on the hub and revoke the old one.",
)
def token_file(host: Host, catalogue: Catalogue) -> Verdict:
    if not host.hub.token_file:
        return Skip("There is no token file.")
    if host.hub.readable_by_others is None:
        return Unknown(f"Cannot determine who can read {host.hub.token_file}.")
    if not host.hub.readable_by_others:
        return Ok("Only you can read it.")
    return (
        warning(
            host.hub.token_file,
            "Every account on this machine can read your Hugging Face token.",
            "Anyone with the token can download models in your name, and with a write token change them.",
            [(host.hub.token_file, "readable for others, and so are the folders above it")],
            command("Make it readable only for you.", "chmod", "600", host.hub.token_file),
        ),
    )


@check(
    "hub.offline",
    "Downloads from Hugging Face are allowed",
    about="HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE disable all downloads: loading a model that is not in the cache "
    "fails with `OfflineModeIsEnabled`. This is useful on machines without network, but often a forgotten line in a "
    "start-up file. A warning only if there is no cache at all.",
    by_hand="`unset HF_HUB_OFFLINE TRANSFORMERS_OFFLINE`, and remove them from your shell's start-up files; or "
    "download the model first: `HF_HUB_OFFLINE=0 hf download MODEL`.",
    needs=(needs.GPU,),
)
def offline(host: Host, catalogue: Catalogue) -> Verdict:
    if not host.hub.offline:
        return hidden_by_sudo(host, "The environment") or Ok("Neither HF_HUB_OFFLINE nor TRANSFORMERS_OFFLINE is set.")
    return (
        (info if host.hub.cached else warning)(
            "environment",
            f"{host.hub.offline} disables downloads.",
            "Models and datasets are loaded from the cache only."
            if host.hub.cached
            else "There is no cache yet, so no model can be loaded.",
            [
                ("environment", host.hub.offline),
                (host.hub.cache or "cache", "exists" if host.hub.cached else "missing"),
            ],
            by_hand("Unset it for the download; keep it if the machine has no network."),
        ),
    )


@check(
    "hub.cache",
    "The model cache has enough space on a suitable file system",
    about="HF_HOME or HF_HUB_CACHE can put the cache on another disk. It needs 14.5 GB for Mistral 7B, and support for "
    "links: on NTFS, exFAT and similar file systems each version of a model is stored again, and loading is slow; "
    "network drives can stall. Checked only if one of these variables is set; otherwise resources.disk checks the home "
    "folder.",
    by_hand="Run `df -hT $HF_HOME`. Set HF_HOME to a folder on ext4, xfs or btrfs with enough space; `hf cache ls` "
    "lists its contents.",
    needs=(needs.GPU,),
)
def cache(host: Host, catalogue: Catalogue) -> Verdict:
    if not host.hub.cache_chosen:
        return Skip("The cache is in its default folder in the home: see resources.disk and resources.file-system.")
    disk = next((row for row in host.resources.disks or () if row.purpose == "models"), None)
    if disk is None or disk.free is None:
        return Unknown(f"Cannot determine the free space in {host.hub.cache}.")
    seen: list[Seen] = [(f"file system of {disk.path}", f"{disk.free / GB:.1f} GB free, {disk.fstype}")]
    fix = by_hand("Set HF_HOME to a folder on ext4, xfs or btrfs with enough space for the models.")
    findings = []
    if disk.free < MODEL:
        summary = f"Only {disk.free / GB:.1f} GB are free for the model cache {disk.path}."
        findings.append(warning(disk.path, summary, "Mistral 7B is a download of 14.5 GB.", seen, fix))
    if (disk.fstype or "") in FOREIGN:
        why = "Without links models are stored several times, and loading is slow or stalls."
        findings.append(warning(disk.path, f"The model cache {disk.path} is on {disk.fstype}.", why, seen, fix))
    return tuple(findings) or Ok(f"{disk.free / GB:.0f} GB are free for {disk.path} ({disk.fstype}).")
