"""`gpu-setup fit`: the document, the exit codes, and what a person reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpu_setup.cli import run
from gpu_setup.commands.fit import command
from tests.recorded_machines import machine_path

PARTS = {
    "weights",
    "quant_constants",
    "adapter",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "workspace",
    "context",
}
NO_GPU = ("--machine", machine_path("no-gpu"))


def asked(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    code = run(["fit", "--json", *arguments])
    return code, json.loads(capfd.readouterr().out)


def test_the_document_of_a_job_that_fits(capfd: pytest.CaptureFixture[str]) -> None:
    code, document = asked(capfd, *NO_GPU, "--card", "RX 7900 XT")
    data = document["data"]
    assert isinstance(data, dict)
    assert code == 0 and document["exit_code"] == 0 and document["schema"] == "gpu-setup/fit/1"
    assert set(data["parts"]) == PARTS
    assert sum(data["parts"].values()) == data["total_bytes"] <= data["card_bytes"]
    assert data["fits"] is True and data["card"] == "Radeon RX 7900 XT"
    assert data["largest"]["batch"] >= 2 and data["largest"]["seq"] >= 8192


def test_a_job_that_does_not_fit_exits_with_1_and_names_what_would(capfd: pytest.CaptureFixture[str]) -> None:
    code, document = asked(capfd, *NO_GPU, "--card", "RTX 3060 12GB", "--batch", "4")
    data = document["data"]
    assert isinstance(data, dict)
    assert code == 1 and data["fits"] is False
    assert data["largest"]["batch"] >= 1


def test_without_a_card_there_is_a_prediction_and_no_verdict(capfd: pytest.CaptureFixture[str]) -> None:
    code, document = asked(capfd, *NO_GPU, "--method", "lora", "--seq", "2048", "--batch", "1")
    data = document["data"]
    assert isinstance(data, dict)
    assert code == 0 and data["fits"] is None and data["card_bytes"] is None and data["total_bytes"] > 14e9


def test_a_card_of_unknown_size_is_named_and_its_size_asked_for(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # an RTX 5060 Ti without a driver: 8 or 16 GiB
    machine = tmp_path / "new.machine"
    machine.write_text(Path(machine_path("rtx3090ti-fresh")).read_text("utf-8").replace("0x2203", "0x2d04"), "utf-8")
    code, document = asked(capfd, "--machine", str(machine))
    assert code == 2 and "RTX 5060 Ti" in document["errors"][0]["what"]  # type: ignore[index]
    code, document = asked(capfd, "--machine", str(machine), "--vram", "16", "--seq", "2048", "--batch", "1")
    assert code == 0


def test_the_card_of_a_recorded_machine_is_used(capfd: pytest.CaptureFixture[str]) -> None:
    code, document = asked(capfd, "--machine", machine_path("rtx3090-healthy"))
    data = document["data"]
    assert isinstance(data, dict)
    assert code == 0 and data["card"] == "RTX 3090" and "free now" in data["card_source"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--card", "RTX 3091"), "RTX 3090"),
        (("--model", "mistral-8b"), "Mistral-7B"),
        (("--model", "/nowhere/config.json"), "cannot be read"),
        (("--recipe", "mistral-7b"), "mistral-7b-qlora"),
        (("--optimizer", "adam"), "adamw"),
        (("--seq", "0"), "--seq"),
    ],
)
def test_an_unknown_name_is_a_usage_error_with_close_matches(
    capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    code, document = asked(capfd, *NO_GPU, *arguments)
    assert code == 2
    assert told in json.dumps(document["errors"], ensure_ascii=False)


def test_a_models_own_config_is_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_attention_heads": 16,
        "num_hidden_layers": 12,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    for place in (tmp_path, tmp_path / "config.json"):
        code, document = asked(capfd, *NO_GPU, "--model", str(place))
        data = document["data"]
        assert isinstance(data, dict)
        assert code == 0 and data["job"]["parameters"] == 207_119_360
    (tmp_path / "config.json").write_text("[]")
    assert asked(capfd, *NO_GPU, "--model", str(tmp_path))[0] == 2


def test_a_person_reads_the_verdict_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", *NO_GPU, "--card", "RX 7900 XT"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("FITS  ")
    assert "The largest that fits" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_cards_and_models_complete() -> None:
    import click

    context = click.Context(command)
    by_name = {parameter.name: parameter for parameter in command.params}
    cards = [item.value for item in by_name["card"].shell_complete(context, "rtx 309")]
    assert cards == ["RTX 3090", "RTX 3090 Ti"]
    assert any("Llama-3.1-8B" in item.value for item in by_name["model"].shell_complete(context, "llama-3.1"))
