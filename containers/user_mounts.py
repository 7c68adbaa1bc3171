"""The person's folders in a container: the current one, and those given by --mount."""

from __future__ import annotations

from pathlib import Path

from containers.container import Mount
from machine.errors import BadUsage

# inside, these are the image's folders; a mount would hide them
SYSTEM_FOLDERS = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr")


def check_folder(here: Path) -> Path:
    """A folder that can be mounted at the same path inside; raises BadUsage for a system folder."""
    if here.parts[1:2] and here.parts[1] not in SYSTEM_FOLDERS and str(here) not in ("/opt", "/run", "/tmp", "/var"):
        return here
    raise BadUsage(
        "image.folder",
        f"{here} is a system folder.",
        "It would be mounted at the same path inside, where the image has its own system folder.",
        "Use a folder of your own.",
    )


def user_mounts(here: Path, named: tuple[str, ...]) -> tuple[Mount, ...]:
    """`here` writable; each of `named` read-only, unless it ends in `:rw`."""
    found = [Mount(here, writable=True)]
    for name in named:
        place = Path(name.removesuffix(":rw")).absolute()
        if not place.exists():
            raise BadUsage("image.mount", f"--mount: {place} not found.", "", "Correct the path.")
        found.append(Mount(place, name.endswith(":rw")))
    return tuple(found)
