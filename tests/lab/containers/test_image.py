"""The real CPU image: built from a local base without network, verified from inside, used for training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from checks.catalogue import catalogue
from checks.facts.host import Docker
from checks.facts.read import read_host
from containers.build import Sources, build_image
from containers.container import Container
from containers.device_options import Devices
from containers.dockerfile import ENVIRONMENT, UID
from containers.engine import choose_engine, docker_engine
from containers.model import ImageVendor
from containers.spec import image_spec
from harness.environment.worker_process import WORKER
from harness.recipe.loader import SAMPLES
from machine.events import silent
from machine.local import LocalMachine
from machine.paths import paths
from tests.gpu_setup.commands.test_train_out import states
from tests.lab.containers.conftest import Site, copy_models
from tests.lab.containers.engines import run_inside
from tests.lab.training import Ended, Training, command, runs, steps

pytestmark = pytest.mark.lab

LARGEST = 4.0e9


def image_of(built: Ended) -> str:
    name = built.data["tag"]
    assert isinstance(name, str)
    return name


def inside(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """`gpu-setup image run -- WORDS`, in an empty folder."""
    folder = site.home / "empty"
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        command("image", "run", "--vendor", "cpu", *words),
        env={**os.environ, **site.engine.environ, "GPU_SETUP_HOME": str(site.home)},
        stdin=subprocess.DEVNULL,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_it_is_built_within_its_size(site: Site, built: Ended) -> None:
    """benchmarks/image.py says how long that takes."""
    made = built.data["built"]
    assert made["size"] <= LARGEST
    assert made["seconds"] > 0
    assert made["steps"] >= 9
    assert built.data["spec"]["stack"] == "cpu"
    assert site.engine.containers() == []


def test_labels_and_user(site: Site, built: Ended) -> None:
    (found,) = json.loads(site.engine.checked("image", "inspect", image_of(built)))
    labels, spec = found["Config"]["Labels"], built.data["spec"]
    assert labels["gpu-setup.stack"] == "cpu"
    assert labels["gpu-setup.lock"] == spec["lock_digest"]
    assert labels["org.opencontainers.image.version"] == built.document["tool_version"]
    assert found["Config"]["User"] == "10001:10001"


def test_secrets_of_the_build_left_nothing(site: Site, built: Ended) -> None:
    look = (
        "for f in /run/secrets /wheels /etc/pip.conf; do [ ! -e $f ] || echo $f; done; "
        "grep -rls secret- /etc /opt/gpu-setup/*.txt"
    )
    found = inside(site, "--", "sh", "-c", look)
    assert (found.stdout, found.stderr) == ("", "")
    history = site.engine.checked("history", "--no-trunc", image_of(built))
    assert "secret-ca" not in history and "secret-pip" not in history
    assert str(site.certificates) not in history


def test_nothing_changed_builds_nothing(site: Site, built: Ended) -> None:
    """benchmarks/image.py says how long that takes."""
    again = site.build()
    assert again.data["built"]["id"] == built.data["built"]["id"]
    assert again.data["built"]["cached"] >= built.data["built"]["steps"] - 1


def test_a_new_worker_rebuilds_its_own_layer_only(
    site: Site, built: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in site.engine.environ.items():
        monkeypatch.setenv(name, value)
    machine = LocalMachine()
    host = read_host(machine)
    spec = image_spec(host, catalogue(), ImageVendor.CPU, site.base)
    worker = tmp_path / "worker"
    shutil.copytree(WORKER, worker)
    (worker / "gpu_setup_worker" / "new.py").write_text("NEW = 1\n")
    sources = Sources(worker, "9.9.9", site.certificates, site.pip_config, site.wheels, offline=True)
    places = paths({"GPU_SETUP_HOME": str(site.home)})
    try:
        made = build_image(spec, choose_engine(host, machine), sources, machine, places, silent)
        assert made.id != built.data["built"]["id"]
        assert made.steps - made.cached <= 2  # the worker's layer; the base itself counts as a step
        # training code of another gpu-setup is refused, and the way out is named
        refused = site.tool("image", "verify", "--vendor", "cpu", "--base", site.base)
        assert (refused.rc, refused.error["code"]) == (3, "image.old-worker")
    finally:
        site.build()
    # the image that lost its name is gone: nothing piles up
    assert site.engine.checked("image", "ls", "--quiet", "--filter", "dangling=true") == ""


def test_it_is_verified_from_inside(site: Site, built: Ended) -> None:
    ended = site.tool("image", "verify", "--vendor", "cpu")
    assert ended.rc == 0, ended.stderr
    found = {row["id"]: row for row in ended.data["checks"]}
    assert ended.data["verdict"] == "pass"
    assert ended.data["image"] == image_of(built)
    status = {name: row["status"] for name, row in found.items()}
    assert status == {
        **dict.fromkeys(("user", "network", "torch", "versions", "bitsandbytes", "device", "compiler"), "pass"),
        **dict.fromkeys(("nf4", "recipes"), "pass"),
        **dict.fromkeys(("kernels", "triton"), "skip"),
    }
    assert found["user"]["values"] == {"uid": 10001, "capabilities": 0}
    assert found["versions"]["values"]["packages"] > 100
    assert found["nf4"]["values"]["faults_seen"] == dict.fromkeys(("half", "one-row", "scale", "unrelated"), True)
    assert all(row["reason"] for row in found.values())
    assert site.engine.containers() == []


def test_a_broken_nf4_kernel_would_be_seen(site: Site, built: Ended) -> None:
    result = inside(site, "--", "python", "-m", "gpu_setup_worker.nf4_check", "--inject", "unrelated")
    assert result.returncode == 1, result.stderr
    shares = json.loads(result.stdout[result.stdout.index("{") :])
    assert all(value > 10 for name, value in shares.items() if name.startswith("forward"))


ANOTHER = {
    "cuda": (
        ("--cuda", "13.0", "--target", "8.6"),
        {"torch", "kernels", "bitsandbytes", "device", "triton", "nf4"},
        "CUDA",
    ),
    "rocm": (
        ("--hip", "7.2", "--target", "gfx1100"),
        {"torch", "kernels", "bitsandbytes", "device", "triton", "nf4"},
        "HIP",
    ),
    "version": (("--torch", "2.12.0"), {"torch"}, "expected 2.12.0"),
}
# each as `python -m gpu_setup_worker.verify WORDS`; PyTorch is imported once
EACH = """
import json, runpy, sys
import torch
for words in json.loads(sys.argv[1]):
    sys.argv = ["verify", *words]
    runpy.run_module("gpu_setup_worker.verify", run_name="__main__")
