"""Texts that people send or publish: reports, crash files. Without names of people and machines, paths and secrets."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import msgspec

from machine import scrub
from machine.local import LocalMachine
from machine.paths import paths
from machine.plain_text import change_strings
from machine.recorder import identities_of

T = TypeVar("T")


def portable_text() -> Callable[[str], str]:
    """What takes out of a text what names this machine, its people and folders; of a path its last part is kept."""
    who = identities_of(LocalMachine())
    ours = paths(os.environ)
    folders = sorted(
        {str(folder) for folder in (ours.state, ours.cache, ours.data, os.getcwd())}, key=len, reverse=True
    )

    def clean(value: str) -> str:
        if value.startswith("/") and " " not in value:
            value = value.rstrip("/").rpartition("/")[2]
        for folder in folders:
            if len(folder) > 1:
                value = value.replace(f"{folder}/", "")
        return scrub.text(value, who)

    return clean


def portable(data: T) -> T:
    """The same document with every text portable."""
    return msgspec.convert(change_strings(msgspec.to_builtins(data), portable_text()), type(data))
