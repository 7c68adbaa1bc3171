"""Makes the tool's own environment; toolenv.sh runs it with a Python that has only the standard library.

toolenv.py TOOL KEY LOCK MODULES     TOOL/KEY becomes an environment with LOCK's packages, of which MODULES import
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

if not __package__:
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from gpu_setup.pip_install import install, pins, say
from machine.errors import INTERRUPTED, OutsideFailed, Problem


@contextlib.contextmanager
def one_at_a_time(tool: Path) -> Iterator[bool]:
    """Hold TOOL/lock, which a killed holder frees; False where the file system has no locks."""
    try:
        file = (tool / "lock").open("a")
    except OSError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another start is installing packages; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
            return
        yield True


def unwritable(folder: Path, error: OSError) -> OutsideFailed:
    return OutsideFailed(
        "tool.unwritable",
        f"The folder {folder} cannot be written.",
        f"The system says: {error.strerror or error}.",
        "Set GPU_SETUP_HOME to a folder that you can write, for example: "
        "GPU_SETUP_HOME=/var/tmp/gpu-setup ./gpu-setup ...",
    )


def make(tool: Path, key: str, lock: Path, modules: str, rebuild: bool) -> None:
    """Make TOOL/KEY unless it is usable already; with `rebuild` in any case."""
    try:
        tool.mkdir(parents=True, exist_ok=True)
        if not os.access(tool, os.W_OK):
            raise PermissionError(13, "Permission denied")
        with one_at_a_time(tool) as alone:
            if alone:
                _remove_stale(tool, key)
            if rebuild or _import_error(tool / key, modules) is not None:
                _build(tool, key, lock, rebuild)
    except OSError as error:
        raise unwritable(tool, error) from error
    problem = _import_error(tool / key, modules)
    if problem is not None:
        raise OutsideFailed(
            "tool.packages",
            "The tool's environment was made, but its packages do not start.",
            problem,
            f"If {tool} is on a file system mounted noexec, set GPU_SETUP_HOME to a folder elsewhere.",
        )


def _import_error(environment: Path, modules: str) -> str | None:
    """Why MODULES do not import in the environment; None where they do."""
    try:
        done = subprocess.run(
            [environment / "bin" / "python", "-I", "-c", f"import {modules}"], capture_output=True, text=True
        )
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["It printed nothing."])[-1]


def _remove_stale(tool: Path, key: str) -> None:
    """Remove what a killed start began; only whoever holds the lock may."""
    current = os.path.realpath(tool / key)
    for build in tool.glob(f"build.{key}.*"):
        if build.is_dir() and os.path.realpath(build) != current:
            shutil.rmtree(build, ignore_errors=True)


def _build(tool: Path, key: str, lock: Path, rebuild: bool) -> None:
    begin = time.monotonic()
    say(f"rebuilding the tool's own environment in {tool}" if rebuild
        else f"first start: making the tool's own environment, once, in {tool}")  # fmt: skip
    say(f"[1/3] Python {sys.version_info[0]}.{sys.version_info[1]} ({sys.executable})")
    build = tool / f"build.{key}.{os.getpid()}"
    # the one to replace; without a lock another start may publish first
    before = os.path.realpath(tool / key)
    published = False
    try:
        say("[2/3] an empty environment")
        _empty(build)
        say(f"[3/3] packages: {len(pins(lock.read_text(encoding='utf-8')))}, each checked against its hash")
        install(build / "bin" / "python", lock, "[3/3] packages")
        published = _publish(build, tool / key, before)
    finally:
        if not published:
            shutil.rmtree(build, ignore_errors=True)
    say(f"ready after {time.monotonic() - begin:.0f} s")


def _empty(build: Path) -> None:
    """An environment with pip and nothing else. To unpack Python's wheel of pip is seconds faster than ensurepip."""
    shutil.rmtree(build, ignore_errors=True)
    wheel = _pip_wheel()
    try:
        venv.create(build, symlinks=True, with_pip=wheel is None)
    except subprocess.CalledProcessError as error:
        raise OutsideFailed(
            "tool.python",
            "Python could not make an environment.",
            str(error),
            "Name another Python: GPU_SETUP_PYTHON=/path/to/python3.12 ./gpu-setup ...",
        ) from error
    if wheel is not None:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(sysconfig.get_path("purelib", "venv", {"base": str(build)}))


def _pip_wheel() -> Path | None:
    """The wheel that ensurepip would install: beside it, or where Debian, Ubuntu and Fedora keep it."""
    import ensurepip

    name = f"pip-{ensurepip.version()}-py3-none-any.whl"
    folders = (sysconfig.get_config_var("WHEEL_PKG_DIR"), Path(ensurepip.__file__).parent / "_bundled")
    return next((Path(each, name) for each in folders if each and Path(each, name).is_file()), None)


def _publish(build: Path, link: Path, before: str) -> bool:
    """Point the link at the environment, in one step, so that nobody sees half of it; the folder never moves.

    Of two that built at once the first counts: False for the second.
    """
    try:
        link.symlink_to(build.name)
    except FileExistsError:
        if os.path.realpath(link) != before:
            return False
        beside = build.with_name(f"{build.name}.link")
        beside.symlink_to(build.name)
        beside.replace(link)
        if os.path.dirname(before) == os.path.realpath(link.parent):
            shutil.rmtree(before, ignore_errors=True)
    return True


def main(arguments: list[str]) -> int:
    tool, key, lock, modules = arguments
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        make(Path(tool), key, Path(lock), modules, os.environ.get("GPU_SETUP_REBUILD") == "wanted")
    except Problem as problem:
        say(f"{problem.what}\n  why:  {problem.why}\n  next: {problem.next}")
        return problem.exit_code
    except KeyboardInterrupt:
        say("stopped; nothing incomplete was kept.")
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
