"""Recipes: shipped ones by name, a person's own by path, and each way in which one can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.environment.base_model import synthetic_model
from harness.pipeline import prepare
from harness.recipe.axolotl_config import difference
from harness.recipe.loader import Recipe, check_keys, load_recipe, overrides_for_card, presets_of, recipe_names
from harness.recipe.shapes import LINEARS, from_config, shapes_of
from machine.errors import BadAnswer, BadUsage
from machine.events import silent
from machine.local import LocalMachine
from machine.paths import Paths
from tests.harness.examples import cpu_stack
from tests.harness.examples import job as job_of

KEYS = frozenset({"base_model", "datasets", "learning_rate", "max_steps", "plugins", "sequence_len", "adapter"})


def own(tmp_path: Path, text: str) -> Recipe:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return load_recipe(str(file))


def copy_of(name: str, tmp_path: Path, *changes: tuple[str, str]) -> Recipe:
    text = load_recipe(name).text
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return own(tmp_path, text)


@pytest.mark.parametrize("name", recipe_names())
def test_each_shipped_recipe_loads_and_says_what_it_is(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.text.startswith(f"# {name}: "), "the header explains the recipe"
    assert recipe.traits.title
    assert recipe.config["base_model"]
    method = name.split("-synthetic")[0].rpartition("-")[2] if not name.endswith("gb") else "qlora"
    assert recipe.config.get("adapter") == {"full": None, "tiny": "qlora"}.get(method, method)


def test_what_runs_without_a_gpu() -> None:
    assert [name for name in recipe_names() if not load_recipe(name).traits.needs_gpu] == ["smollm2-135m-qlora", "tiny"]


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).traits.model == "hub"])
def test_a_model_of_the_hub_is_pinned_and_its_size_is_known(name: str) -> None:
    recipe = load_recipe(name)
    assert len(recipe.config["revision_of_model"]) == 40
    assert recipe.traits.download_bytes
    shapes = shapes_of(recipe.config["base_model"])
    assert shapes is not None
    # 16-bit weights, and a tokenizer of a few MB beside them
    assert recipe.traits.download_bytes == pytest.approx(2 * shapes.parameters, rel=0.001)
    assert recipe.traits.vram_gb
    assert not recipe.config.get("trust_remote_code")


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith(("mistral", "llama", "phi"))])
def test_a_step_has_as_many_tokens_in_every_sibling(name: str) -> None:
    """So that one learning rate is right for all of a method's, and their runs compare."""
    config = load_recipe(name).config
    slots = config["sequence_len"] * config["micro_batch_size"] * config["gradient_accumulation_steps"]
    assert slots == (8192 if "synthetic" in name else 65536)


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).config.get("sdpa_varlen")])
def test_packed_documents_go_to_the_kernel_one_by_one(name: str) -> None:
    """Axolotl 0.19.0 leaves it for a mask where the model has a sliding window, whatever sdpa_varlen says."""
    config = load_recipe(name).config
    assert (config["attn_implementation"], config["sample_packing"]) == ("sdpa", True)
    llama = "llama" in name
    assert config.get("overrides_of_model_config") == (None if llama else {"sliding_window": None})


def test_cards_without_that_kernel_are_spared_it() -> None:
    reference = load_recipe("mistral-7b-qlora")
    assert (
        overrides_for_card(reference, "8.6")
        == overrides_for_card(reference, "gfx1100")
        == overrides_for_card(reference, None)
        == {}
    )
    assert overrides_for_card(reference, "7.5") == overrides_for_card(reference, "gfx1030") == {"sdpa_varlen": False}
    assert overrides_for_card(load_recipe("tiny"), "7.5") == {}


def test_cards_older_than_triton_compute_the_adapters_without_it() -> None:
    off = {"lora_mlp_kernel": False, "lora_qkv_kernel": False, "lora_o_kernel": False}
    assert overrides_for_card(load_recipe("mistral-7b-qlora"), "6.1") == {"sdpa_varlen": False, **off}
    assert overrides_for_card(load_recipe("smollm2-135m-qlora"), "6.1").items() >= off.items()
    assert not overrides_for_card(load_recipe("mistral-7b-full"), "6.1").keys() & off.keys()


