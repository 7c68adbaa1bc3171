"""Measuring with real parts: the worker's own sums and kernels, a card behind the real binding, whole benchmarks."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.environment.worker_process import WorkerContext, worker_environment
from harness.measure.gpu_processes import read_card_use, refuse_foreign
from harness.measure.matmul_ceiling import Products, measure_ceiling
from harness.measure.nf4 import check_nf4
from harness.measure.telemetry import read_telemetry, record_telemetry
from machine.errors import BadAnswer, Refused
from machine.events import silent
from machine.local import LocalMachine
from tests.lab import stub_libraries
from tests.lab.training import Ended, Training, own_recipe, runs, steps, tool, wait_for
from tests.schemas import must_follow

pytestmark = pytest.mark.lab

UUID = "GPU-00000000-0000-0000-0000-000000000000"


def inside(training: Training, code: str, timeout: float = 120) -> Any:
    """What a program in the training environment prints as its last line, as JSON."""
    outcome = LocalMachine().run(
        (str(training.environment.python), "-c", code), timeout=timeout, env=worker_environment(training.environment)
    )
    assert outcome.ok, outcome.stderr[-2000:]
    return json.loads(outcome.stdout.splitlines()[-1])


SUMS = """
import json, random, torch
from gpu_setup_worker.documents import document_sums
chance, wrong = random.Random(0), 0
for case in range(300):
    width, window = chance.randint(1, 40), chance.choice([None, 3, 8])
    masks, positions, lengths = [], [], []
    for row in range(chance.randint(1, 3)):
        mask, place = [], []
        number = 1
        while len(mask) < width:
            length = min(chance.randint(1, 12), width - len(mask))
            padding = chance.random() < 0.2
            mask += [0 if padding else number if case % 2 else 1] * length
            place += range(length)
            if not padding:
                lengths.append(length)
                number += 1
            elif case % 2 == 0 or len(mask) < width:
                # padding stands at the end only
                rest = width - len(mask)
                mask += [0] * rest
                place += range(rest)
                break
        masks.append(mask)
        positions.append(place)
    given = torch.tensor(positions) if case % 2 == 0 else None
    found = [int(value) for value in document_sums(torch.tensor(masks), given, window)]
    seen = [l * l if window is None or l <= window else 2 * window * l - window * window for l in lengths]
    wrong += found != [len(lengths), sum(lengths), sum(l * l for l in lengths), sum(seen)]
print(json.dumps(wrong))
"""


def test_the_workers_sums_over_documents(training: Training) -> None:
    """Against documents that are counted one by one: packed by number, packed by positions, padded."""
    assert inside(training, SUMS) == 0


KERNELS = """
import json, torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from gpu_setup_worker.kernels import attention_kernels
q = torch.randn(1, 4, 64, 32, requires_grad=True)
found = {}
for name in ("FLASH_ATTENTION", "MATH"):
    names = set()
    with sdpa_kernel(getattr(SDPBackend, name)), attention_kernels(names):
        torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()
    found[name] = sorted(names)
print(json.dumps(found))
"""


def test_a_silent_fall_back_to_plain_products_is_seen(training: Training) -> None:
    from harness.measure.verdict import kernel_words

    found = inside(training, KERNELS)
    assert kernel_words(found["FLASH_ATTENTION"]) == "flash (PyTorch)"
    assert kernel_words(found["MATH"]) == "math"


def test_the_ceiling_is_this_machines_matrix_product(training: Training, tmp_path: Path) -> None:
    """The weighted figure lies between the slowest and the fastest shape; one shape's is a bare torch.mm's."""
    products = Products(((256, 256, 8), (256, 512, 2)), rows=512, precision="fp32")
    found = measure_ceiling(products, 1.0, tmp_path / "ceiling.json", training.worker)
    assert found.precision == "fp32" and found.device == "cpu" and len(found.rounds) >= 3
    by_shape = [tflops for *_, tflops in found.by_matrix]
    middle = sorted(found.rounds)[len(found.rounds) // 2]
    # a busy machine spreads the rounds widely
    assert min(by_shape) * 0.5 < middle < max(by_shape) * 2
    assert found.threads == inside(training, "import torch; print(torch.get_num_threads())")


def test_nf4_is_checked_once(training: Training, tmp_path: Path) -> None:
    class Counted(LocalMachine):
        starts = 0

        def run(self, *given: Any, **more: Any) -> Any:
            Counted.starts += 1
            return super().run(*given, **more)

    # conditions that no other session has seen
    worker = WorkerContext(training.environment, Counted(), silent)
    first = check_nf4(worker, (str(tmp_path),))
    assert first.worst < 1.0 and Counted.starts > 0
    Counted.starts = 0
    assert check_nf4(worker, (str(tmp_path),)) == first
    assert Counted.starts == 0, "nothing is computed again"


def test_wrong_4_bit_products_stop_a_benchmark(training: Training) -> None:
    """The check itself with an error put into the layer's output, as a broken kernel would give it."""
    from harness.measure.nf4 import parse_nf4

    argv = (str(training.environment.python), "-m", "gpu_setup_worker.nf4_check", "--inject", "unrelated")
    outcome = LocalMachine().run(argv, timeout=120, env=worker_environment(training.environment))
    with pytest.raises(BadAnswer) as caught:
        parse_nf4(outcome)
    assert caught.value.code == "bench.nf4-wrong"


