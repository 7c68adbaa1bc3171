"""What the journal adds to the facts: steps that the last run was interrupted in are checked again."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_setup.render.apply import status_text
from provision.apply import status
from provision.apply.journal import ApplyRun, Journal, JournalEntry, StepResult
from provision.apply.status import apply_status, reopen_interrupted
from provision.model import Service, State, Step, WriteFile
from tests.provision.hosts import Nowhere

WRITE = Step(
    id="nouveau-blacklist",
    title="Keep nouveau away",
    action=WriteFile(path="/etc/modprobe.d/x.conf", content=""),
    state=State.DONE,
    because="It is blacklisted.",
)
RELOAD = Step(
    id="docker-reload",
    title="Reload",
    action=Service(unit="docker.service", change="reload"),
    state=State.DONE,
    because="The settings name it.",
)


def _run(kind: str = "apply", **outcomes: str) -> ApplyRun:
    results = tuple(StepResult(id=id.replace("_", "-"), title="", outcome=word) for id, word in outcomes.items())
    return ApplyRun(run="1", kind=kind, standing="running", plan_digest="", began="", steps=results)


@pytest.mark.parametrize(
    ("run", "open"),
    [
        (None, []),
        (_run(nouveau_blacklist="done", docker_reload="done"), []),
        # the file was there, the initramfs perhaps not
        (_run(nouveau_blacklist="running", docker_reload="waiting"), ["nouveau-blacklist", "docker-reload"]),
        (_run(nouveau_blacklist="done", docker_reload="failed"), ["docker-reload"]),
        # what was not begun and looks done is done; of a reload nothing can be seen
        (_run(nouveau_blacklist="waiting", docker_reload="waiting"), ["docker-reload"]),
        (_run("rollback", nouveau_blacklist="running"), []),
    ],
)
def test_steps_of_an_interrupted_run_are_open_again(run: ApplyRun | None, open: list[str]) -> None:
    steps = reopen_interrupted((WRITE, RELOAD), run)
    assert [step.id for step in steps if step.state is State.TODO] == open
    assert all("last run ended before this was verified" in step.because for step in steps if step.state is State.TODO)


def _driver(state: State) -> Step:
    return Step(id="nvidia-driver", title="NVIDIA driver", action=WRITE.action, state=state, because="It is loaded.")


@pytest.mark.parametrize(
    ("driver", "outcomes", "added"),
    [
        # the power failed when dpkg had finished: at the next boot the driver works, and a plan only keeps it
        (State.DONE, {"nvidia_driver": "running", "nouveau_blacklist": "waiting"}, True),
        (State.TODO, {"nvidia_driver": "running", "nouveau_blacklist": "waiting"}, False),
        (State.DONE, {"nvidia_driver": "failed", "nouveau_blacklist": "waiting"}, False),
        (State.DONE, {"nvidia_driver": "running"}, False),
        (State.DONE, {"nvidia_driver": "done", "nouveau_blacklist": "done"}, False),
    ],
)
def test_a_driver_that_was_installed_just_before_the_end_still_gets_its_blacklist(
    driver: State, outcomes: dict[str, str], added: bool
) -> None:
    steps = reopen_interrupted((_driver(driver),), _run(**outcomes))
    assert ("nouveau-blacklist" in [step.id for step in steps if step.state is State.TODO]) is added


@pytest.mark.parametrize("content", [b"", b'{"run": "2026', b"\xff\xfe\x00", b"[]", b'{"x": ' + b"[" * 100_000, None])
def test_a_state_that_cannot_be_read_is_unknown(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may leave it incomplete. The journal shows that something was applied."""
    monkeypatch.setattr(status, "STATE", tmp_path)
    monkeypatch.setattr(status, "UNIT", str(tmp_path / "no-unit"))
    assert apply_status(Nowhere()).standing == "none"
    journal = Journal(tmp_path)
    journal.write(JournalEntry(time="1", run="r", kind="apply", phase="begin"))
    if content is not None:
        (tmp_path / "state.json").write_bytes(content)
    found = apply_status(Nowhere())
    assert (found.standing, found.run) == ("unknown", None)
    text = status_text(found)
    assert text.startswith("Unknown:") and str(journal.file) in text and "gpu-setup apply" in text


def test_a_damaged_state_without_a_journal_is_unknown_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "STATE", tmp_path)
    (tmp_path / "state.json").write_bytes(b"{")
    assert apply_status(Nowhere()).standing == "unknown"
