"""External faults: one message with step, cause and next action; dpkg in order; no incomplete file."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import NamedTuple

import msgspec
import pytest

from provision.apply.journal import ApplyRequest
from provision.model import Plan, UserGroup, WriteFile
from tests.lab.provision import state
from tests.lab.provision.deb import Package, build
from tests.lab.provision.hosts import Guest, Hosts
from tests.lab.provision.repositories import Repositories
from tests.lab.training import Ended
from tests.provision.forged import with_step

pytestmark = pytest.mark.lab

COMPUTER = "rtx3090"
DAY = 24 * 3600
TOOLKIT = "nvidia.container-toolkit"


class Fault(NamedTuple):
    """`begin` makes it, `end` takes it away. `rc`, `code`: what apply ends with; `says`: words of its message."""

    begin: Callable[[Guest, Repositories], None]
    end: Callable[[Guest, Repositories], None]
    rc: int
    code: str
    says: tuple[str, ...] = ()


def _answers(**matches: str) -> tuple[Callable[[Guest, Repositories], None], Callable[[Guest, Repositories], None]]:
    """A server's fault, from when the lists have been read on."""

    def begin(guest: Guest, shops: Repositories) -> None:
        guest.run("apt-get", "update", user="root", check=True)
        shops.faults(**matches)

    return begin, lambda guest, shops: shops.faults()


def _reset(guest: Guest, shops: Repositories) -> None:
    shops.reset()


def _wrong_key(guest: Guest, shops: Repositories) -> None:
    shops.serve_key(TOOLKIT, shops.key("stranger").armoured)


def _other_signer(guest: Guest, shops: Repositories) -> None:
    shops.resign(TOOLKIT, "stranger")


def _lists_too_old(guest: Guest, shops: Repositories) -> None:
    shops.resign(TOOLKIT, Valid_Until=formatdate(time.time() - 30 * DAY, usegmt=True))


def _clock_behind(guest: Guest, shops: Repositories) -> None:
    """By the guest's clock the archive was made in two years: its clock has stood still."""
    shops.resign(TOOLKIT, Date=formatdate(time.time() + 700 * DAY, usegmt=True))


def _no_network(guest: Guest, shops: Repositories) -> None:
    shops.hush()


def _network(guest: Guest, shops: Repositories) -> None:
    shops.answer()


def _failing(package: Package) -> Package:
    if package.name != "nvidia-kernel-common-595":
        return package
    return package._replace(scripts={"postinst": "echo 'Error! something of its own went wrong'\nexit 7"})


def _postinst_fails(guest: Guest, shops: Repositories) -> None:
    shops.publish("ubuntu", [_failing(package) for package in shops.packages("ubuntu")])


def _cache_of_the_past(guest: Guest, shops: Repositories) -> None:
    """The same version with other bytes: what was fetched and listed before is forgotten."""
    shops.reset()
    guest.run("sh", "-c", "rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb", user="root", check=True)


def _disk_full(guest: Guest, shops: Repositories) -> None:
    """Some hundred KiB are left: enough to begin with, too little for the driver."""
    guest.run("apt-get", "update", user="root", check=True)
    # the tool's own copy comes first and takes its part
    guest.run("gpu-setup", "rollback", "--yes")
    _room(guest, 700 << 10)


def _room(guest: Guest, more: int) -> None:
    """Let the guest's disk have this many bytes more than what is on it."""
    disk = guest.place / "memory"
    now = os.statvfs(disk)
    size = (now.f_blocks - now.f_bfree) * now.f_frsize + more
    subprocess.run(["mount", "-o", f"remount,size={size >> 10}k", str(disk)], check=True)


def _disk_free(guest: Guest, shops: Repositories) -> None:
    _room(guest, 1 << 30)


def _etc_read_only(guest: Guest, shops: Repositories) -> None:
    guest.run("mount", "--bind", "/etc", "/etc", user="root", check=True)
    guest.run("mount", "-o", "remount,bind,ro", "/etc", user="root", check=True)


