"""Where every start begins, whether by launcher, pipx, uv or `python -m gpu_setup`.

The rooms are top-level packages, and so may be the folders of whoever calls: PYTHONPATH and the working directory
leave sys.path before anything but sys and os is imported.
"""

from __future__ import annotations

import os
import sys


def tidy(path: list[str], pythonpath: str, cwd: str, prefixes: tuple[str, ...]) -> list[str]:
    """The search path without PYTHONPATH's entries and the working directory; what the interpreter brings stays."""
    strangers = {os.path.realpath(entry or cwd) for entry in pythonpath.split(os.pathsep)} if pythonpath else set()
    if cwd:
        strangers.add(os.path.realpath(cwd))
    own = tuple(os.path.join(prefix, "lib") for prefix in prefixes)
    return [
        entry for entry in path if entry.startswith(own) or (entry != "" and os.path.realpath(entry) not in strangers)
    ]


def main() -> None:
    """Clean the path, run the command line, leave with its exit code."""
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = ""
    if not sys.flags.isolated:
        sys.path[:] = tidy(sys.path, os.environ.get("PYTHONPATH", ""), cwd, (sys.prefix, sys.base_prefix))
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if home not in sys.path:
        sys.path.append(home)
    try:
        from gpu_setup.cli import run

        code = run(sys.argv[1:])
    except Exception as error:
        rebuild(error)
        sys.stderr.write(
            f"gpu-setup: a part of the tool does not import.\n  why:  {type(error).__name__}: {error}\n"
            "  next: Install it again (pipx reinstall gpu-setup, uv tool install --reinstall, or a fresh checkout).\n"
        )
        sys.exit(70)
    sys.exit(code)


def damaged(error: BaseException) -> bool:
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
    if not launcher or os.environ.get("GPU_SETUP_REBUILD") or not damaged(error):
        return
    sys.stderr.write(f"gpu-setup: the tool's environment is damaged ({error}); making it again\n")
    sys.stderr.flush()
    if stdout is not None:
        os.dup2(stdout, 1)
    os.execve(launcher, [launcher, *sys.argv[1:]], {**os.environ, "GPU_SETUP_REBUILD": "wanted"})
