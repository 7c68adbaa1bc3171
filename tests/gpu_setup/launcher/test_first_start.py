"""./gpu-setup and ./test on a machine without an environment yet: real environments, really built."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from gpu_setup.version import version
from tests.gpu_setup.launcher.checkouts import copy, environments, incomplete, no_network, start, tool
from tests.tool import ROOT

pytestmark = pytest.mark.lab

VERSION = f"gpu-setup {version()}\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A home in which one first start has run, and what it said. Copy it before you damage it."""
    home = tmp_path_factory.mktemp("built")
    return home, start(ROOT / "gpu-setup", "--version", cwd=home, env={"GPU_SETUP_HOME": str(home / "gpu-setup")})


@pytest.fixture
def packages(built: tuple[Path, object], home: Path) -> Path:
    """This test's home with an environment of its own in it; returns the folder of its packages."""
    shutil.copytree(tool(built[0]), tool(home), symlinks=True)
    (found,) = environments(home)[0].glob("lib/python3.*/site-packages")
    return found


def test_the_first_start_builds_and_says_so(built: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    home, first = built
    assert (first.returncode, first.stdout) == (0, VERSION), first.stderr
    for words in ("first start", "[1/3] Python 3.", "[2/3] an empty environment", "[3/3] packages:", "ready after"):
        assert words in first.stderr
    assert len(environments(home)) == 1
    assert incomplete(home) == []


def test_the_first_environment_holds_what_every_command_needs_and_no_more(packages: Path) -> None:
    assert {"click", "rich", "msgspec"} <= {place.name for place in packages.iterdir()}
    assert not {"numpy", "matplotlib", "rensa"} & {place.name for place in packages.iterdir()}
    size = sum(file.lstat().st_size for file in packages.rglob("*"))
    assert size < 60e6


def test_a_later_start_is_quiet(packages: Path, tmp_path: Path) -> None:
    second = start(ROOT / "gpu-setup", "--version", cwd=tmp_path)
    assert (second.returncode, second.stdout, second.stderr) == (0, VERSION, "")


def rebuilt(home: Path, tmp_path: Path, *arguments: str) -> str:
    """Start, and expect that the environment is rebuilt; returns stdout."""
    result = start(ROOT / "gpu-setup", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "ready after" in result.stderr
    assert len(environments(home)) == 1 and incomplete(home) == []
    return result.stdout


def test_a_package_is_gone(packages: Path, home: Path, tmp_path: Path) -> None:
    shutil.rmtree(packages / "click")
    assert rebuilt(home, tmp_path, "--version") == VERSION


def test_a_package_that_only_one_command_needs_is_emptied(packages: Path, home: Path, tmp_path: Path) -> None:
    (packages / "msgspec" / "__init__.py").write_text("")
    assert json.loads(rebuilt(home, tmp_path, "doctor", "--list", "--json"))["schema"] == "gpu-setup/check-list/1"


def test_the_interpreter_is_gone(packages: Path, home: Path, tmp_path: Path) -> None:
    (environments(home)[0] / "bin" / "python").unlink()
    assert rebuilt(home, tmp_path, "--version") == VERSION


def test_damage_that_a_rebuild_does_not_repair_is_reported_once(packages: Path, tmp_path: Path) -> None:
    checkout = copy(tmp_path / "checkout")
    (checkout / "gpu_setup" / "commands" / "schema.py").write_text("import not_in_the_lock\n")
    result = start(checkout / "gpu-setup", "schema", cwd=tmp_path)
    assert result.returncode == 70
    assert result.stderr.count("damaged") == 1
    assert "not_in_the_lock" in result.stderr.splitlines()[-2]


def test_two_starts_at_once(home: Path, tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [ROOT / "gpu-setup", "--version"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    ends = [(*child.communicate(timeout=120), child.returncode) for child in both]
    assert [(out.decode(), code) for out, _, code in ends] == [(VERSION, 0)] * 2
    assert len(environments(home)) == 1
    assert incomplete(home) == []
    said = "".join(err.decode() for _, err, _ in ends)
    assert said.count("ready after") == 1
    assert "another start is installing packages" in said


def test_two_starts_at_once_without_a_lock(home: Path, tmp_path: Path) -> None:
    # a lock that cannot be opened, as on a file system without locks
    (tool(home) / "lock").mkdir(parents=True)
    both = [
        subprocess.Popen(
            [ROOT / "gpu-setup", "--version"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    ends = [(*child.communicate(timeout=120), child.returncode) for child in both]
    assert [(out.decode(), code) for out, _, code in ends] == [(VERSION, 0)] * 2, ends
    assert len(environments(home)) == 1
    assert incomplete(home) == []


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_first_start(home: Path, tmp_path: Path, sign: signal.Signals) -> None:
    said = tmp_path / "said"
    with said.open("w") as stderr:
        child = subprocess.Popen([ROOT / "gpu-setup", "--version"], cwd=tmp_path, stderr=stderr, start_new_session=True)
    while "[2/3]" not in said.read_text():
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(child.pid, sign)
    child.wait(timeout=30)
    assert environments(home) == []
    if sign is signal.SIGINT:
        assert child.returncode == 130
        assert incomplete(home) == []
    result = start(ROOT / "gpu-setup", "--version", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, VERSION)
    assert incomplete(home) == []


def test_the_network_is_lost(home: Path, tmp_path: Path) -> None:
    result = start(ROOT / "gpu-setup", "doctor", cwd=tmp_path, env=no_network())
    assert result.returncode == 4
    assert "The network or the package index could not be reached." in result.stderr
    assert "run the same command again" in result.stderr
    assert environments(home) == [] and incomplete(home) == []


def test_an_index_password_is_not_repeated(home: Path, tmp_path: Path) -> None:
    settings = {**no_network(), "PIP_INDEX_URL": "http://me:s3cret@127.0.0.1:9/simple"}
    result = start(ROOT / "gpu-setup", "doctor", cwd=tmp_path, env=settings)
    assert result.returncode == 4
    assert "s3cret" not in result.stderr


def test_a_file_that_is_not_the_locks(home: Path, tmp_path: Path) -> None:
    checkout = copy(tmp_path / "checkout")
    lock = checkout / "gpu_setup" / "requirements.lock"
    lock.write_text(re.sub(r"sha256:[0-9a-f]{4}", "sha256:0000", lock.read_text()))
    result = start(checkout / "gpu-setup", "doctor", cwd=tmp_path)
    assert result.returncode == 4
    assert "not the one that the lock names" in result.stderr
    assert environments(home) == [] and incomplete(home) == []


def test_a_home_of_somebody_else(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o555)
    # root may write anywhere, unless that power is taken away
    command = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    result = subprocess.run(
        [*command, str(ROOT / "gpu-setup"), "doctor"],
        cwd=tmp_path,
        env={**os.environ, "GPU_SETUP_HOME": str(theirs)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 4
    assert "Permission denied" in result.stderr
    assert "Set GPU_SETUP_HOME" in result.stderr


def test_pips_user_settings_do_not_lead_astray(home: Path, tmp_path: Path) -> None:
    settings = {"PIP_USER": "1", "PIP_TARGET": str(tmp_path / "elsewhere"), "PYTHONPATH": str(tmp_path)}
    result = start(ROOT / "gpu-setup", "--version", cwd=tmp_path, env=settings)
    assert (result.returncode, result.stdout) == (0, VERSION), result.stderr
    assert not (tmp_path / "elsewhere").exists()


def debian_python(place: Path) -> Path:
    """Debian's or Ubuntu's own python3 without its venv package, unpacked in `place`; returns the interpreter."""
    number = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    names = [f"libpython{number}-minimal", f"libpython{number}-stdlib", f"python{number}-minimal"]
    fetched = subprocess.run(["apt-get", "download", *names], cwd=place, capture_output=True, text=True)
    if fetched.returncode:
        subprocess.run(["apt-get", "update", "-q"], capture_output=True)
        fetched = subprocess.run(["apt-get", "download", *names], cwd=place, capture_output=True, text=True)
    assert fetched.returncode == 0, fetched.stderr
    for package in place.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, place / "root"], check=True)
    return place / "root" / "usr" / "bin" / f"python{number}"


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs Debian's or Ubuntu's apt")
def test_debians_own_python_without_its_venv_package(tmp_path: Path) -> None:
    place = tmp_path / "debian"
    place.mkdir(mode=0o777)
    python = debian_python(place)
    result = start(ROOT / "gpu-setup", "doctor", cwd=tmp_path, env={"GPU_SETUP_PYTHON": str(python)})
    assert result.returncode == 3, result.stderr
    number = python.name.removeprefix("python")
    assert f"python{number}-venv is missing" in result.stderr
    assert f"apt install python{number}-venv" in result.stderr


def test_the_tests_start_from_anywhere(tmp_path: Path) -> None:
    # the environment that runs this test, found again by ./test in another home: rebuilt, the real way
    result = start(
        ROOT / "test",
        "--fast",
        "--collect-only",
        "-q",
        "tests/gpu_setup/launcher/test_refusals.py",
        cwd=tmp_path,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "test_only_an_old_python" in result.stdout


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-data.lock", "requirements-charts.lock"])
def test_python_headers_are_not_needed(tmp_path: Path, lock: str) -> None:
    """Every locked package comes as a wheel: nothing is compiled on the person's machine."""
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert sysconfig.get_platform().startswith("linux")
    result = subprocess.run(
        [
            *(sys.executable, "-I", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"),
            *("-q", "-d", str(tmp_path), "-r", str(ROOT / "gpu_setup" / lock)),
        ],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f"{tag}: {result.stderr}"
