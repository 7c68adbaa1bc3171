"""Counts the tokens of a data file with the recipe's tokenizer and Axolotl's prompt, without loading the model.

`python -m gpu_setup_worker.tokens --config CONFIG.yml --rows ROWS.jsonl --out FILE`
The config is the one that training would get. Rows are Alpaca objects, one per line. For each row, in order: `lengths`
(tokens before truncation), `trainable` (labels that training sees) and `ends` (whether the part that training sees ends
with the end-of-text token). A row that Axolotl drops has 0 trainable tokens and is listed in `dropped`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
from pathlib import Path
from typing import Any

import yaml
from axolotl.loaders.tokenizer import load_tokenizer
from axolotl.prompt_strategies import load as load_strategy
from axolotl.prompt_tokenizers import AlpacaPromptTokenizingStrategy
from axolotl.prompters import AlpacaPrompter
from axolotl.utils.dict import DictDefault
from transformers import AutoConfig

IGNORED = -100
UNBOUNDED = 10_000_000


def settings(path: Path) -> DictDefault:
    """The config, with the keys that Axolotl's own normalisation adds for the tokenizer."""
    cfg = DictDefault(yaml.safe_load(path.read_text(encoding="utf-8")))
    cfg.base_model_config = cfg.base_model_config or cfg.base_model
    cfg.tokenizer_config = cfg.tokenizer_config or cfg.base_model_config
    cfg.sequence_len = cfg.sequence_len or 512
    model = AutoConfig.from_pretrained(cfg.base_model_config, trust_remote_code=False)
    cfg.model_config_type = model.model_type
    cfg.is_llama_derived_model = model.model_type in ("llama", "mistral")
    cfg.is_mistral_derived_model = model.model_type == "mistral"
    return cfg


def strategy_of(cfg: DictDefault, tokenizer: Any, sequence_len: int) -> Any:
    """Axolotl's strategy from a row to tokens, for the type of the recipe's first dataset."""
    entry = DictDefault(dict((cfg.datasets or [{}])[0]))
    kind = str(entry.type or "alpaca")
    base, _, style = kind.partition(":")
    if base == "alpaca":
        # this one type is not in Axolotl's registry of strategies
        prompter = AlpacaPrompter(style or None)
        return AlpacaPromptTokenizingStrategy(prompter, tokenizer, cfg.train_on_inputs, sequence_len)
    found = load_strategy(kind, tokenizer, DictDefault({**cfg, "sequence_len": sequence_len}), entry)
    if found is None:
        raise SystemExit(f"Axolotl has no prompt strategy for the type {kind}")
    return found


def count(cfg: DictDefault, tokenizer: Any, rows: Path) -> dict[str, Any]:
    """Tokenise every row with the strategy, then apply Axolotl's rule for long rows."""
    bounded = strategy_of(cfg, tokenizer, cfg.sequence_len)
    whole = strategy_of(cfg, tokenizer, UNBOUNDED)
    does = (cfg.excess_length_strategy or "drop").lower()
    lengths, trainable, ends, dropped = [], [], [], []
    with rows.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            row = json.loads(line)
            made = bounded.tokenize_prompt(row)
            tokens, labels = list(made["input_ids"]), list(made["labels"])
            over = len(tokens) > cfg.sequence_len
            lengths.append(len(whole.tokenize_prompt(row)["input_ids"]) if over else len(tokens))
            if (over and does != "truncate") or len(tokens) < (cfg.min_sample_len or 2):
                dropped.append(number)
                trainable.append(0)
                ends.append(False)
                continue
            seen = slice(0, cfg.sequence_len)
            trainable.append(sum(label != IGNORED for label in labels[seen]))
            ends.append(tokens[seen][-1] == tokenizer.eos_token_id)
            if number % 2000 == 1999:
                print(f"counted {number + 1}", flush=True)
    return {"lengths": lengths, "trainable": trainable, "ends": ends, "dropped": dropped, "over_length_does": does}


def slots(cfg: DictDefault, kept: list[int]) -> tuple[int, float | None]:
    """Micro batches of one pass over the rows, and the share of their token slots that is not padding."""
    if not kept:
        return 0, None
    if cfg.sample_packing:
        return pack_rows(cfg, kept)
    # the trainer's order is random too; one shuffle is an estimate
    order = kept[:]
    random.Random(cfg.seed or 42).shuffle(order)
    multiple = cfg.pad_to_multiple_of or 64
    batches = [order[at : at + cfg.micro_batch_size] for at in range(0, len(order), cfg.micro_batch_size)]
    total = 0
    for batch in batches:
        longest = cfg.sequence_len if cfg.pad_to_sequence_len else max(batch)
        padded = longest if cfg.pad_to_sequence_len is False else multiple * math.ceil(longest / multiple)
        total += padded * len(batch)
    return len(batches), sum(kept) / total


def pack_rows(cfg: DictDefault, kept: list[int]) -> tuple[int, float | None]:
    """The same with Axolotl's own packing."""
    import numpy as np
    from axolotl.utils.samplers.multipack import MultipackBatchSampler

    sampler = MultipackBatchSampler(
        sampler=list(range(len(kept))),
        lengths=np.array(kept),
        batch_size=1,
        batch_max_len=cfg.micro_batch_size * cfg.sequence_len,
        group_size=cfg.sample_packing_group_size or 100_000,
        bin_size=cfg.sample_packing_bin_size or 200,
        sequential=bool(cfg.sample_packing_sequentially),
        drop_last=False,
        num_processes=1,
    )
    batches = len(sampler.generate_batches(set_stats=True))
    return batches, sampler.efficiency()


def steps_of(cfg: DictDefault, batches: int) -> tuple[int, float]:
    """Optimizer steps of a run on one device, and the number of passes over the rows."""
    a_pass = math.ceil(batches / (cfg.gradient_accumulation_steps or 1))
    if cfg.max_steps and cfg.max_steps > 0:
        return int(cfg.max_steps), cfg.max_steps / a_pass if a_pass else 0.0
    epochs = float(cfg.num_epochs or 1)
    return math.ceil(epochs * a_pass), epochs


def main() -> None:
    parser = argparse.ArgumentParser(prog="gpu_setup_worker.tokens")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    cfg = settings(given.config)
    tokenizer = load_tokenizer(cfg)
    result = count(cfg, tokenizer, given.rows)
    left_out = set(result["dropped"])
    seen = [min(n, cfg.sequence_len) for number, n in enumerate(result["lengths"]) if number not in left_out]
    share = cfg.val_set_size or 0
    held_out = math.ceil(len(seen) * share) if 0 < share < 1 else int(share)
    batches, efficiency = slots(cfg, seen[: len(seen) - held_out])
    steps, epochs = steps_of(cfg, batches)
    result |= {
        "sequence_len": cfg.sequence_len, "held_out": held_out, "packing": bool(cfg.sample_packing),
        "efficiency": efficiency, "batches": batches, "steps": steps, "epochs": epochs,
        "eos": tokenizer.eos_token, "vocabulary": len(tokenizer),
    }  # fmt: skip
    # written to a temporary file and renamed: an incomplete document must never be read as complete
    partial = given.out.with_suffix(".partial")
    partial.write_text(json.dumps(result), encoding="utf-8")
    os.replace(partial, given.out)


if __name__ == "__main__":
    main()
