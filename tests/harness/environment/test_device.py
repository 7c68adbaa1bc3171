"""Which card a run is kept to, and what makes an old run too old to be shown again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from checks.catalogue import catalogue
from checks.facts.read import read_host
from gpu_setup.up import Person, choose, inspect
from harness.environment.stack_choice import choose_stack
from harness.environment.worker_process import worker_environment
from harness.jobs.job_choice import JobRequest, require_pretrained
from harness.pipeline import inputs_digest
from harness.recipe.loader import load_recipe
from machine.errors import BadUsage, Refused
from machine.recording import RecordedMachine
from tests.harness.examples import ENVIRONMENT, job

Load = Callable[[str], RecordedMachine]


def test_a_run_is_kept_to_the_chosen_card(machine: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    host = read_host(machine("rtx3090-healthy"))
    chosen = choose_stack(host, catalogue())
    assert host.nvidia.nvml and chosen.device == host.nvidia.nvml[0].uuid
    assert worker_environment(ENVIRONMENT, device=chosen.device)["CUDA_VISIBLE_DEVICES"] == chosen.device


def test_what_the_person_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert "CUDA_VISIBLE_DEVICES" not in worker_environment(ENVIRONMENT, device="GPU-1")


def test_amds_attention_kernels_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL"
    monkeypatch.delenv(name, raising=False)
    rocm = msgspec.structs.replace(ENVIRONMENT, stack="rocm7.2")
    assert worker_environment(rocm)[name] == "1"
    assert name not in worker_environment(ENVIRONMENT)
    monkeypatch.setenv(name, "0")
    assert worker_environment(rocm)[name] == "0"


def test_the_token_goes_only_where_the_hub_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "HF_TOKEN" not in worker_environment(ENVIRONMENT)
    assert worker_environment(ENVIRONMENT, offline=False)["HF_TOKEN"] == "hf_secret"


def test_another_driver_is_another_figure(machine: Load) -> None:
    host = read_host(machine("rtx3090-healthy"))
    newer = msgspec.structs.replace(host, nvidia=msgspec.structs.replace(host.nvidia, module_version="999.1"))
    digests = {
        inputs_digest(
            msgspec.structs.replace(job(), conditions=choose_stack(each, catalogue()).conditions),
            ENVIRONMENT,
            "base",
        )
        for each in (host, host, newer)
    }
    assert len(digests) == 2


def hub_answers() -> bool:
    return True


def hub_is_gone() -> bool:
    return False


def test_up_asks_before_it_trains_without_the_installed_card(machine: Load, tmp_path: Path) -> None:
    seen = inspect(machine("rtx3090ti-fresh"), catalogue())
    asked: list[str] = []

    def answer(yes: bool) -> Person:
        return Person(lambda question: asked.append(question) is None and yes)

    with pytest.raises(Refused, match="driver is not in place"):
        choose(seen, JobRequest(), answer(False), tmp_path)
    chosen = choose(seen, JobRequest(), answer(True), tmp_path)
    assert (chosen.recipe.name, chosen.stack.name) == ("smollm2-135m-qlora", "cpu")
    assert all("cannot be used yet (RTX 3090 Ti" in question for question in asked)
    assert seen.plan.open_steps()


def test_up_asks_before_the_large_download(machine: Load, tmp_path: Path) -> None:
    seen = inspect(machine("rtx3090-healthy"), catalogue())
    asked: list[str] = []
    shown: list[str] = []
    person = Person(lambda question: asked.append(question) is None, lambda stage, text: shown.append(text))
    chosen = choose(seen, JobRequest(), person, tmp_path, hub_answers)
    assert len(shown) == 1 and shown[0].startswith("mistral-7b-qlora: ") and "GiB are free" in shown[0]
    assert (chosen.recipe.name, chosen.stack.name) == ("mistral-7b-qlora", "cu130")
    assert "14.5 GB" in asked[0]
    assert (
        choose(seen, JobRequest(), Person(lambda _: False), tmp_path, hub_answers).recipe.name == "smollm2-135m-qlora"
    )


def test_without_a_hub_up_draws_the_weights_and_downloads_nothing(machine: Load, tmp_path: Path) -> None:
    seen = inspect(machine("rtx3090-healthy"), catalogue())
    asked: list[str] = []
    chosen = choose(seen, JobRequest(), Person(lambda question: asked.append(question) is None), tmp_path, hub_is_gone)
    assert (chosen.recipe.name, asked) == ("mistral-7b-qlora-synthetic", [])
    own = choose(seen, JobRequest(data=tmp_path / "mine.json"), Person(lambda _: True), tmp_path, hub_is_gone)
    assert own.recipe.name == "smollm2-135m-qlora", "a person's data are learnt by real weights or not at all"


def test_random_weights_are_not_taken_for_learning() -> None:
    with pytest.raises(BadUsage, match="learns nothing") as caught:
        require_pretrained(load_recipe("mistral-7b-qlora-synthetic"))
    assert caught.value.next == "gpu-setup bench --recipe mistral-7b-qlora-synthetic"
    require_pretrained(load_recipe("tiny"))