# ---- a card behind the real binding (a stand-in library, no GPU)


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_libraries.nvml(tmp_path_factory.mktemp("nvml"))


def stub(monkeypatch: pytest.MonkeyPatch, folder: Path, settings: str) -> LocalMachine:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    monkeypatch.setenv("GPU_SETUP_STUB", settings)
    return LocalMachine()


def test_the_sensors_of_a_card_over_a_run(nvml: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = stub(monkeypatch, nvml, "count=2;clock=1800;limit=280000")
    file = tmp_path / "telemetry.jsonl"
    with record_telemetry(machine, "nvidia", UUID.replace("000000000000", "000000000001"), file, every=0.05):
        wait_for(lambda: len((now := read_telemetry(file)).card) >= 5 and len(now.host) >= 2)
    found = read_telemetry(file)
    first = found.card[0]
    assert (first.power, first.clock_sm, first.power_enforced, first.power_default) == (31.5, 1800, 280.0, 350.0)
    assert (first.temperature, first.memory_used) == (39, 432013312), "of the second card, which was asked for"
    energies = [sample.energy for sample in found.card]
    assert energies == sorted(energies) and None not in energies
    assert found.host[-1].busy is not None and found.host[-1].busy >= (found.host[0].busy or 0)
    assert processes("bindings.py", nvml) == []


def processes(word: str, library: Path) -> list[str]:
    """The processes with this word on their command line that were started with this stand-in library."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                word.encode() in (place / "cmdline").read_bytes()
                and os.fsencode(library) in (place / "environ").read_bytes()
            ):
                found.append(place.name)
    return found


@pytest.mark.parametrize("settings", ["hang=1", "crash=1", "error=9"])
def test_a_driver_that_hangs_or_dies_holds_no_run_up(
    nvml: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: str
) -> None:
    machine = stub(monkeypatch, nvml, settings)
    begin = time.monotonic()
    with record_telemetry(machine, "nvidia", None, tmp_path / "telemetry.jsonl", every=0.05):
        wait_for(lambda: read_telemetry(tmp_path / "telemetry.jsonl").host)
        time.sleep(0.5)
    assert time.monotonic() - begin < 30, "a driver that hangs does so for ever"
    found = read_telemetry(tmp_path / "telemetry.jsonl")
    assert found.card == () and found.host


def test_another_program_on_the_card_refuses_a_desktop_does_not(nvml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen((sys.executable, "-c", "import time; time.sleep(60)")) as other:
        try:
            machine = stub(monkeypatch, nvml, f"count=1;compute={other.pid};graphics=0")
            with pytest.raises(Refused) as caught:
                refuse_foreign(read_card_use("nvidia", UUID, machine))
            assert f"(pid {other.pid})" in caught.value.what
            machine = stub(monkeypatch, nvml, f"count=1;compute=0;graphics={other.pid}")
            found = read_card_use("nvidia", UUID, machine)
            refuse_foreign(found)
            assert [each.pid for each in found.desktop] == [other.pid]
        finally:
            other.kill()


def test_an_amd_card_is_sensed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = stub(monkeypatch, stub_libraries.amdsmi(tmp_path), "count=2")
    with record_telemetry(machine, "amd", "0000:04:00.0", tmp_path / "telemetry.jsonl", every=0.05):
        wait_for(lambda: read_telemetry(tmp_path / "telemetry.jsonl").card)
    found = read_telemetry(tmp_path / "telemetry.jsonl")
    assert found.card and {(each.temperature, each.memory_used) for each in found.card} == {(47.0, 858434218)}


def test_soaking_ends_when_temperature_and_clock_are_stable(
    training: Training, nvml: Path, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    """The real heater, beside a card whose heat never changes; two minutes are shortened to three seconds."""
    import harness.jobs.soak
    import harness.measure.sensors
    from checks.facts.read import read_host
    from harness.pipeline import Job, TrainingSetup
    from harness.recipe.loader import load_recipe
    from machine.paths import paths

    monkeypatch.setattr(harness.measure.sensors, "SOAK_WINDOW", 3.0)
    monkeypatch.setattr(harness.jobs.soak, "LOOK", 0.5)
    machine = stub(monkeypatch, nvml, "count=1;clock=1800")
    stack = msgspec.structs.replace(training.stack, vendor="nvidia")
    job = Job(load_recipe("tiny"), stack, device=UUID)
    (model,) = list(training.paths.models.glob("tiny-*/config.json"))[:1]
    ready = TrainingSetup(training.environment, str(model.parent), "")
    places = paths({"GPU_SETUP_HOME": str(own_home)})
    found = harness.jobs.soak.soak(job, ready, read_host(machine), machine, places, silent)
    assert found.settled and (found.kelvin, found.clock_share) == (0.0, 0.0)
    assert 3.0 <= found.seconds < 30
    assert processes("until-stopped", nvml) == []


def test_without_a_sensor_there_is_nothing_to_wait_for(training: Training, own_home: Path) -> None:
    import harness.jobs.soak
    from checks.facts.read import read_host
    from harness.measure.telemetry import HostSensors
    from harness.pipeline import Job, TrainingSetup
    from harness.recipe.loader import load_recipe
    from machine.paths import paths

    machine = LocalMachine()
    sample = HostSensors(machine).sample()
    if sample.temperature is not None or sample.clock is not None:
        pytest.xfail("this machine has sensors")
    (model,) = list(training.paths.models.glob("tiny-*/config.json"))[:1]
    ready, places = TrainingSetup(training.environment, str(model.parent), ""), paths({"GPU_SETUP_HOME": str(own_home)})
    found = harness.jobs.soak.soak(
        Job(load_recipe("tiny"), training.stack), ready, read_host(machine), machine, places, silent
    )
    assert found.settled is None


# ---- whole benchmarks on the processor


def test_a_quick_benchmark_on_documents_of_one_length(own_home: Path) -> None:
    ended = tool(own_home, "bench", "--recipe", "tiny", "--quick", "--steps", "14")
    assert ended.rc == 0
    must_follow(ended.document, "report")
    data, found = ended.data, ended.data["measurements"]
    assert (data["method"]["mode"], data["method"]["label"]) == ("quick", "one launch, not soaked")
    assert data["method"]["workload"]["document_tokens"] == 256
    slots = [found["tokens_per_step"][name]["median"] for name in ("processed", "non_padding")]
    assert slots == [4 * 256, 4 * 256], "no padding"
    assert all(step["documents"] == 4 and step["squares"] == 4 * 256**2 for step in steps(runs(own_home)[0]))
    assert found["matmul_ceiling_tflops"]["median"] > 0 and found["ceiling_share"]["median"] > 0
    assert found["mfu"]["median"] is None and "CPU" in found["mfu"]["note"]
    assert found["own_share"]["median"] < 0.01, "our callbacks take more than 1 % of the step time"
    assert data["attention"] == "flash (PyTorch)"
    start = data["environment"]["worker"]
    assert start["sizes"]["frozen"] == 4 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 704)
    energy = found["joules_per_token"]
    assert energy["median"] or "RAPL" in energy["note"]
    assert 0 <= found["other_load"]["median"] <= 1


def test_a_recipe_without_time_left_ends_by_itself(own_home: Path, tmp_path: Path) -> None:
    """A launch with a budget of measured seconds, and what the report says of it."""
    import msgspec

    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from harness.jobs.bench import bench, bench_settings
    from harness.pipeline import Job, Workplace, find_finished_run, inputs_digest, prepare, report_run
    from harness.recipe.loader import load_recipe
    from machine.paths import paths
    from tests.lab.training import cpu_stack

    machine, places = LocalMachine(), paths({"GPU_SETUP_HOME": str(own_home)})
    recipe = load_recipe(str(own_recipe(tmp_path, ("max_steps: 30", "max_steps: 3000"))))
    job = Job(recipe, cpu_stack())
    ready = prepare(job, machine, places, silent)
    chosen = msgspec.structs.replace(bench_settings("bench", False), budget=2.0, ceiling_seconds=0.5)
    host = read_host(machine)
    (done,) = bench(job, ready, chosen, host, Workplace(machine, places, silent))
    report = report_run(done.job, done.setup, done.folder, host, catalogue(), None)
    assert report.launches[0].cut_by_budget and 3 < report.launches[0].steps < 3000
    assert any("the time budget was used up" in note for note in report.notes)
    inputs = inputs_digest(job, ready.environment, ready.base_model)
    finished = find_finished_run(msgspec.structs.replace(ready, inputs=inputs), places.runs)
    assert finished is None, "up does not take it for a complete one"


@pytest.mark.full
def test_a_record_has_three_launches_with_a_seed_each(own_home: Path) -> None:
    ended: Ended = tool(own_home, "bench", "--recipe", "tiny", "--record", "--steps", "10")
    assert ended.rc == 0
    launches = ended.data["launches"]
    assert [launch["seed"] for launch in launches] == [42, 43, 44]
    speed = ended.data["measurements"]["tokens_per_second"]["processed"]
    assert speed["n"] == 3 and speed["ci95"][0] == min(speed["raw"]) and speed["ci95"][1] == max(speed["raw"])
    assert len({launch["folder"] for launch in launches}) == 3
