"""The entry point of every start: launcher, pipx, uv or `python -m gpu_setup`.

The tool's packages are top-level, and a caller's folders may have the same names: PYTHONPATH and the working directory
are removed from sys.path before any of them is imported.
"""

from __future__ import annotations

import gc
import os
import sys

from gpu_setup.environment_repair import rebuild


def tidy(path: list[str], pythonpath: str, cwd: str, prefixes: tuple[str, ...]) -> list[str]:
    """The search path without PYTHONPATH's entries and the working directory, and with all of the interpreter's own."""
    strangers = {os.path.realpath(entry or cwd) for entry in pythonpath.split(os.pathsep)} if pythonpath else set()
    if cwd:
        strangers.add(os.path.realpath(cwd))
    own = tuple(os.path.join(prefix, "lib") for prefix in prefixes)
    return [
        entry for entry in path if entry.startswith(own) or (entry != "" and os.path.realpath(entry) not in strangers)
    ]


def open_closed_streams() -> None:
    """Give closed standard streams (`>&-`) /dev/null, so that no other file gets their number.

    In stdout's place it is opened for reading: a closed stdout is an error, which the command line reports.
    """
    for number, name, mode, access in ((0, "stdin", "r", os.O_RDONLY), (1, "stdout", "w", os.O_RDONLY),
                                       (2, "stderr", "w", os.O_WRONLY)):  # fmt: skip
        try:
            os.fstat(number)
        except OSError:
            # the lowest free number is this one
            os.open(os.devnull, access)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def main() -> None:
    """Clean the path, run the command line, exit with its status."""
    # modules and tables are kept: with Python's threshold of 700 new objects, looking for garbage takes 4 ms of a start
    gc.set_threshold(100_000, *gc.get_threshold()[1:])
    open_closed_streams()
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
            f"gpu-setup: a part of the tool cannot be imported.\n  why:  {type(error).__name__}: {error}\n"
            "  next: Install it again (pipx reinstall gpu-setup, uv tool install --reinstall, or a fresh checkout).\n"
        )
        sys.exit(70)
    # the end of the process frees what is left: searching it for cycles takes 12 ms
    gc.freeze()
    sys.exit(code)
