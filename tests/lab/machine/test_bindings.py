"""The vendors' real Python bindings over stand-in libraries in C: healthy, mismatched, hanging, crashing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from checks.facts.read import read_host
from machine import bindings
from machine.local import TIMED_OUT, LocalMachine
from tests.lab import stub_libraries
from tests.machine.test_processes import gone

pytestmark = pytest.mark.lab
SCRIPT = str(Path(bindings.__file__))


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_libraries.nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def amdsmi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_libraries.amdsmi(tmp_path_factory.mktemp("amdsmi"))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], LocalMachine]:
    """This machine with the libraries of a folder in the loader's path."""

    def with_library(folder: Path, settings: str) -> LocalMachine:
        monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
        monkeypatch.setenv("GPU_SETUP_STUB", settings)
        return LocalMachine()

    return with_library


Stub = Callable[[Path, str], LocalMachine]


def document(machine: LocalMachine, vendor: str) -> dict[str, Any]:
    outcome = machine.binding(vendor)
    assert outcome.ok, outcome
    found = json.loads(outcome.stdout)
    assert isinstance(found, dict)
    return found


def test_two_healthy_gpus(nvml: Path, stub: Stub) -> None:
    found = document(stub(nvml, "count=2"), "nvidia")
    assert (found["problem"], found["driver"], found["cuda"], found["stub"]) == (None, "580.95.05", "13.0", True)
    first, second = found["gpus"]
    assert (first["slot"], second["slot"]) == ("0000:01:00.0", "0000:0b:00.0")
    assert first["name"] == "NVIDIA GeForce RTX 3090"
    assert (first["memory_total"], first["memory_used"]) == (25769803776, 432013312)
    assert (first["power"], first["power_limit"], first["power_default"], first["power_max"]) == (31.5, 300, 350, 390)
    assert (first["compute_mode"], first["compute_capability"], first["persistence"]) == ("default", "8.6", True)
    assert second["temperature"] == 39


def test_memory_errors_are_counted(nvml: Path, stub: Stub) -> None:
    gpu = document(stub(nvml, "count=1;ecc=4"), "nvidia")["gpus"][0]
    assert gpu["ecc_uncorrected"] == 4
    assert (gpu["rows_remapped"], gpu["rows_pending"], gpu["rows_failed"]) == (3, True, False)


def test_functions_that_the_library_lacks_and_values_it_refuses_are_null(nvml: Path, stub: Stub) -> None:
    (gpu,) = document(stub(nvml, "count=1"), "nvidia")["gpus"]
    # MIG answers NOT_SUPPORTED; the others are not in the library at all
    assert (gpu["mig"], gpu["processes"], gpu["clock_sm"], gpu["utilisation"]) == (None, None, None, None)
    assert gpu["problem"] is None


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("error=18", "mismatch"),
        ("error=9", "not-loaded"),
        ("error=4", "not-permitted"),
        ("error=15", "lost"),
        ("error=17", "The operating system has blocked the request"),
    ],
)
def test_why_nvml_does_not_start(nvml: Path, stub: Stub, settings: str, problem: str) -> None:
    found = document(stub(nvml, settings), "nvidia")
    assert (found["problem"], found["gpus"]) == (problem, [])


def test_a_lost_gpu_does_not_hide_the_other(nvml: Path, stub: Stub) -> None:
    first, second = document(stub(nvml, "count=2;lost=0"), "nvidia")["gpus"]
    assert first == {"problem": "lost"}
    assert second["slot"] == "0000:0b:00.0"


def test_what_the_library_prints_does_not_spoil_the_document(nvml: Path, stub: Stub) -> None:
    outcome = stub(nvml, "noise=1").binding("nvidia")
    assert json.loads(outcome.stdout)["problem"] is None
    assert "nvml: hello" in outcome.stderr


def test_a_crashing_library_takes_only_the_child_with_it(nvml: Path, stub: Stub) -> None:
    host = read_host(stub(nvml, "crash=1"))
    assert host.nvidia.nvml_problem == "crashed (signal 6)"
    assert host.kernel.release


def test_a_slow_library_is_waited_for(nvml: Path, stub: Stub) -> None:
    """Without persistence mode a start takes seconds a card."""
    found = document(stub(nvml, "slow_ms=1500;count=1"), "nvidia")
    assert (found["problem"], len(found["gpus"])) == (None, 1)


