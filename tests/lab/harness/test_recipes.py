"""The recipes beyond the reference, run for real on the CPU: drawn weights, packed documents, and the siblings."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from checks.catalogue import catalogue
from checks.facts.read import read_host
from harness.environment.base_model import ensure_model, synthetic_model
from harness.environment.worker_process import worker_environment
from harness.pipeline import Job, Workplace, examine_run, prepare, report_run, train_in_new_folder
from harness.recipe.axolotl_config import difference, swap_model
from harness.recipe.loader import SAMPLES, Recipe, Traits, load_recipe
from harness.training.examination import ExaminationSettings, examine, held_out_file
from harness.training.launch import RunSpec, new_run_folder, train
from machine.events import silent
from machine.local import LocalMachine
from machine.paths import paths
from tests.lab.training import Training, tool

pytestmark = pytest.mark.lab

# what a run on a processor needs, and small shapes: through keys of Axolotl's own, as a person would
ON_A_PROCESSOR = {
    "bf16": False,
    "fp16": False,
    "lora_mlp_kernel": False,
    "lora_qkv_kernel": False,
    "lora_o_kernel": False,
    "lora_embedding_kernel": False,
}
SMALL_SHAPES = {
    "sliding_window": None,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


# large blocks go back to the system when they are freed, as a card's memory does; else glibc keeps freed pieces of what
# was quantised, 60 MB a layer, and the peak tells of its heap's holes (mallopt(3), M_MMAP_THRESHOLD)
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


def in_the_environment(
    training: Training, code: str, *arguments: str, timeout: float = 300, more: dict[str, str] | None = None
) -> Any:
    """What a piece of Python in the training environment prints last, as JSON."""
    argv = (str(training.environment.python), "-c", code, *arguments)
    environ = {**worker_environment(training.environment), **(more or {})}
    told = LocalMachine().run(argv, timeout=timeout, env=environ)
    assert told.ok, told.stderr[-3000:]
    return json.loads(told.stdout.splitlines()[-1])


# Drawn weights


def test_random_weights_train_and_are_not_judged(training: Training, own_home: Path) -> None:
    """mistral-7b-qlora-synthetic with small shapes, from recipe to report: no hub, no download, no judgement."""
    machine, places = LocalMachine(), paths({"GPU_SETUP_HOME": str(own_home)})
    changed = {
        **ON_A_PROCESSOR,
        "overrides_of_model_config": SMALL_SHAPES,
        "sequence_len": 512,
        "max_steps": 3,
        "gradient_accumulation_steps": 1,
    }
    job = Job(load_recipe("mistral-7b-qlora-synthetic"), training.stack, overrides=changed)
    ready = prepare(job, machine, places, silent)
    assert not list(Path(ready.base_model).glob("*.safetensors")), "there is no model on the disk"
    assert sum(file.stat().st_size for file in Path(ready.base_model).iterdir()) < 4e6
    folder = train_in_new_folder(job, ready, Workplace(machine, places, silent))
    assert examine_run(job, ready, folder, machine, silent) is None
    report = report_run(job, ready, folder, read_host(machine), catalogue(), None)
    # too few steps for a speed
    assert (report.verdict, report.smoke) == ("inconclusive", None)
    assert any("Throughput only" in note for note in report.notes)
    first = report.measurements.loss.first.median
    assert first is not None and abs(first - math.log(32000)) < 0.1, "random weights know nothing of 32,000 words"
    named = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == "mistral-7b-synthetic", "random weights have no public name"


def test_smoke_does_not_take_it(own_home: Path) -> None:
    ended = tool(own_home, "smoke", "--recipe", "mistral-7b-qlora-synthetic")
    assert ended.rc in (2, 3)
    assert ended.error["code"] in ("recipe.throughput-only", "recipe.needs-gpu")


DRAW = """
import json, resource, sys
import torch
from transformers import AutoConfig, BitsAndBytesConfig
from gpu_setup_worker.synthetic import load_random

class Loader:
    base_model = sys.argv[1]
    model_config = AutoConfig.from_pretrained(sys.argv[1])
    model_kwargs = {
        "device_map": {"": "cpu"}, "dtype": torch.bfloat16, "attn_implementation": "sdpa",
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16, bnb_4bit_quant_storage=torch.bfloat16),
    }

for key, value in json.loads(sys.argv[2]).items():
    setattr(Loader.model_config, key, value)
spread = json.loads(open(sys.argv[1] + "/spread.json").read())

def loaded():
    return load_random(Loader, spread=spread)

def bytes_of(model):
    states = [p.quant_state for p in model.parameters() if hasattr(p, "quant_state")]
    constants = sum(s.absmax.numel() * s.absmax.element_size() for s in states)
    return constants + sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