"""


def test_another_image_than_wanted_is_seen(site: Site, built: Ended) -> None:
    """The slip that nobody notices: a CPU (or CUDA) torch where another vendor's belongs."""
    result = inside(site, "--", "python", "-c", EACH, json.dumps([words for words, _, _ in ANOTHER.values()]))
    lines = [line for line in result.stdout.splitlines() if line.startswith("gpu-setup-verify: ")]
    for line, (name, (_, broken, said)) in zip(lines, ANOTHER.items(), strict=True):
        rows = {row["id"]: row for row in json.loads(line.partition(": ")[2])["checks"]}
        assert {check for check, row in rows.items() if row["status"] == "fail"} == broken, name
        assert said in rows["torch"]["reason"], name


def test_a_stand_in_device_is_called_one(site: Site, built: Ended) -> None:
    """No card computes here, and nothing claims that one did."""
    found = docker_engine(Docker(kind="docker.io", answers=True), "20.10", False, "default")
    nowhere = Devices(nodes=("/dev/null:/dev/nvidia0",))
    container = Container(engine=found, image=image_of(built), user=None, devices=nowhere, limits=())
    words = (f"{ENVIRONMENT}/bin/python", "-m", "gpu_setup_worker.verify", "--cuda", "13.0", "--target", "8.6")
    result = run_inside(site.engine.environ, container, *words)
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("gpu-setup-verify: "))
    document = json.loads(line.partition(": ")[2])
    assert document["device"] == "stub"
    status = {row["id"]: row["status"] for row in document["checks"]}
    assert {name for name, word in status.items() if word == "stub"} == {"device", "triton", "nf4"}
    (triton,) = (row for row in document["checks"] if row["id"] == "triton")
    assert triton["values"]["8.6"] > 1000  # bytes of machine code: compiling needs no card


