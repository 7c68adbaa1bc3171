"""Replaying recordings, also ones that somebody made to do harm."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from machine.errors import BadUsage, Refused
from machine.local import ABSENT, FAILED, TOO_LARGE, Unreadable
from machine.recording import NOT_RECORDED, RecordedMachine


def recording(folder: Path, files: dict[str, bytes] | None = None, **documents: object) -> Path:
    """A recording in `folder`: sysroot's files by absolute path, and DIR/NAME.json for each keyword."""
    (folder / "sysroot").mkdir(parents=True)
    for path, content in (files or {}).items():
        target = folder / "sysroot" / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder


def reason(call: object, *arguments: object) -> str:
    with pytest.raises(Unreadable) as failed:
        call(*arguments)  # type: ignore[operator]
    return failed.value.reason


def test_files_links_and_folders_are_those_of_sysroot(tmp_path: Path) -> None:
    place = recording(tmp_path / "r", {"/sys/devices/pci0000:00/0000:01:00.0/vendor": b"0x10de\n"})
    devices = place / "sysroot/sys/bus/pci/devices"
    devices.mkdir(parents=True)
    (devices / "0000:01:00.0").symlink_to("../../../devices/pci0000:00/0000:01:00.0")
    (place / "sysroot/absolute").symlink_to("/sys/bus")
    machine = RecordedMachine(place)
    assert machine.read("/sys/bus/pci/devices/0000:01:00.0/vendor") == b"0x10de\n"
    assert machine.link("/sys/bus/pci/devices/0000:01:00.0").endswith("pci0000:00/0000:01:00.0")
    assert machine.list("/absolute/pci/devices") == ("0000:01:00.0",)
    assert reason(machine.read, "/sys/bus/pci/none") == ABSENT


def test_paths_json_holds_what_could_not_be_kept_as_a_file(tmp_path: Path) -> None:
    machine = RecordedMachine(
        recording(
            tmp_path / "r",
            {"/etc/hostname": b"host\n"},
            paths={
                "unreadable": {"/var/log/kern.log": {"reason": "denied", "detail": "Permission denied"}},
                "stat": {"/dev/kfd": {"kind": "char", "mode": 0o660, "uid": 0, "gid": 992, "size": 0}},
                "space": {"/": {"free": 5, "total": 9, "inodes_free": None, "fstype": "ext4", "options": ["rw"]}},
                "names": {"/lib/modules/6.8.0-31-generic/updates/dkms": ["nvidia.ko.zst"]},
            },
        )
    )
    assert reason(machine.read, "/var/log/kern.log") == "denied"
    assert machine.stat("/dev/kfd").gid == 992
    assert machine.list("/dev") == ("kfd",)
    assert machine.list("/lib/modules") == ("6.8.0-31-generic",)
    assert machine.list("/lib/modules/6.8.0-31-generic/updates/dkms") == ("nvidia.ko.zst",)
    assert reason(machine.read, "/lib/modules/6.8.0-31-generic/updates/dkms/nvidia.ko.zst") == FAILED
    space = machine.space("/var/lib/docker")
    assert space is not None and (space.free, space.fstype) == (5, "ext4")


@pytest.mark.parametrize(
    ("session", "usable"),
    [
        ({"uid": 1000, "user": "user", "gids": [1000]}, False),
        ({"uid": 1000, "user": "user", "gids": [992, 1000]}, True),
        ({"uid": 0, "user": "root", "gids": [0]}, True),
    ],
)
def test_access_follows_mode_bits_and_the_session(tmp_path: Path, session: object, usable: bool) -> None:
    kfd = {"kind": "char", "mode": 0o660, "uid": 0, "gid": 992, "size": 0}
    place = recording(tmp_path / "r", session=session, paths={"stat": {"/dev/kfd": kfd}})
    machine = RecordedMachine(place)
    assert machine.access("/dev/kfd", os.R_OK | os.W_OK) is usable
    assert machine.access("/dev/none", os.R_OK) is None


def test_an_access_list_beats_the_mode(tmp_path: Path) -> None:
    # logind gives the person at the desktop renderD* by an access list (udev's uaccess)
    node = {"kind": "char", "mode": 0o660, "uid": 0, "gid": 992, "size": 0}
    paths = {"stat": {"/dev/dri/renderD128": node}, "access": {"/dev/dri/renderD128": {"r": True, "w": True}}}
    machine = RecordedMachine(recording(tmp_path / "r", paths=paths))
    assert machine.access("/dev/dri/renderD128", os.R_OK | os.W_OK) is True


def test_commands_answer_as_recorded_and_others_are_refused(tmp_path: Path) -> None:
    commands = [{"argv": ["dmesg"], "rc": 1, "stdout": "", "stderr": "denied", "seconds": 0.1, "problem": ""}]
    place = recording(tmp_path / "r", commands=commands)
    assert RecordedMachine(place).run(("dmesg",)).stderr == "denied"
    assert RecordedMachine(place).run(("uname", "-r")).problem == NOT_RECORDED
    with pytest.raises(AssertionError, match="uname -r"):
        RecordedMachine(place, strict=True).run(("uname", "-r"))


