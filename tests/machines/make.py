"""Make the recorded machines of this folder: `python -m tests.machines.make [FOLDER]`.

None of them was recorded on hardware: each is put together, layer by layer, from what the kernel, Ubuntu and the
vendors' drivers are known to write. A test compares the committed folders with what this script makes.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tests.machines import family_amd, family_nvidia, family_other
from tests.machines.recording_folder import OURS, Recording

# name → how it is made, and what it shows
MACHINES: dict[str, tuple[Callable[[Recording], None], str]] = {
    **family_nvidia.MACHINES,
    **family_amd.MACHINES,
    **family_other.MACHINES,
}


def make(folder: Path) -> None:
    """Write every machine under `folder`; a machine that is there is replaced, all but its expect.json."""
    for name, (build, note) in MACHINES.items():
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        for old in place.iterdir():
            if old.is_dir():
                shutil.rmtree(old)
            elif old.name != OURS:
                old.unlink()
        machine = Recording(name, note)
        build(machine)
        machine.write(place)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
