import pytest

from harness.recipe.loader import load_recipe, recipe_names
from harness.recipe.shapes import LINEARS, from_config, lora_parameters, near_models, shapes_of
from machine.errors import BadUsage

MISTRAL = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}


def test_mistral_is_counted_to_the_last_parameter() -> None:
    mistral = shapes_of("mistralai/Mistral-7B-v0.1")
    assert mistral
    assert mistral.block_parameters == 6_979_321_856
    assert mistral.head_parameters == 131_072_000
    # what safetensors' index of that model says
    assert mistral.parameters == 7_241_732_096
    assert lora_parameters(mistral, 32, LINEARS) == 83_886_080


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mistral-7b-v0.3", 7_248_023_552),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("Llama-3.2-3B", 3_212_749_824),
        ("Llama-3.2-1B", 1_235_814_400),
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("Llama-2-13b-hf", 13_015_864_320),
        ("Llama-2-70b-hf", 68_976_648_192),
        ("Phi-3.5-mini-instruct", 3_821_079_552),
        ("Qwen2.5-7B", 7_615_616_512),
        ("Qwen2.5-1.5B", 1_543_714_304),
        ("Qwen/Qwen-7B", 7_721_324_544),
        ("SmolLM2-135M", 134_515_008),
        ("gemma-2b", 2_506_172_416),
        ("gemma-2-9b", 9_241_705_984),
        ("Qwen3-8B", 8_190_735_360),
        ("Qwen3-4B", 4_022_468_096),
        ("Qwen/Qwen-1_8B", 1_836_828_672),
        ("Qwen/Qwen-14B-Chat", 14_167_290_880),
        ("Yi-6B", 6_061_035_520),
        ("01-ai/Yi-34B-Chat", 34_388_917_248),
        ("Ministral-8B-Instruct-2410", 8_019_808_256),
        ("mistralai/Magistral-Small-2506", 23_572_403_200),
        ("deepseek-coder-1.3b-instruct", 1_346_471_936),
    ],
)
def test_parameters_are_those_of_the_published_checkpoint(name: str, parameters: int) -> None:
    shapes = shapes_of(name)
    assert shapes
    assert shapes.parameters == parameters


def test_a_config_gives_the_same_shapes_as_the_table() -> None:
    assert from_config("mistralai/Mistral-7B-v0.1", MISTRAL) == shapes_of("Mistral-7B-v0.1")


def test_a_fused_model_has_one_pair_where_llama_has_three() -> None:
    phi = shapes_of("Phi-3.5-mini-instruct")
    assert phi
    per_layer = 8 * ((3072 + 9216) + (3072 + 3072) + (3072 + 16384) + (8192 + 3072))
    assert lora_parameters(phi, 8, LINEARS) == 32 * per_layer
    assert lora_parameters(phi, 8, ("qkv_proj",)) == 32 * 8 * (3072 + 9216)


def test_a_mixture_of_experts_is_refused_not_guessed() -> None:
    with pytest.raises(BadUsage, match="mixtral"):
        from_config("Mixtral-8x7B", MISTRAL | {"model_type": "mixtral", "num_local_experts": 8})


def test_a_config_without_sizes_is_refused() -> None:
    with pytest.raises(BadUsage, match="does not contain a decoder"):
        from_config("broken", {"model_type": "llama"})


def test_an_unknown_name_has_neighbours() -> None:
    assert shapes_of("mistral-8b") is None
    assert any("Mistral-7B" in name for name in near_models("mistral-8b"))


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipes_model_is_known(name: str) -> None:
    assert shapes_of(str(load_recipe(name).config["base_model"]))


def test_sizes_that_no_model_has() -> None:
    sizes = {**MISTRAL, "head_dim": 128}
    del sizes["model_type"], sizes["tie_word_embeddings"]
    for key in sizes:
        for value in (-1, 10**12, 10**400, 1e308, "x", [1], True):
            with pytest.raises(BadUsage) as caught:
                from_config("mine", {**MISTRAL, key: value})
            assert caught.value.code == "shapes.config", (key, value)
