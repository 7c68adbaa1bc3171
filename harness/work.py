"""What a report's figures are figures of: the work, which two reports must share, and the conditions, which are shown.

Work is what was computed: model, method, data, tokens. Conditions are how and on what: card, driver, kernels, power. A
3090 and a 7900 do the same work under other conditions, and comparing them is the point.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from harness.config import locate, method_of
from harness.environment import Environment
from harness.launch import Run
from harness.recipe import Recipe
from harness.shapes import LINEARS, Shapes, from_config, shapes_of
from harness.worker_log import Start, WorkerLog
from harness.worker_process import WORKER
from machine.errors import BadUsage

# bitsandbytes' own for Linear4bit (nn/modules.py of 0.50.2), and what Axolotl 0.19.0 asks for (loaders/model.py)
NF4_BLOCK = 64
NF4_DOUBLE = True
# rows in another order fall into other steps: this much in what was counted is the same work
COUNT_TOLERANCE = 0.05
# answers alone have a label where the mask is on; an unmasked row lacks one for its first token at most
EVERYTHING = 0.98


class Model(msgspec.Struct, frozen=True):
    """Shapes are None where the model's plan is not known; `window` None: attention sees the whole document."""

    name: str
    revision: str | None = None
    layers: int | None = None
    hidden: int | None = None
    intermediate: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    vocab: int | None = None
    window: int | None = None

    @property
    def shaped(self) -> bool:
        return self.layers is not None


class Quantisation(msgspec.Struct, frozen=True):
    """`kind`: nf4, fp4 or int8; `blocksize`: weights that share a scale; `double`: the scales are quantised too."""

    kind: str
    blocksize: int | None = None
    double: bool | None = None


class Adapter(msgspec.Struct, frozen=True):
    """`kind`: lora or dora. `targets` are sorted; the seven matrices of a Llama layer are `all-linear`.

    `trained_whole`: modules trained beside the adapter; `parameters`: all that is trained, as the worker counted it.
    """

    kind: str
    r: int | None
    targets: tuple[str, ...]
    dropout: float
    trained_whole: tuple[str, ...] = ()
    parameters: int | None = None


class Data(msgspec.Struct, frozen=True):
    """What is trained on. `digest`: sha256 of the files' content; None where they lie on a hub.

    `trained_on`: answers or everything (the mask). Lengths in tokens: `mean_length` of a document, and `seen_length` of
    the document that a token stands in, on average (Σℓ²/Σℓ); None where the worker did not record them. `kind` exact:
    every document fills its sequence, so that what stands in it makes no difference and there is no digest.
    """

    name: str
    digest: str | None
    kind: str
    trained_on: str
    mean_length: float | None = None
    seen_length: float | None = None


class Work(msgspec.Struct, frozen=True):
    """The key of a comparison. `method`: full, lora or qlora.

    Tokens are without padding: `tokens_per_step` of an optimizer step on average, `tokens` of all planned steps.
    """

    model: Model
    method: str
    quantisation: Quantisation | None
    adapter: Adapter | None
    precision: str
    data: Data
    sequence: int | None
    tokens_per_step: float | None
    tokens: int | None


class Conditions(msgspec.Struct, frozen=True):
    """How and on what the work was done: settings, all of them in the report's digest. None: not known or not set.

    `weights`: real or random; `recipe` and `recorder` are digests, of the recipe's text and of our own code inside the
    training; `measured`: how, in a few words (launches, soaked or not).
    """

    card: str | None = None
    cards: int | None = None
    power_limit_watts: float | None = None
    driver: str | None = None
    cpu: str | None = None
    cores: int | None = None
    threads: int | None = None
    os: str | None = None
    kernel: str | None = None
    stack: str | None = None
    lock: str | None = None
    image: str | None = None
    python: str | None = None
    torch: str | None = None
    runtime: str | None = None
    axolotl: str | None = None
    transformers: str | None = None
    peft: str | None = None
    bitsandbytes: str | None = None
    accelerate: str | None = None
    attention: str | None = None
    attention_kernels: tuple[str, ...] = ()
    checkpointing: str | None = None
    compile: bool | None = None
    packing: bool | None = None
    micro_batch: int | None = None
    accumulation: int | None = None
    optimizer: str | None = None
    kernels: tuple[str, ...] = ()
    weights: str | None = None
    seed: int | None = None
    recipe: str | None = None
    recorder: str | None = None
    measured: str | None = None


class Hardware(msgspec.Struct, frozen=True):
    """The machine's part of the conditions, as the report's summary has it."""

    os: str | None
    kernel: str | None
    cpu: str | None
    cores: int | None
    cards: tuple[str, ...]
    driver: str | None
    power_limit_watts: float | None = None


