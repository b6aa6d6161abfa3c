"""What training added to each matrix of a model: dW as factors, from an adapter or from a model that trained whole."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from lora_course.experiments.subspace import Factors, factors, product_factors
from lora_lab.adapter_layer import out_by_in
from lora_lab.errors import BadValue, NotFound
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import adapter_layers, report_of, sites_of
from lora_lab.training.models import load_model
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run
from lora_lab.training.tasks import load_task
from lora_lab.training.train import open_adapter


@dataclass(frozen=True)
class Update:
    """One matrix before training, and what was added to it.

    name      the module's path, without what wraps it; of a slice with its outputs, "h.0.attn.c_attn[0:64]"
    weight    W (out, in), before training
    factors   of dW, strongest first; a LoRA's are as many as its rank
    a, b      lora_A (r, in) and lora_B (out, r) where a LoRA made it, else None
    """

    name: str
    weight: np.ndarray
    factors: Factors
    a: np.ndarray | None = None
    b: np.ndarray | None = None

    @cached_property
    def matrix(self) -> np.ndarray:
        """dW as a whole, (out, in)."""
        return self.factors.cut(len(self.factors.values))

    @property
    def relative(self) -> float:
        """||dW|| / ||W||, Frobenius norms."""
        return self.factors.norm / float(np.linalg.norm(self.weight))


def updates_of_adapter(model: nn.Module) -> dict[str, Update]:
    """The update of every linear LoRA layer of a model that carries one, by name; B A is never multiplied out.

    Raises: BadValue where there is none. A layer whose update is more than B A (DoRA) is left out.
    """
    layers = ((name, layer) for name, layer in adapter_layers(model) if type(layer) is LoRALinear)
    found = {update.name: update for update in (_of_lora(name, layer) for name, layer in layers)}
    if not found:
        raise BadValue("this model carries no plain LoRA on a linear layer: attach or load one first")
    return found


def updates_between(before: nn.Module, after: nn.Module) -> dict[str, Update]:
    """The update of every linear layer, heads left out, from a plain model to one of the same shape that trained.

    One SVD a matrix: some seconds for MiniLM.
    Raises: BadValue for a `before` that carries an adapter; NotFound, BadValue for models of different shapes.
    """
    names = [site.module for site in sites_of(before) if site.kind == "linear" and site.out_slice is None]
    return {name: _between(name, _weight(before, name), _weight(after, name)) for name in names}


def updates_of(run: Run) -> dict[str, Update]:
    """Those of a finished run, from its folder, in fp32: of LoRA's layers, or of all linear ones where all trained.

    Raises: BadValue for a run that kept no adapter; as `updates_of_adapter` and `open_adapter`.
    """
    if run.adapter is None:
        raise BadValue("this run kept no adapter to look into: train it with a store")
    recipe = run.recipe
    opened = open_adapter(run.adapter, recipe.task, model=recipe.model, dtype="fp32", device_name="cpu")
    if report_of(opened.model).method.trains_base:
        return updates_between(load_model(recipe.model, opened.task.num_labels), opened.model)
    return updates_of_adapter(opened.model)


def a_at_start(recipe: Recipe) -> dict[str, np.ndarray]:
    """lora_A (r, in) of each layer as a LoRA run of this recipe begins: what is left of it later is no learning.

    Raises: BadValue for a method without plain LoRA layers.
    """
    model = load_model(recipe.model, load_task(recipe.task).num_labels)
    torch.manual_seed(recipe.seed)  # as a run does just before it attaches
    recipe.method.attach(model)
    layers = adapter_layers(model)
    found = {n.replace(".base_layer", ""): _numbers(m.lora_A) for n, m in layers if type(m) is LoRALinear}
    if not found:
        raise BadValue(f"{recipe.method.name} has no plain LoRA layer, so no A to begin with")
    return found


def _of_lora(path: str, layer: LoRALinear) -> Update:
    rows = f"[{layer.out_slice[0]}:{layer.out_slice[1]}]" if layer.out_slice else ""
    a, b = _numbers(layer.lora_A), _numbers(layer.lora_B)
    name = path.replace(".base_layer", "") + rows
    return Update(name, _numbers(layer.frozen_weight()), product_factors(b, a, layer.scaling), a, b)


def _between(name: str, before: np.ndarray, after: np.ndarray) -> Update:
    if before.shape != after.shape:
        raise BadValue(f"{name} is {before.shape} in one model and {after.shape} in the other: compare like with like")
    return Update(name, before, factors(after - before))


def _weight(model: nn.Module, name: str) -> np.ndarray:
    try:
        return _numbers(out_by_in(model.get_submodule(name)))
    except AttributeError as error:
        raise NotFound(f"the other model has no layer {name}: compare two of the same kind") from error


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
