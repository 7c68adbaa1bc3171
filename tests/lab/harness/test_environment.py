"""The training environment by the real pip: built, reused, repaired, cut off by kills and a lost network, a full disk.

The stack is a small one on an index of the test's own; that the real one builds too is shown by the runs in
test_training.py, which stand on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from harness.environment.build import Environment, ensure_environment, environment_folder
from harness.environment.lock_file import load_lock
from harness.environment.packages import missing_packages
from harness.environment.torch_install import accept_unverified
from machine.errors import OutsideFailed, Refused
from machine.events import Event
from machine.local import LocalMachine
from machine.paths import Paths, paths
from tests.lab.disks import mounted
from tests.lab.small_stack import Index, SmallStack, served, small_stack, torch_files, torch_lock, wheel
from tests.lab.training import Training
from tests.tool import ROOT

pytestmark = pytest.mark.lab
NOWHERE = "http://127.0.0.1:9/simple"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The test's own index is the only one, and pip keeps nothing from one test to the next."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    (tmp_path / "stack" / "wheels").mkdir(parents=True)
    with served(tmp_path / "stack" / "wheels") as running:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", running.url)
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        monkeypatch.setenv("PIP_RETRIES", "1")
        monkeypatch.setenv("PIP_TIMEOUT", "5")
        yield running


@pytest.fixture
def parts() -> int:
    """How many files the last package has besides its first."""
    return 20


@pytest.fixture
def small(tmp_path: Path, index: Index, parts: int) -> SmallStack:
    (tmp_path / "stack" / "wheels").rmdir()
    return small_stack(tmp_path / "stack", index.url, parts)


class Site:
    """Where the environment goes, and what was said while it was made."""

    def __init__(self, small: SmallStack, home: Path) -> None:
        self.small, self.paths = small, paths({"GPU_SETUP_HOME": str(home)})
        self.events: list[Event] = []

    def ensure(self) -> Environment:
        self.events.clear()
        return ensure_environment(self.small.stack, LocalMachine(), self.paths, self.events.append)

    def said(self, kind: str) -> list[str]:
        return [event.text for event in self.events if event.kind == kind]

    @property
    def packages(self) -> Path:
        (found,) = self.folder.glob("lib/python3*/site-packages")
        return found

    @property
    def folder(self) -> Path:
        (found,) = self.paths.environments.glob("small-*-py3.*[0-9]")
        return found


@pytest.fixture
def site(small: SmallStack, tmp_path: Path) -> Site:
    return Site(small, tmp_path / "home of ada")


def imported(environment: Environment, what: str) -> str:
    argv = (str(environment.python), "-I", "-c", f"import {what.partition('.')[0]}; print({what})")
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def test_built_from_empty_then_reused(site: Site, index: Index) -> None:
    environment = site.ensure()
    assert (environment.torch, environment.torch_from, environment.torch_verified) == ("2.13.0", "index", "sha256")
    assert imported(environment, "badger.answer") == "7"
    assert site.said("start") and site.said("start")[0].startswith(
        "Building the training environment (small, 4 packages)"
    )
    assert f"torch 2.13.0 from {index.url} (checked by its sha256)." in site.said("note")
    counted = [event for event in site.events if event.kind == "progress"]
    assert all(event.total == 4 for event in counted)
    assert len(index.asked) == 4

    again = site.ensure()
    assert again == environment
    assert [event.kind for event in site.events] == ["end"]
    assert len(index.asked) == 4


def test_broken_packages_are_repaired_alone(site: Site, index: Index) -> None:
    first = site.ensure()
    packages = site.packages
    harms: tuple[Callable[[], object], ...] = (
        lambda: (packages / "aardvark.py").unlink(),
        lambda: (packages / "aardvark.py").write_text("answer"),
        lambda: (packages / "aardvark-1.0.dist-info" / "RECORD").unlink(),
        lambda: (packages / "aardvark-1.0.dist-info" / "METADATA").write_text(""),
    )
    for harm in harms:
        harm()
        index.asked.clear()
        repaired = site.ensure()
        assert site.said("start")[0].startswith("Repairing the training environment (small, 1 package)")
        assert index.asked == ["aardvark-1.0-py3-none-any.whl"]
        assert imported(repaired, "aardvark.answer") == "42"
        assert repaired.torch_from == first.torch_from
    # torch, and a package at another version
    (packages / "torch" / "__init__.py").unlink()
    (packages / "badger-2.1.dist-info").rename(packages / "badger-2.0.dist-info")
    index.asked.clear()
    site.ensure()
    assert sorted(index.asked) == ["badger-2.1-py3-none-any.whl", "torch-2.13.0-py3-none-any.whl"]
    assert not list(packages.glob("badger-2.0*"))
    site.ensure()
    assert [event.kind for event in site.events] == ["end"]


def test_a_python_that_is_gone_or_a_home_that_was_moved_rebuilds_the_whole(
    site: Site, small: SmallStack, tmp_path: Path
) -> None:
    environment = site.ensure()
    for name in ("python", "python3"):
        (environment.python.parent / name).unlink()
    assert imported(site.ensure(), "badger.answer") == "7"

    (tmp_path / "home of ada").rename(tmp_path / "elsewhere")
    moved = Site(small, tmp_path / "elsewhere")
    environment = moved.ensure()
    assert environment.folder.startswith(str(tmp_path / "elsewhere"))
    assert moved.said("start")[0].startswith("Building")
    assert imported(environment, "badger.answer") == "7"


def test_torch_from_a_local_copy_and_from_the_configured_index(
    site: Site, small: SmallStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    import msgspec

    dead = small._replace(stack=msgspec.structs.replace(small.stack, torch_index=NOWHERE))
    configured = Site(dead, site.paths.data.parent)
    assert configured.ensure().torch_from == "configured"
    assert any("does not answer" in text for text in configured.said("note"))

    monkeypatch.setenv("PIP_FIND_LINKS", str(small.wheels))
    (configured.packages / "torch" / "__init__.py").unlink()
    assert configured.ensure().torch_from == "local"


def test_the_network_lost_in_the_middle_then_back(site: Site, index: Index) -> None:
    index.dies_at = "camel"
    with pytest.raises(OutsideFailed) as caught:
        site.ensure()
    assert caught.value.code == "environment.network"
    assert caught.value.exit_code == 4
    assert caught.value.why
    assert "run the same command again to continue" in caught.value.next
    with pytest.raises(OutsideFailed) as caught:
        site.ensure()
    assert caught.value.code == "environment.network", "nothing answers any more"
    causes = ("index cannot be reached", "connection was lost", "download was interrupted")
    assert any(cause in caught.value.what for cause in causes)

    index.dead, index.dies_at = False, None
    index.asked.clear()
    environment = site.ensure()
    assert site.said("start")[0].startswith("Completing")
    assert "torch-2.13.0-py3-none-any.whl" not in index.asked, "what was there is kept"
    assert imported(environment, "camel.__name__") == "camel"


def test_a_file_that_is_not_the_locked_one_is_refused(site: Site, small: SmallStack) -> None:
    file = small.wheels / "badger-2.1-py3-none-any.whl"
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(OutsideFailed) as caught:
        site.ensure()
    assert caught.value.code == "environment.hash"


def test_a_torch_that_is_not_the_locked_one_is_refused_from_every_source(
    site: Site, small: SmallStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = small.wheels / "torch-2.13.0-py3-none-any.whl"
    file.write_bytes(file.read_bytes() + b"more")
    for source in ("index", "local"):
        if source == "local":
            monkeypatch.setenv("PIP_FIND_LINKS", str(small.wheels))
        with pytest.raises(OutsideFailed) as caught:
            site.ensure()
        assert caught.value.code == "environment.hash", source
    assert not list(site.packages.glob("torch*"))


def test_no_source_has_the_right_build(
    site: Site, small: SmallStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index has another build of the same version, as PyPI has one for CUDA only; the person has constraints."""
    (tmp_path / "constraints.txt").write_text("torch<=2.14.1\naardvark<1\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    builds = {"2.13.0+cpu": small.stack.torch_builds["2.13.0"]}
    (small.wheels.parent / "torch.txt").write_text(
        (small.wheels.parent / "torch.txt").read_text().replace("torch===2.13.0", "torch==2.13.0+cpu")
    )
    other = Site(small._replace(stack=replace(small.stack, torch_builds=builds)), site.paths.data.parent)
    with pytest.raises(OutsideFailed) as caught:
        other.ensure()
    assert caught.value.code == "environment.index"
    assert "2.13.0+cpu" in caught.value.what and "PIP_FIND_LINKS" in caught.value.next
    assert not list(other.packages.glob("torch*"))

    lock = tmp_path / "larger.txt"
    # as PyPI's wheel names itself
    lock.write_text(torch_lock(wheel(small.wheels, "torch", "2.13.0", torch_files("2.13.0+cu130", cuda="13.0"))))
    larger = replace(other.small.stack, torch_fallback={"2.13.0": str(lock)})
    fallen_back = Site(other.small._replace(stack=larger), site.paths.data.parent)
    made = fallen_back.ensure()
    assert (made.torch, made.torch_from, made.torch_verified) == ("2.13.0", "configured", "sha256")
    assert any("No source has torch 2.13.0+cpu" in text for text in fallen_back.said("note"))


def test_a_torch_without_a_known_hash_has_to_be_accepted_first(site: Site, small: SmallStack, index: Index) -> None:
    unknown = Site(small._replace(stack=replace(small.stack, torch_builds={"2.13.0": ""})), site.paths.data.parent)
    with pytest.raises(Refused) as caught:
        unknown.ensure()
    assert caught.value.code == "environment.unverified"
    assert index.asked == [] and not list(site.paths.environments.glob("small-*-py3.*[0-9]")), "nothing was begun"
    accept_unverified(unknown.small.stack, site.paths)
    environment = unknown.ensure()
    assert environment.torch_verified == "unverified"
    assert any("unverified: no sha256 of it is known" in text for text in unknown.said("note"))


def test_what_was_accepted_is_one_index_and_no_other(
    site: Site, small: SmallStack, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own index has it without its library, and others that pip knows have both."""
    (tmp_path / "torchs").mkdir()
    wheel(tmp_path / "torchs", "torch", "2.13.0", torch_files(), needs="camel==0.3")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index.url)
    with served(tmp_path / "torchs") as torchs:
        for url in (NOWHERE, torchs.url):
            stack = replace(small.stack, torch_builds={"2.13.0": ""}, torch_index=url, torch_brings=True)
            other = Site(small._replace(stack=stack), site.paths.data.parent)
            accept_unverified(stack, site.paths)
            with pytest.raises(OutsideFailed) as caught:
                other.ensure()
            assert caught.value.code == "environment.index", url
    assert index.asked == []


def test_a_torch_of_another_build_is_refused_when_installed_and_before_each_use(
    site: Site, small: SmallStack, index: Index
) -> None:
    right = (small.wheels / "torch-2.13.0-py3-none-any.whl").read_bytes()
    wheel(small.wheels, "torch", "2.13.0", torch_files(cuda="13.0"))
    unknown = Site(small._replace(stack=replace(small.stack, torch_builds={"2.13.0": ""})), site.paths.data.parent)
    accept_unverified(unknown.small.stack, site.paths)
    for _ in range(2):
        index.asked.clear()
        with pytest.raises(Refused) as caught:
            unknown.ensure()
        assert caught.value.code == "environment.wrong-torch" and "CUDA 13.0" in caught.value.why
        assert "torch-2.13.0-py3-none-any.whl" in index.asked, "what was refused is not kept"
    (small.wheels / "torch-2.13.0-py3-none-any.whl").write_bytes(right)
    environment = unknown.ensure()
    assert (environment.torch_cuda, environment.torch_hip) == (None, None)

    file = unknown.packages / "torch" / "version.py"
    # of the same length, so that only the content tells
    file.write_text(file.read_text().replace("cuda: Optional[str] = None", "cuda: Optional[str] = '13'"))
    with pytest.raises(Refused) as caught:
        unknown.ensure()
    assert caught.value.code == "environment.wrong-torch"


def test_a_package_that_the_index_lacks(site: Site, small: SmallStack) -> None:
    (small.wheels / "badger-2.1-py3-none-any.whl").unlink()
    with pytest.raises(OutsideFailed) as caught:
        site.ensure()
    assert caught.value.code == "environment.not-offered"


SCRIPT = """
import sys; sys.path.insert(0, {root!r})
import msgspec
from checks.catalogue import Stack
from {ensure.__module__} import {ensure.__name__} as ensure
from {machine.__module__} import LocalMachine
from machine.paths import paths
stack = msgspec.json.decode({stack!r}, type=Stack)
ensure(stack, LocalMachine(), paths({{"GPU_SETUP_HOME": {home!r}}}), lambda event: print(event.text, flush=True))
print("built", flush=True)
"""


@contextlib.contextmanager
def building(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    """`ensure` in a process of its own, which leads its group; SIGKILL to the whole group at the block's end."""
    import msgspec

    script = SCRIPT.format(
        root=str(ROOT),
        stack=msgspec.json.encode(site.small.stack),
        home=str(site.paths.data.parent),
        ensure=ensure_environment,
        machine=LocalMachine,
    )
    child = subprocess.Popen(
        [sys.executable, "-I", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def pips(folder: Path) -> list[int]:
    """The pips at work in the environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if place.read_bytes().startswith(f"{folder}/bin/python\0-m\0pip\0".encode()):
                found.append(int(place.parent.name))
    return found


def wait_for(what: Callable[[], object], seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, "it never came so far"
        time.sleep(0.02)


def test_killed_while_pip_downloads_then_resumed(site: Site, index: Index) -> None:
    index.crawls_at = "camel"
    with building(site):
        assert index.crawling.wait(60)
    assert pips(site.folder), "pip has a group of its own and is still at work"

    index.crawls_at = None
    environment = site.ensure()
    assert any("orphaned pip" in text for text in site.said("note"))
    assert site.said("start")[0].startswith("Completing")
    assert imported(environment, "camel.__name__") == "camel"
    assert not pips(site.folder)


@pytest.mark.parametrize("parts", [2000])
def test_killed_while_pip_installs_then_resumed(site: Site, small: SmallStack, parts: int) -> None:
    written = "small-*/lib/python3*/site-packages/camel/part1*.py"
    with building(site):
        wait_for(lambda: list(site.paths.environments.glob(written)))
    for left in pips(site.folder):
        os.kill(left, signal.SIGKILL)
    wait_for(lambda: not pips(site.folder))
    assert small.stack.lock
    lock = load_lock(small.stack.lock, f"{sys.version_info.major}.{sys.version_info.minor}")
    assert "camel" in missing_packages(site.folder, lock, ["2.13.0"]), "the kill came too late to show anything"

    environment = site.ensure()
    assert missing_packages(site.folder, lock, ["2.13.0"]) == set()
    assert len(list((site.packages / "camel").glob("part*.py"))) == parts
    assert imported(environment, "camel.__name__") == "camel"


def test_two_at_once_build_one(site: Site, small: SmallStack, index: Index) -> None:
    other = Site(small, site.paths.data.parent)
    thread = threading.Thread(target=other.ensure)
    thread.start()
    wait_for(lambda: other.said("start"))
    environment = site.ensure()
    thread.join()
    assert any("waiting for it" in text for text in site.said("note"))
    assert not site.said("start")
    assert imported(environment, "badger.answer") == "7"
    assert len(index.asked) == 4


def test_ctrl_c_while_pip_works_leaves_no_process(site: Site, index: Index) -> None:
    index.crawls_at = "camel"
    with building(site) as child:
        assert index.crawling.wait(60)
        child.send_signal(signal.SIGINT)
        child.wait(20)
        assert not pips(site.folder)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB; needs root."""
    with mounted(tmp_path / "disk", "size=64m") as disk:
        yield disk


def test_too_little_space_is_reported_before_anything_is_done(tiny_disk: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-I", str(ROOT / "gpu_setup" / "__main__.py"), "environment", "--json"],
        env={**os.environ, "GPU_SETUP_HOME": str(tiny_disk)},
        capture_output=True,
        text=True,
    )
    document = json.loads(told.stdout)
    assert (told.returncode, document["exit_code"]) == (4, 4)
    (error,) = document["errors"]
    assert error["code"] == "environment.no-room"
    assert "0.1 GB are free" in error["what"]
    assert "GPU_SETUP_HOME" in error["next"]


@pytest.mark.parametrize("parts", [2000])
def test_a_disk_that_fills_up_in_the_middle(
    tiny_disk: Path, small: SmallStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.environment.build.ROOM_NEEDED", 0)
    site = Site(small, tiny_disk)
    (tiny_disk / "ballast").write_bytes(b"x" * (30 << 20))
    with pytest.raises(OutsideFailed) as caught:
        site.ensure()
    assert caught.value.code == "environment.no-room"
    (tiny_disk / "ballast").unlink()
    assert imported(site.ensure(), "badger.answer") == "7"


def test_a_home_that_is_read_only(tiny_disk: Path, small: SmallStack) -> None:
    for made in (False, True):
        if made:
            subprocess.run(["mount", "-o", "remount,rw", str(tiny_disk)], check=True)
            (tiny_disk / "data" / "env").mkdir(parents=True)
        subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
        with pytest.raises(OutsideFailed) as caught:
            Site(small, tiny_disk).ensure()
        assert caught.value.code in ("paths.unwritable", "disk.unwritable")
        assert "GPU_SETUP_HOME" in caught.value.next


def test_a_python_without_a_lock_is_refused(small: SmallStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    old = small._replace(stack=msgspec.structs.replace(small.stack, pythons=("3.4",)))
    with pytest.raises(Refused) as caught:
        Site(old, tmp_path / "home").ensure()
    assert caught.value.code == "environment.python"
    assert "3.4" in caught.value.what and "sudo apt install python3.4-venv" in caught.value.next
    none = small._replace(stack=msgspec.structs.replace(small.stack, lock=None))
    with pytest.raises(Refused) as caught:
        Site(none, tmp_path / "home").ensure()
    assert caught.value.code == "environment.no-lock"


def test_where_an_environment_is(small: SmallStack, tmp_path: Path) -> None:
    from harness.environment.build import PythonInterpreter

    assert small.stack.lock
    lock = load_lock(small.stack.lock, "3.12")
    python = PythonInterpreter("python3.12", "3.12")
    place = environment_folder(Paths(tmp_path, tmp_path, tmp_path), small.stack, lock, python)
    assert place == tmp_path / "env" / f"{small.stack.name}-{lock.digest[:12]}-py3.12"


@pytest.mark.full
def test_the_real_environment_is_repaired_too(
    training: Training, persons_environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One module of a real package deleted and another cut short; only these two packages are fetched again."""
    monkeypatch.setenv("HOME", persons_environ.get("HOME", "/root"))
    (packages,) = Path(training.environment.folder).glob("lib/python3*/site-packages")
    (packages / "colorama" / "winterm.py").unlink()
    (packages / "addict" / "addict.py").write_text("")
    events: list[Event] = []
    ensure_environment(training.stack, LocalMachine(), training.paths, events.append)
    assert "Repairing" in events[0].text and "2 packages" in events[0].text
    assert (packages / "colorama" / "winterm.py").stat().st_size > 0
    assert (packages / "addict" / "addict.py").stat().st_size > 0
