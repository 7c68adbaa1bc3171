"""The work of one run and its conditions, from its config, its recipe, and what the worker recorded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from harness.environment.build import Environment
from harness.environment.worker_process import WORKER
from harness.process.worker_log import StartEvent, WorkerLog
from harness.recipe.axolotl_config import find_dataset, method_of
from harness.recipe.loader import Recipe
from harness.recipe.shapes import LINEARS, Shapes, from_config, shapes_of
from harness.report.comparison_key import AdapterUsed, Conditions, DataUsed, ModelUsed, QuantisationUsed, Work
from harness.training.launch import RunRecord
from machine.errors import BadUsage

# bitsandbytes' own for Linear4bit (nn/modules.py of 0.50.2), and what Axolotl 0.19.0 asks for (loaders/model.py)
NF4_BLOCK = 64
NF4_DOUBLE = True
# with the mask only answers have labels; without it only the first token of a row has none
EVERYTHING = 0.98


class HostConditions(msgspec.Struct, frozen=True):
    """The machine's part of the conditions, from the report's summary of the host."""

    os: str | None
    kernel: str | None
    cpu: str | None
    cores: int | None
    cards: tuple[str, ...]
    driver: str | None
    power_limit_watts: float | None = None


def config_of(recipe: Recipe, run: RunRecord) -> dict[str, Any]:
    """The recipe's config with the changes for this run, and the user's own data instead of the recipe's."""
    config = {**recipe.config, **run.overrides}
    if run.data:
        config["datasets"] = [{"path": run.data, "type": "alpaca"}]
    return config


def work_of(config: dict[str, Any], log: WorkerLog, shapes: Shapes | None, data_digest: str | None = None) -> Work:
    """The work of one run, from its config, the worker's log, the model's shapes and the digest of its data."""
    steps = log.steps
    per_step = sum(step.non_padding for step in steps) / len(steps) if steps else None
    planned = log.begin.planned_steps if log.begin and log.begin.planned_steps else len(steps)
    return Work(
        model=_model(config, shapes),
        method=method_of(config),
        quantisation=_quantisation(config),
        adapter=_adapter(config, log.start),
        precision=_precision(config, log.start),
        data=_data(config, log, data_digest),
        sequence=config.get("sequence_len"),
        tokens_per_step=round(per_step, 1) if per_step else None,
        tokens=round(per_step * planned) if per_step else None,
    )


def conditions_of(
    config: dict[str, Any],
    log: WorkerLog,
    environment: Environment,
    hardware: HostConditions,
    recipe: Recipe,
    measured: str | None = None,
) -> Conditions:
    start = log.start or StartEvent()
    gpu = start.device_type == "gpu"
    return Conditions(
        card=_card(start.device, hardware.cards) if gpu else None,
        cards=1 if gpu else None,
        power_limit_watts=hardware.power_limit_watts if gpu else None,
        driver=hardware.driver if gpu else None,
        cpu=hardware.cpu,
        cores=hardware.cores,
        threads=start.threads,
        os=hardware.os,
        kernel=hardware.kernel,
        stack=environment.stack,
        lock=environment.lock_digest[:12],
        image=environment.image,
        python=environment.python_version,
        torch=environment.torch,
        runtime=f"cuda {start.cuda}" if start.cuda else f"rocm {start.hip}" if start.hip else None,
        axolotl=start.axolotl,
        transformers=start.transformers,
        peft=start.peft,
        bitsandbytes=start.bitsandbytes,
        accelerate=start.accelerate,
        attention=start.attention,
        attention_kernels=tuple(name.removeprefix("aten::") for name in log.attention.kernels) if log.attention else (),
        checkpointing=_checkpointing(config, start),
        compile=bool(config.get("torch_compile")),
        packing=bool(config.get("sample_packing")),
        micro_batch=config.get("micro_batch_size"),
        accumulation=config.get("gradient_accumulation_steps"),
        optimizer=config.get("optimizer"),
        kernels=_kernels(config),
        weights="random" if recipe.traits.model == "tiny" or recipe.traits.throughput_only else "real",
        seed=config.get("seed", 42),
        recipe=recipe.digest[:12],
        recorder=recorder_digest(),
        measured=measured,
    )


def _card(device: str, cards: tuple[str, ...]) -> str:
    """The catalogue's name of the GPU that was trained on: the longest one that the driver's name for it contains."""
    named = sorted((card for card in cards if card in device), key=len)
    if named:
        return named[-1]
    return cards[0] if len(set(cards)) == 1 else device


def _model(config: dict[str, Any], shapes: Shapes | None) -> ModelUsed:
    revision = config.get("revision_of_model")
    if shapes is None:
        return ModelUsed(_public(str(config.get("base_model"))), revision)
    return ModelUsed(
        shapes.name,
        revision,
        shapes.layers,
        shapes.hidden,
        shapes.intermediate,
        shapes.heads,
        shapes.kv_heads,
        shapes.head_dim,
        shapes.vocab,
        shapes.window,
    )


def _quantisation(config: dict[str, Any]) -> QuantisationUsed | None:
    if config.get("load_in_4bit"):
        own = config.get("bnb_config_kwargs") or {}
        return QuantisationUsed(
            str(own.get("bnb_4bit_quant_type", "nf4")),
            NF4_BLOCK,
            bool(own.get("bnb_4bit_use_double_quant", NF4_DOUBLE)),
        )
    return QuantisationUsed("int8") if config.get("load_in_8bit") else None


