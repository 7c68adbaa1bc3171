"""The rollback, from a journal and the state of the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from checks.facts.host import Host
from provision.apply.journal import JournalEntry
from provision.apply.package_actions import PackageChanges
from provision.apply_context import ApplyContext
from provision.model import (
    AnyAction,
    AptInstall,
    AptMark,
    AptRemove,
    Plan,
    RestoreFile,
    State,
    UserGroup,
    WantedPackage,
)
from provision.rollback.package_steps import kept_kernels
from provision.rollback.rollback_plan import plan_rollback
from provision.system import dpkg
from tests.provision.hosts import Folder, status
from tests.provision.plan.machines import GA, HWE, ubuntu


def began(step: str, action: AnyAction, facts: dict[str, Any]) -> JournalEntry:
    return JournalEntry(time="", run="r1", kind="apply", phase="begin", step=step, action=action, facts=facts)


def installed(step: str, **change: Any) -> JournalEntry:
    packages = msgspec.to_builtins(PackageChanges(**change))
    return began(step, AptInstall(packages=(WantedPackage(name="x"),)), {"packages": packages})


def back(tmp_path: Path, status_file: str, *entries: JournalEntry, host: Host | None = None, auto: str = "") -> Plan:
    machine = Folder(tmp_path)
    machine.put("/var/lib/dpkg/status", status_file)
    machine.put("/var/lib/apt/extended_states", auto)
    return plan_rollback(entries, host or ubuntu(), ApplyContext(machine, state=tmp_path / "state"))


def removed(plan: Plan) -> tuple[str, ...]:
    return next((step.action.packages for step in plan.steps if isinstance(step.action, AptRemove)), ())


def test_added_packages_are_removed_and_earlier_ones_are_kept(tmp_path: Path) -> None:
    found = back(
        tmp_path,
        status("driver 1", "libdriver 1", "gcc 13"),
        installed("driver", install={"driver": "1", "libdriver": "1"}),
    )
    assert removed(found) == ("driver", "libdriver")
    assert all("purge" not in word for step in found.steps for command in step.commands for word in command)


def test_a_package_that_others_need_by_now_stays(tmp_path: Path) -> None:
    found = back(
        tmp_path,
        status("driver 1", "libdriver 1", "game 1; Depends: libdriver (>= 1)"),
        installed("driver", install={"driver": "1", "libdriver": "1"}),
    )
    assert removed(found) == ("driver",)
    assert any("libdriver" in note and "is kept" in note for note in found.notes)


def test_what_others_need_only_as_one_of_two_may_go(tmp_path: Path) -> None:
    found = back(
        tmp_path,
        status("docker.io 1", "podman 1", "toolbox 1; Depends: docker.io | podman"),
        installed("docker", install={"docker.io": "1"}),
    )
    assert removed(found) == ("docker.io",)


def test_what_a_package_provides_is_needed_too(tmp_path: Path) -> None:
    found = back(
        tmp_path,
        status("libopencl-nvidia 1; Provides: libopencl1", "blender 1; Depends: libopencl1"),
        installed("driver", install={"libopencl-nvidia": "1"}),
    )
    assert removed(found) == ()


def test_an_upgrade_is_undone_with_the_kept_package_file(tmp_path: Path) -> None:
    (tmp_path / "state" / "debs").mkdir(parents=True)
    archive = tmp_path / "state" / "debs" / "libc6_1%3a2.38_amd64.deb"
    archive.write_bytes(b"")
    found = back(
        tmp_path,
        status("libc6 1:2.39", "new 1"),
        installed("s", install={"new": "1"}, upgrade={"libc6": ("1:2.38", "1:2.39")}),
    )
    action = found.steps[0].action
    assert isinstance(action, AptInstall)
    assert action.files == (str(archive),)
    assert action.remove == ("new",)


def test_an_upgrade_without_a_kept_package_file_is_noted(tmp_path: Path) -> None:
    found = back(tmp_path, status("libc6 2.39"), installed("s", upgrade={"libc6": ("2.38", "2.39")}))
    assert found.open_steps() == ()
    assert any("libc6 keeps version 2.39" in note for note in found.notes)


def test_a_version_that_is_not_ours_is_left(tmp_path: Path) -> None:
    found = back(tmp_path, status("libc6 2.40"), installed("s", upgrade={"libc6": ("2.38", "2.39")}))
    assert found.open_steps() == ()
    assert any("2.40" in note for note in found.notes)


def test_marks_go_back(tmp_path: Path) -> None:
    found = back(tmp_path, status("gcc 13"), installed("compiler", auto=("gcc",)))
    (mark,) = [step.action for step in found.steps if isinstance(step.action, AptMark)]
    assert mark.auto == ("gcc",)
    marked = "Package: gcc\nArchitecture: amd64\nAuto-Installed: 1\n"
    assert back(tmp_path, status("gcc 13"), installed("compiler", auto=("gcc",)), auto=marked).steps == ()


def test_the_running_kernel_is_never_removed(tmp_path: Path) -> None:
    kernel = {"linux-generic-hwe-24.04": "1", f"linux-image-{HWE}": "1", f"linux-modules-{HWE}": "1"}
    there = status(*(f"{name} {version}" for name, version in kernel.items()))
    found = back(tmp_path, there, installed("kernel", install=kernel), host=ubuntu(release=HWE))
    assert removed(found) == ("linux-generic-hwe-24.04",)
    assert next(step for step in found.steps if step.id == "kernel-stays").state is State.MANUAL


def test_nor_is_the_last_one_that_can_be_started() -> None:
    host = ubuntu(release=GA)
    only = msgspec.structs.replace(host.kernel, release="5.15.0-1-live", installed=(HWE,))
    going = frozenset({f"linux-image-{HWE}", "firefox"})
    assert kept_kernels(going, msgspec.structs.replace(host, kernel=only)) == {f"linux-image-{HWE}"}


def test_groups_that_somebody_had_before_stay(tmp_path: Path) -> None:
    machine = Folder(tmp_path)
    machine.put("/etc/group", "render:x:992:ada\nvideo:x:44:ada\n")
    entry = began("groups", UserGroup(user="ada", groups=("render", "video")), {"groups": ["video"]})
    found = back(tmp_path, status(), entry)
    (action,) = [step.action for step in found.steps if isinstance(step.action, UserGroup)]
    assert (action.groups, action.change) == (("render",), "remove")


def test_with_an_empty_journal_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert back(tmp_path, status("gcc 13")).steps == ()


def test_dpkgs_database_as_facts(tmp_path: Path) -> None:
    machine = Folder(tmp_path)
    machine.put("/var/lib/dpkg/status", status("a 1", "b 2 half-configured"))
    machine.put("/var/lib/dpkg/updates/0001", "")
    found = dpkg.read(machine)
    assert found.version("a") == "1"
    assert found.version("b") is None
    assert found.broken_packages() == ("b",)
    assert found.interrupted
    assert dpkg.clauses(dpkg.PackageRecord("1", "install", "installed", "ok", "a (>= 1), b | c:any")) == (
        ("a",),
        ("b", "c"),
    )


SETTINGS = "; Conffiles:\n /etc/apt/preferences.d/pin d41d8cd98f00b204e9800998ecf8427e\nDescription: x"


def test_unchanged_settings_files_are_removed_with_their_package(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_bytes(b"")
    listed = SETTINGS.replace("/etc/apt/preferences.d/pin", str(pin))
    came = installed("lock", install={"pinning": "1"})
    (action,) = restored_files(back(tmp_path, status(f"pinning 1{listed}"), came))
    assert (action.path, action.before) == (str(pin), None)
    pin.write_text("mine")
    found = back(tmp_path, status(f"pinning 1{listed}"), came)
    assert restored_files(found) == []
    assert any(str(pin) in note and "is kept" in note for note in found.notes)


def test_settings_that_were_there_before_the_package_came_stay(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_bytes(b"")
    listed = SETTINGS.replace("/etc/apt/preferences.d/pin", str(pin))
    came = installed("lock", install={"pinning": "1"}, configured=("pinning",))
    assert restored_files(back(tmp_path, status(f"pinning 1{listed}"), came)) == []


def restored_files(plan: Plan) -> list[RestoreFile]:
    return [step.action for step in plan.steps if isinstance(step.action, RestoreFile)]


@pytest.mark.parametrize(
    ("rows", "goes"),
    [
        ("docker:x:998:\n", True),
        ("docker:x:998:ada\n", False),
        ("docker:x:1001:\n", False),
        ("", False),
    ],
)
def test_groups_that_packages_made_go_when_nobody_is_in_them(tmp_path: Path, rows: str, goes: bool) -> None:
    machine = Folder(tmp_path)
    machine.put("/etc/group", f"root:x:0:\n{rows}friends:x:997:\n")
    machine.put("/etc/passwd", "ada:x:1000:1000::/home/ada:/bin/sh\n")
    begin = installed("docker", install={"docker.io": "1"})
    begin = msgspec.structs.replace(begin, facts={**begin.facts, "all_groups": ["root"]})
    end = JournalEntry(
        time="", run="r1", kind="apply", phase="done", step="docker", facts={"all_groups": ["root", "docker"]}
    )
    found = back(tmp_path, status("docker.io 1"), begin, end)
    made = [step.action for step in found.steps if isinstance(step.action, UserGroup)]
    # a group that somebody made afterwards is theirs
    assert [action.groups for action in made] == ([("docker",)] if goes else [])
