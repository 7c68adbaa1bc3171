"""Ctrl-C in the middle of a long check, as a terminal sends it: to the tool and to the processes that help it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.training import wait_for
from tests.tool import ROOT


def rows(path: Path, count: int) -> Path:
    """Enough rows that several processes share them."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = {
                "instruction": f"How do I repair drawer {number} of the old desk in room {number % 977}?",
                "input": "",
                "output": f"Take drawer {number} out, look at both of its runners and glue what has come loose. " * 4,
            }
            file.write(json.dumps(row) + "\n")
    return path


def group(leader: int) -> list[int]:
    """The living processes of this process group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(entry.name))
    return found


@pytest.mark.lab
@pytest.mark.parametrize("later", [0.0, 1.5], ids=["while the helpers start", "while they work"])
def test_ctrl_c_while_several_processes_check(tmp_path: Path, later: float) -> None:
    several = len(os.sched_getaffinity(0)) > 1
    data, temporary = rows(tmp_path / "rows.jsonl", 60_000), tmp_path / "temporary"
    temporary.mkdir()
    before = data.read_bytes()
    child = subprocess.Popen(
        (sys.executable, "-I", str(ROOT / "gpu_setup" / "__main__.py"), "data", "check", str(data)),
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while len(group(child.pid)) < (3 if several else 1) and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    helpers = len(group(child.pid)) - 1
    time.sleep(later if several else 1.5)
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert helpers >= 2 or not several, "the check ended before it could be stopped, or worked alone"
    assert child.returncode == 130, said
    assert "Interrupted" in said and "Traceback" not in said
    # Python's own resource tracker ends when it sees that its parent has
    wait_for(lambda: not group(child.pid), 5)
    assert not group(child.pid), "no helper is left behind"
    assert list(temporary.iterdir()) == []
    assert data.read_bytes() == before
