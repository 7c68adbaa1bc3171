"""Files of the real machine: what is read, and which word each failure gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machine.local import ABSENT, FAILED, TOO_LARGE, LocalMachine, Unreadable


def reason(call: object, *arguments: object) -> str:
    with pytest.raises(Unreadable) as failed:
        call(*arguments)  # type: ignore[operator]
    return failed.value.reason


def test_reads_files_of_proc_whose_size_is_zero() -> None:
    assert LocalMachine().read("/proc/version").startswith(b"Linux version ")


def test_a_file_of_exactly_the_limit_is_read_and_one_byte_more_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    assert len(LocalMachine().read(f"{tmp_path}/file", 100_000)) == 100_000
    assert reason(LocalMachine().read, f"{tmp_path}/file", 99_999) == TOO_LARGE


def test_absence_has_its_own_word_also_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    machine = LocalMachine()
    assert reason(machine.read, f"{tmp_path}/none") == ABSENT
    assert reason(machine.read, f"{tmp_path}/file/below") == ABSENT
    assert reason(machine.list, f"{tmp_path}/none") == ABSENT
    assert reason(machine.stat, f"{tmp_path}/none") == ABSENT
    assert machine.access(f"{tmp_path}/none", os.F_OK) is None


def test_a_pipe_without_a_writer_does_not_hang_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert reason(LocalMachine().read, f"{tmp_path}/pipe") == FAILED


def test_folders_and_devices_are_no_files() -> None:
    assert reason(LocalMachine().read, "/proc") == FAILED
    assert reason(LocalMachine().read, "/dev/zero") == FAILED


def test_a_file_in_the_place_of_a_folder_is_no_absent_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert reason(LocalMachine().list, f"{tmp_path}/file") == FAILED
    assert reason(LocalMachine().list, f"{tmp_path}/file/below") == ABSENT


def test_a_file_that_links_to_dev_null_is_empty(tmp_path: Path) -> None:
    (tmp_path / "20apt-esm-hook.conf").symlink_to("/dev/null")
    assert LocalMachine().read(f"{tmp_path}/20apt-esm-hook.conf") == b""


def test_links_come_as_written_and_stat_follows_them(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    machine = LocalMachine()
    assert machine.link(f"{tmp_path}/link") == "file"
    entry = machine.stat(f"{tmp_path}/link")
    assert (entry.kind, entry.size) == ("file", 3)
    assert entry.inode == (tmp_path / "file").stat().st_ino
    assert machine.stat("/dev/null").kind == "char"


def test_space_of_a_folder_that_does_not_exist_yet_is_that_of_its_nearest_parent(tmp_path: Path) -> None:
    here, later = LocalMachine().space(str(tmp_path)), LocalMachine().space(f"{tmp_path}/not/yet/made")
    assert here is not None and later is not None
    assert (here.total, here.fstype) == (later.total, later.fstype)
    assert here.total > 0 and here.fstype


def test_the_session_is_this_process() -> None:
    session = LocalMachine().session()
    assert session.uid == os.geteuid()
    assert os.getegid() in session.gids
