"""Which build of torch an environment has, read without importing it, and whether it is the stack's.

site-packages/torch/version.py ─▶ TorchBuild ─▶ wrong_build: None, or what is wrong
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from checks.catalogue import Stack
from checks.facts.environments import parse_torch
from machine.errors import Refused
from machine.local import Machine

# prints the file itself: importing torch takes seconds, and the wrong build may not import at all
_PRINT_VERSION_FILE = (
    "import importlib.util, pathlib, sys; "
    "found = importlib.util.find_spec('torch'); "
    "sys.stdout.write((pathlib.Path(found.origin).parent / 'version.py').read_text())"
)


class TorchBuild(msgspec.Struct, frozen=True):
    """torch.__version__ with its local part (`2.13.0+cu130`), torch.version.cuda and torch.version.hip."""

    version: str
    cuda: str | None = None
    hip: str | None = None


def parse_torch_build(text: str) -> TorchBuild | None:
    """The build that torch/version.py names; None where the text names none."""
    values = parse_torch(text)
    version = values.get("__version__")
    return TorchBuild(version, values.get("cuda"), values.get("hip")) if version else None


def wrong_build(stack: Stack, build: TorchBuild) -> str | None:
    """What is wrong with this build for the stack, as a sentence; None: it is right."""
    # PyPI's wheel 2.13.0 names itself 2.13.0+cu130
    if build.cuda and build.version.partition("+")[0] in stack.torch_fallback:
        return None
    if build.version not in stack.torch_builds:
        return f"It is torch {build.version}, and the stack {stack.name} needs {' or '.join(stack.torch_builds)}."
    kind, _, number = stack.runtime.partition(" ")
    wanted = {"cuda": number if kind == "cuda" else None, "hip": stack.hip if kind == "rocm" else None}
    for name, found in (("cuda", build.cuda), ("hip", build.hip)):
        needed = wanted[name]
        # HIP's number has more parts than its release: 7.2.53211
        right = found == needed or (name == "hip" and needed is not None and (found or "").startswith(f"{needed}."))
        if not right:
            return (
                f"It is built for {name.upper()} {found or 'no version'}, and the stack {stack.name} needs "
                f"{name.upper()} {needed or 'no version'}."
            )
    return None


def read_torch_build(python: Path, machine: Machine) -> TorchBuild | None:
    """The build in the environment of `python`; None where the interpreter does not start or torch is not readable."""
    outcome = machine.run((str(python), "-I", "-c", _PRINT_VERSION_FILE), timeout=60)
    return parse_torch_build(outcome.stdout) if outcome.ok else None


def require_right_build(stack: Stack, build: TorchBuild | None, folder: Path) -> TorchBuild:
    """The build in the environment `folder`; raises Refused where it is not the stack's, or could not be read."""
    problem = wrong_build(stack, build) if build else "Its torch/version.py cannot be read."
    if build is None or problem:
        raise Refused(
            "environment.wrong-torch",
            f"The torch in the training environment is not the build for {stack.name} ({stack.runtime}).",
            f"{problem} Training would be slow, fail, or not use the card.",
            f"Build it again: remove {folder} and run gpu-setup environment; an image: gpu-setup image build.",
        )
    return build