def _etc_writable(guest: Guest, shops: Repositories) -> None:
    guest.run("umount", "/etc", user="root", check=True)


def _broken_settings(guest: Guest, shops: Repositories) -> None:
    guest.write("/etc/docker/daemon.json", '{"data-root": "/srv/docker",')


def _repaired_settings(guest: Guest, shops: Repositories) -> None:
    guest.path("/etc/docker/daemon.json").unlink()
    guest.path("/etc/docker").rmdir()


def _snap(guest: Guest, shops: Repositories) -> None:
    guest.write("/usr/bin/snap", "#!/bin/sh\n", 0o755)
    guest.path("/usr/local/bin/docker").symlink_to("/usr/bin/snap")


def _no_snap(guest: Guest, shops: Repositories) -> None:
    guest.path("/usr/local/bin/docker").unlink()
    guest.path("/usr/bin/snap").unlink()


def _half_configured(guest: Guest, shops: Repositories) -> None:
    """Somebody's package that fails whenever it is configured."""
    guest.write("/root/half.deb", build(Package("half", "1", scripts={"postinst": "test -e /root/mended"})))
    assert guest.run("dpkg", "--install", "/root/half.deb", user="root").returncode != 0


def _configurable(guest: Guest, shops: Repositories) -> None:
    guest.write("/root/mended", "")


FAULTS: dict[str, Fault] = {
    "http 500": Fault(*_answers(f500=r"[.]deb$"), 4, "apt.server", ("500",)),
    "http 404": Fault(*_answers(f404=r"[.]deb$"), 4, "apt.not-found", ("404",)),
    "truncated": Fault(*_answers(truncated=r"libnvidia-compute-595_.*[.]deb$"), 4, "apt.", ("libnvidia-compute-595",)),
    "wrong hash": Fault(*_answers(hash=r"libnvidia-compute-595_.*[.]deb$"), 4, "apt.hash", ("mirror",)),
    "lists 500": Fault(*_answers(f500=r"nvidia[.]github[.]io/.*Release"), 4, "apt.server", (TOOLKIT,)),
    "a portal's page for the key": Fault(*_answers(page=r"gpgkey$"), 3, "key.unreadable", ("proxy",)),
    "no key there": Fault(*_answers(f404=r"gpgkey$"), 4, "key.unfetched", ("404",)),
    "wrong key": Fault(_wrong_key, _reset, 3, "key.wrong", ("fingerprint",)),
    "signed by a stranger": Fault(_other_signer, _reset, 4, "key.missing", (TOOLKIT,)),
    "lists expired": Fault(_lists_too_old, _reset, 4, "apt.expired", ("clock",)),
    "clock behind": Fault(_clock_behind, _reset, 4, "clock.wrong", ("clock", "timedatectl")),
    "no network": Fault(_no_network, _network, 4, "apt.network", ("network",)),
    "postinst fails": Fault(_postinst_fails, _cache_of_the_past, 4, "dpkg.script", ("nvidia-kernel-common-595",)),
    "disk full": Fault(_disk_full, _disk_free, 4, "disk.full", ("df -h",)),
    "read-only /etc": Fault(_etc_read_only, _etc_writable, 3, "file.read-only", ("/etc",)),
    "broken daemon.json": Fault(_broken_settings, _repaired_settings, 3, "apply.blocked", ("daemon.json",)),
    "snap docker": Fault(_snap, _no_snap, 3, "apply.blocked", ("snap",)),
    "half-configured stranger": Fault(_half_configured, _configurable, 4, "dpkg.", ("half",)),
}
# with what is told most of the way afterwards; all of them with ./test --full
SHORT = ("postinst fails", "disk full")


@pytest.fixture(scope="session")
def usual(hosts: Hosts) -> state.State:
    """What an undisturbed apply makes of the machine."""
    with hosts.guest(COMPUTER) as guest:
        assert guest.tool("apply", "--yes").rc == 5
        return state.of(guest)


