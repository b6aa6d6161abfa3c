"""The task's head, which a checkpoint does not bring: it starts random, so it trains as a whole with every method."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from lora_lab.adapter_layer import AdapterLayer
from lora_lab.errors import LabWarning
from lora_lab.methods.targets import HEADS


class TrainedCopy(AdapterLayer):
    """A layer's copy that trains beside the frozen original, in fp32 whatever the base's dtype; so are its outputs."""

    head = True

    def __init__(self, base_layer: nn.Module, trained: nn.Module | None = None) -> None:
        super().__init__(base_layer)
        if trained is None:  # parameter by parameter, which also works on the meta device
            memo = {id(p): nn.Parameter(p.detach().to(torch.float32, copy=True)) for p in base_layer.parameters()}
            trained = copy.deepcopy(base_layer, memo)
        self.trained = trained

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        if not self.active:
            return self.base_layer(x, *args, **kwargs)  # type: ignore[no-any-return]
        return in_its_dtype(self.trained, x, *args, **kwargs)


def in_its_dtype(head: nn.Module, x: Tensor, *args: object, **kwargs: object) -> Tensor:
    """What a head computes in the dtype of its weights, which `model.to(bfloat16)` may change; returned in fp32."""
    dtype = next((p.dtype for p in head.parameters()), torch.float32)
    return head(x.to(dtype), *args, **kwargs).float()  # type: ignore[no-any-return]


def heads_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The head(s) of the model's task, by name; none on a language model."""
    return [(name, module) for name, module in model.named_children() if name in HEADS]


def warn_of_unknown_head(model: nn.Module) -> None:
    """LabWarning for layers beside the base model that are no head known here: they may be random, and stay so."""
    base, embeddings = getattr(model, "base_model_prefix", ""), getattr(model, "get_output_embeddings", lambda: None)
    if not hasattr(model, base) or embeddings() is not None:  # no base model inside, or a whole language model
        return
    beside = [(name, part) for name, part in model.named_children() if name not in (base, *HEADS)]
    frozen = [(name, part) for name, part in beside if not all(p.requires_grad for p in part.parameters())]
    names = [name for name, part in frozen if not isinstance(part, AdapterLayer)]
    if names:
        warnings.warn(
            f"{', '.join(names)} of this {type(model).__name__} is neither its base model nor a head known here: it "
            "stays frozen, random if no checkpoint brought it; to adapt it name its layers as targets",
            LabWarning,
            stacklevel=6,
        )