PRESETS = presets_of("mistral-7b-qlora")


def test_there_is_a_preset_for_each_size_of_card() -> None:
    assert [load_recipe(name).traits.vram_gb for name in PRESETS] == [12, 16, 20, 24, 48]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_changes_the_memory_and_not_what_is_learnt(name: str) -> None:
    preset, reference = load_recipe(name), load_recipe("mistral-7b-qlora")
    changed = set(difference(reference.config, preset.config))
    assert changed <= {"sequence_len", "micro_batch_size", "gradient_accumulation_steps", "gradient_checkpointing"}
    assert preset.traits.preset_of == "mistral-7b-qlora"
    for key in changed:
        line = preset.text.index(f"\n{key}: ")
        reason = preset.text[:line].rpartition("\n")[2]
        assert reason.startswith(f"# {preset.traits.vram_gb} GB: "), "each change says why, in the line above"
        assert f"mistral-7b-qlora: {str(reference.config[key]).lower()}" in reason


def test_a_preset_is_printed_as_plain_axolotl(tmp_path: Path) -> None:
    """What `gpu-setup recipe NAME > mine.yaml` writes runs as that recipe."""
    preset = load_recipe("mistral-7b-qlora-16gb")
    mine = own(tmp_path, preset.text)
    assert mine.config == preset.config
    assert mine.traits.needs_gpu and mine.traits.model == "hub"


def test_a_copy_is_not_held_to_what_was_measured_with_the_original(tmp_path: Path) -> None:
    assert load_recipe("smollm2-135m-qlora").traits.loss_band is not None
    assert copy_of("smollm2-135m-qlora", tmp_path, ("lora_r: 32", "lora_r: 8")).traits.loss_band is None


def test_a_persons_own_data_have_no_measured_limits() -> None:
    shipped = load_recipe("smollm2-135m-qlora").traits
    assert shipped.marker and shipped.keeps_pairing
    own_data = shipped.on_other_data()
    assert (own_data.marker, own_data.keeps_pairing, own_data.loss_band) == (None, None, None)
    assert (own_data.model, own_data.must_fall, own_data.held_out) == ("smollm2", 0.02, "split")


def test_the_synthetic_model_has_the_real_ones_shapes_and_spread() -> None:
    drawn = synthetic_model("mistral-7b")
    real = shapes_of("mistralai/Mistral-7B-v0.1")
    assert real is not None
    assert from_config(real.name, drawn["config"]) == real
    spread = drawn["spread"]
    assert set(spread) == {*LINEARS, ""}
    assert all(0.002 < deviation < 0.005 for deviation in spread.values())
    assert spread["k_proj"] == max(spread.values())


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(BadUsage) as caught:
        load_recipe("smolm2")
    assert caught.value.code == "recipe.unknown"
    assert "Did you mean smollm2-135m-qlora?" in caught.value.what
    assert "mistral-7b-qlora" in caught.value.why
    assert "smollm2-135m-qlora" in caught.value.next


def test_unknown_name_like_nothing_names_one_that_runs_anywhere() -> None:
    with pytest.raises(BadUsage) as caught:
        load_recipe("zzzzz")
    assert "Did you mean" not in caught.value.what
    assert load_recipe(caught.value.next.rpartition(" ")[2]).traits.needs_gpu is False


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(BadUsage) as caught:
        own(tmp_path, "base_model: x\nlearning_rate: [1\nmax_steps: 3\n")
    assert caught.value.code == "recipe.broken"
    assert "at line 3, column 10" in caught.value.what


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "1: x\n"])
def test_what_is_no_mapping_is_no_config(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadUsage) as caught:
        own(tmp_path, text)
    assert caught.value.code == "recipe.broken"
    assert "mapping" in caught.value.why


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("base_model: x\nwhen: 2026-13-45\n", "recipe.broken"),
        ("base_model: " + "[" * 5000, "recipe.broken"),
        ("base_model: !!python/object:os.system x\n", "recipe.broken"),
        ("base_model: x\ndatasets: house-style.json\n", "recipe.datasets"),
        ("base_model: x\ndatasets: [house-style.json]\n", "recipe.datasets"),
        ("base_model: x\ndatasets: [{type: alpaca}]\n", "recipe.datasets"),
        ("base_model: x\nplugins: my.Plugin\n", "recipe.plugins"),
    ],
)
def test_values_of_the_wrong_shape(tmp_path: Path, text: str, code: str) -> None:
    with pytest.raises(BadUsage) as caught:
        own(tmp_path, text)
    assert caught.value.code == code
    assert caught.value.why and caught.value.next


