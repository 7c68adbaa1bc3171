"""Makes the benchmark's data: tokenised documents of one exact length, so that no slot is padding and all tokens count.

`python -m gpu_setup_worker.workload --model DIR --length N --documents N --seed N --out FILE.jsonl TEXT.json …`
The texts' rows (Alpaca), shuffled with the seed again and again, form one endless stream of the model's own tokens,
which is split every N tokens. Real text, so that the loss means something and no watchdog stops the run. A model folder
without a tokenizer (random weights) gets uniformly random tokens instead. Every token has a label.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from gpu_setup_worker.parent import end_with_parent

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


def stream_of_text(model: Path, texts: list[Path], chance: random.Random) -> Iterator[int]:
    """An endless stream of the rows' tokens, with the end-of-text token between rows."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model))
    rows = [row for file in texts for row in json.loads(file.read_text(encoding="utf-8"))]
    words = ["\n".join(str(row[key]) for key in ("instruction", "input", "output") if row.get(key)) for row in rows]
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in words]
    while True:
        for tokens in chance.sample(encoded, len(encoded)):
            yield from tokens
            yield tokenizer.eos_token_id


def random_tokens(model: Path, chance: random.Random) -> Iterator[int]:
    vocabulary = int(json.loads((model / "config.json").read_text(encoding="utf-8"))["vocab_size"])
    while True:
        yield chance.randrange(vocabulary)


def write_documents(tokens: Iterator[int], length: int, documents: int, out: Path) -> None:
    """One JSON object per line, with the three columns of data that Axolotl does not tokenise again."""
    with out.open("w", encoding="utf-8") as file:
        for _ in range(documents):
            ids = list(islice(tokens, length))
            file.write(json.dumps({"input_ids": ids, "attention_mask": [1] * length, "labels": ids}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="gpu_setup_worker.workload")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--documents", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("texts", type=Path, nargs="*")
    given = parser.parse_args()
    end_with_parent()
    chance = random.Random(given.seed)
    real = given.texts and any((given.model / name).is_file() for name in TOKENIZERS)
    tokens = stream_of_text(given.model, given.texts, chance) if real else random_tokens(given.model, chance)
    # written to a temporary file and renamed: an incomplete document must never be read as complete
    partial = given.out.with_suffix(".partial")
    write_documents(tokens, given.length, given.documents, partial)
    os.replace(partial, given.out)


if __name__ == "__main__":
    main()
