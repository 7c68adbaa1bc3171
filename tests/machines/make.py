"""Make the recorded machines of this folder: `python -m tests.machines.make [FOLDER]`.

None of them was recorded on hardware: each is put together, layer by layer, from what the kernel, Ubuntu and the
vendors' drivers are known to write. A test compares the committed files with what this script makes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from machine.machine_file import load
from tests.machines import family_amd, family_nvidia, family_other
from tests.machines.synthetic import Recording

# name → how it is made, and what it shows
MACHINES: dict[str, tuple[Callable[[Recording], None], str]] = {
    **family_nvidia.MACHINES,
    **family_amd.MACHINES,
    **family_other.MACHINES,
}


def make(folder: Path) -> None:
    """Write every machine into `folder`; of a file that exists the expect.json is kept."""
    for name, (build, note) in MACHINES.items():
        file = folder / f"{name}.machine"
        kept = load(str(file)).files.get("expect.json") if file.exists() else None
        machine = Recording(name, note)
        build(machine)
        file.write_bytes(machine.text(kept or b"{}\n"))


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
