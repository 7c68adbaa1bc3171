"""A decoder's shapes: the sizes of its matrices, from which FLOPs, memory and LoRA parameters follow."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from machine.errors import BadUsage

_TABLE = Path(__file__).with_name("shapes.toml")

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

# other model types have an MLP without a gate, or name their sizes differently
_GATED = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3_text", "smollm3", "granite", "olmo2"}
)


class Shapes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A dense decoder with a gated MLP (gate, up, down) and grouped heads: the architecture of the Llama family.

    `window`: the size of sliding-window attention in tokens; None: attention sees the whole document.
    `window_share`: the share of the layers that have the window. `tied`: head and embedding are the same matrix.
    `qkv_bias`: q, k and v have a bias (Qwen 2). `norms`: norm vectors of size `hidden` per layer. `qk_norms`: norms of
    `head_dim` on q and k. `fused_qkv`, `fused_mlp`: q/k/v, and gate/up, are one matrix (Phi-3), so that one LoRA pair
    covers them.
    """

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    window: int | None = None
    window_share: float = 1.0
    tied: bool = False
    qkv_bias: bool = False
    norms: int = 2
    qk_norms: bool = False
    fused_qkv: bool = False
    fused_mlp: bool = False

    @property
    def query(self) -> int:
        """Width of all query heads together: for most models `hidden`, but not for Gemma."""
        return self.heads * self.head_dim

    @property
    def key_value(self) -> int:
        """Width of all key heads together (the same for the values)."""
        return self.kv_heads * self.head_dim

    def linears(self) -> tuple[tuple[str, int, int], ...]:
        """One layer's matrices as (name, inputs, outputs), named as in Llama even where the model fuses them."""
        return (
            ("q_proj", self.hidden, self.query),
            ("k_proj", self.hidden, self.key_value),
            ("v_proj", self.hidden, self.key_value),
            ("o_proj", self.query, self.hidden),
            ("gate_proj", self.hidden, self.intermediate),
            ("up_proj", self.hidden, self.intermediate),
            ("down_proj", self.intermediate, self.hidden),
        )

    @property
    def block_parameters(self) -> int:
        """The matrices of all layers: what is quantised, and what LoRA adapts."""
        return self.layers * sum(inputs * outputs for _, inputs, outputs in self.linears())

    @property
    def head_parameters(self) -> int:
        """The output matrix, hidden x vocab, also where it is tied to the embedding."""
        return self.hidden * self.vocab

    @property
    def embedding_parameters(self) -> int:
        return self.hidden * self.vocab

    @property
    def norm_parameters(self) -> int:
        per_layer = self.norms * self.hidden + (2 * self.head_dim if self.qk_norms else 0)
        return self.layers * per_layer + self.hidden

    @property
    def bias_parameters(self) -> int:
        return self.layers * (self.query + 2 * self.key_value) if self.qkv_bias else 0

    @property
    def parameters(self) -> int:
        """All parameters; a tied matrix is counted once."""
        return (
            self.block_parameters
            + self.embedding_parameters
            + (0 if self.tied else self.head_parameters)
            + self.norm_parameters
            + self.bias_parameters
        )


def lora_parameters(shapes: Shapes, r: int, targets: Sequence[str]) -> int:
    """Parameters of a LoRA of rank `r` on `targets` (names of LINEARS, or Phi-3's qkv_proj and gate_up_proj)."""
    return shapes.layers * sum(r * (inputs + outputs) for _, inputs, outputs in lora_pairs(shapes, targets))


