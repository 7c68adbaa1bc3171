"""From a fresh machine to one with a working GPU: plan, apply, a real reboot, resume, and nothing left to do."""

from __future__ import annotations

from typing import Any

import pytest

from provision.system import dpkg
from tests.lab.provision import routes, state
from tests.lab.provision.hosts import Guest, Hosts
from tests.lab.provision.repositories import Repositories
from tests.lab.provision.routes import ROUTES, Arrivals, Route
from tests.provision.hosts import Folder

pytestmark = pytest.mark.lab


# the others with ./test --full
ALWAYS = ("rtx3090-archive", "rtx3090-nvidia", "rx7900xt", "rx7900xt-rocm", "w7900-dkms")


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.full) for name in ROUTES]
)
def test_a_fresh_machine_becomes_a_machine_that_trains(
    name: str, hosts: Hosts, shops: Repositories, arrivals: Arrivals
) -> None:
    route = ROUTES[name]
    with hosts.guest(routes.fresh(hosts, route)) as guest:
        before = state.of(guest)
        planned = guest.tool("plan", *route.arguments)
        assert planned.rc == 0, planned.document
        versions = _versions(planned.data)
        assert set(route.packages) <= set(versions)
        # each version is apt's own word, for repositories too that are not there yet
        assert all(versions[package] for package in route.packages), planned.data["notes"]
        assert planned.data["download_bytes"] > 0

        applied = guest.tool("apply", "--yes", *route.arguments)
        assert applied.rc == (5 if route.restarts else 0), applied.document
        assert _installed(guest, versions) == versions
        if route.restarts:
            _restart(guest)
        arrivals.keep(name, before, guest)
        _verify_route(guest, route)


def _restart(guest: Guest) -> None:
    """A restart is one: another boot; and resume finds that nothing is left."""
    before = guest.boot_id()
    assert guest.tool("status").data["standing"] == "restart"
    guest.reboot()
    assert guest.boot_id() != before
    assert guest.tool("status").data["standing"] == "restarted"
    resumed = guest.tool("resume")
    assert resumed.rc == 0, resumed.document
    assert resumed.data["standing"] == "done"


def _verify_route(guest: Guest, route: Route) -> None:
    """What is claimed is so: packages, dpkg in order, the module at work, no step left."""
    database = dpkg.read(Folder(guest.root))
    assert not database.broken_packages() and not guest.run("dpkg", "--audit", user="root").stdout
    assert all(database.version(name) for name in route.packages)
    assert not [name for name in route.absent if name in database.installed_versions()]
    facts = guest.tool("facts").data
    if route.module and route.module[0] == "nvidia":
        card = next(card for card in facts["cards"] if card["vendor"] == "10de")
        assert card["driver"] == "nvidia"
        assert facts["nvidia"]["module_version"] == facts["nvidia"]["nvml_driver"] == route.module[1]
        assert "nvidia" in guest.run("docker", "info", "--format", "{{json .Runtimes}}", user="root").stdout
        assert facts["nvidia"]["cdi_specs"]
    elif route.module:
        assert facts["amd"]["module_version"] == route.module[1]
    if "amd" in (facts["cards"][0]["vendor"], *route.arguments):
        assert {"render", "video"} <= set(facts["person"]["database_groups"])
    left = guest.tool("plan", "--check", *route.arguments)
    assert not [(step["id"], step["because"]) for step in left.data["steps"] if step["state"] != "done"]
    assert left.rc == 0
    again = guest.tool("apply", "--yes", *route.arguments)
    assert again.rc == 0
    assert {step["outcome"] for step in again.data["steps"]} == {"already"}


def _versions(plan: dict[str, Any]) -> dict[str, str]:
    """Package → version of everything that the plan's open steps install."""
    found = {}
    for step in plan["steps"]:
        if step["state"] == "todo" and step["action"]["kind"] == "apt-install":
            for each in (*step["action"]["packages"], *step["action"]["brings"]):
                found[each["name"]] = each["version"]
    return found


def _installed(guest: Guest, names: dict[str, str]) -> dict[str, str | None]:
    database = dpkg.read(Folder(guest.root))
    return {name: database.version(name) for name in names}


def test_two_vendors_are_a_question_and_no_guess(hosts: Hosts, shops: Repositories) -> None:
    with hosts.guest("two-vendors") as guest:
        before = guest.run("dpkg", "--get-selections").stdout
        applied = guest.tool("apply", "--yes")
        assert applied.rc == 3
        assert "--vendor" in applied.error["next"]
        assert guest.run("dpkg", "--get-selections").stdout == before


@pytest.mark.parametrize("name", ["rtx3090-archive", "w7900-dkms"])
def test_restart_and_resume_by_itself(name: str, hosts: Hosts, shops: Repositories) -> None:
    """`--reboot`: the machine goes down, comes up, finishes, says so at the next login, and leaves no unit behind."""
    route = ROUTES[name]
    with hosts.guest(routes.fresh(hosts, route)) as guest:
        before = guest.boot_id()
        child = guest.begin("gpu-setup", "apply", "--yes", "--reboot", *route.arguments)
        guest.await_restart()
        child.wait(30)
        assert guest.boot_id() != before
        _until_idle(guest)
        status = guest.tool("status").data
        assert (status["standing"], status["run"]["kind"], status["armed"]) == ("done", "resume", False)
        assert "everything is installed" in guest.run("cat", "/run/motd.d/gpu-setup").stdout
        assert not guest.path("/etc/systemd/system/gpu-setup-resume.service").exists()
        _verify_route(guest, route)


def _until_idle(guest: Guest) -> None:
    import time

    until = time.monotonic() + 60
    while guest.path("/etc/systemd/system/gpu-setup-resume.service").exists() and time.monotonic() < until:
        time.sleep(0.2)


def test_a_restart_that_changes_nothing_is_not_repeated_for_ever(hosts: Hosts, shops: Repositories) -> None:
    """The module is there, and something keeps the kernel from it: resume says so instead of asking again."""
    route = ROUTES["rtx3090-archive"]
    with hosts.guest(routes.fresh(hosts, route)) as guest:
        assert guest.tool("apply", "--yes").rc == 5
        for module in guest.path("/usr/lib/modules").rglob("nvidia*.ko"):
            # as with a key that the firmware does not know
            module.write_text(module.read_text().replace("canonical", "machine"))
        guest.firmware("state").write_text("SecureBoot enabled\n")
        guest.reboot()
        resumed = guest.tool("resume")
        assert resumed.rc == 1
        assert resumed.error["code"] == "resume.not-driven"
