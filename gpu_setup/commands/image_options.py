"""What the image commands share: their options, and the spec that they lead to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from containers.model import ImageVendor
from gpu_setup.commands.options import Decorator, options_into

if TYPE_CHECKING:
    from checks.facts.host import Host
    from containers.model import ImageSpec


class SpecOptions(NamedTuple):
    """What changes the image; `python` belongs to a `base` that is not known."""

    vendor: ImageVendor
    base: str | None
    python: str | None

    def spec(self, host: Host) -> ImageSpec:
        from checks.catalogue import catalogue
        from containers.spec import image_spec

        return image_spec(host, catalogue(), self.vendor, self.base, self.python)


def spec_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--vendor, --base and --python. They arrive as `wanted`, a `SpecOptions`."""
    made = options_into(SpecOptions, "wanted")(function)
    for option in (
        click.option(
            "--python",
            metavar="X.Y",
            help="The Python version of a --base that gpu-setup does not know, such as 3.12.",
        ),
        click.option(
            "--base",
            metavar="IMAGE",
            help="Another base image (apt, with Python 3.11 to 3.13), for example your company's.",
        ),
        click.option(
            "--vendor",
            type=click.Choice(ImageVendor, case_sensitive=False),
            default=ImageVendor.AUTO,
            help="The cards' vendor; cpu for an image without GPU support.",
        ),
    ):
        made = option(made)
    return made


engine_option: Decorator = click.option(
    "--engine", type=click.Choice(["docker", "podman"]), help="The container engine. Default: docker, else podman."
)

image_option: Decorator = click.option(
    "--image", "image_name", metavar="NAME", help="Use this image instead of the newest one for the stack."
)

gpu_option: Decorator = click.option(
    "--gpu",
    "gpus",
    metavar="UUID|SLOT",
    multiple=True,
    help="Use only this card; repeatable. Default: every card that can train.",
)
