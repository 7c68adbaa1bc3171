"""Which container engine this machine has, and how its containers get the GPUs of each vendor."""

from __future__ import annotations

from typing import Literal

import msgspec

from checks.catalogue import VENDORS, Catalogue
from checks.facts.host import Host
from checks.rules import cards
from containers.device_options import device_access, has_amd_cdi, no_access_problem
from containers.engine import choose_engine, host_for_engine
from containers.model import Access, Engine, ImageVendor
from machine.local import Machine


class CardAccess(msgspec.Struct, frozen=True):
    """How containers get the GPUs of a vendor. `access` null: not at all; then `why` and `next`."""

    vendor: Literal["nvidia", "amd"]
    access: Access | None
    why: str = ""
    next: str = ""


class EngineReport(msgspec.Struct, frozen=True):
    """The engine that the image commands use, and how its containers get the GPUs of each vendor."""

    engine: Engine
    ways: tuple[CardAccess, ...]


def engine_report(host: Host, catalogue: Catalogue, machine: Machine, wanted: str | None = None) -> EngineReport:
    """`wanted`: docker or podman; None: the installed one. Raises Problem if none answers."""
    engine = choose_engine(host, machine, wanted)
    host = host_for_engine(host, engine)
    vendors = dict.fromkeys(VENDORS[card.vendor] for card in cards.training(host, catalogue))
    return EngineReport(engine, tuple(card_access(ImageVendor(vendor), host, engine, machine) for vendor in vendors))


def card_access(vendor: ImageVendor, host: Host, engine: Engine, machine: Machine) -> CardAccess:
    name: Literal["nvidia", "amd"] = "amd" if vendor is ImageVendor.AMD else "nvidia"
    way = device_access(host, vendor, vendor is ImageVendor.AMD and has_amd_cdi(machine, engine.cdi))
    if way is not None:
        return CardAccess(name, way)
    problem = no_access_problem(host, vendor)
    return CardAccess(name, None, problem.why, problem.next)
