"""Where the vendors' user-space libraries are: the folders of Debian and Ubuntu, WSL, ROCm and LD_LIBRARY_PATH."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

# the names that the Python bindings give to dlopen: pynvml.py (_LoadNvmlLibrary), amdsmi_wrapper.py (find_smi_library)
BINDING_LIBRARY = {"nvidia": "libnvidia-ml.so.1", "amd": "libamd_smi.so"}

# Microsoft's folder of the driver's libraries for Linux guests of Windows
WSL_LIBRARIES = "/usr/lib/wsl/lib"

_SYSTEM = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    WSL_LIBRARIES,
    # where container hosts put NVIDIA's libraries
    "/usr/local/nvidia/lib64",
)

Names = Callable[[str], Sequence[str]]


def library_folders(vendor: str, environ: Mapping[str, str], names: Names) -> tuple[str, ...]:
    """Folders to look in, in the loader's order. `names(folder)` lists a folder, empty when it is missing."""
    found = [folder for folder in environ.get("LD_LIBRARY_PATH", "").split(":") if folder.startswith("/")]
    if vendor == "amd":
        found += [
            environ[name] + "/lib" for name in ("ROCM_HOME", "ROCM_PATH") if environ.get(name, "").startswith("/")
        ]
        found += [f"{path}/lib" for path in rocm_folders(names)]
    return tuple(dict.fromkeys([*found, *_SYSTEM]))


def rocm_folders(names: Names) -> tuple[str, ...]:
    """/opt/rocm, /opt/rocm-7.2.4 (to 7.2) and /opt/rocm/core-10.0 (from 7.14), those of them that exist."""
    tops = [f"/opt/{name}" for name in names("/opt") if name == "rocm" or name.startswith("rocm-")]
    cores = [f"/opt/rocm/{name}" for name in (names("/opt/rocm") if "/opt/rocm" in tops else ()) if name[:5] == "core-"]
    return (*tops, *cores)


def binding_library(vendor: str, environ: Mapping[str, str], names: Names) -> str | None:
    """The library file that the vendor's Python binding would load on this machine, None when there is none."""
    name = BINDING_LIBRARY[vendor]
    paths = (f"{folder}/{name}" for folder in library_folders(vendor, environ, names))
    return next((path for path in paths if os.path.exists(path)), None)