@pytest.mark.parametrize("settings", ["hang=1", "hang=1;stubborn=1"])
def test_a_hanging_library_is_left(nvml: Path, stub: Stub, settings: str) -> None:
    machine = stub(nvml, settings)
    begin = time.monotonic()
    host = read_host(machine)
    assert time.monotonic() - begin < 30, "benchmarks/doctor_hanging.py says how soon"
    assert host.nvidia.nvml_problem == TIMED_OUT
    assert host.os.id


def test_the_facts_say_that_a_stub_answered(nvml: Path, amdsmi: Path, stub: Stub) -> None:
    host = read_host(stub(Path(f"{nvml}:{amdsmi}"), "count=2"))
    assert [gpu.slot for gpu in host.nvidia.nvml or ()] == ["0000:01:00.0", "0000:0b:00.0"]
    assert (host.nvidia.stub, host.amd.stub, host.amd.amdsmi_gpus) == (True, True, 2)


def test_a_library_without_the_functions_to_start_is_reported(tmp_path: Path, stub: Stub) -> None:
    (tmp_path / "empty.c").write_text("int gpu_setup_stub = 1;\n")
    stub_libraries.build(tmp_path / "empty.c", tmp_path / "libnvidia-ml.so.1", "libnvidia-ml.so.1")
    assert "lacks a function" in document(stub(tmp_path, ""), "nvidia")["problem"]


def test_a_file_that_is_no_library_is_reported(tmp_path: Path, stub: Stub) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    assert document(stub(tmp_path, ""), "nvidia")["problem"] == "absent"


def test_telemetry_is_one_document_a_line_and_ends_with_its_reader(nvml: Path, stub: Stub) -> None:
    stub(nvml, "count=1")
    lines: list[dict[str, Any]] = []
    cancel = threading.Event()

    def on_line(line: str) -> None:
        lines.append(json.loads(line))
        if len(lines) == 4:
            cancel.set()

    argv = (sys.executable, "-I", SCRIPT, "nvidia", "--every", "0.05")
    LocalMachine().stream(argv, on_line, cancel=cancel, env={"GPU_SETUP_STUB": "count=1"})
    energies = [line["gpus"][0]["energy"] for line in lines[:4]]
    assert energies == sorted(set(energies))
    steps = [after["time"] - before["time"] for before, after in pairwise(lines)]
    assert 0.03 < sum(steps[:3]) / 3 < 0.5


def test_the_child_ends_when_its_parent_is_killed(nvml: Path, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    environ = {**os.environ, "LD_LIBRARY_PATH": str(nvml), "GPU_SETUP_STUB": "hang=1"}
    code = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-I', {SCRIPT!r}, 'nvidia'], stdout=subprocess.DEVNULL)\n"
        f"open({str(note)!r}, 'w').write(str(child.pid)); child.wait()\n"
    )
    with subprocess.Popen((sys.executable, "-c", code), env=environ) as parent:
        limit = time.monotonic() + 10
        while not (note.exists() and note.read_text()) and time.monotonic() < limit:
            time.sleep(0.02)
        time.sleep(0.3)
        parent.kill()
    assert gone(int(note.read_text()))


@pytest.mark.parametrize("arguments", [(), ("intel",), ("nvidia", "--every", "x"), ("nvidia", "--every", "0")])
def test_wrong_arguments_are_usage(arguments: tuple[str, ...]) -> None:
    outcome = LocalMachine().run((sys.executable, "-I", SCRIPT, *arguments))
    assert (outcome.rc, outcome.stdout) == (2, "")
    assert "usage:" in outcome.stderr


# ---- amdsmi


def test_amdsmi_without_its_library_prints_a_clean_document() -> None:
    """amdsmi 7.0 prints two lines to stdout at import and raises KeyError."""
    outcome = LocalMachine().run((sys.executable, "-I", SCRIPT, "amd"), env={"ROCM_PATH": "/nowhere"})
    assert json.loads(outcome.stdout)["problem"] == "absent"


