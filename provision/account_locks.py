"""What a killed usermod or groupadd leaves beside the account files in /etc.

To lock FILE, shadow-utils writes its own number (and a NUL) to FILE.NUMBER, links that to FILE.lock and takes the first
name away; it writes FILE anew as FILE+ and renames it (its lib/commonio.c). A lock whose owner is gone is broken by the
next who wants it; the other two names stay for ever.
"""

from __future__ import annotations

import re
from pathlib import Path

from provision import files

FILES = ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
_BESIDE = re.compile(rf"({'|'.join(FILES)})(?:\.(lock|\d+)|(\+))")


def clear(folder: str = "/etc", processes: str = "/proc") -> tuple[str, ...]:
    """Take away what belongs to no living process, and say which paths; what a living one holds is left alone."""
    names = sorted(path.name for path in Path(folder).iterdir() if _BESIDE.fullmatch(path.name))
    held = {name for name in names if not name.endswith("+") and _owned(Path(folder, name), Path(processes))}
    locked = {name.partition(".")[0] for name in held}
    left = [name for name in names if name not in held and not (name.endswith("+") and name[:-1] in locked)]
    for name in left:
        files.remove(f"{folder}/{name}")
    return tuple(f"{folder}/{name}" for name in left)


def _owned(path: Path, processes: Path) -> bool:
    """Whether a living process made the file. What names no process (vipw's lock, say) is a person's to judge."""
    try:
        number = path.read_bytes().strip(b"\0\n ").decode("ascii", "replace")
    except OSError:
        return True
    if not number and path.suffix != ".lock":
        number = path.suffix[1:]
    return not number.isdecimal() or (processes / number).exists()
