"""Builds the stand-ins for the vendors' libraries out of nvml_stub.c and amdsmi_stub.c."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def compiler() -> str:
    """gcc; without one the test is skipped, but not in CI, where that would hide it."""
    found = shutil.which("gcc") or shutil.which("cc")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has no C compiler: install gcc")
        pytest.skip("no C compiler: sudo apt install gcc")
    return found


def build(source: Path, library: Path, soname: str) -> None:
    argv = (compiler(), "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{soname}")
    subprocess.run((*argv, "-o", str(library), str(source)), check=True)


def nvml(folder: Path) -> Path:
    """A folder for LD_LIBRARY_PATH with libnvidia-ml.so.1."""
    build(HERE / "nvml_stub.c", folder / "libnvidia-ml.so.1", "libnvidia-ml.so.1")
    return folder


def amdsmi(folder: Path, without: str = "") -> Path:
    """A folder with libamd_smi.so: every symbol that the installed binding binds at import, except `without`."""
    package = importlib.util.find_spec("amdsmi")
    assert package is not None and package.submodule_search_locations
    wrapper = (Path(package.submodule_search_locations[0]) / "amdsmi_wrapper.py").read_text()
    symbols = set(re.findall(r"_libraries\['libamd_smi\.so'\]\.(\w+)", wrapper)) - {without}
    head = (HERE / "amdsmi_stub.c").read_text()
    answered = set(re.findall(r"^int (amdsmi_\w+)\(", head, re.MULTILINE))
    rest = "".join(f"int {name}(void) {{ return 2; }}\n" for name in sorted(symbols - answered))
    source = folder / "amdsmi_stub.c"
    source.write_text(head + rest)
    build(source, folder / "libamd_smi.so", "libamd_smi.so")
    return folder


def amdsmi_package(folder: Path, without: str) -> Path:
    """The installed binding as an older ROCm would bring it in `folder`: one that does not know `without`."""
    found = importlib.util.find_spec("amdsmi")
    assert found is not None and found.submodule_search_locations
    shutil.copytree(
        found.submodule_search_locations[0], folder / "amdsmi", ignore=shutil.ignore_patterns("__pycache__")
    )
    wrapper = folder / "amdsmi" / "amdsmi_wrapper.py"
    lines = wrapper.read_text().splitlines(keepends=True)
    wrapper.write_text("".join(line for line in lines if f"{without} = " not in line and f"{without}." not in line))
    return folder / "amdsmi" / "__init__.py"
