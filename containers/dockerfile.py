"""ImageSpec → Dockerfile. Pure: the same spec and tool version give the same text."""

from __future__ import annotations

import hashlib
import re
import textwrap
from importlib import resources

from containers.model import ImageSpec

# the folder of gpu-setup inside the image
FOLDER = "/opt/gpu-setup"
ENVIRONMENT = f"{FOLDER}/env"
WORKER = f"{FOLDER}/worker"
LOCK = f"{FOLDER}/lock.txt"
# the image's user, above the uids that systems assign to people
UID = 10001
NAME = "gpu-setup"


def dockerfile(spec: ImageSpec, tool_version: str) -> str:
    """The Dockerfile's text."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
    )
    source = (resources.files("containers") / "templates" / "Dockerfile.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        spec=spec,
        tool_version=tool_version,
        folder=FOLDER,
        uid=UID,
        comment=comment,
        torch_check=_torch_check(spec),
        torch_options="" if spec.torch_brings else "--no-deps ",
        base_id=re.sub(r"[^a-z0-9]+", "-", spec.base.partition("@")[0].lower()).strip("-"),
    )


def image_tag(spec: ImageSpec) -> str:
    """The image's name: the stack, its Python, and a digest of everything that determines its environment.

    Comments are not included: they name the GPUs, and machines with the same stack share the image.
    """
    lines = [line for line in dockerfile(spec, "").splitlines() if not line.startswith("#")]
    digest = hashlib.sha256("\n".join([*lines, spec.lock_digest]).encode()).hexdigest()
    return f"{NAME}:{spec.stack}-py{spec.python}-{digest[:12]}"


def comment(text: str, width: int = 116) -> str:
    return "\n".join(textwrap.wrap(" ".join(text.split()), width, initial_indent="# ", subsequent_indent="#   "))


def _torch_check(spec: ImageSpec) -> str:
    """Python code that stops the build when torch is not the vendor's build (often a CUDA torch on ROCm)."""
    return (
        'import torch; v = torch.version; found = (v.cuda, v.hip); print("torch", torch.__version__, found); '
        f"wanted = ({_python(spec.cuda)}, {_python(spec.hip)}); "
        'assert all(f is None if w is None else (f or "").startswith(w) for f, w in zip(found, wanted)), '
        '"torch is built for another device"'
    )


def _python(word: str | None) -> str:
    return "None" if word is None else f'"{word}"'
