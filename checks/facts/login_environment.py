"""Variables that a login sets and that change how a GPU is found: /etc/environment, shell files, user units."""

from __future__ import annotations

import re

from checks.facts.gaps import Gaps, names, text
from machine.local import Machine
from machine.patterns import lazy_pattern

_NAMES = r"(?:CUDA|HIP|ROCR)_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|HSA_OVERRIDE_GFX_VERSION(?:_\d{1,2})?|LD_LIBRARY_PATH"
# only at the beginning of a line: an indented line may be in a branch that never runs
_SET = lazy_pattern(rf"(?:export\s+|declare -x\s+|Environment=[\"']?)?({_NAMES})=(.*)$")
_IN_HOME = (".profile", ".bash_profile", ".bashrc", ".zshenv", ".zprofile", ".zshrc")
_FOLDERS = (
    ("/etc/profile.d", ".sh"),
    ("/etc/environment.d", ".conf"),
    ("~/.config/environment.d", ".conf"),
    ("~/.config/systemd/user", ".service"),
)


def parse_start_file(content: str) -> tuple[tuple[str, str], ...]:
    """(variable, value) of each line that sets one; values with shell expressions are left out.

    For LD_LIBRARY_PATH they are kept: usually the line only appends to it.
    """
    found = []
    for line in content.splitlines():
        match = _SET.match(line)
        value = match[2].split(" #")[0].strip().strip("\"';") if match else ""
        if match and (match[1] == "LD_LIBRARY_PATH" or not re.search(r"[$`]", value)):
            found.append((match[1], value[:500]))
    return tuple(found)


def is_start_file(path: str) -> bool:
    """Whether this path is one that `read_start_files` reads, in any home."""
    folder, _, name = path.rpartition("/")
    return name in _IN_HOME or any(
        folder.endswith(where.lstrip("~")) and name.endswith(ending) for where, ending in _FOLDERS
    )


def read_start_files(machine: Machine, gaps: Gaps) -> tuple[tuple[str, str, str], ...]:
    """(file, variable, value) for the user of this session."""
    home = machine.session().environ.get("HOME", "")
    files = ["/etc/environment"]
    files += [f"{home}/{name}" for name in _IN_HOME] if home.startswith("/") else []
    for where, ending in _FOLDERS:
        folder = where.replace("~", home)
        if folder.startswith("/"):
            files += [f"{folder}/{name}" for name in names(machine, folder, gaps) or () if name.endswith(ending)]
    return tuple(
        (path, name, value) for path in files for name, value in parse_start_file(text(machine, path, gaps) or "")
    )
