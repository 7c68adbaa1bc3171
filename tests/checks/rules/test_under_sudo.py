"""Root may use every device, so a doctor under sudo answers for the person who called it, or says that it cannot."""

from __future__ import annotations

import pytest

from checks.catalogue import catalogue
from checks.facts.host import Host
from checks.model import CheckResult, Status
from checks.registry import ALL
from checks.runner import judge, run
from tests.checks.rules.cases_software import DENIED, MEMBER, OLD_SESSION, OUTSIDER
from tests.checks.rules.hosts import but, healthy_amd, healthy_nvidia, kfd, render, two_vendors

CHECKS = {check.id: check for check in ALL}
ACCESS = ("rocm.kfd-access", "rocm.render-access", "rocm.render-group")
# what depends on whose session it is; everything else looks the same to both
THEIRS = {
    *ACCESS,
    *("rocm.override", "runtime.visible-devices", "runtime.ld-library-path", "runtime.start-files"),
    *("hub.token", "hub.offline"),
}


def as_root(host: Host, caller: str | None = "alex", groups: tuple[str, ...] | None = None) -> Host:
    """The same machine as root sees it: every device is usable, the groups are root's."""
    node = host.amd.kfd
    return but(
        host,
        amd={
            "kfd": node and kfd(mode=node.mode, group_name=node.group_name, usable=True),
            "render": tuple(render(mode=row.mode, group_name=row.group_name) for row in host.amd.render or ()),
        },
        person={
            "uid": 0,
            "user": "root",
            "groups": ("root",),
            "database_groups": ("root",),
            "environ": {},
            "sudo_user": caller,
            "sudo_groups": groups if caller else None,
        },
    )


def ask(check: str, host: Host) -> CheckResult:
    return judge(CHECKS[check], host, catalogue())


def test_without_the_groups_root_and_the_user_get_the_same_result_for_kfd() -> None:
    own, root = ask("rocm.kfd-access", DENIED), ask("rocm.kfd-access", as_root(DENIED, groups=OUTSIDER))
    assert own.status is root.status is Status.FAIL
    assert own.reason == root.reason == "alex lacks permission for /dev/kfd (not in group render)."
    for finding in (*own.findings, *root.findings):
        assert finding.fix is not None
        assert finding.fix.argv == ("usermod", "-aG", "render,video", "alex")


def test_with_the_groups_both_pass() -> None:
    for check in ("rocm.kfd-access", "rocm.render-access"):
        assert ask(check, healthy_amd()).status is Status.PASS
        assert ask(check, as_root(healthy_amd(), groups=MEMBER)).status is Status.PASS


def test_access_through_the_desktop_is_unknown_to_root() -> None:
    result = ask("rocm.render-access", as_root(DENIED, groups=OUTSIDER))
    assert result.status is Status.UNKNOWN
    assert "without sudo" in result.reason


def test_a_session_older_than_its_groups_is_unknown_to_root() -> None:
    assert ask("rocm.render-group", OLD_SESSION).status is Status.FAIL
    assert ask("rocm.render-group", as_root(OLD_SESSION, groups=MEMBER)).status is Status.UNKNOWN


@pytest.mark.parametrize("check", ("rocm.kfd-access", "rocm.render-access"))
def test_root_without_a_caller_is_unknown(check: str) -> None:
    result = ask(check, as_root(healthy_amd(), caller=None))
    assert result.status is Status.UNKNOWN
    assert "without sudo" in result.reason


def test_a_node_open_to_all_passes_for_everyone() -> None:
    host = but(DENIED, amd={"kfd": kfd(mode=0o666), "render": (render(mode=0o666),)})
    for check in ("rocm.kfd-access", "rocm.render-access"):
        assert ask(check, as_root(host, caller=None)).status is Status.PASS


def test_in_a_container_root_is_the_user_who_trains() -> None:
    host = but(as_root(healthy_amd(), caller=None), os={"virtualisation": "docker"})
    assert ask("rocm.kfd-access", host).status is Status.PASS


@pytest.mark.parametrize("host", (healthy_nvidia(), healthy_amd(), two_vendors()), ids=lambda host: host.machine)
def test_all_other_checks_give_root_and_the_user_the_same_result(host: Host) -> None:
    known = catalogue()
    own = {row.id: (row.status, row.reason) for row in run(host, known, ALL).results if row.id not in THEIRS}
    root = as_root(host, groups=host.person.groups)
    seen = {row.id: (row.status, row.reason) for row in run(root, known, ALL).results if row.id not in THEIRS}
    assert seen == own


def test_nothing_that_only_the_user_sees_passes_under_sudo() -> None:
    root = as_root(two_vendors(), groups=MEMBER)
    passed = {row.id for row in run(root, catalogue(), ALL).results if row.status is Status.PASS}
    # the token of the person was found (HOME kept by sudo), and the devices are judged by the person's groups
    assert passed & THEIRS == {"rocm.kfd-access", "rocm.render-access", "hub.token"}
