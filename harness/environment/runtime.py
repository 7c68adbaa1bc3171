"""Where a person wants the training to run."""

from __future__ import annotations

from typing import NamedTuple


class Runtime(NamedTuple):
    """`runtime`: auto, image or venv; `image_name` and `engine` for an image."""

    runtime: str = "auto"
    image_name: str | None = None
    engine: str | None = None
