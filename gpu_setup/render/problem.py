"""How a problem looks to a person: what, why, next."""

from __future__ import annotations

from gpu_setup.terminal import style
from machine.errors import Problem


def problem_text(problem: Problem) -> str:
    """Two to four lines; a part that the problem does not have is left out."""
    lines = [style("gpu-setup: ", bold=True) + problem.what]
    lines += [f"  {label}{text}" for label, text in (("why:  ", problem.why), ("next: ", problem.next)) if text]
    return "\n".join(lines) + "\n"
