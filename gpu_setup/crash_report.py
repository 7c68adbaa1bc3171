"""Keep the traceback of a bug of ours where its finder can send it from."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def keep(error: BaseException) -> Path | None:
    """Write the traceback into the state folder and return the file; None: no place, it went to stderr instead.

    Without names, folders and secrets of this machine: people are asked to send it.
    """
    import platform
    import time
    import traceback

    from gpu_setup.portable import portable_text
    from gpu_setup.version import version
    from machine.paths import paths
    from machine.plain_text import clean
    from machine.whole_file import write_whole

    hide = portable_text()
    lines = "".join(traceback.format_exception(error)).splitlines(keepends=True)
    head = f"gpu-setup {version()}, Python {platform.python_version()}, {platform.platform()}\n"
    text = clean(head + f"{[hide(word) for word in sys.argv[1:]]}\n" + "".join(map(hide, lines)))
    folder = paths(os.environ).state / "crashes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        write_whole(place, text)
    except OSError:
        sys.stderr.write(text)
        return None
    return place
