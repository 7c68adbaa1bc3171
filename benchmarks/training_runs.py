"""One training process each: by `gpu-setup bench`, by bare `axolotl train`, by a bare PyTorch loop; what each cost.

The config, the variables and the command of Axolotl are those that gpu-setup itself gave its worker (read from the
running process), with the plugin taken out.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from home import LAUNCHER
from processes import children, command_line, cpu_seconds, environment, person_environment, run

BENCHMARKS = Path(__file__).resolve().parent
OUR_PLUGIN = "plugins:\n- gpu_setup_worker.plugin.Telemetry\n"
RECORDING_PLUGIN = "plugins:\n- record_batches.RecordBatches\n"
# Axolotl prints one such line a step: its loss, and two counts that run on from the first step
STEP_LINE = re.compile(rb"\{'loss': '([^']+)'.*'tokens/trainable': (\d+), 'tokens/total': (\d+)")


class Training(NamedTuple):
    """What one training process cost, its start and end included, and what its steps after the first cost.

    cpu_seconds: user and system. steps_*: from the end of the first step to the end of the last. slots and trainable:
    the token counts in Axolotl's own log, which show that two runs did the same work.
    """

    cpu_seconds: float
    seconds: float
    peak_rss_bytes: int | None
    steps_cpu_seconds: float | None
    steps_seconds: float | None
    first_loss: float | None = None
    slots: int | None = None
    trainable: int | None = None


class Ours(NamedTuple):
    """A run of `gpu-setup bench`: its training process, the CPU seconds of the whole command, and the report's data."""

    training: Training
    command_cpu_seconds: float
    report: dict[str, Any]
    steps: list[dict[str, Any]]


class Worker(NamedTuple):
    """How gpu-setup started its worker, to start it again without the plugin."""

    argv: tuple[str, ...]
    env: dict[str, str]
    folder: Path
    config: str
    adapter: Path


