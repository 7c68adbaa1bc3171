"""Root runs only what root alone can write: the copy, its installation and its start."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from machine.errors import Refused
from provision.root import bootstrap, sudo, tool_copy
from provision.root.tool_copy import bootstrap_source, is_owned_by_root, make_copy
from tests.recorded_machines import machine_path


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_the_same_tool_gives_the_same_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_copy, "is_owned_by_root", lambda path: True)
    first, second = make_copy("1.0"), make_copy("1.0")
    assert first.digest == second.digest == hashlib.sha256(first.content).hexdigest()
    assert make_copy("1.1").digest != first.digest


def test_the_copy_starts_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_copy, "is_owned_by_root", lambda path: True)
    copy = make_copy("9.9")
    library = tmp_path / "library"
    command = [f"{library}/{copy.digest}/bin/python", "-I", f"{library}/{copy.digest}/tool/gpu_setup/__main__.py"]
    argv = [sys.executable, "-I", "-S", "-c", bootstrap_source(), str(library), copy.digest, str(len(copy.content))]
    result = subprocess.run(
        [*argv, *command, "--version"], input=copy.content, capture_output=True, timeout=60, cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, b"gpu-setup 9.9\n"), result.stderr
    # with all that a plan reads: the tables, the PCI ids
    machine = machine_path("rx7900xt-fresh")
    result = subprocess.run([f"{library}/gpu-setup", "plan", "--machine", machine], capture_output=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert b"Radeon RX 7900" in result.stdout
    assert (library / copy.digest / "tool" / "provision").stat().st_mode & 0o022 == 0


def test_a_copy_that_was_changed_on_the_way_is_not_placed(tmp_path: Path) -> None:
    content = archive(**{"tool/a.py": b"x"})
    digest = hashlib.sha256(content).hexdigest()
    assert bootstrap.place(str(tmp_path), digest, content[:-1] + b"!") is not None
    assert list(tmp_path.iterdir()) == []
    assert bootstrap.place(str(tmp_path), digest, content) is None
    assert (tmp_path / digest / "tool" / "a.py").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["../a.py", "/etc/a.py", "tool/../../a.py"])
def test_nothing_is_placed_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    content = archive(**{name: b"x"})
    assert bootstrap.place(str(tmp_path / "l"), hashlib.sha256(content).hexdigest(), content) is not None
    assert not (tmp_path / "a.py").exists()


def test_a_library_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    content = archive(**{"tool/a.py": b"x"})
    (tmp_path / "library").mkdir(mode=0o777)
    (tmp_path / "library").chmod(0o777)
    wrong = bootstrap.place(str(tmp_path / "library"), hashlib.sha256(content).hexdigest(), content)
    assert wrong is not None and "does not belong to root" in wrong


def test_a_python_that_a_person_can_write_is_not_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_owned_by_root("/usr/bin/env")
    mine = tmp_path / "python"
    mine.write_text("")
    mine.chmod(0o777)
    assert not is_owned_by_root(str(mine))
    monkeypatch.setattr(tool_copy, "is_owned_by_root", lambda path: False)
    with pytest.raises(Refused) as refused:
        tool_copy.interpreter()
    assert refused.value.code == "apply.python"
    assert "GPU_SETUP_PYTHON=/usr/bin/python3" in refused.value.next


def test_root_starts_in_a_unit_of_its_own_with_nothing_of_the_persons() -> None:
    argv = sudo.root_command(("/usr/local/lib/gpu-setup/D/bin/python", "-I", "x"), "gpu-setup-apply-1")
    assert argv[0] == "/usr/bin/systemd-run"
    assert {"--wait", "--pipe", "--collect", "--property=KillMode=mixed"} <= set(argv)
    assert not any(word.startswith(("--setenv", "-E")) for word in argv)
    assert sudo.root_command(("p",), None)[:2] == ("/usr/bin/env", "-i")
