"""What lies around a run: how it was measured, and the documents beside its log that say so.

card-use.json  ceiling-before.json  telemetry.jsonl  ceiling-after.json  method.json
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from checks.catalogue import Card, Catalogue
from checks.facts.host import Host
from harness.atomic_files import read_if_valid
from harness.measure.gpu_processes import CardUse
from harness.measure.matmul_ceiling import read_ceiling
from harness.measure.metrics import Around
from harness.measure.telemetry import read_telemetry
from harness.measure.workload import RECIPE, Workload

VENDOR_IDS = {"nvidia": "10de", "amd": "1002"}
CARD_USE, METHOD, TELEMETRY = "card-use.json", "method.json", "telemetry.jsonl"
BEFORE, AFTER = "ceiling-before.json", "ceiling-after.json"


class Soak(msgspec.Struct, frozen=True):
    """How a card was brought to its heat before it was measured. `settled` None: it has no sensor to tell."""

    seconds: float
    settled: bool | None
    kelvin: float | None = None
    clock_share: float | None = None


class Method(msgspec.Struct, frozen=True):
    """How the figures came about. `mode`: up, bench, quick or record; `label`: what they are worth, in a few words."""

    mode: str = "bench"
    label: str = "one launch, not soaked"
    workload: Workload = Workload(RECIPE)
    budget_seconds: float | None = None
    ceiling_seconds: float | None = None
    soak: Soak | None = None


def trained_card(host: Host, catalogue: Catalogue, vendor: str, device: str | None) -> Card | None:
    """The catalogue's row of the card that is trained on: the one with this UUID, else the stack's vendor's first."""
    slots = {gpu.slot for gpu in host.nvidia.nvml or () if device is not None and gpu.uuid == device}
    for card in host.cards or ():
        known = catalogue.card(card.vendor, card.device, card.revision)
        ours = known is not None and known.vendor == VENDOR_IDS.get(vendor) and not known.integrated
        if ours and (not slots or card.slot in slots):
            return known
    return None


def slot_of(host: Host, vendor: str, device: str | None) -> str | None:
    """By what bindings.py tells the card apart: its UUID, or for AMD its slot."""
    if device is not None or vendor != "amd":
        return device
    return next((card.slot for card in host.cards or () if card.vendor == VENDOR_IDS["amd"] and card.driver), None)


def read_around(folder: Path, card: Card | None) -> Around:
    """What was measured around the run in this folder; what is not there is not known."""
    return Around(
        telemetry=read_telemetry(folder / TELEMETRY),
        before=read_ceiling(folder / BEFORE),
        after=read_ceiling(folder / AFTER),
        use=read_if_valid(folder / CARD_USE, CardUse) or CardUse(asked=False),
        peak_tflops=card.tflops if card else None,
        target=card.target if card else None,
    )


def read_method(folder: Path) -> Method | None:
    return read_if_valid(folder / METHOD, Method)
