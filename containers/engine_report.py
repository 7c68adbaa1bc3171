"""Which container engine this machine has, and how the cards of each vendor get into its containers."""

from __future__ import annotations

from typing import Literal

import msgspec

from checks.catalogue import VENDORS, Catalogue
from checks.facts.host import Host
from checks.rules import cards
from containers.device_options import access, amd_described, no_way
from containers.engine import choose_engine, seen_by
from containers.model import Access, Engine, Vendor
from machine.local import Machine


class CardAccess(msgspec.Struct, frozen=True):
    """How the cards of a vendor get into containers. `access` null: not at all; then why, and next."""

    vendor: Literal["nvidia", "amd"]
    access: Access | None
    why: str = ""
    next: str = ""


class EngineReport(msgspec.Struct, frozen=True):
    """The engine that the image commands use, and for each vendor whose cards are here the way to them."""

    engine: Engine
    ways: tuple[CardAccess, ...]


def engine_report(host: Host, catalogue: Catalogue, machine: Machine, wanted: str | None = None) -> EngineReport:
    """`wanted`: docker or podman; None: the one that is here. Raises Problem where none answers."""
    engine = choose_engine(host, machine, wanted)
    host = seen_by(host, engine)
    vendors = dict.fromkeys(VENDORS[card.vendor] for card in cards.training(host, catalogue))
    return EngineReport(engine, tuple(card_access(Vendor(vendor), host, engine, machine) for vendor in vendors))


def card_access(vendor: Vendor, host: Host, engine: Engine, machine: Machine) -> CardAccess:
    name: Literal["nvidia", "amd"] = "amd" if vendor is Vendor.AMD else "nvidia"
    way = access(host, vendor, vendor is Vendor.AMD and amd_described(machine, engine.cdi))
    if way is not None:
        return CardAccess(name, way)
    problem = no_way(host, vendor)
    return CardAccess(name, None, problem.why, problem.next)
