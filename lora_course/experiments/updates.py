"""What LoRA added to each matrix of a model: dW = scaling * B A, as factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from lora_course.experiments.subspace import Factors, product_factors
from lora_lab.errors import BadValue
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import adapter_layers
from lora_lab.training.runs import Run
from lora_lab.training.train import open_adapter


@dataclass(frozen=True)
class Update:
    """One matrix before training, and what LoRA added to it.

    name      the module's path; of a slice with its outputs, "h.0.attn.c_attn[0:64]"
    weight    W (out, in), before training
    factors   of dW, strongest first, as many as the rank
    a, b      lora_A (rank, in) and lora_B (out, rank)
    """

    name: str
    weight: np.ndarray
    factors: Factors
    a: np.ndarray
    b: np.ndarray


def updates_of_adapter(model: nn.Module) -> dict[str, Update]:
    """The update of every linear LoRA layer of a model, by name.

    Raises: BadValue if there is none. A layer whose update is more than B A (DoRA) is left out.
    """
    layers = ((name, layer) for name, layer in adapter_layers(model) if type(layer) is LoRALinear)
    found = {update.name: update for update in (_update(name, layer) for name, layer in layers)}
    if not found:
        raise BadValue("this model carries no plain LoRA on a linear layer: attach or load one first")
    return found


def updates_of(run: Run) -> dict[str, Update]:
    """Those of a finished run, from its folder, in fp32. Raises: BadValue if it kept no adapter, or no LoRA."""
    if run.adapter is None:
        raise BadValue("this run kept no adapter to look into: train it with a store")
    recipe = run.recipe
    opened = open_adapter(run.adapter, recipe.task, model=recipe.model, dtype="fp32", device_name="cpu")
    return updates_of_adapter(opened.model)


def _update(path: str, layer: LoRALinear) -> Update:
    rows = f"[{layer.out_slice[0]}:{layer.out_slice[1]}]" if layer.out_slice else ""
    a, b = _numbers(layer.lora_A), _numbers(layer.lora_B)
    factors = product_factors(b, a, layer.scaling)
    return Update(path.replace(".base_layer", "") + rows, _numbers(layer.frozen_weight()), factors, a, b)


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
