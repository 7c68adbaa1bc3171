"""How much memory a training job needs on a card, part by part, from the model's shapes.

Only two figures are fitted (constants.toml); the rest is counted: what autograd keeps of each operation of a decoder
layer, as transformers and PEFT compute it, at the three moments of a step when memory peaks: in the loss, in the
backward pass of a layer, and in the optimizer step. tests/lab/harness/test_memory_tracker.py compares the result with
PyTorch's own memory tracker, tests/harness/memory/test_measured.py with published measurements.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.memory.job import WIDTH, AllocatorSlack, MemoryJob, constants, find_optimizer
from harness.recipe.shapes import lora_pairs, lora_parameters

NF4_BLOCK, NF4_OUTER_BLOCK = 64, 256


PeakMoment = Literal["loss", "backward", "step"]


class MemoryParts(msgspec.Struct, frozen=True):
    """Bytes at the moment of the peak. `workspace` is the dequantised matrix, cuBLAS' buffer, the optimizer step's
    copies, and memory that the allocator reserves but cannot use; `context` is the driver's context.
    """

    weights: int
    quant_constants: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int
    context: int

    @property
    def total(self) -> int:
        return sum(msgspec.structs.astuple(self))


class Prediction(msgspec.Struct, frozen=True):
    """Peaks, `allocated` ≤ `reserved` ≤ `device`: memory of tensors, of PyTorch's allocator, and used on the card."""

    parts: MemoryParts
    peak_at: PeakMoment
    allocated: int
    reserved: int
    device: int


class _Moment(msgspec.Struct, frozen=True):
    """Memory at one moment of a step, without weights, adapter and optimizer states."""

    name: PeakMoment
    gradients: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    workspace: float = 0.0

    @property
    def total(self) -> float:
        return self.gradients + self.activations + self.logits + self.workspace


def predict(job: MemoryJob, fitted: AllocatorSlack | None = None) -> Prediction:
    """Predict the peaks of `job` on one card. `fitted`: slack to use instead of the shipped constants."""
    known = constants()
    fitted = fitted or known.fitted
    weights, quant_constants = weight_bytes(job)
    adapter_count = trainable_parameters(job) if job.method != "full" else 0
    width = trained_width(job)
    adapter = adapter_count * width
    optimizer = trainable_parameters(job) * state_bytes(job)
    moments = _moments(job)
    peak = max(moments, key=lambda moment: moment.total)
    # the allocator keeps the blocks of the forward and backward pass, whichever moment is the peak
    passing = max(m.activations + m.logits + m.workspace for m in moments if m.name != "step")
    slack = passing * (fitted.slack_varied if job.varied else fitted.slack)
    allocated = weights + quant_constants + adapter + optimizer + peak.total + known.cublas
    parts = MemoryParts(
        *(
            round(part)
            for part in (
                weights,
                quant_constants,
                adapter,
                peak.gradients,
                optimizer,
                peak.activations,
                peak.logits,
                peak.workspace + known.cublas + slack,
                known.context,
            )
        )
    )
    return Prediction(parts, peak.name, round(allocated), round(allocated + slack), parts.total)


def inference_bytes(job: MemoryJob) -> tuple[int, int]:
    """Bytes of the weights, and of the key-value cache for `seq` x `batch` tokens in the weights' width (NF4:
    16 bit).
    """
    shapes, width = job.shapes, WIDTH[job.weights]
    weights, quant_constants = weight_bytes(job)
    reach = min(job.seq, shapes.window) if shapes.window and shapes.window_share == 1 else job.seq
    return round(weights + quant_constants), 2 * shapes.layers * shapes.key_value * width * reach * job.batch


def trainable_parameters(job: MemoryJob) -> int:
    """How many parameters are trained."""
    if job.method == "full":
        return job.shapes.parameters
    return lora_parameters(job.shapes, job.rank, job.targets)


def trained_width(job: MemoryJob) -> int:
    """Bytes of a trained parameter and of its gradient: the model's width, or the adapter's."""
    return WIDTH[job.weights if job.method == "full" else job.adapter]


