"""The watching process may end, return, or start a second run: the work is a systemd unit, one at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.lab.provision.hosts import Guest, Hosts
from tests.lab.provision.repositories import Repositories

pytestmark = pytest.mark.lab

# long enough to look at it while it is at work
SLOW = r"docker[.]io_.*[.]deb$"


def _until(true: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.1)


def _standing(guest: Guest) -> str:
    return str(guest.tool("status").data["standing"])


def _at_work(guest: Guest, shops: Repositories) -> subprocess.Popen[bytes]:
    """An apply that is in the middle of a slow download."""
    shops.faults(slow=SLOW)
    child = guest.begin("gpu-setup", "apply", "--yes")
    _until(lambda: any(entry["step"] == "docker" for entry in guest.journal()))
    return child


def test_status_answers_at_any_moment(hosts: Hosts, shops: Repositories) -> None:
    with hosts.guest("rtx3090") as guest:
        assert _standing(guest) == "none"
        child = _at_work(guest, shops)
        status = guest.tool("status").data
        assert status["standing"] == "running"
        outcomes = {step["id"]: step["outcome"] for step in status["run"]["steps"]}
        assert (outcomes["nvidia-driver"], outcomes["docker"], outcomes["reboot"]) == ("done", "running", "waiting")
        unit = guest.run("systemctl", "list-units", "--plain", "--no-legend", "gpu-setup-apply-*").stdout.split()[0]
        guest.run("systemctl", "kill", "--signal=KILL", unit, user="root", check=True)
        child.wait(30)
        status = guest.tool("status").data
        assert status["standing"] == "cut-off"
        assert "gpu-setup apply" in status["next"]
        shops.faults()
        assert guest.tool("apply", "--yes").rc == 5
        assert _standing(guest) == "restart"


def test_a_second_one_is_refused_while_the_first_is_at_work(hosts: Hosts, shops: Repositories) -> None:
    with hosts.guest("rtx3090") as guest:
        child = _at_work(guest, shops)
        second = guest.tool("apply", "--yes")
        assert second.rc == 3
        assert second.error["code"] == "apply.running"
        shops.faults()
        assert child.wait(120) == 5


def test_a_terminal_that_dies_cuts_nothing_off(hosts: Hosts, shops: Repositories) -> None:
    with hosts.guest("rtx3090") as guest:
        child = _at_work(guest, shops)
        os.killpg(child.pid, signal.SIGHUP)
        child.wait(30)
        assert _standing(guest) == "running"
        shops.faults()
        _until(lambda: _standing(guest) == "restart")
        guest.reboot()
        assert guest.tool("resume").rc == 0


def test_stopping_the_unit_ends_it_between_two_steps(hosts: Hosts, shops: Repositories) -> None:
    """The step at work finishes: apt and dpkg are told nothing."""
    with hosts.guest("rtx3090") as guest:
        child = _at_work(guest, shops)
        unit = guest.run("systemctl", "list-units", "--plain", "--no-legend", "gpu-setup-apply-*").stdout.split()[0]
        guest.run("systemctl", "stop", unit, user="root", timeout=180)
        child.wait(30)
        last = guest.journal()[-1]
        assert (last["step"], last["phase"]) == ("docker", "done")
        assert not guest.run("dpkg", "--audit", user="root").stdout
        status = guest.tool("status").data
        assert status["run"]["problem"]["code"] == "apply.stopped"
        shops.faults()
        assert guest.tool("resume").rc == 5