# those of SHORT are told about in the test below, on their way
@pytest.mark.parametrize("name", [name for name in FAULTS if name not in SHORT])
def test_a_fault_is_reported_and_leaves_the_machine_in_order(name: str, hosts: Hosts, shops: Repositories) -> None:
    fault = FAULTS[name]
    with hosts.guest(COMPUTER) as guest:
        _broken_off(guest, shops, fault)


@pytest.mark.parametrize(
    "name", [name if name in SHORT else pytest.param(name, marks=pytest.mark.full) for name in FAULTS]
)
def test_once_it_is_put_right_apply_comes_to_the_same_end(
    name: str, usual: state.State, hosts: Hosts, shops: Repositories
) -> None:
    fault = FAULTS[name]
    with hosts.guest(COMPUTER) as guest:
        _broken_off(guest, shops, fault)
        fault.end(guest, shops)
        again = guest.tool("apply", "--yes")
        assert again.rc == 5, again.document
        if name != "half-configured stranger":
            assert state.differences(usual, state.of(guest)) == []


def _broken_off(guest: Guest, shops: Repositories, fault: Fault) -> Ended:
    fault.begin(guest, shops)
    ended = guest.tool("apply", "--yes")
    assert ended.rc == fault.rc, ended.document
    (error,) = ended.document["errors"]
    assert error["code"].startswith(fault.code), error
    assert error["what"] and error["why"] and error["next"], error
    said = " ".join(error.values())
    assert all(word in said for word in fault.says), said
    assert "Traceback" not in ended.stderr
    _in_order(guest, *(("half",) if "half" in fault.says else ()))
    return ended


def _in_order(guest: Guest, *strangers: str) -> None:
    audit = [
        line.split()[0] for line in guest.run("dpkg", "--audit", user="root").stdout.splitlines() if line[:1] == " "
    ]
    assert [name for name in audit if name not in strangers] == []
    assert [place for top in ("etc", "usr", "var/lib") for place in (guest.root / top).rglob(".*.gpu-setup")] == []
    # what was begun is finished or taken back, and every later reading of the lists works
    lists = guest.root / "etc/apt/sources.list.d"
    assert {place.suffix for place in lists.iterdir()} <= {".list", ".sources"}


def test_an_expired_key_is_named(hosts: Hosts, shops: Repositories) -> None:
    key = shops.expired("late")

    def change(file: str, text: str) -> str:
        own = shops.key(shops.keyring_of(TOOLKIT)).fingerprint
        return text.replace(own, key.fingerprint) if file == "packages.toml" else text

    shops.serve_key(TOOLKIT, key.armoured)
    shops.resign(TOOLKIT, "late")
    with hosts.guest(hosts.fresh(COMPUTER, "expired", change)) as guest:
        _broken_off(guest, shops, Fault(lambda *_: None, _reset, 4, "key.expired", (TOOLKIT,)))


def test_a_lock_that_somebody_holds_is_waited_for(hosts: Hosts, shops: Repositories) -> None:
    hold = """
import fcntl, time
held = [open("/var/lib/" + name, "w") for name in ("dpkg/lock-frontend", "apt/lists/lock")]
for each in held:
    fcntl.lockf(each, fcntl.LOCK_EX)
time.sleep(6)
"""
    with hosts.guest(COMPUTER) as guest:
        other = guest.begin("python3", "-c", hold, user="root")
        time.sleep(0.5)
        ended = guest.run("gpu-setup", "apply", "--yes", timeout=120)
        assert ended.returncode == 5, ended.stderr
        assert "waiting up to 10 minutes" in ended.stderr
        other.wait(20)
        _in_order(guest)