model = loaded()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
"""

STATISTICS = """
import bitsandbytes
again, found = loaded(), {}
for name, module in model.named_modules():
    if isinstance(module, bitsandbytes.nn.Linear4bit):
        weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
        kind = name.rpartition(".")[2]
        found[kind] = [float(weight.mean()), float(weight.std()), float((weight ** 4).mean() / weight.var() ** 2)]
norms = {float(v.min()) for n, v in model.named_parameters() if "norm" in n}
def raw(value):
    # 4-bit weights lie in bfloat16 storage, and some of their patterns are no numbers
    return value.data.contiguous().view(torch.uint8)
same = all(torch.equal(raw(a), raw(b)) for a, b in zip(model.parameters(), again.parameters(), strict=True))
first = [p for n, p in model.named_parameters() if n.endswith("q_proj.weight")]
differ = not torch.equal(raw(first[0]), raw(first[1]))
print(json.dumps({"kinds": found, "norms": sorted(norms), "same": same, "differ": differ,
    "head": float(model.lm_head.weight.float().std()), "class": type(model).__name__}))
"""


def synthetic_folder(training: Training, own_home: Path) -> str:
    places = paths({"GPU_SETUP_HOME": str(own_home)})
    recipe = load_recipe("mistral-7b-qlora-synthetic")
    return ensure_model(recipe, training.environment, LocalMachine(), places, silent)


def test_random_weights_have_the_real_spread(training: Training, own_home: Path) -> None:
    """After NF4 and back: each kind's standard deviation, zero in the middle, and a normal distribution's tails."""
    folder = synthetic_folder(training, own_home)
    narrow = {"hidden_size": 1024, "intermediate_size": 3584, "num_attention_heads": 8, "num_key_value_heads": 2}
    shapes = {**narrow, "num_hidden_layers": 2, "vocab_size": 1024}
    found = in_the_environment(training, DRAW + STATISTICS, folder, json.dumps(shapes))
    spread = synthetic_model("mistral-7b")["spread"]
    assert set(found["kinds"]) == set(spread) - {""}
    for kind, (mean, deviation, tails) in found["kinds"].items():
        assert abs(deviation / spread[kind] - 1) < 0.02, kind
        assert abs(mean) < 0.02 * deviation
        assert abs(tails - 3) < 0.2, "a normal distribution's fourth moment"
    assert abs(found["head"] / spread[""] - 1) < 0.02
    assert found["norms"] == [1.0]
    assert found["same"], "two runs train the same model"
    assert found["differ"], "each layer is drawn anew"
    assert found["class"] == "MistralForCausalLM"


@pytest.mark.parametrize(
    ("layers", "parameters"), [(6, 1_570_820_096), pytest.param(32, 7_241_732_096, marks=pytest.mark.full)]
)
def test_the_model_is_never_held_in_16_bit(training: Training, own_home: Path, layers: int, parameters: int) -> None:
    """On the host for want of a card: the peak is the 4-bit model, and beside it one matrix that is being made."""
    folder = synthetic_folder(training, own_home)
    found = in_the_environment(
        training,
        DRAW + "print(json.dumps({'model': bytes_of(model), 'before': before, 'peak': peak, 'parameters': sum("
        "p.quant_state.shape.numel() if hasattr(p, 'quant_state') else p.numel() for p in model.parameters())}))",
        folder,
        json.dumps({"num_hidden_layers": layers}),
        timeout=1500,
        more=GIVES_BACK,
    )
    sys.stdout.write(f"{found}\n")
    assert found["parameters"] == parameters
    four_bit = (parameters - 2 * 32000 * 4096) / 2 + 2 * 2 * 32000 * 4096
    assert found["model"] == pytest.approx(four_bit, rel=0.03), "half a byte a weight, embedding and head in two"
    # the host quantises here too, with copies in 32 bit of the matrix at hand; on a card it only holds the libraries
    assert found["peak"] - found["before"] - found["model"] < 1.2e9
    assert found["peak"] - found["before"] < 2 * parameters, "it never held the model in 16 bit"
    assert found["peak"] - found["model"] < 3e9, "what the host needs beside the model itself"


# Packing


def losses(recorded: Any) -> list[float]:
    assert all(isinstance(step.loss, float) for step in recorded.steps)
    return [step.loss for step in recorded.steps]


def test_packed_documents_have_the_losses_of_single_ones(training: Training, own_home: Path, tmp_path: Path) -> None:
    """Eight rows in one optimizer step, through Axolotl: packed into one sequence under sdpa, or each by itself.

    The losses of the first step compare the forward passes, those of the later ones the gradients.
    """
    rows = json.loads((SAMPLES / "house-style.json").read_text())[:8]
    data = tmp_path / "rows.json"
    data.write_text(json.dumps(rows))
    common: dict[str, Any] = {
        "datasets": [{"path": str(data), "ds_type": "json", "type": "alpaca"}],
        "num_epochs": 4,
        "max_steps": 4,
        "lr_scheduler": "constant",
        "warmup_steps": 0,
        "micro_batch_size": 1,
    }
    packed = {**common, "sequence_len": 2048, "sample_packing": True, "sdpa_varlen": True, "pad_to_sequence_len": False}
    single = {**common, "sample_packing": False, "gradient_accumulation_steps": len(rows)}
    machine, places, recipe = LocalMachine(), paths({"GPU_SETUP_HOME": str(own_home)}), load_recipe("tiny")
    base = ensure_model(recipe, training.environment, machine, places, silent)
    found = {}
    for name, changed in (("single", single), ("packed", packed)):
        folder = new_run_folder(places.runs, recipe)
        found[name] = train(RunSpec(recipe, base, overrides=changed), folder, training.worker)
    one, other = found["single"].steps, found["packed"].steps
    assert [step.micro_batches for step in (one[0], other[0])] == [8, 1]
    assert [(step.trainable, step.non_padding, step.documents) for step in one] == [
        (step.trainable, step.non_padding, step.documents) for step in other
    ], "the same documents in each step"
    # rounding grows through Adam from step to step
    assert losses(found["packed"])[:2] == pytest.approx(losses(found["single"])[:2], rel=1e-4)
    assert losses(found["packed"]) == pytest.approx(losses(found["single"]), rel=1e-3)
    fallen = losses(found["single"])
    assert fallen[-1] < 0.97 * fallen[0], "it learnt, so the gradients were compared too"
    sys.stdout.write(f"{losses(found['single'])}\n{losses(found['packed'])}\n")


LEAKS = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
rows = json.load(open(sys.argv[2]))
documents = [tokenizer(f"{row['instruction']} {row['output']}")["input_ids"] for row in rows]
positions = torch.cat([torch.arange(len(each)) for each in documents])[None]
packed = torch.tensor([sum(documents, [])])

def model(window):
    made = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, attn_implementation="sdpa")
    made.config.sliding_window = window
    for layer in made.model.layers:
        layer.self_attn.sliding_window = window
    return made.eval()

@torch.no_grad()
def summed(made, tokens, **more):
    logits = made(input_ids=tokens, use_cache=False, **more).logits[0]
    ends = torch.cumsum(torch.tensor([len(each) for each in documents]), 0) if tokens is packed else [tokens.shape[1]]
    begin, total = 0, 0.0
    for end in map(int, ends):
        total += torch.nn.functional.cross_entropy(
            logits[begin : end - 1], tokens[0, begin + 1 : end], reduction="sum").item()
        begin = end
    return total

plain = model(None)
found = {"single": sum(summed(plain, torch.tensor([each])) for each in documents)}
found["mask"] = summed(plain, packed, position_ids=positions)
found["window"] = summed(model(4096), packed, position_ids=positions)
found["leaking"] = summed(plain, packed)
found["short window"] = summed(model(16), packed, position_ids=positions)

from axolotl.monkeypatch.attention.sdpa_varlen import patch_sdpa_varlen
assert patch_sdpa_varlen()
found["varlen"] = summed(plain, packed, position_ids=positions)
print(json.dumps(found))
"""


