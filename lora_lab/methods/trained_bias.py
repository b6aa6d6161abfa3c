"""Biases that train beside the frozen ones. The method is in bitfit.py.

y = W x + b          the frozen layer, untouched
y + (b' - b)         b' starts as b, so at the start nothing is added; a file holds b', which may stand in b's place
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lora_lab.errors import BadValue
from lora_lab.layers import is_conv1d
from lora_lab.methods.attach import attach_beside, refuse_adapted
from lora_lab.methods.base import Method, Report
from lora_lab.methods.beside import Beside, Own
from lora_lab.methods.heads import heads_of
from lora_lab.switched import Fold, Mergeable


class TrainedBias(Beside, Mergeable):
    """A frozen layer that ends in adding a bias (out), and the one that trains in its place, in fp32."""

    moves_weight = False

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        frozen: Tensor = base_layer.bias  # type: ignore[assignment]
        own = nn.Parameter(frozen.detach().to(torch.float32, copy=True))
        self._parameters["bias"] = own  # not by assignment, which a property of that name refuses

    @property
    def bias(self) -> Tensor:
        """The trained one: (out,) in fp32."""
        return self._parameters["bias"]  # type: ignore[return-value]

    def after(self, y: Tensor, own: Own) -> Tensor:
        frozen: Tensor = self.base_layer.bias  # type: ignore[assignment]
        return y + (own["bias"] - frozen).to(y.dtype).unsqueeze(1)  # (lanes, tokens, out)

    def folded(self) -> list[Fold]:
        frozen: Tensor = self.base_layer.bias  # type: ignore[assignment]
        self._was = frozen.detach().clone()  # small enough to keep
        return [(frozen, self.bias)]

    def unfolded(self) -> list[Fold]:
        return [(self.base_layer.bias, self._was)]  # type: ignore[list-item]


def attach_biases(model: nn.Module, method: Method) -> Report:
    """Freeze `model` and put a trained bias beside every frozen one, the head's apart, which trains as a whole."""
    refuse_adapted(model)
    heads = [name for name, _ in heads_of(model)]
    biased = [
        (path, module)
        for path, module in model.named_modules()
        if module._parameters.get("bias") is not None and path.split(".")[0] not in heads
    ]
    if not biased:  # a head alone would train, under bitfit's name
        raise BadValue("bitfit finds nothing to train in this model, which has no biases; use lora or ia3")
    for path, module in biased:
        if not (isinstance(module, nn.Linear | nn.LayerNorm) or is_conv1d(module)):
            raise BadValue(f"bitfit knows no way beside the bias of {path}, a {type(module).__name__}; use lora")
        if isinstance(model.get_submodule(path.rpartition(".")[0]), nn.MultiheadAttention):
            raise BadValue(
                f"bitfit knows no way beside the bias of {path}, which torch reads and never calls; use lora"
            )
    return attach_beside(model, method, [(path, TrainedBias) for path, _ in biased])
