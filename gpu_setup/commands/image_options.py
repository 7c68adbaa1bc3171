"""What the image commands share: their options, and the spec that they lead to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from containers.model import Vendor
from gpu_setup.commands.options import Decorator

if TYPE_CHECKING:
    from checks.facts.host import Host
    from containers.model import ImageSpec


def spec_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--vendor, --base and --python: what changes the image."""
    for option in (
        click.option(
            "--python",
            metavar="X.Y",
            help="The Python of a --base that is not known, such as 3.12.",
        ),
        click.option(
            "--base",
            metavar="IMAGE",
            help="Another base image (apt, with Python 3.11 to 3.13), for example one of your company's.",
        ),
        click.option(
            "--vendor",
            type=click.Choice(Vendor, case_sensitive=False),
            default=Vendor.AUTO,
            help="Which cards; cpu for an image without any.",
        ),
    ):
        function = option(function)
    return function


engine_option: Decorator = click.option(
    "--engine", type=click.Choice(["docker", "podman"]), help="Which container engine. Default: docker, else podman."
)

image_option: Decorator = click.option(
    "--image", "image_name", metavar="NAME", help="This image instead of the newest one for the stack."
)

gpu_option: Decorator = click.option(
    "--gpu",
    "gpus",
    metavar="UUID|SLOT",
    multiple=True,
    help="Only this card; several times for several. Default: every card that can train.",
)


def spec_of(host: Host, vendor: Vendor, base: str | None, python: str | None) -> ImageSpec:
    from checks.catalogue import catalogue
    from containers.spec import image_spec

    return image_spec(host, catalogue(), vendor, base, python)
