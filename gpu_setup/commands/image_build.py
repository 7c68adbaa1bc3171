"""`gpu-setup image build`: the image, built by the engine that is here."""

from __future__ import annotations

from pathlib import Path

import click

from containers.model import Vendor
from gpu_setup.commands.image_options import engine_option, spec_of, spec_options
from gpu_setup.commands.image_render import Image
from gpu_setup.commands.options import json_option, machine_option, open_machine
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup image build
  gpu-setup image build --ca /etc/ssl/certs/ca-certificates.crt   behind a proxy that opens TLS
  gpu-setup image build --wheels wheels/ --offline                from a folder of packages, without network
  gpu-setup image build --base registry.example/base:1 --python 3.12 --pip-config pip.conf

\b
Stopped half-way? Run it again: finished steps are kept by the engine.
Exit codes: 0 built; 2 usage; 3 no stack or no engine that can build; 4 the build failed.
"""


@click.command("build", epilog=EPILOG)
@json_option
@machine_option
@spec_options
@engine_option
@click.option(
    "--ca",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Certificates that pip trusts in the build; not kept in the image.",
)
@click.option(
    "--pip-config",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A pip.conf for the build, with your index; not kept in the image.",
)
@click.option(
    "--wheels",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Packages that lie here win; with Axolotl's wheel in it, no index is asked.",
)
@click.option("--offline", is_flag=True, help="No network in any step of the build.")
def build_command(
    as_json: bool,
    recording: str | None,
    vendor: Vendor,
    base: str | None,
    python: str | None,
    engine: str | None,
    ca: Path | None,
    pip_config: Path | None,
    wheels: Path | None,
    offline: bool,
) -> Answer:
    """Build the image that fits this machine, through the engine's own BuildKit."""
    from checks.facts.read import read_host
    from containers.build import STAGE, Sources, build
    from containers.device_options import no_way
    from containers.dockerfile import dockerfile, tag
    from containers.engine import choose_engine, seen_by
    from gpu_setup.commands.training_options import my_paths
    from gpu_setup.render.image import built_text
    from gpu_setup.render.progress import reporter
    from gpu_setup.version import version
    from harness.environment.worker_process import WORKER
    from machine.errors import FINE
    from machine.events import Event
    from machine.local import LocalMachine

    machine = LocalMachine()
    here = read_host(machine)
    host = here if recording is None else read_host(open_machine(recording))
    spec = spec_of(host, vendor, base, python)
    chosen = choose_engine(here, machine, engine)
    with reporter(as_json) as emit:
        if recording is None and spec.vendor != Vendor.CPU and spec.access is None:
            problem = no_way(seen_by(here, chosen), Vendor(spec.vendor))
            emit(Event("note", STAGE, f"The image can be built here, but not used: {problem.what} {problem.next}"))
        built = build(
            spec, chosen, WORKER, version(), Sources(ca, pip_config, wheels, offline), machine, my_paths(), emit
        )
    made = Image(dockerfile(spec, version()), tag(spec), spec, built)
    return Answer("image", made, FINE, lambda: built_text(made))
