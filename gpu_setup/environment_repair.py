"""A damaged environment of the tool is made again by the launcher, once."""

from __future__ import annotations

import os
import sys


def is_damaged(error: BaseException) -> bool:
    """Whether the error tells of a package of the environment that is missing or cut short (full disk, power cut)."""
    if isinstance(error, SyntaxError):
        return (error.filename or "").startswith(sys.prefix)
    if isinstance(error, ImportError):
        module = error.name
    elif isinstance(error, AttributeError):
        # an emptied package imports, and then lacks everything
        module = getattr(error.obj, "__name__", None) if type(error.obj) is type(sys) else None
    else:
        return False
    own = ("gpu_setup", "harness", "containers", "provision", "checks", "machine")
    return module is not None and module.partition(".")[0] not in own


def rebuild(error: BaseException, stdout: int | None = None) -> None:
    """Let the launcher make a damaged environment again, once, and start over.

    Returns where that is not what happened, or where no launcher stands behind this start (pipx, uv).
    `stdout` is where stdout leads to while it is redirected; the new start gets it back.
    """
    launcher = os.environ.get("GPU_SETUP_LAUNCHER", "")
    if not launcher or os.environ.get("GPU_SETUP_REBUILD") or not is_damaged(error):
        return
    sys.stderr.write(f"gpu-setup: the tool's environment is damaged ({error}); making it again\n")
    sys.stderr.flush()
    if stdout is not None:
        os.dup2(stdout, 1)
    os.execve(launcher, [launcher, *sys.argv[1:]], {**os.environ, "GPU_SETUP_REBUILD": "wanted"})
