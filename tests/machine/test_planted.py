"""Nothing planted on a machine comes out of it: not by a bundle, a recording, facts, doctor, plan, or a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.allowed import sources
from checks.catalogue import catalogue
from checks.facts.read import read_host
from checks.registry import ALL
from checks.runner import run
from gpu_setup import bundle
from gpu_setup.commands.facts import copy_of
from gpu_setup.envelope import Answer, encode
from machine.recorder import RecordingMachine, identities_of, machine_file, write
from machine.recording import RecordedMachine
from tests.machine.planted_values import TURNS, Planted, plant, shown
from tests.machine.test_secrets import everything
from tests.recorded_machines import unpack
from tests.tool import answered

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", params=range(TURNS))
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Planted]]:
    place = tmp_path_factory.mktemp("planted") / "machine"
    unpack("h100-server-healthy", place)
    return place, plant(place, request.param)


def table(found: list[Planted]) -> list[tuple[str, str]]:
    return [(one.kind, one.text) for one in found]


def test_enough_is_planted_and_is_read(planted: tuple[Path, list[Planted]]) -> None:
    place, found = planted
    assert len({one.value for one in found}) >= 100 and len({one.kind for one in found}) >= 30
    seen = RecordingMachine(RecordedMachine(place))
    read_host(seen)
    raw = repr((seen.files, seen.folders, seen.links, seen.spaces, seen.outcomes, seen.bindings, seen.unreadable))
    raw += repr(seen.session())
    assert table([one for one in found if one.value not in raw]) == []


def test_nothing_is_in_a_bundle_or_a_recording(planted: tuple[Path, list[Planted]], tmp_path: Path) -> None:
    place, found = planted
    seen = RecordingMachine(RecordedMachine(place))
    report = run(read_host(seen), catalogue(), ALL)
    bundle.write(seen, report, catalogue(), str(tmp_path / "b.tar.gz"), force=False)
    who = identities_of(seen.machine)
    write(seen, tmp_path / "folder", who, {"name": "x"}, sources)
    folder = b"".join(
        str(path).encode() + path.read_bytes() for path in (tmp_path / "folder").rglob("*") if path.is_file()
    )
    names = "\n".join(str(path.relative_to(tmp_path)) for path in (tmp_path / "folder").rglob("*")).encode()
    documents = {
        "bundle": everything((tmp_path / "b.tar.gz").read_bytes()),
        "folder": folder + names,
        "one file": machine_file(seen, who, {"name": "x"}, sources),
        "facts": encode(Answer("facts", read_host(copy_of(RecordedMachine(place))), 0, str)),
    }
    assert {name: table(list(shown(data, found))) for name, data in documents.items()} == {
        name: [] for name in documents
    }


@pytest.mark.parametrize(
    "command", [("facts", "--json"), ("doctor", "--json"), ("plan", "--json"), ("image", "render", "--json")]
)
def test_nothing_is_in_the_documents_of_this_machine(
    planted: tuple[Path, list[Planted]], capfd: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    place, found = planted
    _, document = answered(capfd, *command, "--machine", str(place))
    kept = [one for one in found if one.here or command[0] == "facts"]
    assert table(list(shown(document.encode(), kept))) == []


def test_nothing_is_in_a_plan_file(
    planted: tuple[Path, list[Planted]], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place, found = planted
    answered(capfd, "plan", "--machine", str(place), "--out", str(tmp_path / "plan.json"))
    data = (tmp_path / "plan.json").read_bytes()
    assert table(list(shown(data, [one for one in found if one.here]))) == []