class Difference(msgspec.Struct, frozen=True):
    """One key and what each side has there."""

    key: str
    values: tuple[Any, ...]


def config_of(recipe: Recipe, run: Run) -> dict[str, Any]:
    """The recipe's config with what was changed for this run, and a person's own data in the recipe's place."""
    config = {**recipe.config, **run.overrides}
    if run.data:
        config["datasets"] = [{"path": run.data, "type": "alpaca"}]
    return config


def work_of(config: dict[str, Any], log: WorkerLog, shapes: Shapes | None, data_digest: str | None = None) -> Work:
    """The work of one run: its config as run, what the worker recorded, the model's shapes, its data's digest."""
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
    hardware: Hardware,
    recipe: Recipe,
    measured: str | None = None,
) -> Conditions:
    start = log.start or Start()
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
    """The catalogue's name of the card that was trained on: the longest one within the driver's own name for it."""
    named = sorted((card for card in cards if card in device), key=len)
    if named:
        return named[-1]
    return cards[0] if len(set(cards)) == 1 else device


def digest_of(work: Work, conditions: Conditions, config: dict[str, Any]) -> str:
    """sha256 over everything that shaped the number: the work, every setting, and the config without its folders.

    Equal digests mean that only chance, heat and other programs can have made a difference.
    """
    plain = {key: value for key, value in config.items() if key not in _FOLDERS}
    parts = msgspec.json.encode([work, conditions, plain], order="deterministic")
    return hashlib.sha256(parts).hexdigest()


# where things lie differs from machine to machine and shapes nothing
_FOLDERS = ("base_model", "datasets", "output_dir", "dataset_prepared_path", "plugins")


def differences(works: tuple[Work, ...]) -> tuple[Difference, ...]:
    """The keys in which these are not the same work; empty: they compare."""
    names = [dict(_flat(work)) for work in works]
    shaped = all(work.model.shaped for work in works)
    found = []
    for key in dict.fromkeys(key for flat in names for key in flat):
        values = tuple(flat.get(key) for flat in names)
        if key == "model" and shaped:
            # the shapes decide what is computed, whatever a mirror calls the model
            continue
        if key == "data" and all(work.data.digest for work in works):
            # the content's digest decides, whatever the file is called
            continue
        if key in _WHERE_KNOWN and None in values:
            continue
        if not _same(key, values):
            found.append(Difference(key, values))
    return tuple(found)


# compared only where every report has them: the content's digest stands for the lengths, and an unpinned model's
# revision is not known
_WHERE_KNOWN = frozenset({"revision", "mean length", "length seen"})
_COUNTED = frozenset({"tokens", "tokens a step", "mean length", "length seen"})


def _same(key: str, values: tuple[Any, ...]) -> bool:
    if key in _COUNTED and None not in values:
        return bool(max(values) <= min(values) * (1 + COUNT_TOLERANCE))
    return len(set(values)) == 1


def _flat(work: Work) -> Iterator[tuple[str, Any]]:
    """Every key of the work under the name that a person reads."""
    model, data = work.model, work.data
    yield "model", model.name
    yield "revision", model.revision
    for name in ("layers", "hidden", "intermediate", "heads", "kv_heads", "head_dim", "vocab"):
        yield f"model's {name.replace('_', ' ')}", getattr(model, name)
    yield "attention window", model.window
    yield "method", work.method
    quantisation = work.quantisation or Quantisation("none")
    yield "quantisation", quantisation.kind
    yield "quantisation's block size", quantisation.blocksize
    yield "double quantisation", quantisation.double
    adapter = work.adapter or Adapter("none", None, (), 0.0)
    yield "adapter", adapter.kind
    yield "LoRA r", adapter.r
    yield "LoRA targets", ", ".join(adapter.targets) or None
    yield "LoRA dropout", adapter.dropout
    yield "trained whole", ", ".join(adapter.trained_whole) or None
    yield "trained parameters", adapter.parameters
    yield "precision", work.precision
    yield "data", data.name
    yield "data's digest", data.digest[:12] if data.digest else None
    yield "kind of data", data.kind
    yield "trained on", data.trained_on
    yield "mean length", data.mean_length
    yield "length seen", data.seen_length
    yield "sequence", work.sequence
    yield "tokens a step", work.tokens_per_step
    yield "tokens", work.tokens


def described(work: Work) -> tuple[tuple[str, Any], ...]:
    """The work for a person: name and value, what is not known or not there left out."""
    return tuple((key, value) for key, value in _flat(work) if value is not None)


def listed(conditions: Conditions) -> tuple[tuple[str, Any], ...]:
    """The conditions under the names that a person reads, in the order of weight."""
    return tuple(
        (LABELS.get(name, name), ", ".join(value) or None if isinstance(value, tuple) else value)
        for name, value in msgspec.structs.asdict(conditions).items()
    )


