"""Axolotl plugin: a model with random weights instead of trained ones, each generated on the device and quantised at
once.

Named in a recipe as `gpu_setup_worker.synthetic.RandomWeights`; base_model is then a folder with config.json, a
tokenizer and SPREAD: {kind: standard deviation}. A kind is the name before `.weight` (q_proj), "" is for all others.
Vectors (norms) are ones. transformers places and quantises the weights one after the other, as it does with real ones.
A weight exists in full precision only until it is quantised, so that the host never holds the whole model.
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


class RandomWeight:
    """A weight generated when transformers reads it (`[...]`): always the same for the same number and device."""

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


def random_weights(
    skeleton: torch.nn.Module, spread: dict[str, float], device: torch.device, dtype: torch.dtype
) -> Any:
    """For each parameter of a model on the meta device the weight that will replace it: {name: RandomWeight}."""
    found = {}
    for number, (name, parameter) in enumerate(skeleton.named_parameters()):
        kind = name.removesuffix(".weight").rpartition(".")[2]
        found[name] = RandomWeight(parameter.shape, spread.get(kind, spread[""]), number, device, dtype)
    return found


def load_random(loader: Any, model_loader_class: Any = None, *, spread: dict[str, float]) -> Any:
    """Replaces ModelLoader._load_model_from_pretrained: the same call of transformers, but with random weights."""
    config = loader.model_config
    made = model_loader_class if hasattr(model_loader_class, "config_class") else None
    model_class = made or getattr(transformers, config.architectures[0])
    options = {key: value for key, value in loader.model_kwargs.items() if key != "revision"}
    with torch.device("meta"):
        skeleton = model_class(config)
    place = options.get("device_map")
    device = torch.device(place[""] if isinstance(place, dict) else "cuda" if torch.cuda.is_available() else "cpu")
    weights = random_weights(skeleton, spread, device, options.get("dtype") or torch.bfloat16)
    model = model_class.from_pretrained(None, config=config, state_dict=weights, **options)
    # an adapter refers to its base by this name
    model.config.name_or_path = model.name_or_path = loader.base_model
    return model


class RandomWeights(BasePlugin):
    def pre_model_load(self, cfg: Any) -> None:
        spread = json.loads((Path(cfg.base_model) / SPREAD).read_text(encoding="utf-8"))
        ModelLoader._load_model_from_pretrained = partialmethod(load_random, spread=spread)
        set_seed(cfg.seed or SEED)


# the plugin's earlier name, which copies of the recipe may still have
DrawnWeights = RandomWeights
