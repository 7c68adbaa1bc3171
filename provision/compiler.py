"""What Triton needs at run time: it compiles its kernels on the machine that trains."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from provision.model import Part
from provision.packages import install, names


def plan(host: Host, catalogue: Catalogue) -> Part:
    """A C compiler and Python.h, unless both were found or their packages are there."""
    both = bool(host.python.compiler and host.python.headers)
    because = "Triton compiles its kernels while training: without a C compiler and Python.h the first step fails."
    if host.python.compiler is None and host.apt.packages is None:
        because += " Whether they are there could not be read."
    title = "C compiler and Python headers"
    return Part(
        steps=(install(host, "compiler", title, names(catalogue, "build-tools"), because, done=True if both else None),)
    )
