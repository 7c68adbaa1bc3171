"""Rollback after each route, and in the middle of one: the machine is as before."""

from __future__ import annotations

import re

import pytest

from tests.lab.provision import routes, state
from tests.lab.provision.hosts import Ended, Guest, Hosts
from tests.lab.provision.repositories import Repositories
from tests.lab.provision.routes import ROUTES, Arrivals
from tests.lab.provision.state import State
from tests.lab.provision.vendor_packages import TOOLKIT

pytestmark = pytest.mark.lab

# beside state.IGNORED: what the way back leaves on purpose
LEFT = (
    (r"files: var/lib/dpkg/info/", "removed and not purged: dpkg's own notes of that"),
    (r"files: var/lib/shim-signed/mok/", "a key that somebody may have enrolled by now is never taken away"),
)
# one of each kind; all of them with ./test --full
SHORT = ("rtx3090-nvidia", "rx7900xt-rocm", "w7900-dkms")


def changed(before: State, guest: Guest) -> list[str]:
    """What is not as before, but for what is left on purpose."""
    found = state.differences(before, state.of(guest))
    return [row for row in found if not any(re.match(pattern, row) for pattern, _ in LEFT)]


@pytest.mark.parametrize(
    "name", [name if name in SHORT else pytest.param(name, marks=pytest.mark.full) for name in ROUTES]
)
def test_after_a_route_everything_is_as_before(
    name: str, hosts: Hosts, shops: Repositories, arrivals: Arrivals
) -> None:
    route = ROUTES[name]
    before, disk = arrivals(name)
    with hosts.guest(disk) as guest:
        assert state.differences(before, state.of(guest)) != []
        rolled = guest.tool("rollback", "--yes")
        if route.old_kernel:
            _from_the_kernel_that_was_here(guest, route.old_kernel, rolled)
        else:
            assert rolled.rc == 0, rolled.document
        assert changed(before, guest) == []
        assert guest.run("dpkg", "--audit", user="root").stdout == ""
        again = guest.tool("rollback", "--yes")
        assert again.rc == 0 and "nothing to roll back" in again.data["notes"][0]


def _from_the_kernel_that_was_here(guest: Guest, kernel: str, rolled: Ended) -> None:
    """The kernel that came along runs by now and is not removed: the older one is started, and the way back ends."""
    assert (rolled.rc, rolled.data["standing"]) == (5, "person"), rolled.document
    assert "choose Advanced options and an older kernel; then: gpu-setup rollback" in rolled.data["next"]
    assert "nvidia-driver-595-open" not in state.of(guest).packages
    guest.reboot(kernel=kernel)
    status = guest.tool("status").data
    assert (status["standing"], status["next"]) == ("person", rolled.data["next"])
    resumed = guest.tool("resume")
    assert (resumed.rc, resumed.error["code"]) == (3, "resume.rollback")
    rolled = guest.tool("rollback", "--yes")
    assert (rolled.rc, rolled.data["standing"]) == (0, "done"), rolled.document


@pytest.mark.parametrize(
    "fails",
    [
        "docker.io_",
        pytest.param("nvidia-dkms-open_", marks=pytest.mark.full),
        pytest.param("nvidia-container-toolkit_", marks=pytest.mark.full),
    ],
)
def test_from_the_middle_everything_is_as_before(fails: str, hosts: Hosts, shops: Repositories) -> None:
    route = ROUTES["rtx3090-nvidia"]
    with hosts.guest(routes.fresh(hosts, route)) as guest:
        before = state.of(guest)
        shops.faults(f500=fails.replace(".", "[.]"))
        applied = guest.tool("apply", "--yes", *route.arguments)
        assert applied.rc == 4, applied.document
        shops.hush()
        try:
            # no network, as in recovery mode
            rolled = guest.tool("rollback", "--yes")
        finally:
            shops.answer()
        assert rolled.rc == 0, rolled.document
        assert changed(before, guest) == []


def test_without_home_and_network_from_roots_own_copy(hosts: Hosts, shops: Repositories) -> None:
    """What a person types in recovery mode, as root."""
    with hosts.guest("rtx3090") as guest:
        before = state.of(guest)
        assert guest.tool("apply", "--yes").rc == 5
        guest.run("mv", "/home/ada", "/srv/gone", user="root", check=True)
        shops.hush()
        try:
            rolled = guest.run("/usr/local/lib/gpu-setup/gpu-setup", "rollback", "--yes", user="root")
        finally:
            shops.answer()
        assert rolled.returncode == 0, rolled.stderr
        assert "Rolled back." in rolled.stdout
        guest.run("mv", "/srv/gone", "/home/ada", user="root", check=True)
        assert changed(before, guest) == []


