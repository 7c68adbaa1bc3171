"""How a problem looks to a person: what, why, next."""

from __future__ import annotations

import click

from gpu_setup.render.plain import clean
from machine.errors import Problem


def problem_text(problem: Problem) -> str:
    """Two to four lines; a part that the problem does not have is left out."""
    lines = [click.style("gpu-setup: ", bold=True) + clean(problem.what)]
    lines += [f"  {label}{clean(text)}" for label, text in (("why:  ", problem.why), ("next: ", problem.next)) if text]
    return "\n".join(lines) + "\n"
