"""The tool's version: of the installed package, else of the checkout that holds this file."""

from __future__ import annotations

import os


def version() -> str:
    """`0.1.0`. A checkout's own number wins: an installed gpu-setup elsewhere may be another one."""
    project = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "pyproject.toml")
    try:
        with open(project, encoding="utf-8") as lines:  # noqa: PTH123
            # a full TOML parser costs more than the whole of --version
            for line in lines:
                if line.startswith("version = "):
                    return line.split('"')[1]
    except OSError:
        pass
    from importlib import metadata

    return metadata.version("gpu-setup")
