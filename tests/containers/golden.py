"""The Dockerfiles of the recorded machines, kept as files: `python -m tests.containers.golden` writes them again.

A machine that gets none has a file that ends in .refused, with the code and the three sentences.
"""

from __future__ import annotations

from pathlib import Path

from checks.catalogue import catalogue
from checks.facts.read import read_host
from containers.dockerfile import dockerfile
from containers.model import ImageVendor
from containers.spec import image_spec
from machine.errors import Problem
from tests.recorded_machines import load, names

FOLDER = Path(__file__).with_name("golden")
# the tool's version is left open, so that a new one changes no file
VERSION = "VERSION"
# machines that are asked with more than their default
ASKED = {("two-vendors", ImageVendor.NVIDIA), ("two-vendors", ImageVendor.AMD), ("rtx3090-healthy", ImageVendor.CPU)}


def cases() -> list[tuple[str, ImageVendor]]:
    return [(name, ImageVendor.AUTO) for name in names()] + sorted(ASKED)


def render(name: str, vendor: ImageVendor) -> tuple[str, str]:
    """The file's name and content for a recorded machine."""
    stem = name if vendor is ImageVendor.AUTO else f"{name}.{vendor.value}"
    try:
        spec = image_spec(read_host(load(name)), catalogue(), vendor)
    except Problem as problem:
        return f"{stem}.refused", f"{problem.code}\n{problem.what}\n{problem.why}\n{problem.next}\n"
    return f"{stem}.Dockerfile", dockerfile(spec, VERSION)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for case in cases():
        name, content = render(*case)
        (FOLDER / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
