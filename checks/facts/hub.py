"""Hugging Face on this machine: whether there is a token, who can read it, and where models are stored."""

from __future__ import annotations

from collections.abc import Mapping

from checks.facts.gaps import exists
from checks.facts.host import Hub
from machine.local import Machine, Unreadable

# huggingface_hub/constants.py, in its order
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = ("1", "on", "yes", "true")


def cache_folder(environ: Mapping[str, str]) -> str | None:
    """The folder where huggingface_hub stores models; None without a home."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name, "").startswith("/"):
            return environ[name].rstrip("/")
    home = hub_home(environ)
    return f"{home}/hub" if home else None


def hub_home(environ: Mapping[str, str]) -> str | None:
    if environ.get("HF_HOME", "").startswith("/"):
        return environ["HF_HOME"].rstrip("/")
    cache = environ.get("XDG_CACHE_HOME", "")
    if cache.startswith("/"):
        return f"{cache.rstrip('/')}/huggingface"
    home = environ.get("HOME", "")
    return f"{home.rstrip('/')}/.cache/huggingface" if home.startswith("/") else None


def read_hub(machine: Machine) -> Hub:
    """The token itself is never read, neither from its file nor from the variable."""
    environ = machine.session().environ
    home, cache = hub_home(environ), cache_folder(environ)
    path = environ.get("HF_TOKEN_PATH") or (f"{home}/token" if home else None)
    there = exists(machine, path) if path and path.startswith("/") else None
    given = next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if environ.get(name)), None)
    offline = next((name for name in _OFFLINE if environ.get(name, "").lower() in _TRUE), None)
    return Hub(
        token=True if given else there,
        token_file=path if there else None,
        readable_by_others=_open_to_others(machine, path) if there and path else None,
        offline=f"{offline}={environ[offline]}" if offline else None,
        cache=cache,
        cache_chosen=any(environ.get(name) for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")),
        cached=exists(machine, cache) if cache else None,
    )


def _open_to_others(machine: Machine, path: str) -> bool | None:
    """Others may read the file and pass through every folder above it."""
    try:
        if not machine.stat(path).mode & 0o004:
            return False
        while path := path.rpartition("/")[0]:
            if not machine.stat(path).mode & 0o001:
                return False
    except Unreadable:
        return None
    return True