class StepClock:
    """Notes a training process's CPU and wall seconds when each step's line is first seen in its log.

    Both kinds of run are checked twenty times a second: the time of a step is known to a twentieth of a second.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def look(self, pid: int, log: Path, now: float) -> None:
        spent = cpu_seconds(pid)
        try:
            steps = len(STEP_LINE.findall(log.read_bytes()))
        except OSError:
            return
        if spent is not None:
            self.seen += [(sum(spent), now)] * (steps - len(self.seen))

    def between(self) -> tuple[float | None, float | None]:
        """CPU and wall seconds from the first step's end to the last one's."""
        if len(self.seen) < 2:
            return None, None
        return self.seen[-1][0] - self.seen[0][0], self.seen[-1][1] - self.seen[0][1]


class WorkerWatch:
    """Watches a `gpu-setup bench` for its training process: what that costs, and how it was started."""

    def __init__(self) -> None:
        self.clock = StepClock()
        self.pid: int | None = None
        self.argv: tuple[str, ...] = ()
        self.env: dict[str, str] = {}
        self.folder = Path()
        self.began = self.ended = 0.0
        self._before = 0.0
        self.cpu_seconds: float | None = None

    def __call__(self, tool: int) -> None:
        spent = cpu_seconds(tool)
        if spent is None or self.cpu_seconds is not None:
            return
        if self.pid is None:
            for child in children(tool):
                argv, env = command_line(child), environment(child)
                if env and "train" in argv and any(word.endswith("/axolotl") for word in argv):
                    self.pid, self.argv, self.env = child, argv, env
                    self.folder, self.began, self._before = (
                        Path(argv[argv.index("train") + 1]).parent,
                        monotonic(),
                        spent[1],
                    )
        elif spent[1] > self._before:
            # the tool has waited for it: the kernel has added the whole process to the tool's children
            self.ended, self.cpu_seconds = monotonic(), spent[1] - self._before
        else:
            self.clock.look(self.pid, self.folder / "axolotl.log", monotonic())


def with_gpu_setup(home: Path, recipe: str, steps: int, work: Path) -> tuple[Ours, Worker]:
    """`gpu-setup bench`, as a person starts it."""
    watch = WorkerWatch()
    answer, messages = work / "bench.json", work / "bench.log"
    argv = (str(LAUNCHER), "bench", "--recipe", recipe, "--steps", str(steps), "--json")
    ended = run(argv, person_environment(GPU_SETUP_HOME=str(home)), answer, messages, watch=watch)
    if ended.rc != 0 or watch.cpu_seconds is None:
        sys.exit(f"gpu-setup bench: exit status {ended.rc}:\n{answer.read_text()}{messages.read_text()}")
    report = json.loads(answer.read_text(encoding="utf-8"))["data"]
    folder = Path(report["folder"])
    log = [json.loads(line) for line in (folder / "worker.jsonl").read_text(encoding="utf-8").splitlines()]
    done = [line for line in log if line["event"] == "step"]
    training = _training(
        watch.cpu_seconds, watch.ended - watch.began, log[-1]["rss_bytes"], watch.clock, folder / "axolotl.log"
    )
    config = (folder / "config.yml").read_text(encoding="utf-8")
    worker = Worker(watch.argv, watch.env, folder, config, folder / "adapter")
    return Ours(training, ended.cpu_seconds, report, done), worker


def with_axolotl(worker: Worker, steps: int, folder: Path, batches: Path | None = None) -> Training:
    """Bare `axolotl train` in `folder`; with `batches`, a plugin of the benchmark writes what it trained on there."""
    folder.mkdir(parents=True)
    if OUR_PLUGIN not in worker.config:
        sys.exit("The worker's config does not name the plugin as this benchmark expects.")
    config = worker.config.replace(OUR_PLUGIN, RECORDING_PLUGIN if batches else "")
    config = re.sub(r"(?m)^max_steps: .*$", f"max_steps: {steps}", config).replace(str(worker.folder), str(folder))
    (folder / "config.yml").write_text(config, encoding="utf-8")
    env = {name: value for name, value in worker.env.items() if not name.startswith(("GPU_SETUP_", "PYTHONPATH"))}
    if batches:
        env |= {"PYTHONPATH": str(BENCHMARKS), "BENCHMARK_BATCHES": str(batches)}
    argv = tuple(word.replace(str(worker.folder), str(folder)) for word in worker.argv)
    clock, log = StepClock(), folder / "axolotl.log"
    ended = run(argv, env, log, log, folder, lambda pid: clock.look(pid, log, monotonic()))
    if ended.rc != 0 or len(clock.seen) != steps:
        sys.exit(f"axolotl train: exit status {ended.rc} after {len(clock.seen)} steps; see {log}")
    return _training(ended.cpu_seconds, ended.seconds, ended.peak_rss_bytes, clock, log)


def with_bare_loop(worker: Worker, config: Path, batches: Path, folder: Path) -> Training:
    """PyTorch and peft alone, on the recorded batches."""
    folder.mkdir(parents=True)
    out, log = folder / "steps.json", folder / "loop.log"
    argv = (worker.argv[0], str(BENCHMARKS / "bare_loop.py"), "--config", str(config), "--adapter", str(worker.adapter),
            "--batches", str(batches), "--out", str(out))  # fmt: skip
    env = {name: value for name, value in worker.env.items() if not name.startswith(("GPU_SETUP_", "PYTHONPATH"))}
    ended = run(argv, env, log, log, folder)
    if ended.rc != 0:
        sys.exit(f"The bare loop: exit status {ended.rc}; see {log}")
    steps = json.loads(out.read_text(encoding="utf-8"))["steps"]
    return Training(
        ended.cpu_seconds,
        ended.seconds,
        ended.peak_rss_bytes,
        sum(step["cpu_seconds"] for step in steps[1:]),
        sum(step["seconds"] for step in steps[1:]),
        steps[0]["loss"],
    )


def _training(cpu: float, seconds: float, peak_rss_bytes: int, clock: StepClock, log: Path) -> Training:
    """With what Axolotl's own log says: the first step's loss, the token counts of the last."""
    lines = STEP_LINE.findall(log.read_bytes())
    steps_cpu, steps_seconds = clock.between()
    return Training(
        cpu, seconds, peak_rss_bytes, steps_cpu, steps_seconds, float(lines[0][0]), int(lines[-1][2]), int(lines[-1][1])
    )
