"""The answer of `image render` and `image build`: the Dockerfile, the image's name, and what was built."""

from __future__ import annotations

import msgspec

from containers.build import BuiltImage
from containers.dockerfile import dockerfile, image_tag
from containers.model import ImageSpec


class ImageResult(msgspec.Struct, frozen=True):
    """`tag` is the name that `image build` gives the image; `built` is null if it was only rendered."""

    dockerfile: str
    tag: str
    spec: ImageSpec
    built: BuiltImage | None = None


def image_result(spec: ImageSpec, tool_version: str, built: BuiltImage | None = None) -> ImageResult:
    return ImageResult(dockerfile(spec, tool_version), image_tag(spec), spec, built)
