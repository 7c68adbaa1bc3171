"""With any kernel log or environment no rule crashes or hangs, and noise is no finding."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from checks.catalogue import catalogue
from checks.registry import ALL
from checks.runner import run
from tests.checks.rules.hosts import but, two_vendors
from tests.cpu_time import at_most

HOST = two_vendors()
# pieces of real lines, put together at random with noise between them
PIECES = (
    *("NVRM: Xid (PCI:0000:01:00): ", "79", "48", "GPU at 0000:01:00.0 ", "fallen off the bus", "RmInitAdapter failed"),
    *(
        "amdgpu 0000:03:00.0: ",
        "ring gfx_0.0.0 timeout",
        "Direct firmware load for ",
        "amdgpu/x.bin failed",
        "MES failed",
    ),
    *("pci 0000:01:00.0: BAR 1", " [mem size 0x1]", ": no space", "kfd: skipped device 1002:744c, PCI rejects atomics"),
    *("Loading of module with unavailable key is rejected", "Out of memory: Killed process 1 (python3)", "D3cold"),
)
LINE = some.lists(some.one_of(some.sampled_from(PIECES), some.text(max_size=12)), max_size=8).map("".join)
VARIABLES = some.sampled_from(
    ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "HSA_OVERRIDE_GFX_VERSION")
)


@settings(max_examples=60, deadline=None)
@given(log=some.lists(LINE, max_size=12), environ=some.dictionaries(VARIABLES, some.text(max_size=20)))
def test_no_rule_crashes(log: list[str], environ: dict[str, str]) -> None:
    host = but(HOST, kernel={"log": tuple(log)}, person={"environ": environ})
    assert [row.id for row in run(host, catalogue(), ALL).results if "crashed" in row.reason] == []


@settings(max_examples=60, deadline=None)
@given(log=some.lists(some.text(max_size=60), max_size=12))
def test_noise_is_no_finding(log: list[str]) -> None:
    report = run(but(HOST, kernel={"log": tuple(log)}), catalogue(), ALL)
    assert report.summary.fail == report.summary.warn == 0


@pytest.mark.parametrize("piece", PIECES)
def test_an_endless_line_does_not_hang_a_rule(piece: str) -> None:
    with at_most(2):
        run(but(HOST, kernel={"log": (piece * 50_000,)}), catalogue(), ALL)
