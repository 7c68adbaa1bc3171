"""./gpu-setup where it cannot start: what, why, next, and nothing half-made."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.gpu_setup.launcher.checkouts import start
from tests.tool import ROOT

PLAIN_TOOLS = ("sh", "ls", "dirname", "cksum", "id")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with the plain tools and no Python."""
    folder = tmp_path / "path"
    folder.mkdir()
    for name in PLAIN_TOOLS:
        found = next(
            (place for place in (f"{each}/{name}" for each in ("/usr/bin", "/bin")) if os.path.exists(place)), None
        )
        if found:
            (folder / name).symlink_to(found)
    return folder


def program(path: Path, name: str, text: str) -> None:
    (path / name).write_text(f"#!/bin/sh\n{text}\n")
    (path / name).chmod(0o755)


def without_ensurepip(path: Path, name: str) -> None:
    """This Python, but as Ubuntu ships it: ensurepip does not import."""
    program(
        path,
        name,
        f'[ "$1 $2" = "-I -c" ] || exec {sys.executable} "$@"\n'
        f"exec {sys.executable} -I -c \"import sys; sys.modules['ensurepip'] = None\n$3\"",
    )


def test_no_python(path: Path, tmp_path: Path) -> None:
    result = start(ROOT / "gpu-setup", "doctor", cwd=tmp_path, env={"PATH": str(path)})
    assert result.returncode == 3
    assert "Python 3.11 or newer is needed" in result.stderr
    assert "Found no python3 on PATH." in result.stderr


def test_only_an_old_python(path: Path, tmp_path: Path) -> None:
    # stands for an interpreter that is not on this machine: it answers as Python 3.10 answers the launcher's question
    program(path, "python3", 'echo "3.10 old /usr/bin/python3.10"')
    result = start(ROOT / "gpu-setup", "doctor", cwd=tmp_path, env={"PATH": str(path)})
    assert result.returncode == 3
    assert "Found only Python 3.10 (/usr/bin/python3.10)." in result.stderr
    assert "GPU_SETUP_PYTHON" in result.stderr


def test_a_python_that_was_named_but_does_not_start(tmp_path: Path) -> None:
    result = start(ROOT / "gpu-setup", cwd=tmp_path, env={"GPU_SETUP_PYTHON": "/nowhere/python3.12"})
    assert result.returncode == 3
    assert "GPU_SETUP_PYTHON names /nowhere/python3.12" in result.stderr


def test_ubuntus_python_without_venv(path: Path, tmp_path: Path) -> None:
    without_ensurepip(path, "python3")
    program(path, "apt-get", "exit 1")
    result = start(ROOT / "gpu-setup", "doctor", cwd=tmp_path, env={"PATH": str(path)})
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert result.returncode == 3
    assert f"python{here}-venv is missing" in result.stderr
    assert f"apt install python{here}-venv" in result.stderr
    # nobody is at the keyboard: nothing is asked, nothing is run
    assert "[y/N]" not in result.stderr


def test_a_python_without_venv_where_there_is_no_apt(path: Path, tmp_path: Path) -> None:
    without_ensurepip(path, "python3")
    result = start(ROOT / "gpu-setup", "doctor", cwd=tmp_path, env={"PATH": str(path)})
    assert result.returncode == 3
    assert "package manager" in result.stderr


@pytest.mark.parametrize(("answer", "code"), [("n", 3), ("", 3), ("y", 4)])
def test_with_somebody_there_it_offers_to_install(path: Path, tmp_path: Path, answer: str, code: int) -> None:
    import pty

    without_ensurepip(path, "python3")
    program(path, "apt-get", f'echo "$@" >> {tmp_path}/asked; exit 100')
    program(path, "sudo", 'exec "$@"')
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(str(ROOT / "gpu-setup"), ["gpu-setup", "doctor"], {**os.environ, "PATH": str(path)})
    seen = b""
    while b"[y/N]" not in seen:
        seen += os.read(terminal, 4096)
    os.write(terminal, f"{answer}\n".encode())
    try:
        while part := os.read(terminal, 4096):
            seen += part
    except OSError:
        pass  # the launcher has ended
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
    assert asked == (f"install -y python{here}-venv\n" if answer == "y" else "")


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null/inside"])
def test_a_home_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    result = start(ROOT / "gpu-setup", "doctor", cwd=tmp_path, env={"GPU_SETUP_HOME": place})
    assert result.returncode == 4
    assert f"The folder {place}/data/tool cannot be written." in result.stderr
    assert "Set GPU_SETUP_HOME" in result.stderr


def test_no_home_at_all(tmp_path: Path) -> None:
    result = start(ROOT / "gpu-setup", "doctor", cwd=tmp_path, env={"GPU_SETUP_HOME": "", "HOME": ""})
    assert result.returncode == 4
    assert "HOME is not set." in result.stderr
