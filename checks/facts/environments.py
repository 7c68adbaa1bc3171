"""Python environments with torch, read as files: nothing in them is run or imported."""

from __future__ import annotations

import re

from checks.facts.gaps import Gaps, exists, names, text
from checks.facts.host import TrainingEnvironment
from checks.facts.software import EnvironmentOwner
from machine.local import Machine
from machine.paths import folders


def parse_torch(content: str) -> dict[str, str]:
    """`__version__`, `cuda` and `hip` of torch/version.py; values that are None there are left out."""
    found = re.findall(
        r"^(__version__|cuda|hip)(?:\s*:[^=\n]+)?\s*=\s*['\"]([^'\"\n]{1,80})['\"]", content, re.MULTILINE
    )
    return dict(found)


def parse_stack(folder: str) -> str | None:
    """The stack in the name of an environment of gpu-setup's own: `cu130-1f2e3d4c5b6a-py3.12` → cu130."""
    match = re.fullmatch(r"([\w.]+)-[0-9a-f]{12}-py[0-9.]+", folder)
    return match[1] if match else None


def read_environments(machine: Machine, gaps: Gaps) -> tuple[TrainingEnvironment, ...]:
    """The environment that is active in this session, and those that gpu-setup built."""
    environ = machine.session().environ
    found = []
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        folder = environ.get(variable, "").rstrip("/")
        if folder.startswith("/"):
            found.append(_environment(machine, folder, "active", None, gaps))
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
    )
