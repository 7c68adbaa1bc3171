"""Reloads a trained adapter on its base and reports what changed: held-out loss and answers, before and after.

`… -m gpu_setup_worker.examine --base DIR --adapter DIR --out FILE [--held-out FILE] [--tokens N] [--prompt TEXT …]`
`--merged DIR` instead of base and adapter examines a merged model, without "before". --plain: the base is not in NF4.
The held-out file is Alpaca JSON, or the tokens that the plugin wrote: [{"prompt": [ids], "answer": [ids]}]. "before" is
the same 4-bit base with the adapter switched off. Loss: mean over the answer tokens of all rows (nats). "mismatched"
loss pairs each question with the next row's answer: it is well above the matched loss for a model that answers the
question, but not for a model that has only learnt a style. A loss that is not finite is written as null.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from axolotl.prompters import AlpacaPrompter
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from gpu_setup_worker.checkpoints import keep_as_loaded
from gpu_setup_worker.parent import end_with_parent


class TokenRow(NamedTuple):
    """One question and its answer as tokens, and the question as text."""

    text: str
    prompt: list[int]
    answer: list[int]


def load_base(base: str, four_bit: bool = True, exact: bool = False) -> Any:
    """The base model, in NF4 as in training, on the GPU if there is one. `exact`: see keep_as_loaded."""
    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu and torch.cuda.is_bf16_supported() else torch.float16 if gpu else torch.float32
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model = AutoModelForCausalLM.from_pretrained(
        base,
        quantization_config=settings if four_bit else None,
        dtype=dtype,
        device_map={"": 0 if gpu else "cpu"},
        attn_implementation="sdpa",
        trust_remote_code=False,
        use_safetensors=True,
    )
    return keep_as_loaded(model) if exact else model


def load_tokenizer(folder: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_adapter(base: str, adapter: str, four_bit: bool, exact: bool) -> tuple[Any, Any]:
    """The trained model (adapter on its base, evaluation mode) and its tokenizer."""
    return PeftModel.from_pretrained(load_base(base, four_bit, exact), adapter).eval(), load_tokenizer(adapter)


def tokenise_row(tokenizer: Any, instruction: str, text: str | None = None, answer: str | None = None) -> TokenRow:
    """A row as Axolotl's `type: alpaca` makes it: prompt and answer tokenised as one, then the end-of-text token."""
    prompt = next(AlpacaPrompter().build_prompt(instruction, text or None))
    head = tokenizer(prompt)["input_ids"]
    whole = [*tokenizer(prompt + answer)["input_ids"], tokenizer.eos_token_id] if answer else head
    return TokenRow(instruction, head, whole[len(head) :])


def held_out_rows(path: Path, tokenizer: Any) -> list[TokenRow]:
    """The rows of an Alpaca file, or of the plugin's token file."""
    rows = []
    for row in json.loads(path.read_text(encoding="utf-8")):
        if "prompt" in row:
            text = tokenizer.decode(row["prompt"], skip_special_tokens=True)
            rows.append(TokenRow(text, row["prompt"], row["answer"]))
        else:
            rows.append(tokenise_row(tokenizer, row["instruction"], row.get("input"), row["output"]))
    return rows


@torch.inference_mode()
def answer_loss(model: Any, rows: list[TokenRow], answers: list[list[int]]) -> float | None:
    """Mean loss in nats over all tokens of `answers`, each after its row's prompt; one row at a time, no padding."""
    total, count = 0.0, 0
    for row, answer in zip(rows, answers, strict=True):
        tokens = torch.tensor([row.prompt + answer], device=model.device)
        logits = model(input_ids=tokens).logits[0, len(row.prompt) - 1 : -1].float()
        wanted = tokens[0, len(row.prompt) :]
        total += torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
        count += len(answer)
    return total / count if math.isfinite(total) else None


@torch.inference_mode()
def answers_to(model: Any, tokenizer: Any, rows: list[TokenRow], tokens: int) -> list[str]:
    """Greedy answers, all prompts in one batch, at most `tokens` new tokens each."""
    batch = tokenizer.pad({"input_ids": [row.prompt for row in rows]}, return_tensors="pt").to(model.device)
    written = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=tokens,
        do_sample=False,
        repetition_penalty=1.1,
        pad_token_id=tokenizer.pad_token_id,
        # the model folder's generation settings may set another end token than the one used in training
        eos_token_id=tokenizer.eos_token_id,
    )
    return [tokenizer.decode(row[batch["input_ids"].shape[1] :], skip_special_tokens=True).strip() for row in written]


def examine(
    base: str,
    adapter: str,
    merged: str | None,
    held_out: Path | None,
    prompts: list[str],
    tokens: int,
    four_bit: bool = True,
    exact: bool = False,
) -> dict[str, Any]:
    """Losses and answers for the held-out rows, and answers to the user's own prompts."""
    if merged is not None:
        model, tokenizer = load_base(merged, four_bit=False).eval(), load_tokenizer(merged)
        views: tuple[tuple[str, Any], ...] = (("after", nullcontext),)
    else:
        model, tokenizer = load_adapter(base, adapter, four_bit, exact)
        views = (("before", model.disable_adapter), ("after", nullcontext))
    rows = held_out_rows(held_out, tokenizer) if held_out else []
    answers = [row.answer for row in rows]
    questions = rows + [tokenise_row(tokenizer, prompt) for prompt in prompts]
    result: dict[str, Any] = {"rows": len(rows)}
    texts: dict[str, list[str]] = {"before": [""] * len(questions)}
    for name, view in views:
        with view():
            if rows:
                result[name] = {
                    "held_out_loss": answer_loss(model, rows, answers),
                    "mismatched_loss": answer_loss(model, rows, answers[1:] + answers[:1]),
                }
            texts[name] = answers_to(model, tokenizer, questions, tokens) if questions else []
        print(f"examined {name}", flush=True)
    result["answers"] = [
        {"question": row.text, "before": before, "after": after}
        for row, before, after in zip(questions, texts["before"], texts["after"], strict=True)
    ]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="gpu_setup_worker.examine")
    parser.add_argument("--base", default="")
    parser.add_argument("--adapter", default="")
    parser.add_argument("--merged")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--held-out", type=Path)
    parser.add_argument("--prompt", action="append", default=[])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    end_with_parent()
    result = examine(
        given.base,
        given.adapter,
        given.merged,
        given.held_out,
        given.prompt,
        given.tokens,
        not given.plain,
        given.exact,
    )
    # written to a temporary file and renamed: an incomplete document must never be read as complete
    partial = given.out.with_suffix(".partial")
    partial.write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
    os.replace(partial, given.out)


if __name__ == "__main__":
    main()
