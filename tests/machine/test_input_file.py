"""Only plain files are read, and never more of them than their kind can have."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from machine.input_file import open_input, read_input


def test_a_plain_file_and_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "link").symlink_to("a")
    assert read_input(tmp_path / "link", 10) == b"x" * 10
    with open_input(str(tmp_path / "a")) as file:
        assert file.read() == b"x" * 10
    with pytest.raises(OSError, match="It has more than 9 bytes"):
        read_input(tmp_path / "a", 9)
    assert read_input("/proc/self/stat")


def test_everything_else_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for place, why in (
            ("/dev/zero", "It is a device"),
            ("/dev/tty", "device|No such"),
            (tmp_path / "pipe", "It is a pipe"),
            (tmp_path / "socket", "No such device"),
            (tmp_path, "It is a folder"),
            ("a\0b", "null byte"),
            (tmp_path / ("n" * 300), "too long"),
        ):
            with pytest.raises(OSError, match=why):
                read_input(place)
