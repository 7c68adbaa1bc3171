"""A trained folder names no folder of the machine that trained it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.recipe.loader import load_recipe
from harness.training.portable_adapter import BaseModel, make_portable, write_base_name

HUB = BaseModel("mistralai/Mistral-7B-v0.1", "27d67f1b5f57dc0953326b2601d68371d40ea8da", "apache-2.0", from_hub=True)
BASE = "/home/ada/.cache/gpu-setup/models/tiny-7cf19032658f"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The files as Axolotl 0.19 writes them, cut short."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    files = {
        "README.md": f"base_model: {BASE}\n- path: /home/ada/mine.json\noutput_dir: {adapter}\n",
        "debug.log": f"loading {BASE} … saving to {adapter}\n",
        "training_args.bin": "output_dir /home/ada",
        "adapter_config.json": json.dumps({"base_model_name_or_path": BASE, "r": 16, "revision": None}),
        "config.json": json.dumps({"_name_or_path": BASE, "hidden_size": 64}),
        "tokenizer_config.json": json.dumps({"name_or_path": BASE, "eos_token": "</s>"}),
        "adapter_model.safetensors": "weights",
    }
    for name, text in files.items():
        (adapter / name).write_text(text)
    return tmp_path


def test_no_file_of_the_adapter_names_a_folder(run: Path) -> None:
    make_portable(run, load_recipe("tiny"), BASE)
    left = {file.name: file.read_text() for file in (run / "adapter").iterdir()}
    assert set(left) == {"adapter_config.json", "adapter_model.safetensors", "config.json", "tokenizer_config.json"}
    assert not any("/" in text.replace("</s>", "") for text in left.values())
    assert json.loads(left["adapter_config.json"])["base_model_name_or_path"] == "tiny-random-mistral"
    assert json.loads(left["tokenizer_config.json"])["eos_token"] == "</s>"
    assert "saving to" in (run / "axolotl-debug.log").read_text(), "the log is kept beside it"


def test_the_adapter_names_its_base_as_the_world_knows_it(run: Path) -> None:
    write_base_name(run / "adapter", HUB, load_recipe("mistral-7b-qlora"))
    found = json.loads((run / "adapter/adapter_config.json").read_text())
    assert found == {"base_model_name_or_path": HUB.name, "r": 16, "revision": HUB.revision}


def test_of_a_base_model_in_a_folder_its_name_is_kept(run: Path, tmp_path: Path) -> None:
    text = load_recipe("tiny").text.replace("base_model: tiny-random-mistral", "base_model: /home/ada/models/mine")
    (tmp_path / "mine.yaml").write_text(text)
    make_portable(run, load_recipe(str(tmp_path / "mine.yaml")), BASE)
    assert json.loads((run / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == "mine"
