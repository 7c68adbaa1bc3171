"""`gpu-setup image build`: build the image with this machine's container engine."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from containers.model import ImageVendor
from gpu_setup.commands.image_options import SpecOptions, engine_option, spec_options
from gpu_setup.commands.options import json_option, machine_option, open_machine, options_into
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup image build
  gpu-setup image build --ca /etc/ssl/certs/ca-certificates.crt   behind a proxy that intercepts TLS
  gpu-setup image build --wheels wheels/ --offline                from a folder of wheels, without network
  gpu-setup image build --base registry.example/base:1 --python 3.12 --pip-config pip.conf

\b
Interrupted? Run it again: the engine keeps finished steps.
Exit codes: 0 built; 2 usage; 3 no stack fits, or no engine can build; 4 the build failed.
"""


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True):
    as_json: bool
    recording: str | None
    wanted: SpecOptions
    engine: str | None
    ca: Path | None
    pip_config: Path | None
    wheels: Path | None
    offline: bool
    accept_unverified: bool


@click.command("build", epilog=EPILOG)
@json_option
@machine_option
@engine_option
@click.option(
    "--ca",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CA certificates for pip during the build; not kept in the image.",
)
@click.option(
    "--pip-config",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A pip.conf for the build, with your package index; not kept in the image.",
)
@click.option(
    "--wheels",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Prefer the wheels in this folder; with Axolotl's wheel in it, no index is used.",
)
@click.option("--offline", is_flag=True, help="No network in any step of the build.")
@click.option(
    "--accept-unverified",
    is_flag=True,
    help="Install PyTorch even where no sha256 of it is known, or the one in --wheels is not the locked one.",
)
@spec_options
@options_into(BuildOptions)
def build_command(options: BuildOptions) -> Answer:
    """Build the image that fits this machine, through the engine's own BuildKit."""
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from containers.build import STAGE, Sources, build_image
    from containers.device_options import no_access_problem
    from containers.engine import choose_engine, host_for_engine
    from containers.image_result import image_result
    from gpu_setup.commands.training_options import ask_or_refuse, my_paths
    from gpu_setup.render.image import built_text
    from gpu_setup.render.progress import reporter
    from gpu_setup.version import version
    from harness.environment.torch_install import unverified_torch
    from harness.environment.worker_process import WORKER
    from machine.errors import FINE
    from machine.events import Event
    from machine.local import LocalMachine

    machine, paths = LocalMachine(), my_paths()
    here = read_host(machine)
    recorded = options.recording is not None
    spec = options.wanted.spec(read_host(open_machine(options.recording)) if recorded else here)
    chosen = choose_engine(here, machine, options.engine)
    stack = catalogue().stack(spec.stack).for_target(*spec.targets)
    ask_or_refuse(unverified_torch(stack, paths), stack, options.accept_unverified, paths)
    sources = Sources(
        WORKER, version(), options.ca, options.pip_config, options.wheels, options.offline, options.accept_unverified
    )
    with reporter(options.as_json) as emit:
        if not recorded and spec.vendor != "cpu" and spec.access is None:
            problem = no_access_problem(host_for_engine(here, chosen), ImageVendor(spec.vendor))
            emit(Event("note", STAGE, f"The image can be built here, but not used: {problem.what} {problem.next}"))
        built = build_image(spec, chosen, sources, machine, paths, emit)
    made = image_result(spec, version(), built)
    return Answer("image", made, FINE, lambda: built_text(made))
