"""What a benchmark decides before it starts: products, workload, settings, the cache of the NF4 check."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from harness.jobs.bench import LEAST_LAUNCHES, bench_settings, describe_settings, with_min_steps, with_short_warmup
from harness.measure.matmul_ceiling import ceiling_argv, precision_of, products_of, products_seen, read_ceiling
from harness.measure.nf4 import digest, parse_nf4
from harness.measure.run_context import MeasuringMethod, Soak, read_run_context, trained_card
from harness.measure.workload import EXACT, RECIPE, exact_workload, overrides_for
from harness.process.worker_log import StartEvent
from harness.recipe.flops import Sizes
from harness.recipe.loader import load_recipe
from machine.errors import BAD_ANSWER, OUTSIDE_FAILED, Problem
from machine.local import TIMED_OUT, Outcome
from tests.harness.examples import ENVIRONMENT

REFERENCE = load_recipe("mistral-7b-qlora")


def test_the_products_of_the_reference() -> None:
    found = products_of(REFERENCE.config, "/nowhere")
    assert found is not None
    flops = sum(inputs * outputs * count for inputs, outputs, count in found.matrices)
    assert flops == 6_979_321_856 + 131_072_000
    assert found.rows == REFERENCE.config["micro_batch_size"] * REFERENCE.config["sequence_len"]
    assert (found.precision, found.trained) == ("auto", False)
    assert products_of({**REFERENCE.config, "adapter": None}, "/nowhere").trained  # type: ignore[union-attr]


def test_a_models_own_config_goes_before_the_table(tmp_path: Path) -> None:
    config = {
        "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_hidden_layers": 3, "intermediate_size": 128, "vocab_size": 1000,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = products_of(REFERENCE.config, str(tmp_path))
    assert found is not None
    assert found.matrices == (
        (64, 64, 3), (64, 32, 3), (64, 32, 3), (64, 64, 3), (64, 128, 3), (64, 128, 3), (128, 64, 3), (64, 1000, 1)
    )  # fmt: skip


def test_an_unknown_model_has_no_products(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mixtral", "num_local_experts": 8}')
    assert products_of({"base_model": "somebody/some-model"}, str(tmp_path)) is None


def test_a_model_that_no_table_has_shows_its_matrices_once_loaded() -> None:
    sizes = Sizes(frozen=1, frozen_head=1, trained=1, layers=1, width=1)
    config = {"micro_batch_size": 2, "sequence_len": 100, "adapter": "lora"}
    found = products_seen(config, StartEvent(sizes=sizes, matrices=((8, 4, 3),)))
    assert found is not None and (found.matrices, found.rows, found.trained) == (((8, 4, 3),), 200, False)
    # of a mixture of experts a token passes only some
    assert products_seen(config, StartEvent(matrices=((8, 4, 3),))) is None


@pytest.mark.parametrize(
    ("config", "precision"),
    [
        ({"bf16": "auto"}, "auto"),
        ({"bf16": True}, "bf16"),
        ({"fp16": True}, "fp16"),
        ({"bf16": False}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_precision(config: dict[str, object], precision: str) -> None:
    assert precision_of(config) == precision


def test_the_ceiling_is_asked_for_in_one_line() -> None:
    found = products_of({**REFERENCE.config, "tf32": True}, "/nowhere")
    assert found is not None
    argv = ceiling_argv(ENVIRONMENT, found)
    assert argv[argv.index("--matrices") + 1].startswith("4096x4096x32,4096x1024x32,")
    assert "--tf32" in argv and "--trained" not in argv
    assert read_ceiling(Path("/nowhere")) is None


def test_exact_documents_are_2048_tokens_or_the_recipes_length() -> None:
    found = exact_workload(REFERENCE, {}, 1 << 19)
    assert (found.kind, found.document_tokens) == (EXACT, 2048)
    a_step = 2048 * REFERENCE.config["micro_batch_size"] * REFERENCE.config["gradient_accumulation_steps"]
    assert found.tokens_per_step == a_step
    assert found.steps is not None and (found.steps - 1) * a_step < 1 << 19 <= found.steps * a_step
    small = exact_workload(load_recipe("smollm2-135m-qlora"), {}, 1 << 14)
    assert (small.document_tokens, small.tokens_per_step, small.steps) == (256, 1024, 16)
    assert exact_workload(load_recipe("tiny"), {"max_steps": 7}, 1 << 14).steps == 7


def test_exact_documents_bring_nothing_else_into_the_steps() -> None:
    workload = exact_workload(REFERENCE, {}, 1 << 19)
    changes = overrides_for(workload, Path("/cache/exact.jsonl"))
    assert changes["datasets"] == [{"path": "/cache/exact.jsonl", "ds_type": "json", "type": None}]
    assert (changes["sample_packing"], changes["val_set_size"], changes["save_strategy"]) == (False, 0, "no")
    assert changes["sequence_len"] == 2048 and changes["max_steps"] == workload.steps
    assert changes["evals_per_epoch"] is None and changes["saves_per_epoch"] is None
    assert overrides_for(msgspec.structs.replace(workload, kind=RECIPE), None) == {}


def test_a_record_has_enough_steps_however_long_they_are() -> None:
    workload = exact_workload(REFERENCE, {}, 1 << 16)
    more = with_min_steps(workload, 11)
    assert more.steps == 11 and more.token_budget == 11 * (workload.tokens_per_step or 0)
    assert with_min_steps(more, 5) == more


@pytest.mark.parametrize("gpu", [True, False])
def test_what_the_modes_mean(gpu: bool) -> None:
    plain, quick, record = (bench_settings(mode, gpu) for mode in ("bench", "quick", "record"))
    assert (plain.workload, plain.budget, plain.launches, plain.soak) == (RECIPE, 90.0, 1, False)
    assert (quick.workload, quick.launches, quick.soak) == (EXACT, 1, False)
    assert quick.budget is not None and quick.budget + 2 * quick.ceiling_seconds < 240
    assert (record.workload, record.launches, record.soak, record.ceiling_seconds) == (
        EXACT,
        LEAST_LAUNCHES,
        True,
        30.0,
    )
    assert bench_settings("record", gpu, launches=2).launches == LEAST_LAUNCHES
    assert bench_settings("record", gpu, launches=5).launches == 5
    assert bench_settings("bench", gpu, steps=12).budget is None, "who asks for steps gets them"


def test_a_quick_benchmark_has_one_step_to_warm_up() -> None:
    from tests.harness.examples import job

    usual = job("smollm2-135m-qlora")
    assert (usual.recipe.traits.warmup_steps, with_short_warmup(usual).recipe.traits.warmup_steps) == (3, 1)
    assert with_short_warmup(usual).recipe.config == usual.recipe.config


@pytest.mark.parametrize(
    ("soak", "words"),
    [
        (None, "3 launches, not soaked"),
        (Soak(700.0, True, 0.4, 0.001), "3 launches, soaked"),
        (Soak(1200.0, False, 2.0, 0.0), "3 launches, temperature not stable after 20 minutes"),
        (Soak(0.0, None), "3 launches, temperature not known: no sensor"),
    ],
)
def test_labels(soak: Soak | None, words: str) -> None:
    assert describe_settings(bench_settings("record", True), soak) == words


def nf4(stdout: str, rc: int | None = 0, **more: str) -> Outcome:
    return Outcome(("python",), rc, stdout, more.get("stderr", ""), 1.0, more.get("problem", ""))


def test_right_products_pass() -> None:
    assert parse_nf4(nf4('{"forward": 0.2, "gradient": 0.4}')).worst == 0.4


@pytest.mark.parametrize(
    ("outcome", "code", "exit_code"),
    [
        (nf4('{"forward 8x512x256": 40000.0, "gradient": 0.1}', 1), "bench.nf4-wrong", BAD_ANSWER),
        (nf4('{"forward": 1e300}', 1), "bench.nf4-wrong", BAD_ANSWER),
        (
            nf4("", 1, stderr="RuntimeError: CUDA error: no kernel image is available"),
            "bench.no-kernel-image",
            OUTSIDE_FAILED,
        ),
        (nf4("{}", 0), "bench.nf4", OUTSIDE_FAILED),
        (nf4("", None, problem=TIMED_OUT), "bench.nf4", OUTSIDE_FAILED),
    ],
)
def test_wrong_products_and_a_check_that_does_not_run_stop_it(outcome: Outcome, code: str, exit_code: int) -> None:
    with pytest.raises(Problem) as caught:
        parse_nf4(outcome)
    assert (caught.value.code, caught.value.exit_code) == (code, exit_code)
    assert caught.value.what and caught.value.next


def test_another_card_driver_or_build_is_checked_again() -> None:
    usual = digest(ENVIRONMENT, "GPU-1", ("driver 580",))
    other = msgspec.structs.replace(ENVIRONMENT, torch="2.14.0")
    assert len({usual, digest(ENVIRONMENT, "GPU-2", ("driver 580",)), digest(ENVIRONMENT, "GPU-1", ("driver 590",)),
                digest(other, "GPU-1", ("driver 580",))}) == 4  # fmt: skip
    assert usual == digest(ENVIRONMENT, "GPU-1", ("driver 580",))


def test_what_was_measured_around_a_run_is_read_from_its_folder(tmp_path: Path) -> None:
    context = read_run_context(tmp_path, None)
    assert context.before is None and context.method is None
    method = MeasuringMethod("quick", "one launch, not soaked", exact_workload(REFERENCE, {}, 1 << 17))
    (tmp_path / "method.json").write_bytes(msgspec.json.encode(method))
    assert read_run_context(tmp_path, None).method == method


def test_the_card_that_is_trained_on() -> None:
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from tests.recorded_machines import load

    host = read_host(load("rtx3090-healthy"))
    known = trained_card(host, catalogue(), "nvidia", "GPU-8d3c7f52-1b0a-4e69-9c1d-5a2f60b7e401")
    assert known is not None and (known.name, known.target) == ("RTX 3090", "8.6")
    assert known.tflops and 70 < known.tflops < 72
    assert trained_card(host, catalogue(), "cpu", None) is None
    assert trained_card(host, catalogue(), "amd", None) is None
