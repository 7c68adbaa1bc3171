"""The physics guard: no card does more FLOPs than its circuits can in the clocks that it was seen to have."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

_TABLE = Path(__file__).with_name("tensor_rates.toml")
# a sample of the clock may miss its highest moment
SLACK = 1.02


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """FLOPs a clock and multiprocessor; `geforce`: on GeForce boards, which sum in FP32 at half the rate."""

    target: str
    flops: int
    because: str
    geforce: int | None = None


@cache
def rates() -> dict[str, Rate]:
    import tomllib

    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))["rates"]
    return {rate.target: rate for rate in msgspec.convert(table, list[Rate])}


def possible_tflops(
    target: str | None, name: str, multiprocessors: int | None, clock_mhz: float | None
) -> float | None:
    """The highest rate at the highest clock seen, in TFLOP/s; None where the card's data don't allow to tell.

    `name` is the driver's own name of the card, which says whether it is a GeForce.
    """
    rate = rates().get(target or "")
    if rate is None or not multiprocessors or not clock_mhz:
        return None
    flops = rate.geforce if rate.geforce and "GeForce" in name else rate.flops
    return flops * multiprocessors * clock_mhz * SLACK / 1e6