def state_bytes(job: MemoryJob) -> float:
    """Bytes of optimizer state per trained parameter."""
    optimizer = find_optimizer(job.optimizer)
    return optimizer.bytes + optimizer.like_weights * trained_width(job)


def weight_bytes(job: MemoryJob) -> tuple[float, float]:
    """The base model, and NF4's constants: a 32-bit scale per 64 weights, or (double quantisation) an 8-bit scale per
    64 weights and a 32-bit scale per 256 of these.
    """
    shapes, width = job.shapes, WIDTH[job.weights]
    ends = 4 if job.float32 == "ends" else width
    rest = shapes.parameters - shapes.block_parameters
    if not job.quantised:
        return shapes.block_parameters * width + rest * ends, 0.0
    scale = (1 + 4 / NF4_OUTER_BLOCK) if job.double_quant else 4
    return shapes.block_parameters / 2 + rest * ends, shapes.block_parameters * scale / NF4_BLOCK


def _moments(job: MemoryJob) -> tuple[_Moment, ...]:
    shapes, tokens = job.shapes, job.tokens
    everything = trainable_parameters(job) * trained_width(job)
    # with accumulation, memory already holds the gradients of the previous micro-batch
    early = everything if job.accumulation > 1 else 0.0
    layer = kept_by_layer(job) * tokens
    if job.checkpointing:
        kept = float(shapes.layers * job.stream * shapes.hidden * tokens)
        one_layer = layer
    else:
        kept = shapes.layers * layer
        one_layer = 0.0
    ends = kept + _kept_by_last_norm(job) * tokens + _adapter_copies(job)
    matrix = _dequantised_bytes(job)
    backward = one_layer + backward_bytes(job) * tokens
    moments = [
        _Moment("loss", early, ends, logits(job) * tokens),
        _Moment("step", everything, workspace=trainable_parameters(job) * _step_bytes(job)),
    ]
    if job.method == "full" and not early:
        # the backward pass ends with the first layer: by then it has all gradients, but hardly a checkpoint
        head = shapes.head_parameters * trained_width(job)
        moments.append(_Moment("backward", head, kept + backward, workspace=matrix))
        moments.append(_Moment("backward", everything, kept / shapes.layers + backward, workspace=matrix))
    else:
        moments.append(_Moment("backward", everything, kept + backward, workspace=matrix))
    return tuple(moments)


def _adapter_copies(job: MemoryJob) -> float:
    """Autocast's 16-bit copies of a 32-bit adapter: cached during the forward pass, and kept for the backward pass
    where no layer is recomputed.
    """
    if job.method == "full" or not job.autocast or WIDTH[job.adapter] == 2:
        return 0.0
    forward, backward = _logits_at(job)
    return 2.0 * trainable_parameters(job) if not job.checkpointing or forward > backward else 0.0


def _step_bytes(job: MemoryJob) -> float:
    return find_optimizer(job.optimizer).step_like_weights * trained_width(job)


def _dequantised_bytes(job: MemoryJob) -> float:
    """NF4's kernels dequantise one matrix at a time to 16 bit."""
    if not job.quantised:
        return 0.0
    return 2.0 * max(inputs * outputs for _, inputs, outputs in job.shapes.linears())


def logits(job: MemoryJob) -> float:
    """Bytes per token in the loss: what transformers' ForCausalLMLoss and cross_entropy hold at the same time."""
    return float(job.shapes.vocab * max(_logits_at(job)))


def _logits_at(job: MemoryJob) -> tuple[int, int]:
    """Bytes per logit in the loss, summed: in the forward pass, and in the backward pass."""
    if job.loss == "fused":
        return 0, 0
    raw = 4 if not job.autocast and (job.float32 == "ends" or job.weights == "fp32") else 2
    upcast = 0 if raw == 4 else 4
    forward = raw + upcast + 4 + (4 if job.loss == "shifted" else 0)
    # log-probabilities, their gradient, and the gradient of the logits
    backward = 12 + (raw if job.keeps_logits else 0)
    return forward, backward


def _kept_by_last_norm(job: MemoryJob) -> float:
    """The last RMSNorm's 32-bit copy, and its output."""
    return job.shapes.hidden * (4 + job.stream)


