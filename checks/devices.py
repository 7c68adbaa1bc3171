"""The names of GPUs by PCI id, from data/devices/devices.txt (pci.ids, amdgpu.ids): found in the text, not parsed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

_FILE = os.path.join(os.path.dirname(__file__), "data", "devices", "devices.txt")


class Device(NamedTuple):
    """`chip` and `name` are empty where it has none; `of_several`: the name lists boards that share the id."""

    chip: str
    name: str
    of_several: bool = False


@cache
def _text() -> str:
    # read only when a card is looked up; pathlib would cost the doctor 3 ms
    with open(_FILE, encoding="utf-8") as file:  # noqa: PTH123
        return file.read()


def _row(key: str) -> tuple[str, str] | None:
    text, start = _text(), f"\n{key}\t"
    at = text.find(start)
    if at < 0:
        return None
    chip, _, name = text[at + len(start) : text.index("\n", at + 1)].partition("\t")
    return chip, name


def find_device(vendor: str, device: str, revision: str | None) -> Device | None:
    """What the database says of this PCI id; None: it has no such GPU."""
    row = _row(f"{vendor}:{device}")
    if row is None:
        return None
    chip, name = row
    board = _row(f"{vendor}:{device}:{revision}")
    if board:
        return Device(chip, board[1])
    return Device(chip, name, of_several=f"\n{vendor}:{device}:" in _text() and "/" in name)


def named_devices() -> Iterator[tuple[tuple[str, str, str | None], str]]:
    """(vendor, device, revision) and name of everything that has a name; the whole file is read for it."""
    for line in _text().splitlines():
        key, _, rest = line.partition("\t")
        name = rest.partition("\t")[2]
        if name:
            vendor, device, *revision = key.split(":")
            yield (vendor, device, revision[0] if revision else None), name


def source() -> str:
    """Which database it is: the first line of the file, e.g. `pci.ids 2026.10.24`."""
    return " ".join(_text().partition("\n")[0].split()[1:3])
