"""How long `gpu-setup` waits where everything outside hangs: NVML, and every program that a reader may start.

    python3 benchmarks/doctor_hanging.py [--runs 5] [--work DIR]

Whole processes, from fork to exit. NVML is tests/lab/nvml_stub.c, which never answers; the programs ignore SIGTERM.
That they are reported and left is shown by tests/lab/harness/test_hanging.py; here is how soon. It needs gcc.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from statistics import median

from doctor_gpus import library
from home import LAUNCHER, add_common_options, my_places, tool_python, work_folder
from processes import person_environment, run
from result import Figure, machine, progress, report, write

PROGRAMS = (
    "docker",
    "nvidia-smi",
    "journalctl",
    "dmesg",
    "mokutil",
    "amd-smi",
    "podman",
    "systemctl",
    "lspci",
    "ldconfig",
)
# command → seconds that it may take
LIMITS = {("doctor",): 5.0, ("facts", "--json"): 5.0, ("doctor", "--bundle"): 10.0}


def hanging_environment(work: Path) -> dict[str, str]:
    """An environment in which nothing outside answers."""
    programs = work / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).write_text("#!/bin/sh\ntrap '' TERM INT HUP\nwhile :; do sleep 60; done\n")
        (programs / name).chmod(0o755)
    return person_environment(
        LD_LIBRARY_PATH=str(library(work)),
        GPU_SETUP_STUB="hang=1;stubborn=1",
        PATH=f"{programs}:{os.environ['PATH']}",
        DOCKER_HOST="tcp://192.0.2.1:2376",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each command (default: %(default)s)")
    add_common_options(parser)
    given = parser.parse_args()
    described = machine()
    tool_python(my_places())
    figures: list[Figure] = []
    raw = {}
    with work_folder(given.work) as work:
        environ = hanging_environment(work)
        for words, limit in LIMITS.items():
            seconds = []
            for number in range(given.runs):
                file = (str(work / f"{number}.tar.gz"),) if words[-1] == "--bundle" else ()
                once = run((str(LAUNCHER), *words, *file), environ)
                if once.rc not in (0, 1):
                    raise SystemExit(f"gpu-setup {' '.join(words)} exited with status {once.rc}; run it by hand.")
                seconds.append(once.seconds)
                progress(f"gpu-setup {' '.join(words)}: {once.seconds:.2f} s")
            name = f"gpu-setup {' '.join(words)}, everything outside hangs (the slowest run)"
            figures += report(
                Figure(name, max(seconds), "s", len(seconds), at_most=limit, note=f"median {median(seconds):.2f} s")
            )
            raw[" ".join(words)] = [round(value, 3) for value in seconds]
    write("doctor-hanging", "The doctor where everything outside hangs", figures, raw, described, given.out)


if __name__ == "__main__":
    main()
