"""Files and folders that are whole, or as they were before."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from machine.whole_file import is_empty, new_file, new_folder, write_whole


def names(folder: Path) -> set[str]:
    return set(os.listdir(folder))


@pytest.mark.parametrize("stop", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("unnamed", [True, False])
def test_an_error_leaves_what_was_there(
    tmp_path: Path, stop: type[BaseException], unnamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not unnamed:
        # as on a file system without files that have no name; the folder is then refused
        monkeypatch.setattr(os, "O_TMPFILE", os.O_WRONLY)
    file, folder, empty = tmp_path / "a.json", tmp_path / "deep" / "box", tmp_path / "empty"
    file.write_text("before")
    empty.mkdir()
    with pytest.raises(stop), new_file(file) as out:
        out.write(b"half")
        raise stop
    for place in (folder, empty):
        with pytest.raises(stop), new_folder(place) as made:
            (made / "half").write_text("x")
            raise stop
    assert file.read_text() == "before"
    assert names(tmp_path) == {"a.json", "empty"} and names(empty) == set()


def test_a_file_that_is_replaced_keeps_its_permissions_and_links(tmp_path: Path) -> None:
    real, link, new = tmp_path / "real", tmp_path / "link", tmp_path / "new"
    real.write_text("before")
    real.chmod(0o640)
    link.symlink_to("real")
    write_whole(link, "after")
    assert link.is_symlink() and real.read_text() == "after" and stat.S_IMODE(real.stat().st_mode) == 0o640
    before = os.umask(0o027)
    try:
        write_whole(new, b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(new.stat().st_mode) == 0o640
    assert names(tmp_path) == {"real", "link", "new"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root replaces another's file")
def test_root_leaves_a_persons_file_theirs(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("before")
    os.chown(file, 1000, 1000)
    write_whole(file, "after")
    assert (file.stat().st_uid, file.stat().st_gid) == (1000, 1000)


def test_a_link_in_another_users_folder_is_replaced_not_followed(tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "run.json"
    victim.write_text("kept")
    file.symlink_to(victim)
    with new_file(file) as out:
        out.write(b"ours")
    assert victim.read_text() == "kept" and file.read_text() == "ours" and not file.is_symlink()


def test_pipes_and_devices_are_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="No such device or address"):
        write_whole(pipe, "nobody reads")
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, "x")
    assert os.read(reading, 10) == b"x"
    os.close(reading)
    write_whole("/dev/null", "x")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OSError, match="No space left"):
        write_whole("/dev/full", "x")
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, "x")


def test_an_existing_folder_stays_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "box"
    folder.mkdir(mode=0o750)
    before = folder.stat()
    with new_folder(folder) as made:
        (made / "a").mkdir()
        (made / "a/b").write_text("x")
    assert names(folder) == {"a"} and (folder / "a/b").read_text() == "x"
    assert (folder.stat().st_ino, folder.stat().st_mode) == (before.st_ino, before.st_mode)


def test_what_a_killed_process_left_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / ".gpu-setup.123.0.part").mkdir()
    assert is_empty(tmp_path)
    (tmp_path / ".hidden").touch()
    assert not is_empty(tmp_path)


def test_a_process_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with new_file(tmp_path / "a") as out:
            out.write(b"half")
            out.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert names(tmp_path) == set()


def test_without_files_that_have_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_WRONLY)
    for content in ("one", "two"):
        write_whole(tmp_path / "a", content)
        assert (tmp_path / "a").read_text() == content and names(tmp_path) == {"a"}
