"""The reference is faithful to Axolotl's own Mistral example (examples/mistral/qlora.yml, 067b021c8, July 2026)."""

from __future__ import annotations

from harness.recipe import load_recipe

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
# in the example of November 2024, gone since: an old key would be dropped by Axolotl in silence
GONE = {
    *("strict", "train_on_inputs", "group_by_length", "pad_to_sequence_len", "early_stopping_patience"),
    *("local_rank", "xformers_attention", "flash_attention", "eval_table_size", "fsdp", "fsdp_config"),
}


def test_every_value_is_the_examples() -> None:
    assert load_recipe("mistral-7b-qlora").config == EXAMPLE


def test_no_key_of_the_past() -> None:
    assert not GONE & set(load_recipe("mistral-7b-qlora").config)


def test_the_header_says_what_was_not_tried() -> None:
    head = load_recipe("mistral-7b-qlora").text.split("base_model")[0]
    assert "unverified" in head