def test_amd_gpus_and_a_sensor_that_answers_nonsense(amdsmi: Path, stub: Stub) -> None:
    found = document(stub(amdsmi, "count=2"), "amd")
    assert (found["problem"], found["stub"]) == (None, True)
    first, second = found["gpus"]
    assert (first["slot"], second["slot"]) == ("0000:03:00.0", "0000:04:00.0")
    assert (first["memory_total"], first["temperature_edge"], first["temperature_junction"]) == (25753026560, 41, 47)
    assert (first["temperature_memory"], first["power"], first["name"]) == (None, None, None)


@pytest.mark.parametrize(("code", "problem"), [(34, "not-loaded"), (10, "not-permitted")])
def test_why_amdsmi_does_not_start(amdsmi: Path, stub: Stub, code: int, problem: str) -> None:
    assert document(stub(amdsmi, f"error={code}"), "amd")["problem"] == problem


def test_an_older_amd_library_that_lacks_a_symbol_is_reported(tmp_path: Path, stub: Stub) -> None:
    folder = stub_libraries.amdsmi(tmp_path, without="amdsmi_get_gpu_vram_info")
    found = document(stub(folder, ""), "amd")
    assert found["problem"] == "the library does not fit the binding"
    assert "amdsmi_get_gpu_vram_info" in found["detail"]


def test_rocms_own_binding_comes_first_because_it_fits(
    tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library older than the tool's binding answers through the package that ROCm brought with it."""
    folder = stub_libraries.amdsmi(tmp_path, without="amdsmi_get_gpu_vram_info")
    (tmp_path / "lib").symlink_to(tmp_path)
    package = stub_libraries.amdsmi_package(tmp_path / "share/amd_smi", without="amdsmi_get_gpu_vram_info")
    monkeypatch.setenv("ROCM_PATH", str(tmp_path))
    found = document(stub(folder, "count=2"), "amd")
    assert (found["problem"], [gpu["slot"] for gpu in found["gpus"]]) == (None, ["0000:03:00.0", "0000:04:00.0"])

    # what others may write, root does not run
    package.chmod(0o666)
    if os.geteuid() == 0:
        assert document(stub(folder, "count=2"), "amd")["problem"] == "the library does not fit the binding"


SMI_LIST = '[{"gpu": 0, "asic": {"asic_serial": "0x41624"}, "bus": {"bdf": "0000:03:00.0"}}]'


@pytest.fixture
def amd_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A program amd-smi on PATH with these lines of shell."""

    def with_program(body: str) -> None:
        program = tmp_path / "bin/amd-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return with_program


class WithAmdgpu(LocalMachine):
    """This machine as if amdgpu were loaded."""

    def access(self, path: str, wanted: int) -> bool | None:
        return True if path == "/sys/module/amdgpu" else super().access(path, wanted)


@pytest.mark.parametrize(
    ("printed", "slots"),
    [
        (SMI_LIST, ["0000:03:00.0"]),
        # ROCm 7.x under Python 3.14: warnings first, an object around the list (RX 7800 XT on Bazzite, August 2026)
        (f'amdsmi_interface.py:3569: SyntaxWarning: x\n{{"gpu_data": {SMI_LIST}}}', ["0000:03:00.0"]),
    ],
)
def test_the_hosts_amd_smi_is_asked_before_a_binding(
    amd_smi: Callable[[str], None], amdsmi: Path, stub: Stub, printed: str, slots: list[str]
) -> None:
    amd_smi(f"cat <<'EOF'\n{printed}\nEOF")
    stub(amdsmi, "count=2")
    found = read_host(WithAmdgpu()).amd
    assert (found.amdsmi_problem, list(found.amdsmi_slots or ())) == (None, slots)


@pytest.mark.parametrize("body", ["exit 1", "echo ROCm is not happy", "exec sleep 60"])
def test_where_amd_smi_fails_or_hangs_the_binding_answers(
    amd_smi: Callable[[str], None], amdsmi: Path, stub: Stub, body: str
) -> None:
    amd_smi(body)
    stub(amdsmi, "count=2")
    begin = time.monotonic()
    found = read_host(WithAmdgpu(), patience=2.0).amd
    assert (found.amdsmi_problem, found.amdsmi_gpus) == (None, 2)
    assert time.monotonic() - begin < 30, "amd-smi hangs for a minute"
