"""The launcher rebuilds a damaged environment of the tool, once."""

from __future__ import annotations

import os
import sys


def is_damaged(error: BaseException) -> bool:
    """Whether the error means that a package of the environment is missing or truncated (full disk, power failure)."""
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
    """Let the launcher rebuild a damaged environment, once, and run the command again.

    Returns if the error means something else, or if no launcher started this process (pipx, uv).
    `stdout` is the real stdout while it is redirected; the new process gets it back.
    """
    launcher = os.environ.get("GPU_SETUP_LAUNCHER", "")
    if not launcher or os.environ.get("GPU_SETUP_REBUILD") or not is_damaged(error):
        return
    sys.stderr.write(f"gpu-setup: the tool's environment is damaged ({error}); rebuilding it\n")
    sys.stderr.flush()
    if stdout is not None:
        os.dup2(stdout, 1)
    os.execve(launcher, [launcher, *sys.argv[1:]], {**os.environ, "GPU_SETUP_REBUILD": "wanted"})
