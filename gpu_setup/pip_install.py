"""pip for the tool's own packages: what a lock names and nothing else, each file checked against its hash.

Standard library only: the first start runs it before any package is installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from machine.errors import OutsideFailed
from machine.plain_text import clean

# pip's own settings (index, proxy, certificates) hold; these would install elsewhere, or hide what pip prints
_IGNORED = {
    f"PIP_{name}" for name in ("USER", "TARGET", "PREFIX", "ROOT", "REQUIRE_VIRTUALENV", "QUIET", "VERBOSE", "LOG")
}

# what pip prints, why it stopped, what to do next; the first row that matches counts
_CAUSES = (
    (
        ("No space left", "Disk quota"),
        "The disk is full.",
        "Free some space (about 300 MB) and run the same command again.",
    ),
    (
        ("DO NOT MATCH THE HASHES",),
        "A downloaded file is not the one that the lock names: a proxy or mirror changed it, or it is damaged.",
        "Run the same command again; if it fails again, check pip's index settings: pip config list.",
    ),
    (
        ("onnection", "No matching distribution", "imed out", "resolution", "ProxyError", "SSLError"),
        "The network or the package index could not be reached.",
        "Check the network, the proxy (https_proxy) and `pip config list`, then run the same command again.",
    ),
)


def say(text: str) -> None:
    """One message on stderr; the work continues though nobody can read it."""
    with suppress(OSError):
        sys.stderr.write(f"gpu-setup: {clean(text)}\n")
        sys.stderr.flush()


def pins(lock: str) -> dict[str, list[str]]:
    """`name==version` to its lines in the lock, in the lock's order."""
    found: dict[str, list[str]] = {}
    pin = ""
    for line in lock.splitlines():
        if start := re.match(r"[A-Za-z0-9][^ ;\\]*==[^ ;\\]+", line):
            pin = start[0]
        if pin:
            found.setdefault(pin, []).append(line)
    return found


def install(python: Path, requirements: Path, step: str, *options: str) -> None:
    """`pip install` of what the file names, with progress on stderr; OutsideFailed says why it stopped."""
    count = len(pins(requirements.read_text(encoding="utf-8")))
    argv = [
        *(str(python), "-I", "-m", "pip", "install", "--no-user", "--no-deps", "--no-compile", "--require-hashes"),
        *("--no-input", "--disable-pip-version-check", "--progress-bar", "off", *options, "-r", str(requirements)),
    ]
    env = {name: value for name, value in os.environ.items() if name not in _IGNORED}
    # in this process group, so that Ctrl-C and a kill of the group reach pip too
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as pip:
        printed = list(_shown(pip.stdout or (), count, step))
    if pip.returncode != 0:
        raise _failed(pip.returncode, printed)


def _shown(lines: Iterable[str], count: int, step: str) -> Iterator[str]:
    """Pass pip's lines on and count its packages: in place on a terminal, every tenth elsewhere."""
    terminal, collected = sys.stderr.isatty(), 0
    for line in lines:
        yield line
        name = re.match(r"(?:Collecting |Processing (?:.*/)?)([^ =/-]+)", line)
        if name is None:
            continue
        collected += 1
        if terminal:
            sys.stderr.write(f"\r\033[Kgpu-setup: {step}: {collected} of {count} ({clean(name[1])})")
            sys.stderr.flush()
        elif collected % 10 == 0:
            say(f"{step}: {collected} of {count}")
    if terminal:
        sys.stderr.write("\r\033[K")


def _failed(returncode: int, printed: list[str]) -> OutsideFailed:
    text = "".join(printed)
    why, following = f"pip stopped with exit status {returncode}.", "Run the same command again."
    for words, cause, next_step in _CAUSES:
        if any(word in text for word in words):
            why, following = cause, next_step
            break
    # without the sources that pip tried: they may hold a password
    errors = [re.sub(r"://[^/@ ]*@", "://", line[7:].strip()) for line in printed if line.startswith("ERROR: ")]
    return OutsideFailed(
        "tool.packages",
        "The tool's packages could not be installed; nothing incomplete was kept.",
        f"{why} pip's last lines: {' '.join(errors[-2:]) or 'none'}",
        following,
    )