def test_an_interrupted_dpkg_is_finished_first(hosts: Hosts, shops: Repositories, usual: state.State) -> None:
    with hosts.guest(COMPUTER) as guest:
        guest.write("/var/lib/dpkg/updates/0001", "")
        assert guest.run("apt-get", "-s", "install", "make", user="root").returncode != 0
        planned = guest.tool("plan")
        assert planned.data["steps"][0]["id"] == "dpkg-repair"
        assert guest.tool("apply", "--yes").rc == 5
        assert state.differences(usual, state.of(guest)) == []


def test_a_changed_plan_is_refused(hosts: Hosts, shops: Repositories) -> None:
    with hosts.guest(COMPUTER) as guest:
        assert guest.run("gpu-setup", "plan", "--out", "/home/ada/plan.json", check=True)
        content = guest.read("/home/ada/plan.json")
        changed = content.replace('"docker.io"', '"netcat"')
        assert changed != content
        guest.write("/home/ada/plan.json", changed)
        before = state.of(guest)
        ended = guest.tool("apply", "--yes", "--plan", "/home/ada/plan.json")
        assert (ended.rc, ended.error["code"]) == (3, "plan.tampered")
        assert state.differences(before, state.of(guest)) == []
        guest.write("/home/ada/plan.json", content)
        assert guest.tool("apply", "--yes", "--plan", "/home/ada/plan.json").rc == 5
        # what is done is done: the same file continues
        again = guest.tool("apply", "--yes", "--plan", "/home/ada/plan.json")
        assert again.rc == 5, again.document
        assert {step["outcome"] for step in again.data["steps"] if step["id"] != "reboot"} == {"already"}


def test_a_forged_plan_is_refused_by_both_ends(hosts: Hosts, shops: Repositories) -> None:
    """Each forged step has a harmless title, and the plan a digest that is right."""
    forged = {
        "sudoers": WriteFile(path="/etc/sudoers.d/gpu-setup", content="ada ALL=(ALL) NOPASSWD: ALL\n", mode=0o440),
        "cron": WriteFile(path="/etc/cron.d/gpu-setup", content="* * * * * root touch /root/forged\n"),
        "unit": WriteFile(path="/etc/systemd/system/x.service", content="[Service]\nExecStart=/bin/true\n"),
    }
    # what gpu-setup does only where it is asked to
    unasked = {"docker-group": UserGroup(user="ada", groups=("docker",))}
    with hosts.guest(COMPUTER) as guest:
        guest.run("gpu-setup", "plan", "--out", "/home/ada/plan.json", check=True)
        document = json.loads(guest.read("/home/ada/plan.json"))
        guest.path("/home/ada/plan.json").unlink()
        plan = msgspec.convert(document["data"], Plan)
        before = state.of(guest)
        for actions, code in ((forged, "plan.not-allowed"), (unasked, "plan.differs")):
            for name, action in actions.items():
                changed = with_step(plan, action, f"{name}-step")
                guest.write("/home/ada/plan.json", json.dumps({**document, "data": msgspec.to_builtins(changed)}))
                ended = guest.tool("apply", "--yes", "--plan", "/home/ada/plan.json")
                assert (ended.rc, ended.error["code"]) == (3, code), ended.document
                assert f"{name}-step" in ended.error["what"] + ended.error["why"]
                assert _root_says(guest, ApplyRequest(kind="apply", plan=changed, person="ada")) == code
        as_rollback = ApplyRequest(kind="rollback", plan=with_step(plan, forged["sudoers"]))
        assert _root_says(guest, as_rollback) == "plan.differs"
        guest.path("/home/ada/plan.json").unlink()
        assert state.differences(before, state.of(guest)) == []


def _root_says(guest: Guest, request: ApplyRequest) -> str:
    """The code of root's refusal: its end of apply, with the request as it comes from a person's process."""
    asked = guest.run(
        "gpu-setup", "apply", "--inside", user="root", stdin=msgspec.json.encode(request).decode(), timeout=180
    )
    assert asked.returncode == 3, asked.stdout + asked.stderr
    return str(json.loads(asked.stdout.splitlines()[-1])["problem"]["code"])
