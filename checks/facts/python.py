"""The system's python3, and what Triton needs at run time: a C compiler and Python.h."""

from __future__ import annotations

import re

from checks.facts.gaps import Gaps, exists, on_path, target, text
from checks.facts.host import PythonFacts
from machine.local import Machine

# in the order in which Triton searches (triton/runtime/build.py): CC, then gcc, then clang
_COMPILERS = ("gcc", "clang", "cc")


def parse_minor(link: str) -> str | None:
    """`python3.12` → 3.12."""
    match = re.fullmatch(r"(?:.*/)?python([0-9]\.[0-9]{1,2})", link)
    return match[1] if match else None


def parse_patchlevel(content: str) -> str | None:
    """PY_VERSION of patchlevel.h."""
    match = re.search(r'^#define\s+PY_VERSION\s+"([0-9][\w.+]{0,20})"', content, re.MULTILINE)
    return match[1].rstrip("+") if match else None


def read_python(machine: Machine, gaps: Gaps) -> PythonFacts:
    """Debian's and Ubuntu's python3 before another one earlier on PATH: environments are created with that one."""
    path = "/usr/bin/python3" if exists(machine, "/usr/bin/python3") else on_path(machine, "python3")
    link, minor = (target(machine, path, gaps) if path else None), None
    if link:
        minor = parse_minor(link)
    compiler, missing = _compiler(machine)
    if path is None:
        return PythonFacts(compiler=compiler, missing_compiler=missing)
    prefix = path.rsplit("/bin/", 1)[0]
    include = f"{prefix}/include/python{minor}"
    # only the headers' patchlevel.h has the exact version; without it the first two numbers are enough
    version = parse_patchlevel(text(machine, f"{include}/patchlevel.h", gaps) or "") if minor else None
    return PythonFacts(
        path=path,
        version=version or minor,
        compiler=compiler,
        missing_compiler=missing,
        headers=exists(machine, f"{include}/Python.h") if minor else None,
        # Debian moves ensurepip to python3.N-venv; without it `python3 -m venv` fails
        venv=exists(machine, f"{prefix}/lib/python{minor}/ensurepip/__init__.py") if minor else None,
    )


def _compiler(machine: Machine) -> tuple[str | None, str | None]:
    """The compiler that Triton takes; else, without its folder, the one that CC names and that does not exist."""
    chosen = machine.session().environ.get("CC", "").split(" ")[0]
    if not chosen:
        return next((path for name in _COMPILERS if (path := on_path(machine, name))), None), None
    found = chosen if chosen.startswith("/") and exists(machine, chosen) else on_path(machine, chosen)
    return found, None if found else chosen.rpartition("/")[2]
