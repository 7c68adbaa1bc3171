"""Forged plans with a digest that is right, sent to the real ends: `apply --plan FILE`, and root's `apply --inside`."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from machine.errors import Problem
from machine.events import silent
from provision.apply import resume_unit
from provision.apply.journal import ApplyRequest
from provision.model import Plan, seal
from provision.root import helper
from tests.provision.forged import FORGED, honest, with_step
from tests.subjects import for_each
from tests.tool import answered

REFUSED = 3


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where root keeps its state, in this test; it does not exist before root has accepted a request."""
    monkeypatch.setattr(helper, "STATE", tmp_path / "state")
    return tmp_path / "state"


class Ends:
    """Both ends of apply, in this process. Root's end runs as whoever runs the tests: it must refuse before it acts."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._file, self._capture, self._monkeypatch = folder / "plan.json", capture, monkeypatch

    def person(self, plan: Plan) -> dict[str, Any]:
        document = {"schema": "gpu-setup/plan/1", "data": msgspec.to_builtins(plan)}
        self._file.write_bytes(msgspec.json.encode(document))
        code, out = answered(self._capture, "apply", "--yes", "--json", "--plan", str(self._file))
        assert code == REFUSED, out
        found: dict[str, Any] = json.loads(out)["errors"][0]
        return found

    def root(self, request: ApplyRequest | bytes) -> dict[str, Any]:
        content = request if isinstance(request, bytes) else msgspec.json.encode(request)
        with self._monkeypatch.context() as patch:
            patch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False))
            patch.setattr(os, "geteuid", lambda: 0)
            code, out = answered(self._capture, "apply", "--inside")
        assert code == REFUSED, out
        found: dict[str, Any] = json.loads(out.splitlines()[-1])["problem"]
        return found


@pytest.fixture
def ends(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ends:
    return Ends(tmp_path, capfd, monkeypatch)


@pytest.mark.long
@for_each("name", FORGED)
def test_both_ends_refuse_a_forged_step_and_write_nothing(name: str, ends: Ends, state: Path) -> None:
    forged = with_step(honest(), FORGED[name])
    assert ends.person(forged)["code"] == "plan.not-allowed"
    assert ends.root(ApplyRequest(kind="apply", plan=forged))["code"] == "plan.not-allowed"
    assert not state.exists()


def test_root_refuses_a_forged_update(ends: Ends, state: Path) -> None:
    forged = with_step(honest(), FORGED["a sudoers file"], "update")
    assert ends.root(ApplyRequest(kind="update", plan=forged))["code"] == "plan.not-allowed"
    assert not state.exists()


def test_both_ends_refuse_a_damaged_plan(ends: Ends, state: Path) -> None:
    damaged = msgspec.structs.replace(honest(), steps=())
    assert ends.person(damaged)["code"] == "plan.tampered"
    assert ends.root(ApplyRequest(kind="apply", plan=damaged))["code"] == "plan.tampered"
    assert not state.exists()


@for_each(
    ("field", "value"),
    (
        ("kind", "resume"),
        ("person", "-R/tmp"),
        ("person", "ada\nroot"),
        ("environ", {"PATH": "/tmp"}),
        ("environ", {"LD_PRELOAD": "/tmp/x.so"}),
        ("environ", {"https_proxy": "http://proxy\nx"}),
        ("plan", {"steps": [{"action": {"kind": "run-shell", "command": "/tmp/x"}}]}),
    ),
)
def test_root_refuses_a_request_that_gpu_setup_never_sends(field: str, value: object, ends: Ends, state: Path) -> None:
    request = msgspec.to_builtins(ApplyRequest(kind="apply", plan=seal(honest())))
    assert ends.root(msgspec.json.encode({**request, field: value}))["code"] == "apply.request"
    assert not state.exists()


def test_root_refuses_what_is_no_request(ends: Ends, state: Path) -> None:
    deep = b'{"kind": "apply", "x": ' + b"[" * 100_000
    for content in (b"", b"\xff\xfe", b"[]", b'{"kind": "apply"}', b'{"kind": "\xff"}', deep):
        assert ends.root(content)["code"] == "apply.request"
    assert not state.exists()


@pytest.mark.parametrize("at_boot", [False, True])
@pytest.mark.parametrize("saved", ["forged", "damaged"])
def test_resume_refuses_a_saved_request_and_does_not_try_it_at_every_boot(
    saved: str, at_boot: bool, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = state.with_name("gpu-setup-resume.service")
    for name in ("UNIT", "WANTED"):
        monkeypatch.setattr(resume_unit, name, str(unit))
    monkeypatch.setattr(helper, "SYSTEMD", str(state / "no-systemd"))
    state.mkdir()
    unit.write_text("armed")
    forged = ApplyRequest(kind="apply", plan=with_step(honest(), FORGED["a systemd unit"]))
    (state / "request.json").write_bytes(msgspec.json.encode(forged) if saved == "forged" else b"{")
    mask = os.umask(0o022)
    try:
        with pytest.raises(Problem) as refused:
            helper.resume_request(silent, at_boot=at_boot)
    finally:
        os.umask(mask)
    assert refused.value.code == ("plan.not-allowed" if saved == "forged" else "journal.damaged")
    assert unit.exists() is not at_boot
    assert {file.name for file in state.iterdir()} == {"request.json"}


def test_a_file_that_is_no_plan_is_bad_usage(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pipe, deep, link = tmp_path / "pipe", tmp_path / "deep", tmp_path / "link"
    os.mkfifo(pipe)
    deep.write_bytes(b'{"schema": "gpu-setup/plan/1", "x": ' + b"[" * 100_000)
    link.symlink_to("/dev/zero")
    for path, expected in (
        ("/dev/zero", "plan.unreadable"),
        (str(link), "plan.unreadable"),
        (str(pipe), "plan.unreadable"),
        (str(tmp_path / "absent"), "plan.unreadable"),
        (str(deep), "plan.no-plan"),
    ):
        code, out = answered(capfd, "apply", "--yes", "--json", "--plan", path)
        assert (code, json.loads(out)["errors"][0]["code"]) == (2, expected), out
