"""Python environments with torch, read as files: nothing in them is run or imported."""

from __future__ import annotations

import re
from collections.abc import Iterable

from checks.facts.gaps import Gaps, exists, names, text
from checks.facts.host import TrainingEnvironment
from checks.facts.software import EnvironmentKind, EnvironmentOwner
from machine.local import Machine
from machine.paths import folders

# packages that are built for one build of torch, by their folders' names
COMPANIONS = ("torchvision", "torchaudio", "xformers", "flash_attn", "triton", "pytorch_triton_rocm", "triton_rocm")
# what AMD's wheels are called: rocm_sdk_libraries_gfx110X_all (one family), amd_torch_device_gfx1100 (one GPU)
_AMD_PACKAGE = r"(?:rocm_sdk_libraries|amd_torch_device)_gfx([0-9a-f]{2,4}[Xx]?)(?:_[a-z]+)?"
# the folders that are read of a list of installed packages
_VERSION = r"[0-9][0-9a-z.!]{0,30}(?:\+(?:cu|cpu|cxx|git|pt|rocm)[\w.]{0,40})?"
DISTRIBUTION = rf"(?:torch|{'|'.join(COMPANIONS)}|{_AMD_PACKAGE})-{_VERSION}\.dist-info"
# rocBLAS, which torch's ROCm wheels carry: Kernels.so-000-gfx90a-xnack+.hsaco, TensileLibrary_lazy_gfx1100.dat
ROCBLAS = r"(?:Kernels\.so-\d+-|TensileLibrary_lazy_)gfx([0-9a-f]{3,4})(?:-[\w+-]+)?\.(?:hsaco|dat)"


def parse_torch(content: str) -> dict[str, str]:
    """`__version__`, `cuda` and `hip` of torch/version.py; values that are None there are left out."""
    found = re.findall(
        r"^(__version__|cuda|hip)(?:\s*:[^=\n]+)?\s*=\s*['\"]([^'\"\n]{1,80})['\"]", content, re.MULTILINE
    )
    return dict(found)


def parse_companions(names: Iterable[str]) -> tuple[tuple[str, str], ...] | None:
    """(name, version) of torch's companions in a site-packages folder; None where not even torch's own is listed."""
    parts = [name.removesuffix(".dist-info").split("-") for name in names if re.fullmatch(DISTRIBUTION, name)]
    installed = {part[0]: part[-1] for part in parts}
    if "torch" not in installed:
        return None
    return tuple((name, installed[name]) for name in COMPANIONS if name in installed)


def parse_rocm_targets(site: Iterable[str], rocblas: Iterable[str]) -> tuple[str, ...] | None:
    """The GPUs in the names of AMD's packages in site-packages and of rocBLAS's files; None where none is named."""
    found = [*(re.fullmatch(DISTRIBUTION, name) for name in site), *(re.fullmatch(ROCBLAS, name) for name in rocblas)]
    # newer setuptools write a folder's name in lower case
    return tuple(sorted({f"gfx{match[1].replace('x', 'X')}" for match in found if match and match[1]})) or None


def parse_stack(folder: str) -> str | None:
    """The stack in the name of an environment of gpu-setup's own: `cu130-1f2e3d4c5b6a-py3.12` → cu130."""
    match = re.fullmatch(r"([\w.]+)-[0-9a-f]{12}-py[0-9.]+", folder)
    return match[1] if match else None


def read_environments(machine: Machine, gaps: Gaps) -> tuple[TrainingEnvironment, ...]:
    """The environment that is active in this session (else what `pip install --user` made), and gpu-setup's own."""
    environ = machine.session().environ
    found = []
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        folder = environ.get(variable, "").rstrip("/")
        if folder.startswith("/"):
            found.append(_environment(machine, folder, "active", None, gaps))
    users = f"{environ.get('HOME', '')}/.local"
    if not found and users.startswith("/") and exists(machine, f"{users}/lib"):
        found.append(_environment(machine, users, "active", None, gaps))
    own = folders(environ).environments
    for name in names(machine, own, gaps) or () if own.startswith("/") else ():
        if (stack := parse_stack(name)) is not None:
            found.append(_environment(machine, f"{own}/{name}", "gpu-setup", stack, gaps))
    return tuple(one for one in found if one is not None and (one.torch or one.bitsandbytes))


def _environment(
    machine: Machine, folder: str, owner: EnvironmentOwner, stack: str | None, gaps: Gaps
) -> TrainingEnvironment | None:
    held = names(machine, f"{folder}/lib", gaps) or ()
    python = next((name for name in held if re.fullmatch(r"python3\.[0-9]{1,2}", name)), None)
    if python is None:
        return None
    site = f"{folder}/lib/{python}/site-packages"
    torch = parse_torch(text(machine, f"{site}/torch/version.py", gaps) or "")
    # listing the folder would put the names of all installed packages into a recording
    installed = exists(machine, f"{site}/bitsandbytes/__init__.py")
    files = (names(machine, f"{site}/bitsandbytes", gaps) or ()) if installed else ()
    libraries = [match[1] for name in files if (match := re.fullmatch(r"libbitsandbytes_(\w+)\.so", name))]
    version = re.search(
        r"^__version__\s*=\s*['\"]([\w.+]{1,40})['\"]",
        text(machine, f"{site}/bitsandbytes/__init__.py", gaps) or "" if installed else "",
        re.MULTILINE,
    )
    listed = (names(machine, site, gaps) or ()) if torch else ()
    rocblas = f"{site}/torch/lib/rocblas/library"
    library = (names(machine, rocblas, gaps) or ()) if "hip" in torch and exists(machine, rocblas) else ()
    return TrainingEnvironment(
        path=folder,
        owner=owner,
        stack=stack,
        python=python[6:],
        torch=torch.get("__version__"),
        torch_cuda=torch.get("cuda"),
        torch_hip=torch.get("hip"),
        bitsandbytes=version[1] if version else None,
        bitsandbytes_libraries=tuple(libraries) if installed else None,
        kind=_kind(machine, folder, exists(machine, f"{site}/pip/__init__.py"), gaps) if torch else "venv",
        companions=parse_companions(listed) if torch else None,
        rocm_targets=parse_rocm_targets(listed, library) if "hip" in torch else None,
        project_lock=_project_lock(machine, folder) if torch and owner == "active" else None,
    )


def _project_lock(machine: Machine, folder: str) -> str | None:
    """The lock file beside an environment in a project's folder: uv, Poetry and PDM install what it says."""
    parent, _, name = folder.rpartition("/")
    locks = (f"{parent}/{lock}" for lock in ("uv.lock", "poetry.lock", "pdm.lock"))
    return next((lock for lock in locks if name in (".venv", "venv") and exists(machine, lock)), None)


def _kind(machine: Machine, folder: str, pip: bool, gaps: Gaps) -> EnvironmentKind:
    if folder.endswith("/.local"):
        return "user"
    if exists(machine, f"{folder}/conda-meta"):
        return "conda"
    if "/pipx/venvs/" in folder:
        return "pipx"
    made = text(machine, f"{folder}/pyvenv.cfg", gaps) or ""
    return "uv" if not pip and re.search(r"^uv\s*=", made, re.MULTILINE) else "venv"
