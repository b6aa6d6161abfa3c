"""Several LoRAs as one: their weighted sum is a LoRA again, whose rank is the sum of theirs.

    sum of w_k s_k B_k A_k  =  [w_1 s_1 B_1, w_2 s_2 B_2, ...] [A_1; A_2; ...]

Where that rank would be above what the layer can hold, min(in, out), the product itself stands on one side and the
identity on the other, which is as exact and smaller. Averaging A with A and B with B is another thing, and no sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lora_lab.errors import BadValue
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import adapter_layers, adapters
from lora_lab.methods.heads import TrainedCopy
from lora_lab.methods.lora import LoRA
from lora_lab.methods.lora_layers import DoRALinear, LoRAEmbedding
from lora_lab.methods.mixed import lora_around, pair_of

Weighted = Mapping[str, tuple[nn.Module, float]]  # by name, a model that carries an adapter, and the weight of that


@torch.no_grad()
def blended(base: nn.Module, parts: Weighted) -> nn.Module:
    """`base`, a plain model, with the weighted sum of the parts' adapters attached; heads are averaged.

    Raises: BadValue for no parts, for parts that hold heads alone, for an adapter that is no sum of thin products, and
    for heads without a mean.
    """
    if not parts:
        raise BadValue("a blend needs at least one adapter and its weight")
    found = [(_pairs(name, model), weight) for name, (model, weight) in parts.items()]
    paths = list(dict.fromkeys(path for pairs, _ in found for path in pairs))
    sums = {path: _sum([(*pairs[path], weight) for pairs, weight in found if path in pairs]) for path in paths}
    ranks = {path: len(a) for path, (a, _) in sums.items()}
    if not ranks:
        raise BadValue("none of these adapters changes a layer: there is nothing to add up")
    most = max(ranks.values())
    method = LoRA(rank=most, alpha=most, targets=tuple(paths), rank_pattern=ranks, alpha_pattern=ranks)  # scaling 1
    method.attach(base)
    for path, (a, b) in sums.items():
        _fill(base.get_submodule(path), a, b)
    _average_heads(base, [(model, weight) for model, weight in parts.values()])
    return base


def _pairs(name: str, model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """A (rank, in) and B (rank, out) of each module that an adapter changes; those of an embedding likewise."""
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for path, part in adapter_layers(model):
        path = path.replace(".base_layer", "")
        if isinstance(part, DoRALinear) or not isinstance(part, LoRALinear | LoRAEmbedding | TrainedCopy):
            raise BadValue(f"'{name}' is no plain LoRA, so it is no sum of thin products: blend without it")
        if isinstance(part, LoRAEmbedding):
            pairs[path] = part.lora_embedding_A, part.scaling * part.lora_embedding_B.t()
        elif isinstance(part, LoRALinear) and path not in pairs:  # the outermost around a layer speaks for all
            pairs[path] = pair_of(lora_around(part))
    return pairs


def _sum(terms: Sequence[tuple[Tensor, Tensor, float]]) -> tuple[Tensor, Tensor]:
    """One pair for A, B and weight of each term."""
    a = torch.cat([a for a, _, _ in terms])  # (R, in)
    b = torch.cat([weight * b for _, b, weight in terms])  # (R, out)
    inputs, outputs = a.shape[1], b.shape[1]
    if len(a) <= min(inputs, outputs):
        return a, b
    product = b.t() @ a  # (out, in)
    return (torch.eye(inputs).to(a), product.t()) if inputs <= outputs else (product, torch.eye(outputs).to(b))


def _fill(layer: nn.Module, a: Tensor, b: Tensor) -> None:
    if isinstance(layer, LoRAEmbedding):
        layer.lora_embedding_A.copy_(a)
        layer.lora_embedding_B.copy_(b.t())
    elif isinstance(layer, LoRALinear):
        layer.lora_A.copy_(a)
        layer.lora_B.copy_(b.t())


def _average_heads(base: nn.Module, parts: Sequence[tuple[nn.Module, float]]) -> None:
    heads = [(path, part.trained) for path, part in adapters(base) if isinstance(part, TrainedCopy)]
    total = sum(weight for _, weight in parts)
    if heads and abs(total) < 1e-6:
        raise BadValue("the weights sum to 0, so the heads have no mean: give weights that sum to 1")
    for path, head in heads:
        others = [(model.get_submodule(f"{path}.trained").state_dict(), weight / total) for model, weight in parts]
        for key, value in head.state_dict().items():
            value.copy_(sum(weight * state[key] for state, weight in others))
