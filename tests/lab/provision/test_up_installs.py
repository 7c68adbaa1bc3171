"""`gpu-setup up` with a GPU and no driver: shows the plan, asks, installs, and names the next command."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.lab.provision import state
from tests.lab.provision.hosts import Guest, Hosts
from tests.lab.provision.repositories import Repositories
from tests.lab.provision.rootfs import HOME

pytestmark = pytest.mark.lab

# what the rooms of training import, beside what provisioning needs
MORE = ("filelock", "packaging", "yaml", "jinja2", "markupsafe")


def _whole_tool(guest: Guest) -> None:
    (packages,) = (guest.root / HOME / ".local/share/gpu-setup/tool").glob("lib/python3*/site-packages")
    for name in MORE:
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None
        source = Path(spec.origin).parent
        # compiled parts are for another Python; these all do without
        shutil.copytree(
            source, packages / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"), dirs_exist_ok=True
        )


def _at_a_terminal(guest: Guest, *argv: str, answers: dict[str, str], timeout: float = 120) -> tuple[int, str]:
    """Run it on a terminal; a question (a pattern) is answered once it is asked. Exit code and all that was said."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        guest.command(*argv, environ={"TERM": "dumb", "COLUMNS": "100"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said, waiting = "", dict(answers)
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                said += os.read(ours, 65536).decode(errors="replace")
            except OSError:
                break
        for question in list(waiting):
            if re.search(question, said):
                os.write(ours, f"{waiting.pop(question)}\n".encode())
    os.close(ours)
    return child.wait(30), said.replace("\r\n", "\n")


def test_up_installs_the_driver_and_names_the_next_command(hosts: Hosts, shops: Repositories) -> None:
    with hosts.guest("rtx3090") as guest:
        _whole_tool(guest)
        rc, said = _at_a_terminal(guest, "gpu-setup", "up", answers={r"Install what the plan lists now\?": "y"})
        assert rc == 5, said
        shown, _, after = said.partition("Install what the plan lists now?")
        # the plan is shown before it asks, with the versions that are then installed
        assert "nvidia-driver-595-open 595.84" in shown
        assert "to download" in shown
        assert "A reboot comes next." in after
        assert re.search(r"Next: Reboot .*sudo reboot.*\n?.*then: gpu-setup up", after.replace("\n      ", " ")), after
        assert "nvidia-driver-595-open" in state.of(guest).packages

        guest.reboot()
        assert guest.tool("status").data["standing"] == "restarted"
        # the card works: nothing is installed any more, and it goes on to training (a question about the download)
        rc, said = _at_a_terminal(guest, "gpu-setup", "up", answers={r"Continue\?|Train ": "n"}, timeout=60)
        assert "Install what the plan lists now?" not in said
        assert "── Train" in said


def test_up_leaves_the_machine_alone_when_the_answer_is_no(hosts: Hosts, shops: Repositories) -> None:
    with hosts.guest("rtx3090") as guest:
        _whole_tool(guest)
        before = state.of(guest)
        answers = {r"Install what the plan lists now\?": "n", r"Train a small model on the CPU now\?": "n"}
        rc, said = _at_a_terminal(guest, "gpu-setup", "up", answers=answers)
        assert rc == 3, said
        assert "up.driver-missing" not in said and "driver is not in place" in said
        assert state.differences(before, state.of(guest)) == []


def test_up_reports_a_reboot_that_did_not_help(hosts: Hosts, shops: Repositories) -> None:
    with hosts.guest("rtx3090") as guest:
        _whole_tool(guest)
        assert guest.tool("up", "--yes").rc == 5
        for module in guest.path("/usr/lib/modules").rglob("nvidia*.ko"):
            module.write_text(module.read_text().replace("canonical", "machine"))
        guest.firmware("state").write_text("SecureBoot enabled\n")
        guest.reboot()
        ended = guest.tool("up", "--yes")
        assert (ended.rc, ended.error["code"]) == (1, "resume.not-driven"), ended.document
