"""Everything outside hangs: the doctor as a whole process still ends, and says what did not answer.

benchmarks/doctor_hanging.py says how soon; on a busy machine a bound of seconds says nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lab import stub_libraries
from tests.tool import Cli

pytestmark = pytest.mark.lab
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


@pytest.fixture
def hanging(tmp_path: Path) -> dict[str, str]:
    """An environment in which NVML and every program that a reader may start hang, deaf to SIGTERM."""
    stub_libraries.nvml(tmp_path)
    stub_libraries.amdsmi(tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).write_text("#!/bin/sh\ntrap '' TERM INT HUP\nwhile :; do sleep 60; done\n")
        (programs / name).chmod(0o755)
    return {
        "LD_LIBRARY_PATH": str(tmp_path),
        "GPU_SETUP_STUB": "hang=1;stubborn=1",
        "PATH": f"{programs}:/usr/bin:/bin",
        "DOCKER_HOST": "tcp://192.0.2.1:2376",
    }


def test_doctor_ends_and_says_what_hangs(cli: Cli, hanging: dict[str, str]) -> None:
    result = cli("doctor", env=hanging)
    assert result.returncode in (0, 1), result.stderr
    told = " ".join(result.stdout.split())
    assert "No answer in time from" in told
    for source in ("NVML", "docker", "kernel log"):
        assert source in told, told
    assert result.stderr == ""


def test_as_json_it_is_one_document_and_the_facts_name_the_gaps(cli: Cli, hanging: dict[str, str]) -> None:
    result = cli("facts", "--json", env=hanging)
    facts = json.loads(result.stdout)["data"]
    assert (facts["nvidia"]["nvml_problem"], facts["docker"]["problem"]) == ("timed-out", "timed-out")
    assert any("kernel log" in gap["source"] for gap in facts["unread"])


def test_no_process_is_orphaned(cli: Cli, hanging: dict[str, str], tmp_path: Path) -> None:
    cli("doctor", "--only", "driver", env=hanging)
    marks = (str(tmp_path / "bin"), "bindings.py")
    left = []
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                environ = (place / "environ").read_bytes()
            except OSError:
                continue
            if any(mark in line for mark in marks) and str(tmp_path).encode() in environ:
                left.append(line)
    assert left == []


def test_a_bundle_is_made_all_the_same(cli: Cli, hanging: dict[str, str], tmp_path: Path) -> None:
    result = cli("doctor", "--bundle", str(tmp_path / "b.tar.gz"), env=hanging)
    assert (tmp_path / "b.tar.gz").stat().st_size < 1_000_000
    replayed = json.loads(cli("facts", "--json", "--machine", str(tmp_path / "b.tar.gz")).stdout)["data"]
    assert replayed["nvidia"]["nvml_problem"] == "timed-out"
    assert "answer otherwise" not in result.stdout


@pytest.mark.parametrize(
    ("settings", "code"),
    [("count=1;noise=1", 0), ("count=1;noise=1;error=18", 0), ("noise=1;crash=1", 0), ("noise=1;hang=1", 0)],
)
def test_stdout_is_one_document_whatever_a_library_prints(cli: Cli, tmp_path: Path, settings: str, code: int) -> None:
    env = {"LD_LIBRARY_PATH": str(stub_libraries.nvml(tmp_path)), "GPU_SETUP_STUB": settings}
    for command, schema in (("doctor", "gpu-setup/doctor/1"), ("facts", "gpu-setup/facts/1")):
        result = cli(command, "--json", env=env)
        document = json.loads(result.stdout)
        assert (document["schema"], document["exit_code"]) == (schema, result.returncode)
        assert result.returncode == code, result.stderr
        assert "nvml: hello" not in result.stdout
