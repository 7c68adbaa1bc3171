"""Make a machine file from a bundle or a folder: `python -m tests.machines.convert PLACE FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from machine.machine_file_writer import parts_of, text
from machine.open_recording import open_recording

# to be filled in by hand
EXPECTED = {
    "doctor": {"fail": [], "warn": [], "unknown": []},
    "plan": {"steps": [], "packages": [], "reboots": 0, "refusals": []},
}


def convert(place: str) -> bytes:
    """The recording as a machine file, with an expect.json that expects nothing when it has none."""
    parts = parts_of(open_recording(place).tree)
    empty = (json.dumps(EXPECTED, indent=2) + "\n").encode()
    return text(parts._replace(documents={"expect.json": empty, **parts.documents}))


if __name__ == "__main__":
    with Path(sys.argv[2]).open("xb") as out:
        out.write(convert(sys.argv[1]))