def test_a_package_that_is_not_the_locked_one_is_seen(site: Site, built: Ended, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    lock = tmp_path / "lock.txt"
    lock.write_text("numpy==0.1 \\\n    --hash=sha256:00\nnot-there==1.0 \\\n    --hash=sha256:00\n")
    result = inside(
        site, "--mount", str(tmp_path), "--", "python", "-m", "gpu_setup_worker.verify", "--lock", str(lock)
    )
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("gpu-setup-verify: "))
    (row,) = (row for row in json.loads(line.partition(": ")[2])["checks"] if row["id"] == "versions")
    assert row["status"] == "fail"
    assert "expected 0.1" in row["reason"] and "not-there absent" in row["reason"]


def test_the_builds_own_proof_refuses_another_vendors_torch(site: Site, built: Ended) -> None:
    from containers.dockerfile import _torch_check
    from containers.errors import known_cause
    from tests.containers.hosts import host

    wanted = _torch_check(image_spec(host("rx7900xtx-healthy"), catalogue()))
    result = inside(site, "--", "python", "-c", wanted)
    assert result.returncode == 1
    cause = known_cause(result.stderr)
    assert cause is not None and cause.code == "wrong-torch"
    assert inside(site, "--", "python", "-c", _torch_check(image_spec(host("no-gpu"), catalogue()))).returncode == 0


@pytest.fixture(scope="module")
def models(site: Site, training: Training) -> None:
    """The tiny model of the runs outside, copied for the container's user."""
    copy_models(training, site.home)


@pytest.mark.full
def test_a_bench_runs_inside(site: Site, built: Ended, models: None) -> None:
    ended = site.tool("bench", "--recipe", "tiny", "--steps", "2", "--runtime", "image")
    assert ended.rc == 0, ended.document
    used = ended.data["environment"]
    assert (used["torch_from"], used["torch_verified"]) == ("image", "sha256")
    assert site.engine.containers() == []


def test_a_folder_of_somebody_else_is_refused_and_keeps_its_owner(site: Site, built: Ended, tmp_path: Path) -> None:
    """The container's user cannot write root's folder; root made it, perhaps for something else."""
    (out := tmp_path / "out").mkdir()
    before = states(tmp_path)
    words = ("train", str(SAMPLES / "house-style.json"), "--recipe", "tiny", "--runtime", "image", "--out", str(out))
    ended = site.tool(*words)
    assert (ended.rc, ended.error["code"]) == (3, "image.not-writable")
    assert states(tmp_path) == before


@pytest.mark.full
def test_ones_own_data_are_trained_on_inside(site: Site, built: Ended, models: None, tmp_path: Path) -> None:
    data, out = tmp_path / "mine" / "rows.json", tmp_path / "model"
    data.parent.mkdir()
    data.write_text(json.dumps(json.loads((SAMPLES / "house-style.json").read_text())[:40]))
    words = ("--recipe", "tiny", "--steps", "3", "--no-examine", "--out", str(out))
    ended = site.tool("train", str(data), *words, "--runtime", "image")
    assert ended.rc == 0, ended.document
    assert (out / "adapter" / "adapter_model.safetensors").is_file()
    assert site.engine.containers() == []


def test_tiny_trains_inside_with_the_same_losses_as_outside(
    site: Site, built: Ended, models: None, tiny_run: Ended
) -> None:
    """Without network, without root, on the model and the data of the run outside."""
    before = runs(site.home)
    ended = site.tool("smoke", "--recipe", "tiny", "--runtime", "image", timeout=600)
    assert ended.rc == 0, ended.stderr
    (folder,) = (place for place in runs(site.home) if place not in before)
    within = [step["loss"] for step in steps(folder)]
    without = [step["loss"] for step in steps(Path(tiny_run.data["folder"]))]
    assert len(within) == len(without) == 30
    assert max(abs(a - b) for a, b in zip(within, without, strict=True)) <= 1e-3
    assert ended.data["verdict"] == "pass"
    start = json.loads((folder / "worker.jsonl").read_text().splitlines()[0])
    assert start["event"] == "start"
    # the run's folder and all in it are the container's user's; what was there before is as it was
    assert (folder.stat().st_uid, (folder / "worker.jsonl").stat().st_uid) == (UID, UID)
    assert {place.stat().st_uid for place in (folder.parent, site.home / "state", site.home / "cache")} == {0}
    assert json.loads((folder / "run.json").read_text())["status"] == "done"
    assert site.engine.containers() == []
