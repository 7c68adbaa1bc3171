"""Packages that only some commands need: installed at the first such command, into the tool's own environment.

Each extra is a folder of its own beside the environment's packages, published by one rename: a stopped or failed
installation changes nothing, and no package changes under a running command.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from machine.errors import Problem, Refused

if TYPE_CHECKING:
    import click


class Extra(NamedTuple):
    """An extra counts as installed where all `modules` are found; `megabytes` is its download, rounded up."""

    purpose: str
    modules: tuple[str, ...]
    megabytes: int


# named as in pyproject.toml; the lock of each is requirements-NAME.lock beside this file
EXTRAS = {
    "data": Extra(
        "training data", ("numpy", "rensa", "ahocorasick", "py3langid", "ftfy", "phonenumbers", "stdnum"), 25
    ),
    "charts": Extra("charts", ("numpy", "matplotlib"), 45),
}


def install_before(command: click.Command, extras: tuple[str, ...]) -> click.Command:
    """The command, or each command of the group, installs its extras before it runs; its --help does not."""
    import click

    if isinstance(command, click.Group):
        for each in command.commands.values():
            install_before(each, extras)
    elif (callback := command.callback) is not None:

        @functools.wraps(callback)
        def prepared(*arguments: Any, **options: Any) -> Any:
            need(*extras)
            return callback(*arguments, **options)

        command.callback = prepared
    return command


def need(*extras: str) -> None:
    """Make the extras' packages importable; install those that are missing, or say how to."""
    folder = _folder()
    _use(folder)
    missing = [name for name in extras if not _found(EXTRAS[name])]
    if not missing:
        return
    if not os.environ.get("GPU_SETUP_LAUNCHER"):
        raise _not_ours(missing)
    from gpu_setup.toolenv import one_at_a_time, unwritable

    tool = Path(sys.prefix).parent
    try:
        with one_at_a_time(tool) as alone:
            if alone:
                for stale in folder.glob("*.partial"):
                    shutil.rmtree(stale, ignore_errors=True)
            for name in missing:
                _use(folder)
                if not _found(EXTRAS[name]):
                    _install(name, folder)
    except OSError as error:
        raise unwritable(tool, error) from error
    _use(folder)


def _folder() -> Path:
    """Where this checkout's extras are. The digest is that of all their locks: one extra may use another's packages."""
    digest = hashlib.sha256(b"".join(_lock(name).read_bytes() for name in EXTRAS)).hexdigest()[:12]
    return Path(sys.prefix, "extras", digest)


def _lock(name: str) -> Path:
    return Path(__file__).with_name(f"requirements-{name}.lock")


def _installed(folder: Path) -> list[str]:
    return [str(folder / name) for name in EXTRAS if (folder / name).is_dir()]


def _use(folder: Path) -> None:
    sys.path += [place for place in _installed(folder) if place not in sys.path]
    importlib.invalidate_caches()


def _found(extra: Extra) -> bool:
    return all(find_spec(module) is not None for module in extra.modules)


def _install(name: str, folder: Path) -> None:
    from gpu_setup.pip_install import install, pins, say

    place = folder / name
    # a folder with a module missing is damaged
    shutil.rmtree(place, ignore_errors=True)
    partial = folder / f"{name}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        present = _present(folder)
        wanted = {pin: lines for pin, lines in pins(_lock(name).read_text(encoding="utf-8")).items()
                  if _normal(pin) not in present}  # fmt: skip
        requirements = partial / "requirements.txt"
        requirements.write_text("".join(f"{line}\n" for lines in wanted.values() for line in lines), encoding="utf-8")
        extra = EXTRAS[name]
        size = f"{len(wanted)}, about {extra.megabytes} MB to download"
        say(f"this command needs packages for {extra.purpose}; installing them once ({size})")
        install(
            Path(sys.executable), requirements, f"packages for {extra.purpose}", "--target", str(partial / "packages")
        )
        (partial / "packages").rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _present(folder: Path) -> set[str]:
    """`name==version` of what the environment and the extras beside this one hold."""
    from importlib.metadata import distributions
    from sysconfig import get_path

    places = [get_path("purelib"), *_installed(folder)]
    return {_normal(f"{each.name}=={each.version}") for each in distributions(path=places)}


def _normal(pin: str) -> str:
    return re.sub(r"[-_.]+", "-", pin).lower()


def _not_ours(missing: list[str]) -> Problem:
    """The tool was installed by pipx, uv or pip: what it lacks, and the command that installs it."""
    wanted = f"'gpu-setup[{','.join(missing)}]'"
    prefix = Path(sys.prefix)
    if (prefix / "pipx_metadata.json").exists():
        command = f"pipx runpip gpu-setup install {wanted}"
    elif (prefix / "uv-receipt.toml").exists():
        command = f"uv pip install --python {sys.executable} {wanted}"
    else:
        command = f"{sys.executable} -m pip install {wanted}"
    return Refused(
        "tool.extra-missing",
        f"This command needs packages for {' and '.join(EXTRAS[name].purpose for name in missing)}.",
        f"gpu-setup was installed without {wanted}.",
        f"{command}, then run the same command again.",
    )