def test_no_document_sees_another(training: Training, own_home: Path, tmp_path: Path) -> None:
    """The same sum of losses by the mask, by Axolotl's sdpa_varlen and with v0.1's window as for documents by
    themselves.

    A packing that leaks and a window shorter than the documents do not pass. torch's kernel behind sdpa_varlen exists
    for GPUs only: here its wrapper falls back to a mask of its own.
    """
    places = paths({"GPU_SETUP_HOME": str(own_home)})
    base = ensure_model(load_recipe("tiny"), training.environment, LocalMachine(), places, silent)
    data = tmp_path / "rows.json"
    data.write_text(json.dumps(json.loads((SAMPLES / "house-style.json").read_text())[:12]))
    found = in_the_environment(training, LEAKS, base, str(data))
    sys.stdout.write(f"{found}\n")
    for way in ("mask", "varlen", "window"):
        assert found[way] == pytest.approx(found["single"], rel=1e-5), way
    for way in ("leaking", "short window"):
        assert abs(found[way] / found["single"] - 1) > 1e-4, way


PADDING = """
import json, torch
from gpu_setup_worker.documents import document_sums, not_padding
tokens = torch.tensor([[1, 5, 6, 2, 1, 7, 2, 2, 2, 2], [1, 5, 2, 1, 9, 9, 9, 9, 9, 2]])
places = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2, 3, 4, 5, 6]])
mask = not_padding(tokens, places, 2)
print(json.dumps([int(value) for value in document_sums(mask, places, None)]))
"""


