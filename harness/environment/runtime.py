"""Where the user wants the training to run."""

from __future__ import annotations

from typing import Literal, NamedTuple

RuntimeKind = Literal["auto", "image", "venv"]


class Runtime(NamedTuple):
    """`image_name` and `engine` are for an image, `accept_unverified` for a virtual environment."""

    runtime: RuntimeKind = "auto"
    image_name: str | None = None
    engine: str | None = None
    accept_unverified: bool = False

    @property
    def is_image(self) -> bool:
        return self.runtime == "image" or self.image_name is not None
