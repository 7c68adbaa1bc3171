"""What the tool adds to a recipe's config, and what swapping the reference's model may change."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.pipeline import with_held_out
from harness.recipe.axolotl_config import PLUGIN, SWAPPABLE, difference, local_inputs, run_config, swap_model
from harness.recipe.loader import SAMPLES, load_recipe
from tests.harness.examples import job

RUN = Path("/runs/1")
# keys that belong to the run, not to the training
OURS = {"base_model", "revision_of_model", "datasets", "plugins", "output_dir", "dataset_prepared_path", "seed"}


@pytest.mark.parametrize("name", ["mistral-7b-qlora", "smollm2-135m-qlora", "tiny"])
def test_only_paths_the_plugin_and_the_seed_are_added(name: str) -> None:
    recipe = load_recipe(name)
    config = run_config(recipe, "/models/x", RUN, None, {})
    assert set(difference(recipe.config, config)) <= OURS
    assert config["base_model"] == "/models/x"
    assert config["plugins"] == [PLUGIN]
    assert config["output_dir"] == "/runs/1/adapter"
    assert config["seed"] == 42


def test_shipped_samples_by_absolute_path_and_hub_names_as_they_are() -> None:
    small = run_config(load_recipe("tiny"), "x", RUN, None, {})
    assert small["datasets"] == [{"path": str(SAMPLES / "house-style.json"), "ds_type": "json", "type": "alpaca"}]
    reference = run_config(load_recipe("mistral-7b-qlora"), "x", RUN, None, {})
    assert [entry["path"] for entry in reference["datasets"]] == ["mhenrichsen/alpaca_2k_test"]


def test_data_beside_a_recipe_of_ones_own_come_first(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(load_recipe("tiny").text)
    (tmp_path / "house-style.json").write_text("[]")
    config = run_config(load_recipe(str(recipe)), "x", RUN, None, {})
    assert config["datasets"][0]["path"] == str(tmp_path / "house-style.json")


def test_what_a_recipe_reads_are_files_and_not_their_folders(tmp_path: Path) -> None:
    """A container gets these and nothing beside them: a home may be beside them."""
    (tmp_path / "model").mkdir()
    (tmp_path / "real").mkdir()
    for name in ("mine.json", "other.json", "more.jsonl", "token"):
        (tmp_path / "real" / name).write_text("[]")
    (tmp_path / "mine.json").symlink_to("real/mine.json")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"base_model: {tmp_path}/model\ndatasets:\n- path: mine.json\n"
        f"- path: json\n  data_files: [{tmp_path}/real/other.json]\n"
        f"test_datasets:\n- path: {tmp_path}/real/more.jsonl\n- path: {tmp_path}/none.json\n- path: some/hub-name\n"
    )
    real = tmp_path / "real"
    assert local_inputs(load_recipe(str(recipe))) == (
        real / "mine.json", real / "other.json", real / "more.jsonl", tmp_path / "model",
    )  # fmt: skip
    shipped = local_inputs(load_recipe("tiny"))
    assert [file.parent for file in shipped] == [SAMPLES]


def test_own_data_take_the_place_and_a_tenth_is_held_out(tmp_path: Path) -> None:
    config = run_config(load_recipe("smollm2-135m-qlora"), "x", RUN, tmp_path / "mine.json", {})
    assert config["datasets"] == [{"path": str(tmp_path / "mine.json"), "ds_type": "json", "type": "alpaca"}]
    assert config["val_set_size"] == 0.1


def test_plugins_of_ones_own_stay_and_overrides_come_last(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(load_recipe("tiny").text + "plugins: [my.Plugin]\n")
    config = run_config(load_recipe(str(recipe)), "x", RUN, None, {"max_steps": 3, "seed": 7})
    assert config["plugins"] == ["my.Plugin", PLUGIN]
    assert (config["max_steps"], config["seed"]) == (3, 7)


def test_the_recipe_itself_is_never_changed() -> None:
    recipe = load_recipe("tiny")
    before = repr(recipe.config)
    run_config(recipe, "x", RUN, Path("/mine.json"), {"max_steps": 1})
    assert repr(recipe.config) == before


def test_swapping_the_reference_changes_only_what_it_may() -> None:
    """`pytest -s` (or `-rP`) prints the difference."""
    reference, small = load_recipe("mistral-7b-qlora").config, load_recipe("tiny").config
    changed = difference(reference, swap_model(reference, small))
    shown = "".join(f"{key}: {before!r} → {after!r}\n" for key, (before, after) in changed.items())
    sys.stdout.write(shown)
    assert set(changed) == {
        "base_model",
        "bf16",
        "datasets",
        "fp16",
        "lora_embedding_kernel",
        "lora_mlp_kernel",
        "lora_o_kernel",
        "lora_qkv_kernel",
        "max_steps",
        "sequence_len",
    }
    assert set(changed) <= SWAPPABLE
    assert "base_model: 'mistralai/Mistral-7B-v0.1' → 'tiny-random-mistral'" in shown


def test_what_may_be_swapped_is_no_more_than_allowed() -> None:
    """base_model, sequence_len, max_steps, dtype, attention and kernel keys, and the dataset."""
    dtype, attention, dataset = {"bf16", "fp16", "tf32"}, {"attn_implementation"}, {"datasets"}
    kernels = {key for key in SWAPPABLE if key.endswith("_kernel")}
    assert {"base_model", "sequence_len", "max_steps"} | dtype | attention | dataset | kernels == SWAPPABLE


def test_difference_shows_absent_keys_as_none() -> None:
    assert difference({"a": 1, "b": 2}, {"b": 3, "c": 4}) == {"a": (1, None), "b": (2, 3), "c": (None, 4)}


def test_a_smoke_run_without_held_out_rows_gets_some(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base_model: someone/model\nval_set_size: 0\n")
    import msgspec

    own = msgspec.structs.replace(job(), recipe=load_recipe(str(file)))
    assert with_held_out(own).overrides == {"val_set_size": 0.1}
    assert with_held_out(job("tiny")).overrides == {}
    assert with_held_out(job("mistral-7b-qlora")).overrides == {}
