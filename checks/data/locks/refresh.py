"""Writes the locks of the training stacks anew: `python checks/data/locks/refresh.py` (needs uv and a package index).

One file a stack, for Python 3.11 to 3.13, with the hashes of every wheel. torch is left out: its builds differ by index,
so it is installed by a call of its own (harness/environment.py).
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
COMPILE = ("uv", "pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-header",
           "--no-annotate", "--quiet")  # fmt: skip


def compiled(source: str, *options: str) -> str:
    argv = (*COMPILE, *options, str(HERE / source))
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def main() -> None:
    everything = compiled("training.in", "--no-emit-package", "torch")
    # what only torch's CUDA build brings; the CPU build does not import it
    gpu_only = sorted(set(re.findall(r"^(nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==", everything, re.MULTILINE)))
    without = [word for name in ["torch", *gpu_only] for word in ("--no-emit-package", name)]
    carriers = compiled("carriers.in", "--no-deps")
    (HERE / "cpu.txt").write_text(compiled("training.in", *without) + carriers, encoding="utf-8")
    (HERE / "cu130.txt").write_text(everything + carriers, encoding="utf-8")


if __name__ == "__main__":
    main()
