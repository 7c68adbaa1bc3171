"""The prediction's counting beside PyTorch's own: MemTracker under fake tensors, in the training environment.

A small Mistral, so that the step takes a second; what is counted is the same for a large one. Not among the cases: NF4
(bitsandbytes has no fake kernels for the processor) and dropout (whose mask is a byte on a card, but as wide as the
input on the processor).
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.environment.worker_process import worker_environment
from harness.memory.job import MemoryJob, constants
from harness.memory.prediction import Prediction, predict
from harness.recipe.shapes import LINEARS, Shapes
from tests.lab.training import Training

pytestmark = pytest.mark.lab

SHAPES = Shapes("small", 6, 512, 1408, 8, 4, 64, 4096)
CONFIG = {
    "vocab_size": SHAPES.vocab,
    "hidden_size": SHAPES.hidden,
    "intermediate_size": SHAPES.intermediate,
    "num_hidden_layers": SHAPES.layers,
    "num_attention_heads": SHAPES.heads,
    "num_key_value_heads": SHAPES.kv_heads,
    "head_dim": SHAPES.head_dim,
}

CASES: dict[str, MemoryJob] = {
    "full, checkpointing": MemoryJob(shapes=SHAPES, method="full", seq=1024, batch=2),
    "full, no checkpointing": MemoryJob(shapes=SHAPES, method="full", seq=1024, batch=2, checkpointing=False),
    "full, 32 bit": MemoryJob(shapes=SHAPES, method="full", seq=1024, batch=2, weights="fp32", autocast=False),
    "lora, checkpointing": MemoryJob(shapes=SHAPES, method="lora", seq=1024, batch=2, rank=8, targets=LINEARS),
    "lora, no checkpointing": MemoryJob(
        shapes=SHAPES, method="lora", seq=1024, batch=2, rank=8, targets=LINEARS, checkpointing=False
    ),
    "lora, no autocast": MemoryJob(
        shapes=SHAPES, method="lora", seq=1024, batch=2, rank=8, targets=LINEARS, checkpointing=False, autocast=False
    ),
    "lora, attention only": MemoryJob(
        shapes=SHAPES, method="lora", seq=1024, batch=2, rank=8, targets=LINEARS[:4], checkpointing=False
    ),
}


def case(job: MemoryJob) -> dict[str, Any]:
    return {
        "config": CONFIG,
        "dtype": {"bf16": "bfloat16", "fp32": "float32"}[job.weights],
        "rank": job.rank,
        "targets": list(job.targets),
        "dropout": job.dropout,
        "checkpointing": job.checkpointing,
        "autocast": job.autocast,
        "seq": job.seq,
        "batch": job.batch,
    }


@pytest.fixture(scope="module")
def tracked(training: Training) -> dict[str, dict[str, int]]:
    asked = json.dumps({name: case(job) for name, job in CASES.items()})
    ended = subprocess.run(
        [str(training.environment.python), str(Path(__file__).with_name("memory_tracker.py")), asked],
        env=worker_environment(training.environment),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, dict[str, int]] = json.loads(ended.stdout.splitlines()[-1])
    return found


def tensors(prediction: Prediction) -> int:
    """What PyTorch would see: nothing of the device's own."""
    return prediction.allocated - constants().cublas


@pytest.mark.parametrize("name", CASES)
def test_parameters_and_optimizer_are_counted_to_the_byte(name: str, tracked: dict[str, dict[str, int]]) -> None:
    parts = predict(CASES[name]).parts
    assert parts.weights + parts.adapter == tracked[name]["parameters"]
    # AdamW keeps a step counter of 4 bytes a parameter tensor beside the states
    assert parts.optimizer == pytest.approx(tracked[name]["optimizer"], rel=0.001)


@pytest.mark.parametrize("name", CASES)
def test_the_peak_agrees_within_five_percent(name: str, tracked: dict[str, dict[str, int]]) -> None:
    predicted = predict(CASES[name])
    assert tensors(predicted) == pytest.approx(tracked[name]["total"], rel=0.05), (predicted, tracked[name])
