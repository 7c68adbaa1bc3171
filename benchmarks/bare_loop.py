"""The same fine-tune with PyTorch and peft alone: the same base in 4 bit, the same adapter, batches and optimizer.

Runs in the training environment, started by training_overhead.py:
    python bare_loop.py --config CONFIG --adapter DIR --batches FILE --out FILE
Writes {"steps": [{"cpu_seconds", "seconds", "loss"}]}, one a step, each from the last step's end to this one's.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import yaml
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, get_scheduler


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("config", "adapter", "batches", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    config = yaml.safe_load(given.config.read_text(encoding="utf-8"))
    dtype = torch.bfloat16 if config["bf16"] and torch.cuda.is_available() else torch.float32
    place = "cuda:0" if torch.cuda.is_available() else "cpu"

    torch.manual_seed(config["seed"])
    # the quantisation that Axolotl asks for with load_in_4bit
    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    base = AutoModelForCausalLM.from_pretrained(
        config["base_model"],
        quantization_config=quantised,
        dtype=dtype,
        device_map={"": place},
        attn_implementation=config["attn_implementation"],
    )
    base.config.use_cache = False
    base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=bool(config["gradient_checkpointing"]))
    adapter = LoraConfig.from_pretrained(str(given.adapter))
    adapter.inference_mode = False
    model = get_peft_model(base, adapter).train()

    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config["learning_rate"], weight_decay=config["weight_decay"])
    schedule = get_scheduler(config["lr_scheduler"], optimizer, config["warmup_steps"], config["max_steps"])
    accumulated = config["gradient_accumulation_steps"]
    batches = [
        {name: torch.tensor(values, device=place) for name, values in batch.items()}
        for batch in json.loads(given.batches.read_text(encoding="utf-8"))
    ]

    steps = []
    cpu, wall = time.process_time(), time.perf_counter()
    for first in range(0, len(batches), accumulated):
        group = batches[first : first + accumulated]
        labels = sum((batch["labels"][:, 1:] != -100).sum() for batch in group)
        losses = []
        for batch in group:
            loss = model(**batch, num_items_in_batch=labels).loss
            loss.backward()
            losses.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)  # the Trainer's default
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total = float(sum(losses))
        now_cpu, now = time.process_time(), time.perf_counter()
        steps.append({"cpu_seconds": now_cpu - cpu, "seconds": now - wall, "loss": total})
        cpu, wall = now_cpu, now
    given.out.write_text(json.dumps({"steps": steps}), encoding="utf-8")


if __name__ == "__main__":
    main()
