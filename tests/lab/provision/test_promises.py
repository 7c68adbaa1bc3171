"""What the tool promises: a plan writes nothing, done is done, sudo is asked once, secrets stay secret."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.lab.provision import routes, state
from tests.lab.provision.hosts import Guest, Hosts
from tests.lab.provision.repositories import Repositories
from tests.lab.provision.rootfs import PYTHON
from tests.lab.provision.routes import ROUTES

pytestmark = pytest.mark.lab

EVERYTHING = Path(__file__).with_name("everything.py").read_text()
LOG = "/var/log/calls"


def _whole(guest: Guest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(guest.run("python3", "-I", "-c", EVERYTHING, user="root", check=True).stdout)
    return found


def _watched(guest: Guest, *programs: str) -> None:
    """Every call of these programs is written down."""
    for program in programs:
        place = guest.path(f"/usr/bin/{program}")
        real = place.rename(place.with_name(f"{program}.real"))
        guest.write(
            f"/usr/bin/{program}", f'#!/bin/sh\necho "{program} $*" >>{LOG}\nexec /usr/bin/{real.name} "$@"\n', 0o755
        )
    guest.write(LOG, "", 0o666)


def _calls(guest: Guest) -> list[str]:
    return guest.read(LOG).splitlines()


@pytest.mark.parametrize("user", ["ada", "root"])
def test_a_plan_writes_nothing_anywhere(user: str, hosts: Hosts, shops: Repositories) -> None:
    """With a repository that is not added yet, and lists that apt has to fetch for it."""
    with hosts.guest("rtx3090") as guest:
        # what the interpreter keeps of modules that it reads for the first time is no plan's
        guest.run(PYTHON, "-m", "compileall", "-q", "/home/ada", check=True)
        before = _whole(guest)
        planned = guest.tool("plan", "--source", "nvidia", user=user)
        assert planned.rc == 0 and planned.data["download_bytes"] > 0
        assert [request for request in shops.requests() if "developer.download.nvidia.com" in request]
        after = _whole(guest)
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        # the temporary folder is gone; that the folder it was in was written to shows in its time
        assert {path: (before.get(path), after.get(path)) for path in changed if path not in ("/tmp", "/var/tmp")} == {}
        assert len(before) > 3000


def test_done_is_seen_without_asking_apt(hosts: Hosts, shops: Repositories) -> None:
    route = ROUTES["rx7900xt-rocm"]
    with hosts.guest(routes.fresh(hosts, route)) as guest:
        assert guest.tool("apply", "--yes", *route.arguments).rc == 0
        _watched(guest, "apt-get", "apt-cache", "apt", "dpkg", "sudo")
        before = state.of(guest)
        shops.hush()
        try:
            again = guest.tool("apply", "--yes", *route.arguments)
        finally:
            shops.answer()
        assert again.rc == 0
        assert {step["outcome"] for step in again.data["steps"]} == {"already"}
        assert _calls(guest) == []
        assert state.differences(before, state.of(guest)) == []


def test_sudo_is_asked_once_and_only_by_apply(hosts: Hosts, shops: Repositories) -> None:
    with hosts.guest("rx7900xt") as guest:
        _watched(guest, "sudo")
        for command in (("doctor",), ("plan",), ("status",), ("facts",)):
            guest.tool(*command)
        assert _calls(guest) == []
        assert guest.tool("apply", "--yes").rc == 0
        # the words behind it are a program of several lines
        assert len([line for line in _calls(guest) if line.startswith("sudo -- ")]) == 1


def test_root_runs_only_its_own_copy(hosts: Hosts, shops: Repositories) -> None:
    """Nothing that ada can write is run, and nothing of root's lands in her home."""
    with hosts.guest("rx7900xt") as guest:
        home = {path for path in (guest.root / "home/ada").rglob("*") if path.lstat().st_uid == 0}
        assert guest.tool("apply", "--yes").rc == 0
        library = guest.root / "usr/local/lib/gpu-setup"
        assert library.stat().st_mode & 0o7777 == 0o755
        assert {entry.lstat().st_uid for entry in (library, *library.rglob("*"))} == {0}
        assert not [entry for entry in library.rglob("*") if not entry.is_symlink() and entry.stat().st_mode & 0o022]
        (python,) = library.glob("*/bin/python")
        assert os.readlink(python).startswith("/usr/bin/python3")
        assert {path for path in (guest.root / "home/ada").rglob("*") if path.lstat().st_uid == 0} == home
        kept = guest.root / "var/lib/gpu-setup"
        assert kept.stat().st_mode & 0o7777 == 0o755
        assert (kept / "journal.jsonl").stat().st_mode & 0o7777 == 0o600
        assert guest.run("cat", "/var/lib/gpu-setup/journal.jsonl").returncode != 0
        assert guest.tool("status").data["standing"] == "done"


def test_no_secret_is_written_down_or_shown(hosts: Hosts, shops: Repositories) -> None:
    """A proxy's password, which root's part needs: in no argv, journal, log, state or message."""
    secret = "s3cret-of-ada"
    proxy = f"http://ada:{secret}@127.0.0.1:9"
    with hosts.guest("rx7900xt") as guest:
        _watched(guest, "sudo", "systemd-run", "apt-get")
        environ = {"http_proxy": proxy, "https_proxy": proxy}
        ended = guest.tool("apply", "--yes", environ=environ)
        assert ended.rc == 4, ended.document
        assert ended.error["code"] == "apt.network"
        assert secret not in json.dumps(ended.document) + ended.stderr
        assert secret not in guest.read(LOG)
        kept = guest.root / "var/lib/gpu-setup"
        holding = [
            path.name for path in kept.rglob("*") if path.is_file() and secret in path.read_text(errors="replace")
        ]
        # what resume after a restart goes by: root's alone
        assert holding in ([], ["request.json"])
        assert not holding or (kept / "request.json").stat().st_mode & 0o7777 == 0o600
        journals = guest.run("journalctl", "--no-pager", "-o", "cat", user="root").stdout
        assert secret not in journals
        assert guest.tool("apply", "--yes").rc == 0
        holding = [
            path.name for path in kept.rglob("*") if path.is_file() and secret in path.read_text(errors="replace")
        ]
        assert holding == []


def test_the_card_in_use_is_seen_by_root_too(hosts: Hosts, shops: Repositories) -> None:
    """Somebody else's training: a person cannot see whose it is, root can."""
    with hosts.guest("rtx3090") as guest:
        guest.run("touch", "/dev/nvidia0", user="root", check=True)
        guest.run("useradd", "--create-home", "bob", user="root", check=True)
        script = "import os, time; os.open('/dev/nvidia0', os.O_RDONLY); time.sleep(60)"
        other = guest.begin("python3", "-c", script, user="bob")
        try:
            before = state.of(guest)
            ended = guest.tool("apply", "--yes")
            assert (ended.rc, ended.error["code"]) == (3, "apply.busy"), ended.document
            assert re.search(r"python3 \([0-9]+\)", ended.error["what"])
            assert state.differences(before, state.of(guest)) == []
            assert guest.tool("apply", "--yes", "--while-busy").rc == 5
        finally:
            other.kill()
            other.wait()
