"""The physical limit: no GPU computes more FLOPs than its units can at the highest clock that was seen."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

_TABLE = Path(__file__).with_name("tensor_rates.toml")
# a sample of the clock may miss its highest moment
SLACK = 1.02


class TensorRate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """FLOPs per clock and multiprocessor; `geforce`: on GeForce boards, which sum in FP32 at half the rate."""

    target: str
    flops: int
    because: str
    geforce: int | None = None


@cache
def tensor_rates() -> dict[str, TensorRate]:
    import tomllib

    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))["rates"]
    return {rate.target: rate for rate in msgspec.convert(table, list[TensorRate])}


def possible_tflops(
    target: str | None, name: str, multiprocessors: int | None, clock_mhz: float | None
) -> float | None:
    """The highest rate at the highest clock seen, in TFLOP/s; None where the GPU's data are not known.

    `name`: the driver's name for the GPU, which contains GeForce for those boards.
    """
    rate = tensor_rates().get(target or "")
    if rate is None or not multiprocessors or not clock_mhz:
        return None
    flops = rate.geforce if rate.geforce and "GeForce" in name else rate.flops
    return flops * multiprocessors * clock_mhz * SLACK / 1e6