def test_after_a_rollback_in_recovery_mode_nothing_is_installed_again(hosts: Hosts, shops: Repositories) -> None:
    """The screen stayed black after `apply --reboot`: the resume that was armed must not undo the way back."""
    with hosts.guest("rtx3090") as guest:
        before = state.of(guest)
        child = guest.begin("gpu-setup", "apply", "--yes", "--reboot")
        guest.await_restart(rescue=True)
        child.wait(30)
        assert guest.tool("status").data["armed"]
        rolled = guest.run("/usr/local/lib/gpu-setup/gpu-setup", "rollback", "--yes", user="root")
        assert rolled.returncode == 0, rolled.stderr
        guest.kill()
        guest.start()
        assert changed(before, guest) == []
        status = guest.tool("status").data
        assert (status["standing"], status["run"]["kind"], status["armed"]) == ("done", "rollback", False)


def test_a_file_that_somebody_changed_since_is_left_and_shown(hosts: Hosts, shops: Repositories) -> None:
    with hosts.guest("rtx3090") as guest:
        assert guest.tool("apply", "--yes").rc == 5
        own = guest.read("/etc/docker/daemon.json").replace("{\n", '{\n    "debug": true,\n', 1)
        guest.write("/etc/docker/daemon.json", own)
        rolled = guest.tool("rollback", "--yes")
        assert rolled.rc == 0, rolled.document
        assert guest.read("/etc/docker/daemon.json") == own
        (left,) = [step for step in rolled.data["steps"] if step["outcome"] == "left"]
        assert '"debug": true' in left["note"]


def test_what_was_rolled_back_can_be_applied_again(hosts: Hosts, shops: Repositories) -> None:
    """Also the settings that went with their packages, which dpkg by itself would take for a person's wish."""
    route = ROUTES["rtx3090-nvidia"]
    with hosts.guest(routes.fresh(hosts, route)) as guest:
        assert guest.tool("apply", "--yes", *route.arguments).rc == 5
        first = state.of(guest)
        assert guest.tool("rollback", "--yes").rc == 0
        assert not guest.path("/etc/apt/preferences.d/nvidia-driver-pinning-595").exists()
        again = guest.tool("apply", "--yes", *route.arguments)
        assert again.rc == 5, again.document
        assert changed(first, guest) == []


def test_data_survives_the_rollback(hosts: Hosts, shops: Repositories) -> None:
    """docker.io's purge would take every volume with it."""
    with hosts.guest("rtx3090") as guest:
        assert guest.tool("apply", "--yes").rc == 5
        guest.write("/var/lib/docker/volumes/mine/data", "precious")
        assert guest.tool("rollback", "--yes").rc == 0
        assert guest.read("/var/lib/docker/volumes/mine/data") == "precious"


def test_replaced_packages_come_back_from_the_files_that_were_kept(hosts: Hosts, shops: Repositories) -> None:
    """The vendor's archive has only the newest: what was here is put aside before it is replaced."""
    old = [
        package._replace(version="1.16.2-1", depends=package.depends.replace(TOOLKIT, "1.16.2-1"))
        for package in shops.packages("nvidia.container-toolkit")
    ]
    with hosts.guest("rtx3090") as guest:
        # as an earlier apt left them
        places = [f"/var/cache/apt/archives/{package.archive}" for package in old]
        for package, place in zip(old, places, strict=True):
            guest.write(place, shops.deb(package))
        assert guest.run("dpkg", "--install", *places, user="root").returncode == 0
        guest.run("apt-mark", "auto", "libnvidia-container1", user="root", check=True)
        guest.run("apt-mark", "hold", "initramfs-tools", user="root", check=True)
        before = state.of(guest)
        planned = {step["id"]: step for step in guest.tool("plan").data["steps"]}
        assert "1.16.2-1" in planned["container-toolkit"]["because"]
        assert guest.tool("apply", "--yes").rc == 5
        assert state.of(guest).packages["nvidia-container-toolkit"].startswith(TOOLKIT)
        guest.run("apt-get", "clean", user="root", check=True)
        shops.hush()
        try:
            rolled = guest.tool("rollback", "--yes")
        finally:
            shops.answer()
        assert rolled.rc == 0, rolled.document
        assert changed(before, guest) == []


def test_what_is_not_compared_is_a_short_list_with_reasons() -> None:
    assert len((*state.IGNORED, *LEFT)) <= 10
    assert all(reason for _, reason in (*state.IGNORED, *LEFT))


def test_moved_from_the_archive_to_nvidias_own_and_back(hosts: Hosts, shops: Repositories, arrivals: Arrivals) -> None:
    """The whole old set goes with the new one's transaction; the way back brings it again from the files kept."""
    with hosts.guest(arrivals("rtx3090-archive").disk) as guest:
        first = state.of(guest)
        moved = guest.tool("apply", "--yes", "--source", "nvidia")
        assert moved.rc == 5, moved.document
        present = state.of(guest).packages
        assert "nvidia-open" in present
        assert not [name for name in present if "nvidia" in name and "-595" in name and "pinning" not in name]
        guest.reboot()
        assert guest.tool("resume").rc == 0
        assert guest.tool("plan", "--check", "--source", "nvidia").rc == 0
        back_again = guest.tool("apply", "--yes", "--source", "archive")
        assert back_again.rc == 5, back_again.document
        there = state.of(guest).packages
        assert {name for name in first.packages if "nvidia" in name} <= set(there)
        assert "nvidia-open" not in there and "nvidia-driver-pinning-595" not in there
