"""Secure Boot on, by recorded firmware variables: signed modules need no person, modules built here need one."""

from __future__ import annotations

import pytest

from tests.lab.provision import routes
from tests.lab.provision.hosts import Guest, Hosts
from tests.lab.provision.repositories import Repositories
from tests.lab.provision.routes import ROUTES

pytestmark = pytest.mark.lab

CERTIFICATE = "/var/lib/shim-signed/mok/MOK.der"


def test_modules_from_the_archive_need_nobody_at_the_console(hosts: Hosts, shops: Repositories) -> None:
    with hosts.guest("rtx3090-secure-boot") as guest:
        assert guest.tool("facts").data["firmware"]["secure_boot"] is True
        planned = guest.tool("plan").data
        assert not [step for step in planned["steps"] if step["state"] == "manual"]
        assert any("signed by Canonical" in step["because"] for step in planned["steps"])
        assert guest.tool("apply", "--yes").rc == 5
        guest.reboot()
        assert guest.tool("resume").rc == 0
        assert guest.tool("facts").data["nvidia"]["nvml_driver"]


@pytest.mark.parametrize(
    ("computer", "arguments"),
    [("rtx3090-secure-boot", ("--source", "nvidia")), ("w7900-secure-boot", ("--source", "dkms"))],
)
def test_a_module_built_here_waits_for_its_key_and_continues_once_it_is_enrolled(
    computer: str, arguments: tuple[str, ...], hosts: Hosts, shops: Repositories
) -> None:
    with hosts.guest(computer) as guest:
        applied = guest.tool("apply", "--yes", *arguments)
        assert applied.rc == 5, applied.document
        assert applied.data["standing"] == "person"
        told = applied.data["next"]
        assert f"sudo mokutil --import {CERTIFICATE}" in told
        assert "a q w z y m and symbols" in told and "recovery key" in told
        # everything else is done
        left = {step["id"] for step in applied.data["steps"] if step["outcome"] not in ("done", "already")}
        assert left == {"enrol-key", "reboot"}

        # nobody asked for the key: the restart alone does not help, and resume says the same again
        guest.reboot()
        again = guest.tool("resume")
        assert again.rc == 5, again.document
        assert "--import" in again.data["next"]

        # asked for, but the blue screen was missed
        assert guest.run("mokutil", "--import", CERTIFICATE, user="root").returncode == 0
        guest.reboot()
        missed = guest.tool("resume")
        assert missed.rc == 5
        assert "at the next boot" in missed.data["next"] and "--import" not in missed.data["next"]

        _restart_and_enrol(guest)
        resumed = guest.tool("resume")
        assert resumed.rc == 0, resumed.document
        assert guest.tool("plan", "--check", *arguments).rc == 0
        facts = guest.tool("facts").data
        assert facts["nvidia"]["module_version"] or facts["amd"]["module_version"]


def _restart_and_enrol(guest: Guest) -> None:
    guest.kill()
    guest.enrol_at_console()
    guest.start()


def test_the_key_in_dkms_settings_is_the_one_to_enrol(hosts: Hosts, shops: Repositories) -> None:
    """A company's own key in dkms's settings, and not the one where Ubuntu keeps its own."""
    with hosts.guest(routes.fresh(hosts, ROUTES["rtx3090-nvidia"]._replace(computer="rtx3090-secure-boot"))) as guest:
        guest.write("/etc/dkms/framework.conf.d/company.conf", 'mok_certificate="/srv/keys/company.der"\n')
        guest.write("/srv/keys/company.der", "certificate\n")
        guest.write("/srv/keys/company.key", "key\n", 0o644)
        applied = guest.tool("apply", "--yes", "--source", "nvidia")
        assert "sudo mokutil --import /srv/keys/company.der" in applied.data["next"]
        assert "sudo chmod 600 /srv/keys/company.key" in applied.data["next"]
