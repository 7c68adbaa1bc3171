"""Packages that only some commands need: really installed, at the first such command."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_setup.envelope import Answer, encode
from tests.gpu_setup.launcher.checkouts import copy, environments, incomplete, no_network, start, tool
from tests.harness.report.examples import card
from tests.tool import ROOT

pytestmark = pytest.mark.lab

SAMPLES = str(ROOT / "harness" / "dataset" / "samples" / "house-style.json")
CHECK = ("data", "check", SAMPLES)
INSTALLING = "this command needs packages for training data"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after a first start."""
    home = tmp_path_factory.mktemp("first")
    result = start(ROOT / "gpu-setup", "--version", cwd=home, env={"GPU_SETUP_HOME": str(home / "gpu-setup")})
    assert result.returncode == 0, result.stderr
    return home


@pytest.fixture(scope="module")
def checked(first: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A home after a first `data check`, and what it printed. Copy it before you damage it."""
    home = tmp_path_factory.mktemp("checked")
    shutil.copytree(tool(first), tool(home), symlinks=True)
    return home, start(ROOT / "gpu-setup", *CHECK, cwd=home, env={"GPU_SETUP_HOME": str(home / "gpu-setup")})


@pytest.fixture
def core(first: Path, home: Path) -> Path:
    """This test's home, after a first start; returns its environment."""
    shutil.copytree(tool(first), tool(home), symlinks=True)
    return environments(home)[0]


@pytest.fixture
def with_data(checked: tuple[Path, object], home: Path) -> Path:
    """This test's home, after a first `data check`; returns its environment."""
    shutil.copytree(tool(checked[0]), tool(home), symlinks=True)
    return environments(home)[0]


def extras(environment: Path) -> set[str]:
    return {place.name for place in environment.glob("extras/*/*")}


def test_the_first_command_that_needs_them_installs_them_and_says_so(
    checked: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    home, result = checked
    assert result.returncode == 0, result.stderr
    assert result.stderr.count(INSTALLING) == 1
    assert re.search(r"installing them once \(\d+, about \d+ MB to download\)", result.stderr)
    assert "rows" in result.stdout
    assert extras(environments(home)[0]) == {"data"}
    assert incomplete(home) == []


def test_later_commands_are_quiet_and_need_no_network(with_data: Path, tmp_path: Path) -> None:
    result = start(ROOT / "gpu-setup", *CHECK, cwd=tmp_path, env=no_network())
    assert result.returncode == 0, result.stderr
    assert "gpu-setup:" not in result.stderr


def test_other_commands_install_nothing(core: Path, tmp_path: Path) -> None:
    recipe = str(ROOT / "harness" / "recipes" / "tiny.yaml")
    machine = str(ROOT / "tests" / "machines" / "rtx3090ti-healthy.machine")
    for arguments in (
        ("doctor",),
        ("plan",),
        ("facts",),
        ("status",),
        ("fit", "--card", "RTX 3090"),
        ("recipe",),
        ("recipe", "check", recipe),
        ("schema", "doctor"),
        ("data", "check", "--help"),
        ("train", "--help"),
        ("image", "render", "--machine", machine),
        ("report",),
        ("environment", "--check"),
    ):
        result = start(ROOT / "gpu-setup", *arguments, cwd=tmp_path, env=no_network())
        assert result.returncode in (0, 1, 2, 3) and result.stdout + result.stderr, arguments
        assert "this command needs" not in result.stderr and "damaged" not in result.stderr, arguments
        assert extras(core) == set(), arguments


def test_charts_come_on_top_of_what_is_installed(with_data: Path, tmp_path: Path) -> None:
    for name, report in (("one", card()), ("two", card("Radeon RX 7900 XTX", 880.0, "2026-11-25T10:00:00Z"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_bytes(encode(Answer("report", report, 0, str)))
    plain = start(ROOT / "gpu-setup", "compare", "one", "two", cwd=tmp_path)
    assert (plain.returncode, plain.stderr) == (0, "")
    page = start(ROOT / "gpu-setup", "compare", "one", "two", "--html", "page.html", cwd=tmp_path)
    assert page.returncode == 0, page.stderr
    assert page.stderr.count("this command needs packages for charts") == 1
    assert "<svg" in (tmp_path / "page.html").read_text()
    assert extras(with_data) == {"data", "charts"}
    # numpy is in one of them only
    assert len(list(with_data.glob("extras/*/*/numpy"))) == 1
    assert start(ROOT / "gpu-setup", *CHECK, cwd=tmp_path).stderr.count("gpu-setup:") == 0


def test_two_commands_at_once(core: Path, home: Path, tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [ROOT / "gpu-setup", *CHECK], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ends = [(*child.communicate(timeout=120), child.returncode) for child in both]
    assert [code for _, _, code in ends] == [0, 0], ends
    assert "".join(err for _, err, _ in ends).count(INSTALLING) == 1
    assert extras(core) == {"data"} and incomplete(home) == []


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_installation(core: Path, home: Path, tmp_path: Path, sign: signal.Signals) -> None:
    printed = tmp_path / "printed"
    with printed.open("w") as stderr:
        child = subprocess.Popen([ROOT / "gpu-setup", *CHECK], cwd=tmp_path, stderr=stderr, start_new_session=True)
    while INSTALLING not in printed.read_text():
        time.sleep(0.02)
    time.sleep(0.7)
    os.killpg(child.pid, sign)
    child.wait(timeout=30)
    assert extras(core) <= {f"data.{child.pid}.partial"}
    if sign is signal.SIGINT:
        assert child.returncode == 130
        assert extras(core) == set()
    result = start(ROOT / "gpu-setup", *CHECK, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert extras(core) == {"data"} and incomplete(home) == []


def error(result: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The one error of a --json document; it says what, why and next."""
    (found,) = json.loads(result.stdout)["errors"]
    assert all(found[part] for part in ("code", "what", "why", "next"))
    return {str(key): str(value) for key, value in found.items()}


def test_the_network_is_lost(core: Path, home: Path, tmp_path: Path) -> None:
    result = start(ROOT / "gpu-setup", *CHECK, "--json", cwd=tmp_path, env=no_network())
    assert result.returncode == 4
    assert "The network or the package index could not be reached." in error(result)["why"]
    assert extras(core) == set() and incomplete(home) == []
    assert start(ROOT / "gpu-setup", "doctor", cwd=tmp_path, env=no_network()).returncode in (0, 1)


def test_a_file_that_is_not_the_locks(core: Path, home: Path, tmp_path: Path) -> None:
    checkout = copy(tmp_path / "checkout")
    lock = checkout / "gpu_setup" / "requirements-data.lock"
    lock.write_text(re.sub(r"sha256:[0-9a-f]{4}", "sha256:0000", lock.read_text()))
    result = start(checkout / "gpu-setup", *CHECK, cwd=tmp_path)
    assert result.returncode == 4
    assert "not the one that the lock names" in result.stderr
    assert extras(core) == set() and incomplete(home) == []


def test_the_disk_is_full(core: Path, home: Path, tmp_path: Path) -> None:
    # room for the environment and not for the extra
    script = 'mount -t tmpfs -o size=70m room "$1" && cp -a "$2" "$1/tool" && shift 2 && exec "$@"'
    namespace = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))
    room = home / "room" / "data"
    room.mkdir(parents=True)
    result = subprocess.run(
        [*namespace, "sh", "-c", script, "sh", room, tool(home), ROOT / "gpu-setup", *CHECK, "--json"],
        cwd=tmp_path,
        env={**os.environ, "GPU_SETUP_HOME": str(home / "room")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 4, result.stderr
    assert "The disk is full." in error(result)["why"]


def test_an_environment_that_cannot_be_written(core: Path, tmp_path: Path) -> None:
    folder = core.resolve()
    folder.chmod(0o555)
    command = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    result = subprocess.run(
        [*command, ROOT / "gpu-setup", *CHECK, "--json"], cwd=tmp_path, capture_output=True, text=True
    )
    folder.chmod(0o755)
    assert result.returncode == 4, result.stderr
    assert error(result)["code"] == "tool.unwritable"


def lose(folder: Path) -> None:
    shutil.rmtree(folder)


def empty(folder: Path) -> None:
    (folder / "__init__.py").write_text("")


@pytest.mark.parametrize(
    ("damage", "package", "words"), [(lose, "rensa", INSTALLING), (empty, "numpy", "environment is damaged")]
)
def test_a_damaged_package_is_installed_again(
    with_data: Path, home: Path, tmp_path: Path, damage: Callable[[Path], None], package: str, words: str
) -> None:
    (folder,) = with_data.glob(f"extras/*/data/{package}")
    damage(folder)
    result = start(ROOT / "gpu-setup", *CHECK, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert words in result.stderr and "rows" in result.stdout
    assert extras(environments(home)[0]) == {"data"} and incomplete(home) == []


def test_a_checkout_that_cannot_be_written(core: Path, tmp_path: Path) -> None:
    checkout = copy(tmp_path / "checkout")
    for folder, _, _ in os.walk(checkout):
        os.chmod(folder, 0o555)
    command = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    result = subprocess.run([*command, checkout / "gpu-setup", *CHECK], cwd=tmp_path, capture_output=True, text=True)
    for folder, _, _ in os.walk(checkout):
        os.chmod(folder, 0o755)
    assert result.returncode == 0, result.stderr
    assert extras(core) == {"data"} and not list(checkout.rglob("__pycache__"))
