"""Does it fit: the predicted memory of one job, compared with a card's memory, and the largest job that still fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from harness.atomic_files import read_document
from harness.memory.available import AvailableMemory
from harness.memory.job import METHODS, WIDTH, Dtype, LossKind, MemoryJob, job_from_config
from harness.memory.prediction import MemoryParts, PeakMoment, inference_bytes, predict, trainable_parameters
from harness.recipe.axolotl_config import Method
from harness.recipe.loader import Recipe
from harness.recipe.shapes import LINEARS, Shapes, from_config, known_models, near_models, shapes_of
from machine.errors import BadUsage, reason

# sequence lengths are tried in this step, up to this length
STEP, LONGEST = 64, 2**20
MOST = 4096


class FitJob(msgspec.Struct, frozen=True):
    """The job that the prediction is for."""

    model: str
    recipe: str
    method: Method
    seq: int
    batch: int
    accumulation: int
    rank: int | None
    optimizer: str
    dtype: Dtype
    checkpointing: bool
    packing: bool
    loss: LossKind
    parameters: int
    trained_parameters: int


class LargestFit(msgspec.Struct, frozen=True):
    """The largest micro-batch size at the requested sequence length, and the longest sequence length (in steps of 64)
    at the requested micro-batch size; 0: none fits.
    """

    batch: int
    seq: int


class InferenceMemory(msgspec.Struct, frozen=True):
    """Memory for inference with the same model: the weights, and the key-value cache of one sequence."""

    weights_bytes: int
    cache_bytes: int
    total_bytes: int


class FitResult(msgspec.Struct, frozen=True):
    """Memory in bytes. `total_bytes` is what the card would show as used; `allocated_bytes` and `reserved_bytes` are
    PyTorch's peaks.

    `peak_at`: the moment of a step that `parts` describe. `card_bytes`: the memory that a job may use. It is null, and
    so are `fits` and `largest`, where no card was given and this machine has none.
    """

    total_bytes: int
    parts: MemoryParts
    allocated_bytes: int
    reserved_bytes: int
    peak_at: PeakMoment
    job: FitJob
    inference: InferenceMemory
    card: str | None = None
    card_bytes: int | None = None
    card_source: str | None = None
    fits: bool | None = None
    largest: LargestFit | None = None
    notes: tuple[str, ...] = ()


class FitOptions(msgspec.Struct, frozen=True):
    """The user's changes to the recipe; None: as the recipe has it."""

    model: str | None = None
    method: Method | None = None
    seq: int | None = None
    batch: int | None = None
    rank: int | None = None
    optimizer: str | None = None
    dtype: str | None = None
    checkpointing: bool | None = None
    packing: bool | None = None


def predict_fit(recipe: Recipe, wishes: FitOptions, room: AvailableMemory | None) -> FitResult:
    """Predict the memory of the recipe with these options. Raises BadUsage for an unknown model or optimizer."""
    job = job_for(recipe, wishes)
    found = predict(job)
    weights, cache = inference_bytes(job)
    answer = FitResult(
        found.device,
        found.parts,
        found.allocated,
        found.reserved,
        found.peak_at,
        _fit_job(job, recipe),
        InferenceMemory(weights, cache, weights + cache),
        notes=tuple(_notes(job)),
    )
    if room is None:
        return answer
    return msgspec.structs.replace(
        answer,
        card=room.card,
        card_bytes=room.bytes,
        card_source=room.source,
        fits=found.device <= room.bytes,
        largest=largest(job, room.bytes),
    )


def job_for(recipe: Recipe, wishes: FitOptions) -> MemoryJob:
    """The job that the recipe describes, with these options."""
    config = dict(recipe.config)
    if wishes.method is not None:
        config["adapter"] = None if wishes.method == "full" else wishes.method
        config["load_in_4bit"] = wishes.method == "qlora"
        config["load_in_8bit"] = False
    if config.get("load_in_8bit"):
        raise BadUsage(
            "fit.eight-bit",
            f"The recipe {recipe.name} loads the model in 8 bit, whose memory gpu-setup cannot predict.",
            f"It can predict these methods: {', '.join(METHODS)}.",
            "Give one with --method: qlora needs less memory, lora more.",
        )
    for key, value in (
        ("sequence_len", wishes.seq),
        ("micro_batch_size", wishes.batch),
        ("lora_r", wishes.rank),
        ("optimizer", wishes.optimizer),
        ("gradient_checkpointing", wishes.checkpointing),
        ("sample_packing", wishes.packing),
    ):
        if value is not None:
            config[key] = value
    if wishes.packing is False:
        config["pad_to_sequence_len"] = False
    if wishes.dtype is not None:
        config.update({name: name == wishes.dtype for name in ("bf16", "fp16")})
    return job_from_config(config, shapes_for(recipe, wishes.model))


