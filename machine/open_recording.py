"""The recorded machine in a folder, a bundle or a machine file; their content decides which of them it is."""

from __future__ import annotations

import os
import stat as stat_bits

from machine.errors import BadUsage
from machine.recording import RecordedMachine

_GZIP, _ZIP = b"\x1f\x8b", b"PK"
# a machine file's first line without the number of its format, also behind an editor's byte-order mark
_MACHINE_FILE = b"gpu-setup recorded machine"


def open_recording(place: str, strict: bool = False) -> RecordedMachine:
    """The machine recorded at `place`; raises BadUsage. `strict`: see RecordedMachine."""
    try:
        mode = os.stat(place).st_mode
    except (OSError, ValueError):
        mode = 0
    if not stat_bits.S_ISREG(mode):
        return RecordedMachine(place, strict)
    start = _start(place)
    if start.startswith((_GZIP, _ZIP)):
        from machine.bundle import unpack

        return RecordedMachine(unpack(place), strict)
    if _MACHINE_FILE in start:
        from machine.machine_file import load

        return RecordedMachine(load(place), strict)
    raise BadUsage(
        "recording.none",
        f"{place} is not a recording of a machine.",
        f"It is neither a bundle (.tar.gz) nor a machine file: that begins with `{_MACHINE_FILE.decode()}`.",
        "Record the machine in question with: gpu-setup doctor --bundle FILE.",
    )


def _start(file: str) -> bytes:
    try:
        with open(file, "rb") as found:  # noqa: PTH123
            return found.read(64)
    except OSError as error:
        raise BadUsage(
            "recording.unreadable",
            f"{file} cannot be read.",
            f"The system says: {error.strerror or error}.",
            "Check who may read the file.",
        ) from error
