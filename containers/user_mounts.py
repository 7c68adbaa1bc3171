"""A person's own folders in a container: the one they are in, and those that they name."""

from __future__ import annotations

from pathlib import Path

from containers.run import Mount
from machine.errors import BadUsage

# inside they are the image's; mounted over them, the machine's would take its place
SYSTEM_FOLDERS = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr")


def check_folder(here: Path) -> Path:
    """A folder that can be mounted at its own place inside; raises BadUsage for one that the image has itself."""
    if here.parts[1:2] and here.parts[1] not in SYSTEM_FOLDERS and str(here) not in ("/opt", "/run", "/tmp", "/var"):
        return here
    raise BadUsage(
        "image.folder",
        f"The program would run in {here}, a system folder.",
        "This folder is mounted at the same place inside, where the image has its own.",
        "Change to a folder of yours, then run it again.",
    )


def user_mounts(here: Path, named: tuple[str, ...]) -> tuple[Mount, ...]:
    """`here` with writing; each of `named` without, unless it ends in `:rw`."""
    found = [Mount(here, writable=True)]
    for name in named:
        place = Path(name.removesuffix(":rw")).absolute()
        if not place.exists():
            raise BadUsage("image.mount", f"--mount: {place} not found.", "", "Correct the path.")
        found.append(Mount(place, name.endswith(":rw")))
    return tuple(found)
