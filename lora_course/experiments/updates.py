"""The update that LoRA adds to each matrix of a model, dW = scaling * B A, as factors."""

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
    """One matrix before training, and LoRA's update of it.

    name      the module's path; for a slice, with its output rows: "h.0.attn.c_attn[0:64]"
    weight    W (out, in), before training
    factors   of dW, strongest first; their number is the rank
    a, b      lora_A (rank, in) and lora_B (out, rank)
    """

    name: str
    weight: np.ndarray
    factors: Factors
    a: np.ndarray
    b: np.ndarray


def updates_of_adapter(model: nn.Module) -> dict[str, Update]:
    """Return the update of every linear LoRA layer of a model, by name.

    Skips layers whose update is more than B A (DoRA). Raises: BadValue if no layer is left.
    """
    updates = [_update(name, layer) for name, layer in adapter_layers(model) if type(layer) is LoRALinear]
    if not updates:
        raise BadValue("this model has no plain LoRA on a linear layer: attach or load one first")
    return {update.name: update for update in updates}


def updates_of(run: Run) -> dict[str, Update]:
    """Return the updates of a finished run, from its folder, in fp32. Raises: BadValue if it kept no LoRA adapter."""
    if run.adapter is None:
        raise BadValue("this run kept no adapter to look into: train it with a store")
    recipe = run.recipe
    adapted = open_adapter(run.adapter, recipe.task, model=recipe.model, dtype="fp32", device_name="cpu")
    return updates_of_adapter(adapted.model)


def _update(path: str, layer: LoRALinear) -> Update:
    rows = f"[{layer.out_slice[0]}:{layer.out_slice[1]}]" if layer.out_slice else ""
    a, b = _to_numpy(layer.lora_A), _to_numpy(layer.lora_B)
    factors = product_factors(b, a, layer.scaling)
    return Update(path.replace(".base_layer", "") + rows, _to_numpy(layer.frozen_weight()), factors, a, b)


def _to_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
