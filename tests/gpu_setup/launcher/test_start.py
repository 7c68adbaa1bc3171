"""./gpu-setup with its environment in place: from anywhere, by any name, and at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_setup.version import version
from tests.gpu_setup.launcher.checkouts import copy, furnish, start
from tests.tool import ROOT

pytestmark = pytest.mark.long

VERSION = f"gpu-setup {version()}\n"


@pytest.fixture
def furnished(home: Path) -> Path:
    return furnish(home)


def test_from_another_folder(furnished: Path, tmp_path: Path) -> None:
    result = start(ROOT / "gpu-setup", "--version", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, VERSION, "")


def test_by_a_relative_path(furnished: Path, tmp_path: Path) -> None:
    assert start(os.path.relpath(ROOT / "gpu-setup", tmp_path), "--version", cwd=tmp_path).stdout == VERSION


def test_as_an_argument_of_sh(furnished: Path) -> None:
    result = subprocess.run(["sh", "gpu-setup", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == VERSION


def test_through_links(furnished: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "checkout").symlink_to(ROOT)
    (tmp_path / "first").symlink_to("checkout/gpu-setup")
    (tmp_path / "bin" / "gpu-setup").symlink_to("../first")
    assert start(tmp_path / "bin" / "gpu-setup", "--version", cwd=tmp_path).stdout == VERSION


def test_through_a_link_on_path(furnished: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gpu-setup").symlink_to(ROOT / "gpu-setup")
    result = subprocess.run(
        ["sh", "-c", "gpu-setup --version"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert result.stdout == VERSION


@pytest.mark.parametrize("name", ["with spaces in it", "-dash", "quote'd $HOME", "new\nline", "grün"])
def test_odd_paths(furnished: Path, tmp_path: Path, name: str) -> None:
    checkout = copy(tmp_path / name)
    result = start(checkout / "gpu-setup", "--version", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, VERSION, "")
    (tmp_path / "link to it").symlink_to(checkout / "gpu-setup")
    assert start(tmp_path / "link to it", "--version", cwd=tmp_path).stdout == VERSION


def test_from_a_folder_that_is_gone(furnished: Path, tmp_path: Path) -> None:
    command = f'mkdir "{tmp_path}/gone" && cd "{tmp_path}/gone" && rmdir ../gone && exec "{ROOT}/gpu-setup" --version'
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert result.stdout == VERSION


def test_arguments_arrive_whole(furnished: Path, tmp_path: Path) -> None:
    result = start(ROOT / "gpu-setup", "two words", "--", "*", cwd=tmp_path)
    assert "'two words'" in result.stderr


def test_a_relative_home(furnished: Path, home: Path) -> None:
    result = start(ROOT / "gpu-setup", "--version", cwd=home, env={"GPU_SETUP_HOME": "gpu-setup"})
    assert (result.stdout, result.stderr) == (VERSION, "")


def test_only_the_environment_and_the_checkout_are_on_the_path(furnished: Path, tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text("")
    # a checkout whose command line is replaced by one that shows the path
    checkout = copy(tmp_path / "checkout")
    (checkout / "gpu_setup" / "cli.py").write_text(
        "import sys\ndef run(arguments): sys.stdout.write('\\n'.join(sys.path))\n"
    )
    result = start(
        checkout / "gpu-setup", cwd=tmp_path, env={"PYTHONPATH": f".:{tmp_path}", "PYTHONUSERBASE": str(tmp_path)}
    )
    own = (os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix), sys.base_prefix, str(checkout))
    entries = result.stdout.splitlines()
    assert entries and all(os.path.realpath(entry).startswith(own) for entry in entries)
    assert entries.count(str(checkout)) == 1


def test_a_checkout_that_is_not_ours_keeps_its_folders_clean(furnished: Path, home: Path, tmp_path: Path) -> None:
    checkout = copy(tmp_path / "checkout")
    for folder, _, _ in os.walk(checkout):
        os.chmod(folder, 0o555)
    try:
        # root may write anywhere, unless that power is taken away
        command = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
        result = subprocess.run([*command, str(checkout / "gpu-setup"), "--version"], capture_output=True, text=True)
        assert result.stdout == VERSION, result.stderr
        assert not list(checkout.rglob("__pycache__"))
    finally:
        for folder, _, _ in os.walk(checkout):
            os.chmod(folder, 0o755)


def test_the_launcher_costs_little(furnished: Path, tmp_path: Path) -> None:
    """At most 25 ms of CPU time over the interpreter that it starts, with all that it starts; the least of ten."""

    def least(*argv: str) -> float:
        times = []
        for _ in range(10):
            child = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            assert child.returncode == 0
            times.append(usage.ru_utime + usage.ru_stime)
        return min(times)

    bare = least(sys.executable, "-I", str(ROOT / "gpu_setup" / "__main__.py"), "--version")
    assert least(str(ROOT / "gpu-setup"), "--version") - bare < 0.025
