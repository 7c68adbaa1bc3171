"""A model from the hub: the real client of the training environment against a hub of the test's own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from harness.environment.base_model import ensure_model
from harness.environment.model_download import KnownModel, ensure_downloaded, model_folder, read_source
from harness.recipe.loader import load_recipe
from machine.errors import OutsideFailed, Problem, Refused
from machine.events import Event, silent
from machine.local import LocalMachine
from machine.paths import paths
from tests.lab.hub_server import REVISION, Hub, served
from tests.lab.training import Training, own_recipe, started, tool, wait_for

pytestmark = pytest.mark.lab
NAME = "workbench/tiny-mistral"
# huggingface_hub writes 10 MB at a time; of 16 MB the hub sends 12 and cuts
PIECE = 10 << 20
CUT = ("model.safetensors", 12 << 20)


@pytest.fixture(scope="module")
def model(training: Training) -> Path:
    """The small Mistral's folder, as a repository would hold it."""
    return Path(ensure_model(load_recipe("tiny"), training.environment, LocalMachine(), training.paths, silent))


@pytest.fixture
def hub(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model that also has what is not to be fetched: pickles, code, a second copy of the weights."""
    repository = tmp_path / "repository"
    shutil.copytree(model, repository)
    (repository / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (repository / "modeling_tiny.py").write_text("raise SystemExit('the model runs code')\n")
    (repository / "consolidated.safetensors").write_bytes(bytes(100))
    (repository / "LICENSE").write_text("Apache License 2.0\n")
    with served({NAME: repository}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        for proxy in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(proxy, raising=False)
        yield hub


def get(training: Training, home: Path, said: list[Event] | None = None, revision: str | None = None) -> Path:
    emit = said.append if said is not None else silent
    places = paths({"GPU_SETUP_HOME": str(home)})
    return Path(ensure_downloaded(NAME, revision, training.environment, LocalMachine(), places, emit))


def test_size_first_then_every_file_checked_and_no_pickles(training: Training, hub: Hub, tmp_path: Path) -> None:
    said: list[Event] = []
    folder = get(training, tmp_path / "home", said)
    assert sorted(file.suffix for file in folder.iterdir() if file.suffix in (".bin", ".py")) == []
    assert not (folder / "consolidated.safetensors").exists() and not (folder / ".cache").exists()
    for name in ("model.safetensors", "config.json", "tokenizer.json", "LICENSE"):
        assert (folder / name).read_bytes() == (hub.models[NAME] / name).read_bytes()
    note, check = (event.text for event in said if event.kind == "note")
    assert "no sha256 of its files" in check and "not a changed model" in check
    assert "apache-2.0" in note and "GB in" in note and REVISION[:12] in note
    source = read_source(folder)
    assert source is not None
    assert (source.repo, source.revision, source.licence) == (NAME, REVISION, "apache-2.0")
    hub.asked.clear()
    assert get(training, tmp_path / "home") == folder
    assert hub.asked == [], "a model that is there needs no hub"


def test_a_lost_connection_resumes_in_the_middle_of_the_file(training: Training, hub: Hub, tmp_path: Path) -> None:
    hub.cut, hub.cuts = CUT, 1
    folder = get(training, tmp_path / "home")
    assert (folder / "model.safetensors").read_bytes() == (hub.models[NAME] / "model.safetensors").read_bytes()
    starts = [int(line.split()[1]) for line in hub.ranges if line.startswith("model.safetensors")]
    assert starts == [PIECE]


def test_what_a_dead_hub_leaves_is_resumed_later(training: Training, hub: Hub, tmp_path: Path) -> None:
    hub.cut, hub.cuts, hub.dies = CUT, 1, True
    with pytest.raises(OutsideFailed) as failed:
        get(training, tmp_path / "home")
    assert failed.value.code == "model.unreachable"
    assert "HF_ENDPOINT" in failed.value.next
    folder = model_folder(tmp_path / "home" / "cache" / "models", NAME, None)
    assert folder.exists() and read_source(folder) is None, "nothing looks whole"
    hub.down = False
    assert get(training, tmp_path / "home") == folder
    assert hub.ranges == [f"model.safetensors {PIECE}"], "only what was missing came"


def test_wrong_bytes_are_fetched_once_more_and_then_refused(training: Training, hub: Hub, tmp_path: Path) -> None:
    hub.wrong, hub.wrongs = "model.safetensors", 1
    folder = get(training, tmp_path / "home")
    assert (folder / "model.safetensors").read_bytes() == (hub.models[NAME] / "model.safetensors").read_bytes()
    hub.wrong, hub.wrongs = "config.json", 99
    with pytest.raises(OutsideFailed) as failed:
        get(training, tmp_path / "other")
    assert failed.value.code == "model.checksum"
    assert "config.json" in failed.value.what


def test_a_gated_model(training: Training, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated.add(NAME)
    with pytest.raises(OutsideFailed) as failed:
        get(training, tmp_path / "home")
    assert failed.value.code == "model.gated"
    assert f"{hub.url}/{NAME}" in failed.value.next and "hf auth login" in failed.value.next
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert read_source(get(training, tmp_path / "home")) is not None


@pytest.mark.parametrize("what", ["model", "revision", "safetensors", "hub"])
def test_what_cannot_be_had(training: Training, hub: Hub, tmp_path: Path, what: str) -> None:
    expected: tuple[type[Problem], str]
    revision = None
    match what:
        case "model":
            hub.models.clear()
            expected = OutsideFailed, "model.missing"
        case "revision":
            revision = "v9"
            expected = OutsideFailed, "model.missing"
        case "safetensors":
            (hub.models[NAME] / "model.safetensors").unlink()
            (hub.models[NAME] / "consolidated.safetensors").unlink()
            expected = Refused, "model.no-safetensors"
        case _:
            hub.down = True
            expected = OutsideFailed, "model.unreachable"
    with pytest.raises(expected[0]) as failed:
        get(training, tmp_path / "home", revision=revision)
    assert failed.value.code == expected[1]
    assert failed.value.why and failed.value.next


def test_a_pinned_revision_is_what_comes(training: Training, hub: Hub, tmp_path: Path) -> None:
    folder = get(training, tmp_path / "home", revision=REVISION)
    assert folder.name == f"workbench--tiny-mistral-{REVISION[:12]}"
    assert all(f"/revision/{REVISION}" in line for line in hub.asked if "/api/models/" in line)


OTHER = "f" * 40


def test_another_revision_than_the_pinned_one_is_refused(training: Training, hub: Hub, tmp_path: Path) -> None:
    """A mirror that is out of date, or that swaps single files; and a folder that an earlier version took from it."""
    for model, file in ((OTHER, OTHER), (REVISION, OTHER)):
        hub.commit, hub.file_commit = model, file
        with pytest.raises(OutsideFailed) as failed:
            get(training, tmp_path / "home", revision=REVISION)
        assert failed.value.code == "model.other-revision"
        assert REVISION in failed.value.what and OTHER in failed.value.what
        assert read_source(model_folder(tmp_path / "home" / "cache" / "models", NAME, REVISION)) is None
    hub.commit = hub.file_commit = REVISION
    folder = get(training, tmp_path / "home", revision=REVISION)
    (folder / "source.json").write_text((folder / "source.json").read_text().replace(REVISION, OTHER))
    hub.asked.clear()
    get(training, tmp_path / "home", revision=REVISION)
    source = read_source(folder)
    assert hub.asked and source is not None and source.revision == REVISION


def test_a_file_that_is_not_the_known_one_is_refused_before_it_is_loaded(
    training: Training, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own digests are those of the changed files: they prove nothing."""
    repository = hub.models[NAME]
    known = {
        name: hashlib.sha256((repository / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "config.json")
    }
    model = KnownModel(REVISION, known, "this test", "2026-11-30")
    monkeypatch.setattr("harness.environment.model_download.known_models", lambda: {NAME: model})
    said: list[Event] = []
    folder = get(training, tmp_path / "home", said, revision=REVISION)
    assert any("2 of its files are checked with gpu-setup's own sha256" in event.text for event in said)
    assert read_source(folder) is not None
    for name in known:
        right = (repository / name).read_bytes()
        (repository / name).write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
        with pytest.raises(OutsideFailed) as failed:
            get(training, tmp_path / f"home {name}", revision=REVISION)
        assert failed.value.code == "model.changed"
        assert name in failed.value.what and known[name] in failed.value.what
        assert not list((tmp_path / f"home {name}").rglob(f"{name}")), "it is not kept"
        (repository / name).write_bytes(right)
    (repository / "config.json").rename(repository / "config.old.json")
    with pytest.raises(OutsideFailed, match=r"config\.json is missing there"):
        get(training, tmp_path / "gone", revision=REVISION)

    snapshot = tmp_path / "hf" / "hub" / f"models--{NAME.replace('/', '--')}" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ensure = partial(ensure_downloaded, NAME, REVISION, training.environment, LocalMachine())
    assert ensure(paths({"GPU_SETUP_HOME": str(tmp_path)}), silent) == NAME
    (snapshot / "config.json").write_text("{}")
    with pytest.raises(OutsideFailed) as failed:
        ensure(paths({"GPU_SETUP_HOME": str(tmp_path)}), silent)
    assert failed.value.code == "model.changed"


def hub_recipe(folder: Path) -> Path:
    changes = (("base_model: tiny-random-mistral", f"base_model: {NAME}"), ("max_steps: 30", "max_steps: 2"))
    return own_recipe(folder, *changes)


def test_a_training_fetches_and_the_card_names_the_revision(own_home: Path, hub: Hub, tmp_path: Path) -> None:
    """Killed in the middle of the fetch, gone on with by the same command, trained; the hub is needed no more."""
    own_models(own_home)
    (tmp_path / "mine.json").write_text(json.dumps(rows()))
    words = (
        "train",
        str(tmp_path / "mine.json"),
        "--recipe",
        str(hub_recipe(tmp_path)),
        "--steps",
        "2",
        "--no-examine",
    )
    hub.cut, hub.cuts, hub.dies = CUT, 1, True
    with started(own_home, *words) as child:
        wait_for(lambda: hub.down)
        os.killpg(child.pid, signal.SIGKILL)
    hub.down = False
    ended = tool(own_home, *words)
    assert ended.rc == 0, ended.stderr
    card = (Path(ended.data["adapter"]) / "README.md").read_text()
    assert f"base_model: {NAME}" in card and REVISION in card and "license: apache-2.0" in card
    adapter = json.loads((Path(ended.data["adapter"]) / "adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == (NAME, REVISION)


def own_models(home: Path) -> None:
    """A place for models of the test's own: the shared one is not written to."""
    (home / "cache" / "models").unlink()


def rows() -> list[dict[str, str]]:
    return [
        {"instruction": f"Name tool number {number}.", "input": "", "output": f"Tool number {number} is a {tool_name}."}
        for number, tool_name in enumerate(("saw", "plane", "chisel", "mallet", "drill", "rasp", "vice", "clamp") * 2)
    ]