def test_the_end_of_a_packed_document_is_no_padding(training: Training) -> None:
    """Llama's tokenizers pad with the token that ends a document, and packed batches bring no mask."""
    squares = 4**2 + 3**2 + 3**2 + 7**2
    assert in_the_environment(training, PADDING) == [4, 17, squares, squares]


# The siblings


MAKE = """
import sys
import torch
from pathlib import Path
from gpu_setup_worker.models import trained_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Phi3Config, Phi3ForCausalLM

kind, out, text = sys.argv[1:]
tokenizer = trained_tokenizer(Path(text), 0)
sizes = dict(
    vocab_size=len(tokenizer), hidden_size=128, intermediate_size=352, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2, pad_token_id=2,
)
torch.manual_seed(0)
model = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**sizes)),
    "phi": lambda: Phi3ForCausalLM(Phi3Config(**{**sizes, "num_key_value_heads": 4}, sliding_window=262144)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**sizes, sliding_window=4096)),
}[kind]()
model.save_pretrained(out)
tokenizer.save_pretrained(out)
print("{}")
"""

# one of each kind in every run, the others with ./test --full
SIBLINGS = [
    pytest.param("llama-3-8b-qlora", marks=pytest.mark.full),
    "phi-3.5-mini-qlora",
    pytest.param("mistral-7b-lora", marks=pytest.mark.full),
    "mistral-7b-full",
]


@pytest.mark.parametrize("name", SIBLINGS)
def test_a_sibling_runs_with_a_small_model_in_its_place(
    training: Training, own_home: Path, tmp_path: Path, name: str
) -> None:
    """Its own config on a random model of its own architecture: what was changed is printed, the loss is finite."""
    base = tmp_path / "small"
    in_the_environment(training, MAKE, name.split("-")[0], str(base), str(SAMPLES / "house-style.json"))
    sibling, small = load_recipe(name), load_recipe("tiny")
    config = swap_model(sibling.config, {**small.config, "max_steps": 2, "sequence_len": 512})
    config["gradient_accumulation_steps"] = 2
    for key, (before, after) in difference(sibling.config, config).items():
        sys.stdout.write(f"{key}: {before!r} → {after!r}\n")
    recipe = Recipe(name, sibling.path, sibling.text, config, Traits(title=name, model="tiny"))
    folder = new_run_folder(paths({"GPU_SETUP_HOME": str(own_home)}).runs, recipe)
    recorded = train(RunSpec(recipe, str(base)), folder, training.worker)
    assert len(losses(recorded)) == 2 and all(math.isfinite(loss) for loss in losses(recorded))
    assert recorded.start and recorded.start.trainable_parameters
    whole = name.endswith("full")
    saved = folder / "adapter" / ("model.safetensors" if whole else "adapter_model.safetensors")
    assert saved.is_file()
    assert (folder / "adapter" / "adapter_config.json").is_file() is not whole
    if config.get("load_in_4bit"):
        return
    # what no adapter or no 4-bit base has is asked all the same: two models one after the other, or a plain base
    held_out = held_out_file(recipe.traits, folder, own_data=False)
    seen = examine(str(base), folder, ExaminationSettings(held_out, tokens=4), training.worker)
    assert seen.rows == 10 and seen.before and seen.after
    assert seen.before.held_out_loss and seen.after.held_out_loss
    assert seen.before != seen.after and len(seen.answers) == 10


# What Axolotl leaves out


def test_rows_that_are_too_long_are_reported(own_home: Path, tmp_path: Path) -> None:
    """Axolotl drops them with one line in its log; the report says how many of how many."""
    rows = json.loads((SAMPLES / "house-style.json").read_text())[:30]
    for row in rows[:3]:
        row["output"] *= 12
    data = tmp_path / "mine.json"
    data.write_text(json.dumps(rows))
    ended = tool(own_home, "bench", "--recipe", "tiny", "--steps", "2", "--data", str(data))
    assert ended.rc == 0
    found = ended.data["rows"]
    assert (found["given"], found["dropped"]) == (30, 3)
    assert found["trained"] + found["held_out"] == 27
    assert any(note.startswith("3 of 30 rows were not trained on") for note in ended.data["notes"])