def lora_pairs(shapes: Shapes, targets: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """One layer's adapted matrices as the model has them: a fused matrix has one pair, not three."""
    real = _matrices(shapes)
    partners = {"qkv_proj": LINEARS[:3], "gate_up_proj": LINEARS[4:6]}
    wanted = [name for name in real if name in targets or any(part in targets for part in partners.get(name, ()))]
    return tuple((name, *real[name]) for name in wanted)


def _matrices(shapes: Shapes) -> dict[str, tuple[int, int]]:
    """One layer's matrices as the model has them."""
    sizes = {name: (inputs, outputs) for name, inputs, outputs in shapes.linears()}
    if shapes.fused_qkv:
        sizes = {"qkv_proj": (shapes.hidden, shapes.query + 2 * shapes.key_value), **sizes}
        for name in LINEARS[:3]:
            del sizes[name]
    if shapes.fused_mlp:
        sizes = {**sizes, "gate_up_proj": (shapes.hidden, 2 * shapes.intermediate)}
        for name in LINEARS[4:6]:
            del sizes[name]
    return sizes


def from_config(name: str, config: dict[str, Any]) -> Shapes:
    """Shapes from a model's config.json. Raises BadUsage for another architecture (mixture of experts, no gate)."""
    kind = str(config.get("model_type"))
    if kind not in _GATED or config.get("num_local_experts") or config.get("num_experts"):
        raise BadUsage(
            "shapes.kind",
            f"{name} has the model type “{kind}”, whose sizes gpu-setup cannot read from config.json.",
            f"It can read these dense decoders with a gated MLP: {', '.join(sorted(_GATED))}.",
            "Give one of these models instead.",
        )
    try:
        hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
        window, share = _window(kind, config)
        return Shapes(
            name,
            _size(config, "num_hidden_layers"),
            hidden,
            _size(config, "intermediate_size"),
            heads,
            _size(config, "num_key_value_heads", heads),
            _size(config, "head_dim", hidden // heads),
            _size(config, "vocab_size"),
            window,
            share,
            # transformers ties Gemma's by default and leaves the key out of config.json
            bool(config.get("tie_word_embeddings", kind.startswith("gemma"))),
            qkv_bias=kind == "qwen2" or bool(config.get("attention_bias")),
            norms=4 if kind in ("gemma2", "gemma3_text") else 2,
            qk_norms=kind in ("qwen3", "gemma3_text"),
            fused_qkv=kind == "phi3",
            fused_mlp=kind == "phi3",
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BadUsage(
            "shapes.config",
            f"The config of {name} does not contain a decoder's sizes.",
            f"{type(error).__name__}: {error}.",
            "Give the config.json from a model's folder.",
        ) from error


def _size(config: dict[str, Any], key: str, usual: int | None = None) -> int:
    """The whole number at the key, or the usual one; raises KeyError, ValueError."""
    found = (config.get(key) or usual) if usual is not None else config[key]
    # no matrix of any model is nearly as large
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= 1_000_000_000:
        raise ValueError(f"{key} is {found!r:.40}")
    return found


def _window(kind: str, config: dict[str, Any]) -> tuple[int | None, float]:
    window = config.get("sliding_window")
    if not window or config.get("use_sliding_window") is False:
        return None, 1.0
    share = {"gemma2": 0.5, "gemma3_text": 5 / 6}.get(kind, 1.0)
    return _size(config, "sliding_window"), share


@cache
def _table() -> dict[str, Shapes]:
    """By lower-case name, with and without the hub's owner. A row's `also` are other names of the same shapes."""
    import tomllib

    found: dict[str, Shapes] = {}
    for name, row in tomllib.loads(_TABLE.read_text(encoding="utf-8"))["models"].items():
        also = msgspec.convert(row.pop("also", ()), tuple[str, ...])
        shapes = msgspec.convert(dict(name=name, **row), Shapes)
        for known in (name, *also):
            found[known.lower()] = shapes
            found[known.rpartition("/")[2].lower()] = shapes
    return found


def known_models() -> tuple[str, ...]:
    """The names of the shipped shapes, in the table's order."""
    return tuple(dict.fromkeys(shapes.name for shapes in _table().values()))


def shapes_of(name: str) -> Shapes | None:
    """Shipped shapes by hub name, with or without the owner, upper or lower case; None: not in the table."""
    return _table().get(name.lower()) or _table().get(name.rstrip("/").rpartition("/")[2].lower())


def near_models(name: str) -> list[str]:
    """The known models with the most similar names."""
    near = difflib.get_close_matches(name.rpartition("/")[2].lower(), _table(), n=3, cutoff=0.4)
    return list(dict.fromkeys(_table()[found].name for found in near))
