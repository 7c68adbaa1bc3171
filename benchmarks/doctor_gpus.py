"""What eight GPUs cost the doctor: `gpu-setup doctor` with eight stand-in GPUs behind NVML against none.

    python3 benchmarks/doctor_gpus.py [--runs 21] [--work DIR]

Whole processes, from fork to exit, output thrown away, the two interleaved in a shuffled order. The GPUs are
tests/lab/nvml_stub.c, compiled here and found by LD_LIBRARY_PATH: the real Python binding in a process of its own asks
each of them everything that it asks a real one. A stand-in answers at once; a real driver's time comes on top. Needs
gcc.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
from pathlib import Path
from statistics import median

from home import LAUNCHER, add_common_options, my_places, tool_python, work_folder
from intervals import interval, ratio_of_medians
from processes import Ended, person_environment, run
from result import CHECKOUT, Figure, machine, progress, report, write

NEEDED_RUNS = 21
LIMIT = 3.0
GPUS = 8
NONE, SOME = "gpu-setup doctor, no GPU", f"gpu-setup doctor, {GPUS} stand-in GPUs"


def library(folder: Path) -> Path:
    """The folder with libnvidia-ml.so.1."""
    source = CHECKOUT / "tests" / "lab" / "nvml_stub.c"
    name = "libnvidia-ml.so.1"
    subprocess.run(
        ("gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)), check=True
    )
    return folder


def measure(stub: Path, rounds: int) -> dict[str, list[Ended]]:
    """One round to warm the caches, which is not counted, then the rounds."""
    argv = (str(LAUNCHER), "doctor")
    environments = {
        NONE: person_environment(),
        SOME: person_environment(LD_LIBRARY_PATH=str(stub), GPU_SETUP_STUB=f"count={GPUS}"),
    }
    shown = subprocess.run(
        (*argv[:1], "facts", "--json"), env=environments[SOME], capture_output=True, check=True
    ).stdout
    if len(json.loads(shown)["data"]["nvidia"]["nvml"] or ()) != GPUS:
        raise SystemExit(f"gpu-setup facts does not show the {GPUS} stand-in GPUs: nothing to measure.")
    ended: dict[str, list[Ended]] = {name: [] for name in environments}
    shuffle = random.Random(0).shuffle
    for number in range(-1, rounds):
        turn = list(environments)
        shuffle(turn)
        for name in turn:
            once = run(argv, environments[name])
            if once.rc not in (0, 1):
                raise SystemExit(f"{name}: exit status {once.rc}. Run it by hand to see why.")
            progress(f"round {number + 1} of {rounds}: {name}: {1000 * once.seconds:.0f} ms")
            if number >= 0:
                ended[name].append(once)
    return ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=NEEDED_RUNS, help="rounds (default: %(default)s)")
    add_common_options(parser)
    given = parser.parse_args()
    described = machine()
    tool_python(my_places())
    with work_folder(given.work) as work:
        ended = measure(library(work), given.runs)
    seconds = {name: [once.seconds for once in runs] for name, runs in ended.items()}
    pair = seconds[SOME], seconds[NONE]
    figures = report(
        Figure(
            f"gpu-setup doctor with {GPUS} stand-in GPUs, against none",
            ratio_of_medians(*pair),
            "ratio",
            len(pair[0]),
            NEEDED_RUNS,
            at_most=LIMIT,
            ci95=interval(ratio_of_medians, *pair),
        ),
        *(
            Figure(name, 1000 * median(values), "ms", len(values), note=f"fastest {1000 * min(values):.0f} ms")
            for name, values in seconds.items()
        ),
    )
    raw = {name: {"seconds": [round(value, 5) for value in values]} for name, values in seconds.items()}
    write("doctor-gpus", "The doctor with eight GPUs", figures, raw, described, given.out)


if __name__ == "__main__":
    main()
