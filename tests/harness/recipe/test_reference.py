"""The reference is faithful to Axolotl's own Mistral example (examples/mistral/qlora.yml, 067b021c8, July 2026)."""

from __future__ import annotations

from checks.catalogue import catalogue
from harness.environment.lock_file import load_lock
from harness.recipe.loader import load_recipe

EXAMPLE = {
    "base_model": "mistralai/Mistral-7B-v0.1",
    "model_type": "MistralForCausalLM",
    "tokenizer_type": "LlamaTokenizer",
    "load_in_8bit": False,
    "load_in_4bit": True,
    "datasets": [{"path": "mhenrichsen/alpaca_2k_test", "type": "alpaca"}],
    "dataset_prepared_path": "last_run_prepared",
    "val_set_size": 0.1,
    "output_dir": "./outputs/qlora-out",
    "adapter": "qlora",
    "lora_model_dir": None,
    "sequence_len": 8192,
    "sample_packing": True,
    "lora_r": 32,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "lora_target_linear": True,
    "lora_target_modules": ["gate_proj", "down_proj", "up_proj", "q_proj", "v_proj", "k_proj", "o_proj"],
    "gradient_accumulation_steps": 4,
    "micro_batch_size": 2,
    "num_epochs": 1,
    "optimizer": "adamw_bnb_8bit",
    "lr_scheduler": "cosine",
    "learning_rate": 0.0002,
    "bf16": "auto",
    "tf32": False,
    "gradient_checkpointing": True,
    "resume_from_checkpoint": None,
    "logging_steps": 1,
    "attn_implementation": "flash_attention_2",
    "loss_watchdog_threshold": 5.0,
    "loss_watchdog_patience": 3,
    "warmup_ratio": 0.1,
    "evals_per_epoch": 4,
    "saves_per_epoch": 1,
    "weight_decay": 0.0,
    "special_tokens": None,
}
# what the reference does otherwise: the revisions are pinned, and attention needs nothing that no lock holds
DIFFERENT = {
    "datasets": [
        {
            "path": "mhenrichsen/alpaca_2k_test",
            "revision": "d05c1cb585e462b16532a44314aa4859cb7450c6",
            "type": "alpaca",
        }
    ],
    "revision_of_model": "27d67f1b5f57dc0953326b2601d68371d40ea8da",
    "attn_implementation": "sdpa",
    "sdpa_varlen": True,
    "overrides_of_model_config": {"sliding_window": None},
    # what Axolotl sets itself on a GPU
    "lora_mlp_kernel": True,
    "lora_qkv_kernel": True,
    "lora_o_kernel": True,
}
# in the example of November 2024, gone since: an old key would be dropped by Axolotl in silence
GONE = {
    *("strict", "train_on_inputs", "group_by_length", "pad_to_sequence_len", "early_stopping_patience"),
    *("local_rank", "xformers_attention", "flash_attention", "eval_table_size", "fsdp", "fsdp_config"),
}


def test_every_value_is_the_examples_but_for_what_the_header_names() -> None:
    recipe = load_recipe("mistral-7b-qlora")
    assert recipe.config == {**EXAMPLE, **DIFFERENT}
    head = recipe.text.split("base_model:")[0]
    assert "What differs from the example, and why" in head
    assert "revisions of model and data are pinned" in head and "flash_attention_2" in head


def test_no_lock_holds_what_the_example_asks_for() -> None:
    """The reason for sdpa: once a stack has flash-attn, this test says that the decision is to be taken anew."""
    locks = [stack.lock for stack in catalogue().stacks if stack.lock]
    assert locks
    for lock in locks:
        assert "flash-attn" not in load_lock(lock, "3.12").packages, lock


def test_no_key_of_the_past() -> None:
    assert not GONE & set(load_recipe("mistral-7b-qlora").config)


def test_the_header_says_what_was_not_tried() -> None:
    head = load_recipe("mistral-7b-qlora").text.split("base_model")[0]
    assert "unverified" in head
