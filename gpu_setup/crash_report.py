"""Keep the traceback of a bug of ours where its finder can send it from."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def keep(error: BaseException) -> Path | None:
    """Write the traceback into the state folder and return the file; None: no place, it went to stderr instead."""
    import platform
    import time
    import traceback

    from gpu_setup.version import version
    from machine.paths import paths

    text = "".join(traceback.format_exception(error))
    head = f"gpu-setup {version()}, Python {platform.python_version()}, {platform.platform()}\n{sys.argv[1:]}\n"
    folder = paths(os.environ).state / "crashes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        place.write_text(head + text, encoding="utf-8")
    except OSError:
        sys.stderr.write(head + text)
        return None
    return place
