"""The recorded machines of this folder, by name."""

from __future__ import annotations

from pathlib import Path

from machine.recording import RecordedMachine

FOLDER = Path(__file__).with_name("machines")


def names() -> list[str]:
    """Every recorded machine, sorted; for parametrize."""
    return sorted(place.name for place in FOLDER.iterdir() if (place / "sysroot").is_dir())


def load(name: str) -> RecordedMachine:
    """The machine, strict: a command that was not recorded fails the test."""
    return RecordedMachine(FOLDER / name, strict=True)