def shapes_for(recipe: Recipe, model: str | None) -> Shapes:
    """The shapes of `model` (a name in the table, a config.json or its folder), else of the recipe's model."""
    name = model or str(recipe.config.get("base_model"))
    path = Path(name)
    if model and (path.suffix == ".json" or path.is_dir()):
        return _shapes_of_file(path / "config.json" if path.is_dir() else path)
    shapes = shapes_of(name)
    if shapes is None:
        near = near_models(name)
        raise BadUsage(
            "fit.model",
            f"The shapes of the model “{name}” are not known."
            + (f" Did you mean {' or '.join(near)}?" if near else ""),
            f"Known models: {', '.join(known.rpartition('/')[2] for known in known_models())}.",
            "Give one of these, or the model's config.json: gpu-setup fit --model FOLDER/config.json",
        )
    changed = recipe.config.get("overrides_of_model_config")
    layers = changed.get("num_hidden_layers") if isinstance(changed, dict) and not model else None
    return msgspec.structs.replace(shapes, layers=layers) if isinstance(layers, int) else shapes


def _shapes_of_file(path: Path) -> Shapes:
    try:
        config = read_document(path, dict[str, Any])
    except OSError as error:
        raise BadUsage(
            "fit.model", f"{path} cannot be read.", f"{error.strerror or error}.", "Check the path."
        ) from error
    except msgspec.MsgspecError as error:
        raise BadUsage(
            "fit.model", f"{path} is not a model's config.json.", f"{reason(error)}.", "Check the file."
        ) from error
    return from_config(path.parent.name or path.stem, config)


def largest(job: MemoryJob, room: int) -> LargestFit:
    """Found by bisection on the prediction: memory grows with both."""

    def fits(**changes: int) -> bool:
        return predict(msgspec.structs.replace(job, **changes)).device <= room

    return LargestFit(
        _most(lambda count: fits(batch=count), MOST),
        STEP * _most(lambda count: fits(seq=STEP * count), LONGEST // STEP),
    )


def _most(fits: Callable[[int], bool], top: int) -> int:
    """The largest number from 0 to `top` that fits; every smaller number fits too."""
    low, high = 0, top + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _fit_job(job: MemoryJob, recipe: Recipe) -> FitJob:
    return FitJob(
        job.shapes.name,
        recipe.name,
        job.method,
        job.seq,
        job.batch,
        job.accumulation,
        job.rank or None,
        job.optimizer,
        job.weights,
        job.checkpointing,
        not job.varied,
        job.loss,
        job.shapes.parameters,
        trainable_parameters(job),
    )


def _notes(job: MemoryJob) -> list[str]:
    notes = []
    if job.varied:
        notes.append(
            "Without packing, batches have many different lengths, and PyTorch's allocator reserves more than it uses. "
            "The prediction assumes that the longest row has the full sequence length; shorter data need less."
        )
    if job.attention == "math":
        notes.append(
            "Eager attention keeps a score matrix for every head: its size grows with sequence length squared."
        )
    if job.method == "full":
        states = msgspec.structs.replace(job, optimizer="paged_adamw_32bit")
        if states.optimizer != job.optimizer:
            more = predict(states).device
            notes.append(f"With 32-bit AdamW states (paged_adamw_32bit) it would need {more / 2**30:.1f} GiB.")
    elif set(job.targets) < set(LINEARS):
        notes.append(f"Adapters on {', '.join(job.targets)} only.")
    if WIDTH[job.weights] == 4:
        notes.append("The recipe computes in 32 bit; with --dtype bf16 it needs about half as much.")
    return notes
