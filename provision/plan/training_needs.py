"""What the training environment needs on the host: a compiler for Triton, and Python's venv to create it."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from provision.model import PlanPart
from provision.plan.package_steps import install_step, names


def plan(host: Host, catalogue: Catalogue) -> PlanPart:
    """A C compiler and Python.h, unless both were found or are installed; venv where Python lacks it."""
    both = bool(host.python.compiler and host.python.headers)
    because = "Triton compiles its kernels while training: without a C compiler and Python.h the first step fails."
    if host.python.compiler is None and host.apt.packages is None:
        because += " Whether they are installed could not be read."
    title = "C compiler and Python headers"
    steps = [
        install_step(host, "compiler", title, names(catalogue, "build-tools"), because, done=True if both else None)
    ]
    if host.python.venv is False:
        steps.append(
            install_step(
                host,
                "python-venv",
                "Install python3-venv",
                names(catalogue, "python.venv"),
                "Needed to create the training environment; Ubuntu's python3 does not include it.",
            )
        )
    return PlanPart(steps=tuple(steps))
