"""`gpu-setup image engine`: which container engine is here, and what it can and cannot do."""

from __future__ import annotations

import click
import msgspec

from containers.model import Access, Engine
from gpu_setup.commands.image_options import engine_option
from gpu_setup.commands.options import json_option
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup image engine
  gpu-setup image engine --engine podman
  gpu-setup image engine --json

\b
Exit codes: 0 it answers; 3 there is none, or it refuses you; 4 it does not answer.
"""


class Way(msgspec.Struct, frozen=True):
    """How the cards of a vendor, nvidia or amd, get into containers. `access` null: not at all; then why, and next."""

    vendor: str
    access: Access | None
    why: str = ""
    next: str = ""


class EngineHere(msgspec.Struct, frozen=True):
    """The engine that the image commands use, and for each vendor whose cards are here the way to them."""

    engine: Engine
    ways: tuple[Way, ...]


@click.command("engine", epilog=EPILOG)
@json_option
@engine_option
def engine_command(as_json: bool, engine: str | None) -> Answer:
    """Which container engine is here, and what it can and cannot do: build, run, hand over your cards."""
    from checks.catalogue import VENDORS, catalogue
    from checks.facts.read import read_host
    from checks.rules import cards
    from containers.device_options import access, amd_described, no_way
    from containers.engine import choose_engine, seen_by
    from containers.model import Vendor
    from gpu_setup.render.image import engine_text
    from machine.errors import FINE
    from machine.local import LocalMachine

    machine = LocalMachine()
    host = read_host(machine)
    chosen = choose_engine(host, machine, engine)
    host = seen_by(host, chosen)
    ways = []
    for vendor in dict.fromkeys(VENDORS[card.vendor] for card in cards.training(host, catalogue())):
        way = access(host, Vendor(vendor), vendor == Vendor.AMD and amd_described(machine, chosen.cdi))
        problem = no_way(host, Vendor(vendor)) if way is None else None
        ways.append(Way(vendor, way, problem.why if problem else "", problem.next if problem else ""))
    found = EngineHere(chosen, tuple(ways))
    return Answer("engine", found, FINE, lambda: engine_text(found))
