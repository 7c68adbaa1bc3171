"""Recipes: shipped ones by name, a person's own by path, and each way in which one can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.prove import prepare
from harness.recipe import Recipe, check_keys, load_recipe, names
from machine.door import LocalMachine
from machine.errors import BadAnswer, BadUsage
from machine.events import silent
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


@pytest.mark.parametrize("name", names())
def test_each_shipped_recipe_loads_and_says_what_it_is(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.text.startswith(f"# {name}: "), "the header explains the recipe"
    assert recipe.traits.title
    assert recipe.config["base_model"]
    assert recipe.config["adapter"] == "qlora"


def test_only_the_reference_needs_a_gpu() -> None:
    assert [name for name in names() if load_recipe(name).traits.needs_gpu] == ["mistral-7b-qlora"]


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


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
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


def test_bad_data_beside_the_recipe_is_told_before_anything_long(tmp_path: Path) -> None:
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
