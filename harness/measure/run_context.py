"""The context of a run: how it was measured, from the documents beside its log.

card-use.json  ceiling-before.json  telemetry.jsonl  ceiling-after.json  method.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from checks.catalogue import Card, Catalogue
from checks.facts.host import Host
from checks.rules.cards import row_of
from harness.atomic_files import read_if_valid
from harness.measure.gpu_processes import CardUse
from harness.measure.matmul_ceiling import Ceiling, read_ceiling
from harness.measure.telemetry import Telemetry, read_telemetry
from harness.measure.workload import RECIPE, Workload

VENDOR_IDS = {"nvidia": "10de", "amd": "1002"}
CARD_USE, METHOD, TELEMETRY = "card-use.json", "method.json", "telemetry.jsonl"
BEFORE, AFTER = "ceiling-before.json", "ceiling-after.json"


Mode = Literal["up", "bench", "quick", "record"]


class Soak(msgspec.Struct, frozen=True):
    """How a GPU was warmed up before the measurement. `settled`: temperature and clock were stable; None: no sensor.

    `kelvin` and `clock_share`: the last change of temperature and clock.
    """

    seconds: float
    settled: bool | None
    kelvin: float | None = None
    clock_share: float | None = None


class MeasuringMethod(msgspec.Struct, frozen=True):
    """How the figures were measured. `label`: the same in a few words."""

    mode: Mode = "bench"
    label: str = "one launch, not soaked"
    workload: Workload = Workload(RECIPE)
    budget_seconds: float | None = None
    ceiling_seconds: float | None = None
    soak: Soak | None = None


class RunContext(msgspec.Struct, frozen=True):
    """What was measured before, during and after a run, and what is known of its GPU.

    `peak_tflops`: the data sheet's peak for 16-bit products with FP32 sums; `target`: the GPU's architecture.
    """

    telemetry: Telemetry = Telemetry()
    before: Ceiling | None = None
    after: Ceiling | None = None
    use: CardUse = CardUse(asked=False)
    peak_tflops: float | None = None
    target: str | None = None
    method: MeasuringMethod | None = None


def trained_card(host: Host, catalogue: Catalogue, vendor: str, device: str | None) -> Card | None:
    """What the GPU is that trains: the one with this UUID, else the first of the stack's vendor."""
    slots = {gpu.slot for gpu in host.nvidia.nvml or () if device is not None and gpu.uuid == device}
    for card in host.cards or ():
        known = row_of(card, catalogue)
        ours = known is not None and known.vendor == VENDOR_IDS.get(vendor) and not known.integrated
        if ours and (not slots or card.slot in slots):
            return known
    return None


def slot_of(host: Host, vendor: str, device: str | None) -> str | None:
    """How bindings.py identifies the GPU: by its UUID, or for AMD by its slot."""
    if device is not None or vendor != "amd":
        return device
    return next((card.slot for card in host.cards or () if card.vendor == VENDOR_IDS["amd"] and card.driver), None)


def read_run_context(folder: Path, card: Card | None) -> RunContext:
    """The context of the run in this folder; what has no document is not known."""
    return RunContext(
        telemetry=read_telemetry(folder / TELEMETRY),
        before=read_ceiling(folder / BEFORE),
        after=read_ceiling(folder / AFTER),
        use=read_if_valid(folder / CARD_USE, CardUse) or CardUse(asked=False),
        peak_tflops=card.tflops if card else None,
        target=card.target if card else None,
        method=read_if_valid(folder / METHOD, MeasuringMethod),
    )