def test_a_file_that_does_not_exist_or_is_not_text(tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match=r"does not exist"):
        load_recipe(str(tmp_path / "none.yaml"))
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"base_model: \xff\xfe\n")
    with pytest.raises(BadUsage, match=r"cannot be read"):
        load_recipe(str(file))
    with pytest.raises(BadUsage, match=r"cannot be read"):
        load_recipe(f"{tmp_path}/")


def test_a_key_that_axolotl_does_not_have(tmp_path: Path) -> None:
    recipe = own(tmp_path, "base_model: x\nlerning_rate: 0.1\n")
    with pytest.raises(BadUsage) as caught:
        check_keys(recipe, KEYS)
    assert caught.value.code == "recipe.unknown-key"
    assert "lerning_rate" in caught.value.what
    assert "Did you mean learning_rate?" in caught.value.why
    assert str(tmp_path / "mine.yaml") in caught.value.next


@pytest.mark.parametrize("text", ["max_steps: 3\n", "base_model:\nmax_steps: 3\n"])
def test_a_recipe_without_a_model(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadUsage) as caught:
        check_keys(own(tmp_path, text), KEYS)
    assert caught.value.code == "recipe.no-model"


def test_a_changed_copy_keeps_the_shipped_model_and_its_questions(tmp_path: Path) -> None:
    mine = copy_of("smollm2-135m-qlora", tmp_path, ("learning_rate: 0.0005", "learning_rate: 0.001"))
    shipped = load_recipe("smollm2-135m-qlora")
    assert (mine.name, mine.config["learning_rate"]) == ("mine", 0.001)
    assert (mine.traits.model, mine.traits.held_out) == ("smollm2", "held-out.json")
    assert mine.traits.keeps_pairing == shipped.traits.keeps_pairing
    assert mine.traits.title != shipped.traits.title


def test_a_changed_copy_with_other_data_is_judged_by_a_split_of_them(tmp_path: Path) -> None:
    mine = copy_of("smollm2-135m-qlora", tmp_path, ("house-style.json", "mine.json"))
    assert (mine.traits.model, mine.traits.held_out) == ("smollm2", "split")
    assert (mine.traits.marker, mine.traits.keeps_pairing) == (None, None)


def test_a_copy_of_the_reference_needs_a_gpu_as_well(tmp_path: Path) -> None:
    assert copy_of("mistral-7b-qlora", tmp_path, ("sequence_len: 8192", "sequence_len: 2048")).traits.needs_gpu


def test_a_recipe_of_ones_own_on_another_model(tmp_path: Path) -> None:
    traits = own(tmp_path, "base_model: someone/model\n").traits
    assert (traits.model, traits.needs_gpu, traits.held_out) == ("hub", False, "split")


def prepared(recipe: Recipe, tmp_path: Path, data: Path | None = None) -> None:
    """As far as `prepare` comes before the training environment: the folders lead nowhere."""
    nowhere = Path("/proc/nowhere")
    job = job_of(data=data)
    assert job.stack == cpu_stack()
    import msgspec

    prepare(msgspec.structs.replace(job, recipe=recipe), LocalMachine(), Paths(nowhere, nowhere, nowhere), silent)


def test_bad_data_beside_the_recipe_is_reported_before_anything_long(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('[{"instruction": "Greet."}]')
    mine = copy_of("tiny", tmp_path, ("house-style.json", "mine.json"))
    with pytest.raises(BadAnswer) as caught:
        prepared(mine, tmp_path)
    assert caught.value.code == "data.not-alpaca"


def test_data_that_lie_nowhere(tmp_path: Path) -> None:
    mine = copy_of("tiny", tmp_path, ("house-style.json", "absent.json"))
    with pytest.raises(BadUsage) as caught:
        prepared(mine, tmp_path)
    assert caught.value.code == "recipe.no-data"
    assert "absent.json" in caught.value.what
