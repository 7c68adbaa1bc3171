"""Axolotl plugin: draws a model's weights instead of reading them, each matrix on the device and quantised at once.

Named in a recipe as `gpu_setup_worker.synthetic.DrawnWeights`; base_model is then a folder with config.json, a
tokenizer and SPREAD: {kind: standard deviation}, a kind being the name before `.weight` (q_proj), "" for all others.
Vectors (norms) are ones. transformers places and quantises the weights as it does real ones, one after the other; a
weight exists in full precision only between its drawing and its quantisation, so that the host never holds the model.
"""

from __future__ import annotations

import json
from functools import partialmethod
from pathlib import Path
from typing import Any

import torch
import transformers
from axolotl.integrations.base import BasePlugin
from axolotl.loaders.model import ModelLoader
from transformers import set_seed

SPREAD = "spread.json"
SEED = 0


class Drawn:
    """A weight that is drawn when transformers asks for it (`[...]`): each time the same for a number and a device."""

    def __init__(
        self, shape: torch.Size, deviation: float, number: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._deviation, self._number, self._device = deviation, number, device

    def __getitem__(self, _whole: Any) -> torch.Tensor:
        empty = torch.empty(self.shape, dtype=self.dtype, device=self._device)
        if len(self.shape) < 2:
            return empty.fill_(1.0)
        chance = torch.Generator(self._device).manual_seed(SEED + self._number)
        return empty.normal_(0.0, self._deviation, generator=chance)


def drawn_weights(skeleton: torch.nn.Module, spread: dict[str, float], device: torch.device, dtype: torch.dtype) -> Any:
    """For each parameter of a model on the meta device the weight that will take its place: {name: Drawn}."""
    found = {}
    for number, (name, parameter) in enumerate(skeleton.named_parameters()):
        kind = name.removesuffix(".weight").rpartition(".")[2]
        found[name] = Drawn(parameter.shape, spread.get(kind, spread[""]), number, device, dtype)
    return found


def load_drawn(loader: Any, model_loader_class: Any = None, *, spread: dict[str, float]) -> Any:
    """Stands in for ModelLoader._load_model_from_pretrained: the same call of transformers, with drawn weights."""
    config = loader.model_config
    made = model_loader_class if hasattr(model_loader_class, "config_class") else None
    model_class = made or getattr(transformers, config.architectures[0])
    options = {key: value for key, value in loader.model_kwargs.items() if key != "revision"}
    with torch.device("meta"):
        skeleton = model_class(config)
    place = options.get("device_map")
    device = torch.device(place[""] if isinstance(place, dict) else "cuda" if torch.cuda.is_available() else "cpu")
    weights = drawn_weights(skeleton, spread, device, options.get("dtype") or torch.bfloat16)
    model = model_class.from_pretrained(None, config=config, state_dict=weights, **options)
    # an adapter names its base by this
    model.config.name_or_path = model.name_or_path = loader.base_model
    return model


class DrawnWeights(BasePlugin):
    def pre_model_load(self, cfg: Any) -> None:
        spread = json.loads((Path(cfg.base_model) / SPREAD).read_text(encoding="utf-8"))
        ModelLoader._load_model_from_pretrained = partialmethod(load_drawn, spread=spread)
        set_seed(cfg.seed or SEED)
