"""NVIDIA and AMD: real texts in, facts out."""

from __future__ import annotations

import json

import pytest

from checks.facts.amd import parse_gfx, parse_node, parse_smi
from checks.facts.nvidia import (
    parse_cdi,
    parse_cdi_nodes,
    parse_cdi_schema,
    parse_library,
    parse_nvml,
    parse_proc_version,
)
from machine.local import ABSENT, TIMED_OUT, Outcome

PROPRIETARY = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)
"""
OPEN = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22-I3-AM02-24-3)  Tue Sep 23 09:55:41 UTC 2025
GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)
"""  # noqa: E501


def test_the_loaded_module_and_its_kind() -> None:
    assert parse_proc_version(PROPRIETARY) == ("535.129.03", False)
    assert parse_proc_version(OPEN) == ("580.95.05", True)
    assert parse_proc_version(OPEN.replace("580.95.05", "595.84"))[0] == "595.84"
    assert parse_proc_version("") == (None, None)


def test_the_library_on_disk() -> None:
    assert parse_library("libnvidia-ml.so.580.95.05") == "580.95.05"
    assert parse_library("libnvidia-ml.so.1") is None


@pytest.mark.parametrize(
    ("content", "schema"),
    [
        ("---\ncdiVersion: 0.7.0\nkind: nvidia.com/gpu\n", "0.7.0"),
        ('cdiVersion: "0.5.0"\nkind: nvidia.com/gpu\n', "0.5.0"),
        ('{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu"}', "0.6.0"),
        # NVIDIA/nvidia-container-toolkit#1860: the field decides, whatever is declared
        ("cdiVersion: 0.5.0\ncontainerEdits:\n    additionalGids:\n    - 44\n", "0.7.0"),
        ('{"cdiVersion":"0.5.0","devices":[{"containerEdits":{"additionalGids":[44]}}]}', "0.7.0"),
        ("cdiVersion: 1.1.0\ncontainerEdits:\n  additionalGids: [44]\n", "1.1.0"),
        ("cdiVersion: 0.10.0\n", "0.10.0"),
        ("kind: nvidia.com/gpu\n", None),
        ("", None),
    ],
)
def test_the_cdi_version_that_a_reader_needs(content: str, schema: str | None) -> None:
    assert parse_cdi_schema(content) == schema


def test_the_device_files_of_a_cdi_description() -> None:
    yaml = """devices:
- name: 0
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      hostPath: /dev/x
    - path: /dev/dri/renderD129
      permissions: rw
- path: /dev/nvidiactl
- containerPath: /dev/dri/card9
"""
    assert parse_cdi_nodes(yaml) == ("/dev/dri/renderD129", "/dev/nvidia0")
    assert parse_cdi_nodes('{"deviceNodes":[{"path":"/dev/nvidia1"},{"path": "/dev/dri/card0"}]}') == (
        "/dev/dri/card0",
        "/dev/nvidia1",
    )
    assert parse_cdi_nodes("") == ()


def test_cdi_specs_in_both_notations() -> None:
    yaml = "---\ncontainerEdits:\n  mounts:\n  - hostPath: /lib/libcuda.so.580.95.05\nkind: nvidia.com/gpu\n"
    assert parse_cdi(yaml) == ("nvidia.com/gpu", "580.95.05")
    assert parse_cdi('{"cdiVersion": "0.6.0", "kind": "amd.com/gpu", "devices": []}') == ("amd.com/gpu", None)


@pytest.mark.parametrize(
    ("number", "gfx"),
    [
        (110000, "gfx1100"),
        (110001, "gfx1101"),
        (120001, "gfx1201"),
        (100306, "gfx1036"),
        (100300, "gfx1030"),
        (90010, "gfx90a"),
        (90402, "gfx942"),
        (90500, "gfx950"),
        (90006, "gfx906"),
        (110501, "gfx1151"),
        (0, None),
    ],
)
def test_gfx_names_have_hexadecimal_minor_and_stepping(number: int, gfx: str | None) -> None:
    assert parse_gfx(number) == gfx


PROPERTIES = """cpu_cores_count 0
simd_count 192
mem_banks_count 1
gfx_target_version 110000
vendor_id 4098
device_id 29772
location_id 768
domain 0
unique_id 12345678901234567890
"""


def test_a_kfd_node_has_its_cards_address() -> None:
    node = parse_node(1, PROPERTIES)
    assert node is not None
    assert (node.index, node.gfx, node.slot) == (1, "gfx1100", "0000:03:00.0")
    assert parse_node(0, "cpu_cores_count 16\nsimd_count 0\ngfx_target_version 0\nlocation_id 0\n") is None
    other = parse_node(2, PROPERTIES.replace("domain 0", "domain 1").replace("768", "49409"))
    assert other is not None and other.slot == "0001:c1:00.1"


def outcome(document: object = None, rc: int | None = 0, problem: str = "") -> Outcome:
    return Outcome(("bindings.py",), rc, "" if document is None else json.dumps(document), "", 0.1, problem)


def test_nvml_documents_with_unknown_keys_are_read() -> None:
    gpu = {"slot": "0000:01:00.0", "name": "NVIDIA GeForce RTX 3090", "memory_total": 25769803776, "new_field": [1]}
    found = parse_nvml(outcome({"driver": "580.95.05", "cuda": "13.0", "gpus": [gpu], "stub": True}))
    assert (found.driver, found.problem, found.stub) == ("580.95.05", None, True)
    assert found.gpus[0].memory_total == 25769803776
    assert found.gpus[0].temperature is None


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (outcome(rc=None, problem=ABSENT), "absent"),
        (outcome(rc=None, problem=TIMED_OUT), "timed-out"),
        (outcome({"problem": "mismatch"}), "mismatch"),
        (outcome({"problem": "timed-out"}), "timed-out"),
        (outcome(rc=-11), "crashed (signal 11)"),
        (outcome(rc=1), "crashed (exit 1)"),
        (outcome("not an object"), "unreadable answer"),
        (outcome({"gpus": [{"memory_total": "much"}]}), "unreadable answer"),
    ],
)
def test_why_nvml_or_amdsmi_did_not_respond(answer: Outcome, problem: str) -> None:
    assert parse_nvml(answer).problem == problem
    if "memory_total" not in answer.stdout:
        assert parse_smi(answer).problem == problem
