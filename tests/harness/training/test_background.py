"""A training that outlives the terminal: what is asked of systemd, what is said where it is not there.

No systemd is the service manager here: its answers are those that systemctl and loginctl print (249 to 255).
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.training.background import BackgroundSupport, read_support, start_unit, unit_argv, unit_notes
from machine.errors import OutsideFailed, Refused
from machine.local import ABSENT, LocalMachine, Outcome, Session

SETTINGS = Path("/state/background/unit.env")
WORDS = ("/usr/bin/python3", "-I", "/opt/gpu-setup/gpu_setup/__main__.py", "train", "mine.json")
HERE = BackgroundSupport(manager=True, user=True, lingers=True, inhibitor=True)


class Answers(LocalMachine):
    """A machine whose systemd says what is given, by the command's first two words; what is not given is absent."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.asked: list[tuple[str, ...]] = []
        self.environ: dict[str, str] = {}

    def session(self) -> Session:
        return Session(1000, "ada", (1000,), self.environ)

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Mapping[str, str] | None = None) -> Outcome:
        self.asked.append(tuple(argv))
        said = self.answers.get(argv[0].replace("-", "_"))
        if said is None:
            return Outcome(tuple(argv), None, "", "No such file or directory", 0.0, ABSENT)
        return Outcome(tuple(argv), 0, said, "", 0.01)


def test_a_desktop_with_systemd() -> None:
    machine = Answers(systemctl="running\n", loginctl="yes\n", systemd_inhibit="")
    assert read_support(machine, 1000) == HERE
    assert machine.asked[0] == ("systemctl", "--user", "is-system-running")


def test_root_has_the_machines_manager() -> None:
    assert read_support(Answers(systemctl="degraded\n", systemd_inhibit=""), 0) == BackgroundSupport(
        True, False, True, True
    )


def test_no_systemd() -> None:
    assert read_support(Answers(), 1000) == BackgroundSupport(False, True, None, False)
    with pytest.raises(Refused) as refused:
        start_unit("unit", WORDS, "/runs/x", Answers(), True, Path("/nonexistent"))
    assert refused.value.code == "train.no-manager"
    assert "nohup" in refused.value.next and "tmux" in refused.value.next


@pytest.mark.parametrize("said", ["offline\n", "unknown\n", "stopping\n", ""])
def test_a_systemd_that_runs_nothing(said: str) -> None:
    """In a container systemctl is often there, and answers `offline`."""
    assert not read_support(Answers(systemctl=said, loginctl="no\n"), 1000).manager


def test_the_unit_stops_with_a_checkpoint_and_keeps_the_machine_awake() -> None:
    argv = unit_argv("gpu-setup-train-x", WORDS, "/runs/x", HERE, True, SETTINGS)
    assert argv[:2] == ("systemd-run", "--user")
    # SIGTERM to gpu-setup alone: it asks the training, which else would be ended with it
    assert "--property=KillMode=mixed" in argv and "--property=TimeoutStopSec=300" in argv
    assert argv[argv.index("systemd-inhibit") + 1] == "--what=sleep:idle"
    assert argv[-len(WORDS) :] == WORDS
    assert "systemd-inhibit" not in unit_argv("x", WORDS, "/runs/x", HERE, False, SETTINGS)


def test_passwords_go_by_a_file_that_only_the_user_can_read(tmp_path: Path) -> None:
    """argv is public, and so are the Environment= of a unit (`systemctl show`)."""
    machine = Answers(systemctl="running\n", loginctl="yes\n", systemd_inhibit="", systemd_run="")
    machine.environ = {
        "GPU_SETUP_HOME": "/data",
        "HF_TOKEN": "hf_secret",
        "https_proxy": 'http://me:s3"c$r`e\\t@proxy:1',
        "SHELL": "/bin/sh",
    }
    start_unit("unit", WORDS, "/runs/x", machine, True, tmp_path)
    (file,) = (tmp_path / "background").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    for argv in machine.asked:
        assert not any(secret in " ".join(argv) for secret in ("hf_secret", "s3", "GPU_SETUP_HOME"))
    started = next(argv for argv in machine.asked if argv[0] == "systemd-run")
    assert f"--property=EnvironmentFile={file}" in started
    assert f"--property=ExecStopPost=/bin/rm -f {file}" in started
    # systemd's rules for double quotes are the shell's
    lines = subprocess.run(
        ["sh", "-c", f'set -a; . "{file}"; printf "%s\\n" "$GPU_SETUP_HOME" "$HF_TOKEN" "$https_proxy"'],
        capture_output=True, text=True, env={}, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert lines == ["/data", "hf_secret", machine.environ["https_proxy"]]
    assert "SHELL" not in file.read_text()


def test_the_file_goes_where_systemd_starts_nothing(tmp_path: Path) -> None:
    machine = Answers(systemctl="running\n", loginctl="yes\n", systemd_inhibit="")
    with pytest.raises(OutsideFailed):
        start_unit("unit", WORDS, "/runs/x", machine, True, tmp_path)
    assert list((tmp_path / "background").iterdir()) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, []),
        ({"lingers": False}, ["loginctl enable-linger"]),
        ({"lingers": None}, ["not known"]),
        ({"inhibitor": False}, ["suspending"]),
    ],
)
def test_what_may_end_it_is_said(facts: dict[str, Any], words: list[str]) -> None:
    said = unit_notes(HERE._replace(**facts), True)
    assert len(said) == len(words)
    assert all(word in line for word, line in zip(words, said, strict=True))