def _adapter(config: dict[str, Any], start: StartEvent | None) -> AdapterUsed | None:
    if not config.get("adapter"):
        return None
    targets = config.get("lora_target_modules") or ()
    targets = (targets,) if isinstance(targets, str) else tuple(sorted(targets))
    if config.get("lora_target_linear") or targets == tuple(sorted(LINEARS)):
        targets = ("all-linear",)
    return AdapterUsed(
        "dora" if config.get("peft_use_dora") else "lora",
        config.get("lora_r"),
        targets,
        float(config.get("lora_dropout") or 0.0),
        tuple(sorted(str(name) for name in config.get("lora_modules_to_save") or ())),
        start.trainable_parameters if start else None,
    )


def _precision(config: dict[str, Any], start: StartEvent | None) -> str:
    """bf16, fp16, tf32 or fp32: the precision of the matrix products, from the worker's log, else from the config."""
    wanted = config.get("bf16")
    if wanted == "auto":
        wanted = start is not None and start.device_type == "gpu"
    seen = start.precision if start else None
    found = seen or ("bf16" if wanted else "fp16" if config.get("fp16") else "fp32")
    return "tf32" if found == "fp32" and config.get("tf32") else found


def _data(config: dict[str, Any], log: WorkerLog, digest: str | None) -> DataUsed:
    entries = [entry for entry in config.get("datasets") or [] if isinstance(entry, dict)]
    kinds = sorted({str(entry.get("type") or "tokenised") for entry in entries})
    tokens = sum(step.non_padding for step in log.steps)
    everything = bool(config.get("train_on_inputs"))
    if tokens:
        everything = sum(step.trainable for step in log.steps) >= EVERYTHING * tokens
    recorded = [step for step in log.steps if step.documents and step.squares]
    known, documents = sum(step.non_padding for step in recorded), sum(step.documents or 0 for step in recorded)
    squares, sequence = sum(step.squares or 0 for step in recorded), int(config.get("sequence_len") or 0)
    filled = (
        bool(recorded) and len(recorded) == len(log.steps) and squares == sequence * known == sequence**2 * documents
    )
    exact = filled and everything
    return DataUsed(
        name="documents of one length" if exact else ", ".join(sorted(_public(str(each["path"])) for each in entries)),
        digest=None if exact else digest,
        kind="exact" if exact else ", ".join(kinds),
        trained_on="everything" if everything else "answers",
        mean_length=round(known / documents, 1) if documents else None,
        seen_length=round(squares / known, 1) if known else None,
    )


def _public(name: str) -> str:
    """A model's or data set's name on the hub; of a path only the last part, because folders may name a person."""
    return Path(name).name if name.startswith(("/", "~", ".")) else name


# config keys that choose another implementation of the same computation
_KERNELS = (
    "lora_mlp_kernel",
    "lora_qkv_kernel",
    "lora_o_kernel",
    "lora_embedding_kernel",
    "cut_cross_entropy",
    "liger_rope",
    "liger_rms_norm",
    "liger_glu_activation",
    "liger_fused_linear_cross_entropy",
    "chunked_cross_entropy",
    "sdpa_varlen",
)


def _kernels(config: dict[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in _KERNELS if config.get(name))


def _checkpointing(config: dict[str, Any], start: StartEvent) -> str | None:
    """off, full, or the config's own value (offload); what the worker recorded has priority over the config."""
    asked = config.get("gradient_checkpointing")
    if start.checkpointing is not None:
        return (asked if isinstance(asked, str) else "full") if start.checkpointing else "off"
    return asked if isinstance(asked, str) else None if asked is None else "full" if asked else "off"


def recorder_digest() -> str:
    """The version of our own code inside the training process: sha256 of the worker's files, 12 characters."""
    digest = hashlib.sha256()
    for file in sorted(WORKER.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def read_data_digest(recipe: Recipe, run: RunRecord) -> str | None:
    """sha256 of the content that was trained on, independent of file names; None where some of it is not on disk."""
    entries = config_of(recipe, run).get("datasets") or []
    files = [_file(str(entry["path"]), recipe) for entry in entries]
    digest = hashlib.sha256()
    try:
        for content in sorted(hashlib.sha256(file.read_bytes()).digest() for file in files if file is not None):
            digest.update(content)
    except OSError:
        return None
    return digest.hexdigest() if files and None not in files else None


def _file(path: str, recipe: Recipe) -> Path | None:
    return Path(path) if Path(path).is_absolute() else find_dataset(path, recipe)


def read_shapes(recipe: Recipe, run: RunRecord) -> Shapes | None:
    """The model's shapes as trained: from the config.json in its folder, else from the table; None: not known."""
    asked = recipe.config.get("overrides_of_model_config")
    asked = asked if isinstance(asked, dict) else {}
    known = shapes_of(str(recipe.config.get("base_model")))
    try:
        config = msgspec.json.decode((Path(run.base_model) / "config.json").read_bytes(), type=dict[str, Any])
        shapes = from_config(known.name if known else _public(str(recipe.config.get("base_model"))), config | asked)
    except (OSError, msgspec.MsgspecError, BadUsage):
        if known is None or set(asked) - {"sliding_window"}:
            return None
        shapes = msgspec.structs.replace(known, window=asked.get("sliding_window", known.window))
    return shapes
