"""The recorded machines of this folder, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.recording import RecordedMachine

FOLDER = Path(__file__).with_name("machines")
# each vendor fresh, healthy and broken, both and neither: those that ./test --fast sends through a whole process too
FEW = (
    "no-gpu",
    "rtx3090-library-mismatch",
    "rtx3090-secureboot-dkms-rejected",
    "rtx3090ti-fresh",
    "rtx4090-healthy",
    "rx7900gre-dkms-failed",
    "rx7900xt-fresh",
    "rx7900xtx-healthy",
    "two-vendors",
)


def names() -> list[str]:
    """Every recorded machine, sorted; for parametrize."""
    return sorted(place.name for place in FOLDER.iterdir() if (place / "sysroot").is_dir())


def few_fast() -> list[object]:
    """Every recorded machine, for parametrize; all but FEW are left to the long part."""
    return [name if name in FEW else pytest.param(name, marks=pytest.mark.long) for name in names()]


def load(name: str) -> RecordedMachine:
    """The machine, strict: a command that was not recorded fails the test."""
    return RecordedMachine(FOLDER / name, strict=True)
