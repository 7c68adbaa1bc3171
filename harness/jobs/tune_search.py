"""The search for the fastest recipe that computes the same: which change to try next, and the result of each try. Pure.

The search tries one group after the other, always on top of the fastest recipe so far: packing, micro batch,
checkpointing, kernels, loss, attention, optimizer, order, compile. It never changes what would change the result: rank,
learning rate, precision, 8-bit states, samples per optimizer step. harness/jobs/tune_run.py runs the tries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

TryStatus = Literal["measured", "failed", "no-room", "different"]
Group = Literal[
    "untuned",
    "packing",
    "micro batch",
    "checkpointing",
    "kernels",
    "loss",
    "attention",
    "optimizer",
    "order",
    "compile",
]

# a try must be faster than the best by this share to replace it
GAIN = 0.02
CCE = "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"
KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel")
# losses may differ by this share: (first step, later steps); the optimizer amplifies rounding
TOLERANCE = {"fp32": (1e-4, 1e-3), "bf16": (5e-3, 2e-2), "fp16": (5e-3, 2e-2)}
# a packed sequence should contain at least this many documents
LEAST_PACKED = 4


class TuneChange(msgspec.Struct, frozen=True):
    """One change to try on top of the best config so far, and why it may help."""

    group: Group
    label: str
    changes: dict[str, Any]
    why: str


class TuneTry(msgspec.Struct, frozen=True):
    """One try and its result. `changes`: all changes to the recipe; the untuned recipe has none.

    `tokens_per_second`: non-padding. `rows`: the training rows that Axolotl kept. `proof`: the losses of the same eight
    documents over three steps at dropout 0. `run_seconds`: the measured process alone; `seconds`: with the comparison
    of losses.
    """

    number: int
    group: Group
    label: str
    changes: dict[str, Any]
    status: TryStatus
    tokens_per_second: float | None = None
    ci95: tuple[float, float] | None = None
    steps: int | None = None
    rows: int | None = None
    peak_bytes: int | None = None
    seconds: float = 0.0
    run_seconds: float = 0.0
    proof: tuple[float, ...] = ()
    reason: str = ""
    why: str = ""


class Duel(msgspec.Struct, frozen=True):
    """Untuned and tuned recipe in turn, each in a new process: non-padding tokens per second, and the speed-up."""

    untuned: tuple[float, ...]
    tuned: tuple[float, ...]
    ratio: float
    lowest: float
    highest: float


class TuneFacts(msgspec.Struct, frozen=True):
    """What the search may use: a GPU, optional packages. `document_tokens`: tokens of an average document."""

    gpu: bool
    packages: frozenset[str] = frozenset()
    document_tokens: float | None = None
    packable: bool = True


def next_change(config: dict[str, Any], tries: Sequence[TuneTry], facts: TuneFacts) -> TuneChange | None:
    """The next change to try, given the earlier tries; None: none is left. `config` is the untuned recipe's."""
    best = fastest_try(tries)
    if best is None:
        return None
    now = {**config, **best.changes}
    done = {entry.label for entry in tries}
    seen = {changes_digest(entry.changes) for entry in tries}
    for change in propose_changes(now, tries, facts):
        if change.label not in done and changes_digest({**best.changes, **change.changes}) not in seen:
            return change
    return None


def fastest_try(tries: Sequence[TuneTry]) -> TuneTry | None:
    """The fastest try so far; None before the untuned recipe was measured. A later try must be clearly faster."""
    best: TuneTry | None = None
    for entry in tries:
        if entry.status != "measured" or entry.tokens_per_second is None:
            continue
        if best is None or entry.tokens_per_second > (best.tokens_per_second or 0.0) * (1 + GAIN):
            best = entry
    return best


def propose_changes(now: dict[str, Any], tries: Sequence[TuneTry], facts: TuneFacts) -> Iterator[TuneChange]:
    """Every change that makes sense on top of `now`, the usually most effective ones first."""
    yield from _packing(now, facts)
    yield from _micro_batch(now, tries)
    if now.get("gradient_checkpointing"):
        yield TuneChange(
            "checkpointing",
            "no checkpointing",
            {"gradient_checkpointing": False},
            "no second forward pass; needs more memory",
        )
    if facts.gpu and now.get("adapter") and not all(now.get(key) for key in KERNELS):
        yield TuneChange(
            "kernels", "LoRA kernels", dict.fromkeys(KERNELS, True), "Axolotl's fused products of base and adapter"
        )
    yield from _loss(now, facts)
    yield from _attention(now, facts)
    if now.get("optimizer") == "adamw_torch":
        yield TuneChange(
            "optimizer", "fused AdamW", {"optimizer": "adamw_torch_fused"}, "one kernel for all parameters"
        )
    if not now.get("sample_packing") and not now.get("group_by_length"):
        yield TuneChange("order", "rows of similar length together", {"group_by_length": True}, "less padding")
    if not now.get("torch_compile"):
        yield TuneChange(
            "compile", "compiled", {"torch_compile": True}, "fused elementwise operations; needs time to compile"
        )