def kept_by_layer(job: MemoryJob) -> float:
    """Bytes per token that autograd keeps of one decoder layer."""
    shapes, stream = job.shapes, job.stream
    full = job.method == "full"
    attention = _attention_width(job)
    queries, keys = shapes.query, shapes.key_value
    norms = (4 if stream == 2 or not job.checkpointing else 0) + 4
    if full:
        # a trained norm weight keeps the normalised input too
        norms += 2 * stream
    kept = float(norms * shapes.hidden)
    if job.attention == "math":
        # keys and values repeated for every query head, and the probabilities: in 32 bit, and again in 16 bit
        kept += attention * 4 * queries + shapes.heads * job.seq * (4 + (attention if attention < 4 else 0))
    else:
        kept += attention * (2 * queries + 2 * keys) + 4 * shapes.heads
    if shapes.qk_norms:
        kept += 4 * (queries + keys)
    kept += _kept_inputs(job, ("q_proj", "k_proj", "v_proj", "qkv_proj"), shapes.hidden, stream)
    kept += _kept_inputs(job, ("o_proj",), queries, 0)
    kept += _kept_inputs(job, ("gate_proj", "up_proj", "gate_up_proj"), shapes.hidden, stream)
    inner = _inner_width(job)
    kept += (2 if job.lora_kernels else 3) * inner * shapes.intermediate
    kept += _kept_inputs(job, ("down_proj",), shapes.intermediate, inner)
    return kept


def _kept_inputs(job: MemoryJob, siblings: tuple[str, ...], width: int, own: int) -> float:
    """What the matrices `siblings`, which share one input of `width`, keep of it; `own`: bytes per element of the
    input itself where nothing else keeps it.

    A trained matrix keeps its input. LoRA's A does too, in its own width: one copy per adapter where the widths differ,
    where autocast converts, and where dropout (whose mask takes a byte) gives each adapter its own input.
    """
    if job.method == "full":
        copies = len([name for name, _, _ in job.shapes.linears() if name in siblings])
        return float(width * (2 * copies if job.autocast and job.weights == "fp32" else own))
    adapted = [name for name, _, _ in lora_pairs(job.shapes, job.targets) if name in siblings]
    if not adapted:
        return 0.0
    inner = job.rank * len(adapted) * (2 if job.autocast else WIDTH[job.adapter])
    if job.lora_kernels:
        # axolotl/kernels/lora.py: the input once for all siblings, again after dropout; down's is recomputed
        return float(inner if siblings == ("down_proj",) else width * (own + (2 if job.dropout else 0)) + inner)
    own_width = job.stream
    if job.dropout:
        return float(width * len(adapted) * ((2 if job.autocast else WIDTH[job.adapter]) + 1) + inner)
    if job.autocast and (WIDTH[job.adapter] != 2 or own_width != 2):
        return float(width * len(adapted) * 2 + inner)
    if WIDTH[job.adapter] != own_width:
        return float(width * len(adapted) * WIDTH[job.adapter] + inner)
    return float(width * own + inner)


def _attention_width(job: MemoryJob) -> int:
    return 2 if job.autocast or job.stream == 2 else 4


def _inner_width(job: MemoryJob) -> int:
    """Bytes per element inside the MLP: an NF4 matrix returns its input's width, any other matrix autocast's."""
    if job.autocast and not job.quantised:
        return 2
    return job.stream


def backward_bytes(job: MemoryJob) -> float:
    """Temporary bytes per token in the backward pass of one layer, in addition to what the layer keeps."""
    shapes, inner = job.shapes, _inner_width(job)
    down = _kept_inputs(job, ("down_proj",), shapes.intermediate, inner) / shapes.intermediate
    lora = 0
    if down and job.method != "full":
        lora = 2 if job.autocast else WIDTH[job.adapter]
    mlp = shapes.intermediate * max(2 * inner + lora, 3 * inner - down)
    residual = 2 * job.stream * shapes.hidden
    if job.attention != "math":
        return mlp + residual
    # the MLP's memory is free again when the attention is computed
    scores = shapes.heads * job.seq * (8 + _attention_width(job))
    return max(mlp, scores - (3 * inner + down) * shapes.intermediate) + residual