def test_long_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="--machine"):
        RecordedMachine(recording(tmp_path / "r")).stream(("apt-get", "install", "x"), print)


def test_no_library_is_absent_and_a_document_is_returned_unchanged(tmp_path: Path) -> None:
    machine = RecordedMachine(recording(tmp_path / "r", nvml={"problem": "timed-out"}))
    assert machine.binding("amd").problem == ABSENT
    assert json.loads(machine.binding("nvidia").stdout) == {"problem": "timed-out"}


def test_a_folder_that_is_no_recording_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match="gpu-setup facts record"):
        RecordedMachine(tmp_path)


# ---- made to do harm


@pytest.mark.parametrize("target", ["../../secret", "../../../../../../etc/passwd", "a/../../../secret"])
def test_a_link_that_climbs_out_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").write_text("secret")
    place = recording(tmp_path / "r", {"/etc/a/file": b""})
    (place / "sysroot/etc/passwd").symlink_to(target)
    assert reason(RecordedMachine(place).read, "/etc/passwd") in (FAILED, ABSENT)


def test_absolute_links_stay_inside(tmp_path: Path) -> None:
    place = recording(tmp_path / "r")
    (place / "sysroot/host").symlink_to("/")
    (place / "sysroot/etc").symlink_to("/host/etc")
    machine = RecordedMachine(place)
    assert reason(machine.read, "/host/proc/version") == ABSENT
    assert reason(machine.read, "/etc/passwd") == FAILED  # a circle
    assert machine.list("/host") == ("etc", "host")


def test_dots_in_a_question_do_not_leave_sysroot(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    machine = RecordedMachine(recording(tmp_path / "r", {"/etc/hostname": b"h"}))
    assert reason(machine.read, "/../secret") == ABSENT
    assert reason(machine.read, "/../../secret") == ABSENT
    assert reason(machine.read, "etc/hostname") == FAILED
    assert reason(machine.read, "/etc/hostname\0") == FAILED


def test_pipes_huge_files_and_folders_are_no_answers(tmp_path: Path) -> None:
    place = recording(tmp_path / "r", {"/etc/a": b""})
    os.mkfifo(place / "sysroot/proc_version")
    with (place / "sysroot/huge").open("wb") as file:
        file.truncate(1 << 40)
    machine = RecordedMachine(place)
    assert reason(machine.read, "/proc_version") == FAILED
    assert reason(machine.read, "/huge") == TOO_LARGE
    assert reason(machine.read, "/etc") == FAILED


def test_sysroot_itself_may_not_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r/sysroot").symlink_to("/")
    with pytest.raises(BadUsage):
        RecordedMachine(tmp_path / "r")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("paths.json", b"{", "not JSON"),
        ("paths.json", b"[" * 200_000, "not JSON"),
        ("paths.json", b"\xff\xfe", "not UTF-8 at byte 0"),
        ("paths.json", b"[]", "an object"),
        ("paths.json", b'{"stat": []}', "an object"),
        ("paths.json", b'{"stat": {"/a": {"kind": 1}}}', "`mode`|`kind`"),
        ("paths.json", b'{"stat": {"../a": {}}}', "not a plain absolute path"),
        ("paths.json", b'{"stat": {"/a/../b": {}}}', "not a plain absolute path"),
        ("paths.json", b'{"names": {"/a": ["../b"]}}', "not a file's name"),
        ("paths.json", b'{"names": {"/a": ["\\ud800"]}}', "lone surrogate"),
        ("paths.json", b'{"space": {"/": {"free": "all"}}}', "`free` must be a whole number"),
        ("commands.json", b"{}", "a list"),
        ("commands.json", b'[{"argv": "ls"}]', "`argv` must be a list"),
        ("commands.json", b'[{"argv": ["ls"], "rc": "0"}]', "`rc` must be a whole number"),
        ("session.json", b'{"uid": true}', "`uid` must be a whole number"),
        ("session.json", b'{"environ": {"PATH": 1}}', "`PATH` must be a text"),
        ("machine.json", b'{"name": 7}', "`name` must be a text"),
        ("machine.json", b'{"name": ' + b"1" * 5000 + b"}", "not JSON"),
    ],
)
def test_a_broken_document_names_the_file_and_what_is_wrong(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    place = recording(tmp_path / "r")
    (place / name).write_bytes(content)
    with pytest.raises(BadUsage, match=name) as failed:
        RecordedMachine(place)
    assert failed.match(why)


def test_a_document_that_is_a_link_or_a_pipe_is_refused(tmp_path: Path) -> None:
    place = recording(tmp_path / "r")
    (place / "session.json").symlink_to("/etc/passwd")
    with pytest.raises(BadUsage, match=r"session\.json"):
        RecordedMachine(place)
    (place / "session.json").unlink()
    os.mkfifo(place / "session.json")
    with pytest.raises(BadUsage, match="not a plain file"):
        RecordedMachine(place)