def _packing(now: dict[str, Any], facts: TuneFacts) -> Iterator[TuneChange]:
    """Sequences packed with documents that do not see each other: no padding, and about the same tokens per step."""
    if now.get("sample_packing") or not facts.packable or not facts.document_tokens:
        return
    samples = int(now.get("micro_batch_size") or 1) * int(now.get("gradient_accumulation_steps") or 1)
    length = int(now.get("sequence_len") or 2048)
    tokens = samples * facts.document_tokens
    # where a step has few tokens: one sequence for the whole step, so that no sequence is half empty
    longer = max(length, min(8 * length, 64 * round(tokens / 64)))
    for label, size in (("packed", length), ("packed, longer", longer)):
        if size < facts.document_tokens * LEAST_PACKED and size != longer:
            continue
        yield TuneChange(
            "packing",
            f"{label}: {size}",
            {
                "sample_packing": True,
                "sequence_len": size,
                "micro_batch_size": 1,
                "gradient_accumulation_steps": max(1, round(tokens / size)),
                "pad_to_sequence_len": False,
                **({"sdpa_varlen": True} if facts.gpu and now.get("attn_implementation") == "sdpa" else {}),
            },
            "no padding between documents of different length",
        )


def _micro_batch(now: dict[str, Any], tries: Sequence[TuneTry]) -> Iterator[TuneChange]:
    """Twice the micro-batch size, half the accumulation: the same samples per optimizer step. Stops when not faster."""
    size = int(now.get("micro_batch_size") or 1)
    times = int(now.get("gradient_accumulation_steps") or 1)
    best = fastest_try(tries)
    last = next((entry for entry in reversed(tries) if entry.group == "micro batch"), None)
    if times % 2 or (last is not None and last != best):
        return
    yield TuneChange(
        "micro batch",
        f"micro batch {2 * size} x {times // 2}",
        {"micro_batch_size": 2 * size, "gradient_accumulation_steps": times // 2},
        "each weight is read and dequantised half as often",
    )


def _loss(now: dict[str, Any], facts: TuneFacts) -> Iterator[TuneChange]:
    plugins = list(now.get("plugins") or [])
    if any("CrossEntropy" in name for name in plugins) or now.get("chunked_cross_entropy"):
        return
    if facts.gpu and "cut_cross_entropy" in facts.packages:
        yield TuneChange("loss", "cut cross entropy", {"plugins": [*plugins, CCE]}, "never holds all logits in memory")
    yield TuneChange(
        "loss", "loss in chunks", {"chunked_cross_entropy": True}, "32-bit logits only for one chunk at a time"
    )


def _attention(now: dict[str, Any], facts: TuneFacts) -> Iterator[TuneChange]:
    current = now.get("attn_implementation")
    if current == "eager":
        yield TuneChange("attention", "sdpa", {"attn_implementation": "sdpa"}, "no score matrix in memory")
    if facts.gpu and "flash_attn" in facts.packages and current != "flash_attention_2":
        yield TuneChange(
            "attention",
            "flash attention 2",
            {"attn_implementation": "flash_attention_2", "sdpa_varlen": None},
            "has a kernel for packed documents",
        )


def same_losses(proof: Sequence[float], reference: Sequence[float], precision: str) -> bool:
    """Whether two runs compute the same: the first loss compares the forward pass, the later ones the gradients."""
    first, later = TOLERANCE[precision]
    if len(proof) != len(reference) or not proof:
        return False
    return all(
        abs(one - other) <= (first if number == 0 else later) * abs(other)
        for number, (one, other) in enumerate(zip(proof, reference, strict=True))
    )


def compare_in_pairs(untuned: Sequence[float], tuned: Sequence[float]) -> Duel:
    """Compare runs in pairs, one after the other: a temporary slowdown of the machine affects both runs of a pair."""
    ratios = sorted(fast / slow for slow, fast in zip(untuned, tuned, strict=True))
    middle = len(ratios) // 2
    ratio = ratios[middle] if len(ratios) % 2 else (ratios[middle - 1] + ratios[middle]) / 2
    return Duel(tuple(untuned), tuple(tuned), ratio, ratios[0], ratios[-1])


def changes_digest(changes: dict[str, Any]) -> str:
    """The same for the same changes, in any order."""
    return hashlib.sha256(msgspec.json.encode(changes, order="sorted")).hexdigest()[:12]


def tuned_recipe_text(name: str, text: str, best: TuneTry, ratio: float | None, where: str) -> str:
    """The recipe's text with the best changes; keys that had no line are added at the end."""
    import re

    speed = f", {ratio:.2f} times as fast" if ratio else ""
    header = f"# Tuned from {name} for {where}{speed}; last change: {best.label}.\n"
    header += "# Measured by gpu-setup bench --tune, with the same losses at dropout 0.\n#\n"
    added = []
    for key, value in best.changes.items():
        written = _yaml(value)
        pattern = rf"^{re.escape(key)}:(?:.*\n(?:(?:[ \t]+|- ).*\n)*)"
        line = f"# tuned\n{key}: {written}\n" if value is not None else ""
        # a key's line, and the lines of a list or mapping below it, are replaced together
        text, found = re.subn(pattern, line.replace("\\", r"\\"), text, count=1, flags=re.MULTILINE)
        if not found and line:
            added.append(line)
    return header + text.rstrip("\n") + "\n" + ("\n" + "".join(added) if added else "")


def _yaml(value: Any) -> str:
    """A flow value: JSON is YAML."""
    return msgspec.json.encode(value).decode()