LABELS = {
    "cards": "number of cards",
    "power_limit_watts": "power limit (W)",
    "cpu": "processor",
    "os": "system",
    "lock": "package lock",
    "python": "Python",
    "runtime": "CUDA or ROCm",
    "axolotl": "Axolotl",
    "attention_kernels": "attention kernels seen",
    "micro_batch": "micro batch",
    "kernels": "LoRA and loss kernels",
    "recorder": "recorder's code",
}


def _model(config: dict[str, Any], shapes: Shapes | None) -> Model:
    revision = config.get("revision_of_model")
    if shapes is None:
        return Model(_public(str(config.get("base_model"))), revision)
    return Model(
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


def _quantisation(config: dict[str, Any]) -> Quantisation | None:
    if config.get("load_in_4bit"):
        own = config.get("bnb_config_kwargs") or {}
        return Quantisation(
            str(own.get("bnb_4bit_quant_type", "nf4")),
            NF4_BLOCK,
            bool(own.get("bnb_4bit_use_double_quant", NF4_DOUBLE)),
        )
    return Quantisation("int8") if config.get("load_in_8bit") else None


def _adapter(config: dict[str, Any], start: Start | None) -> Adapter | None:
    if not config.get("adapter"):
        return None
    targets = config.get("lora_target_modules") or ()
    targets = (targets,) if isinstance(targets, str) else tuple(sorted(targets))
    if config.get("lora_target_linear") or targets == tuple(sorted(LINEARS)):
        targets = ("all-linear",)
    return Adapter(
        "dora" if config.get("peft_use_dora") else "lora",
        config.get("lora_r"),
        targets,
        float(config.get("lora_dropout") or 0.0),
        tuple(sorted(str(name) for name in config.get("lora_modules_to_save") or ())),
        start.trainable_parameters if start else None,
    )


def _precision(config: dict[str, Any], start: Start | None) -> str:
    """bf16, fp16, tf32 or fp32: what the matrices are multiplied in, as the worker saw it, else as the config says."""
    wanted = config.get("bf16")
    if wanted == "auto":
        wanted = start is not None and start.device_type == "gpu"
    seen = start.precision if start else None
    found = seen or ("bf16" if wanted else "fp16" if config.get("fp16") else "fp32")
    return "tf32" if found == "fp32" and config.get("tf32") else found


def _data(config: dict[str, Any], log: WorkerLog, digest: str | None) -> Data:
    entries = [entry for entry in config.get("datasets") or [] if isinstance(entry, dict)]
    kinds = sorted({str(entry.get("type") or "tokenised") for entry in entries})
    tokens = sum(step.non_padding for step in log.steps)
    everything = bool(config.get("train_on_inputs"))
    if tokens:
        everything = sum(step.trainable for step in log.steps) >= EVERYTHING * tokens
    told = [step for step in log.steps if step.documents and step.squares]
    known, documents = sum(step.non_padding for step in told), sum(step.documents or 0 for step in told)
    squares, sequence = sum(step.squares or 0 for step in told), int(config.get("sequence_len") or 0)
    filled = bool(told) and len(told) == len(log.steps) and squares == sequence * known == sequence**2 * documents
    exact = filled and everything
    return Data(
        name="documents of one length" if exact else ", ".join(sorted(_public(str(each["path"])) for each in entries)),
        digest=None if exact else digest,
        kind="exact" if exact else ", ".join(kinds),
        trained_on="everything" if everything else "answers",
        mean_length=round(known / documents, 1) if documents else None,
        seen_length=round(squares / known, 1) if known else None,
    )


def _public(name: str) -> str:
    """A model's or data set's name on the hub, or of a path only its last part: folders may name a person."""
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


def _checkpointing(config: dict[str, Any], start: Start) -> str | None:
    """off, full, or the config's own word (offload); what the worker saw goes before what was asked for."""
    asked = config.get("gradient_checkpointing")
    if start.checkpointing is not None:
        return (asked if isinstance(asked, str) else "full") if start.checkpointing else "off"
    return asked if isinstance(asked, str) else None if asked is None else "full" if asked else "off"


def recorder_digest() -> str:
    """Which of our own code ran inside the training process: sha256 of the worker's files, 12 characters."""
    digest = hashlib.sha256()
    for file in sorted(WORKER.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def read_data_digest(recipe: Recipe, run: Run) -> str | None:
    """sha256 of the content that was trained on, whatever the files are called; None where some of it is elsewhere."""
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
    return Path(path) if Path(path).is_absolute() else locate(path, recipe)


def read_shapes(recipe: Recipe, run: Run) -> Shapes | None:
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
