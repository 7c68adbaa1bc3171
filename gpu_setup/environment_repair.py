"""A damaged environment of the tool: an incomplete compiled file is removed, all else the launcher rebuilds, once."""

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


def is_truncated(error: BaseException) -> str | None:
    """The compiled file (.pyc) that is incomplete, where that is what the error means.

    Before 3.12.8 Python leaves one on a disk that fills up, and every later start fails: python/cpython#126606.
    """
    if not isinstance(error, EOFError):
        return None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "_compile_bytecode":
            found = trace.tb_frame.f_locals.get("bytecode_path")
            return found if isinstance(found, str) else None
        trace = trace.tb_next
    return None


def recompile(file: str, stdout: int | None) -> None:
    """Remove the incomplete compiled file and run the command again without writing another; returns if it cannot."""
    if sys.flags.dont_write_bytecode:
        return
    try:
        os.unlink(file)
    except OSError:
        return
    if stdout is not None:
        os.dup2(stdout, 1)
    os.execv(sys.executable, [sys.executable, "-B", *sys.orig_argv[1:]])


def rebuild(error: BaseException, stdout: int | None = None) -> None:
    """Let the launcher rebuild a damaged environment, once, and run the command again; or only one compiled file.

    Returns if the error means something else, or if no launcher started this process (pipx, uv).
    `stdout` is the real stdout while it is redirected; the new process gets it back.
    """
    if (file := is_truncated(error)) is not None:
        recompile(file, stdout)
    launcher = os.environ.get("GPU_SETUP_LAUNCHER", "")
    if not launcher or os.environ.get("GPU_SETUP_REBUILD") or not is_damaged(error):
        return
    sys.stderr.write(f"gpu-setup: the tool's environment is damaged ({error}); rebuilding it\n")
    sys.stderr.flush()
    if stdout is not None:
        os.dup2(stdout, 1)
    os.execve(launcher, [launcher, *sys.argv[1:]], {**os.environ, "GPU_SETUP_REBUILD": "wanted"})
