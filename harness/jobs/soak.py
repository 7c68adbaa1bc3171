"""Warms the device up before a measurement with the model's matrix products, until temperature and clock are stable."""

from __future__ import annotations

import threading
import time

from checks.facts.host import Host
from harness.environment.worker_process import worker_environment
from harness.measure.matmul_ceiling import ceiling_argv, products_of
from harness.measure.run_context import Soak, slot_of
from harness.measure.sensors import has_sensor, measure_settling
from harness.measure.telemetry import read_telemetry, record_telemetry
from harness.pipeline import Job, TrainingSetup
from machine.events import Emit, Event
from machine.local import Machine
from machine.paths import Paths, make

STAGE = "soak"
AT_MOST = 20 * 60.0
LOOK = 5.0


def soak(job: Job, setup: TrainingSetup, host: Host, machine: Machine, paths: Paths, emit: Emit) -> Soak:
    """Heat the device with the model's matrix products until temperature and clock are stable, for at most 20 minutes.

    Without a sensor it does not wait.
    """
    vendor, which = job.stack.vendor, slot_of(host, job.stack.vendor, job.device)
    products = products_of({**job.recipe.config, **job.overrides}, setup.base_model)
    file = make(paths.state) / "soak.jsonl"
    file.unlink(missing_ok=True)
    stop = threading.Event()
    begin, soaked = time.monotonic(), Soak(0.0, None)
    if products is None:
        return soaked
    argv = (*ceiling_argv(setup.environment, products), "--until-stopped")
    heater = threading.Thread(
        target=lambda: machine.stream(
            argv, lambda line: None, stop, worker_environment(setup.environment, device=job.device)
        ),
        daemon=True,
    )
    emit(Event("start", STAGE, "Soaking: heating the device until temperature and clock are stable"))
    with record_telemetry(machine, vendor, which, file):
        heater.start()
        try:
            while heater.is_alive() and (spent := time.monotonic() - begin) < AT_MOST:
                heater.join(LOOK)
                seen = read_telemetry(file)
                samples = seen.card if vendor != "cpu" else seen.host
                if samples and not has_sensor(samples):
                    break
                found = measure_settling(samples)
                soaked = Soak(spent, bool(found and found.soaked), *((found.kelvin, found.clock) if found else ()))
                if soaked.settled:
                    break
                emit(Event("progress", STAGE, _describe_heat(soaked), spent / 60, AT_MOST / 60, "minutes"))
        finally:
            stop.set()
            heater.join()
    emit(Event("end", STAGE, _describe_heat(soaked)))
    return soaked


def _describe_heat(soaked: Soak) -> str:
    if soaked.settled is None:
        return "no temperature or clock sensor, so no soaking"
    if soaked.kelvin is None and soaked.clock_share is None:
        return "warming up"
    heat = f"{soaked.kelvin:+.1f} K" if soaked.kelvin is not None else "temperature not known"
    clock = f"{soaked.clock_share:+.1%} clock" if soaked.clock_share is not None else "clock not known"
    return f"{'stable' if soaked.settled else 'not stable yet'}: {heat}, {clock} in two minutes"
