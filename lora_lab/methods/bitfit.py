"""BitFit trains only the biases of a model (Ben-Zaken et al. 2022, arXiv:2106.10199).

    y = W x + b + (b' - b)

The trained bias b' starts as b, so the output is initially unchanged. Files hold b'. Hu et al. report 14.2M trained
parameters for GPT-3, which is 12 d per layer of width d, but a GPT-2 block has only 11 d biases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lora_lab.errors import BadValue
from lora_lab.lazy import Tensor, nn, torch
from lora_lab.methods.base import attach, register
from lora_lab.methods.layer_method import LayerMethod


@register
@dataclass(frozen=True)
class BitFit(LayerMethod):
    """Train all biases, including those of normalization layers."""

    name, can_pack, unmergeable = "bitfit", True, ""

    def places(self, model: nn.Module) -> Iterator[tuple[str, Mapping[str, Any]]]:
        biased = [(path, m) for path, m in attach.outside_heads(model) if m._parameters.get("bias") is not None]
        if not biased:  # without this error, only a head would be trained
            raise BadValue("bitfit has nothing to train in this model, which has no biases; use lora or ia3")
        for path, module in biased:
            if isinstance(model.get_submodule(path.rpartition(".")[0]), torch.nn.MultiheadAttention):
                raise BadValue(f"bitfit cannot train the bias of {path}: torch never calls this layer; use lora")
            if not (attach.is_linear(module) or isinstance(module, torch.nn.LayerNorm)):
                raise BadValue(f"bitfit cannot train the bias of {path}, a {type(module).__name__}; use lora")
            yield path, {}

    def start(self, layer: nn.Module, **_: Any) -> dict[str, Tensor]:
        return {"bias": layer.bias}  # type: ignore[dict-item]

    def after(self, adapter: Any, y: Tensor, x: Tensor) -> Tensor:
        return y + (adapter.bias - adapter.base_layer.bias).to(y.dtype)

    def merged_weights(self, adapter: Any, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight, adapter.bias
