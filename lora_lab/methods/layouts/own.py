"""The layout of methods that PEFT lacks: every number that trains, under the path that it has in the model.

    base_model.model.<path of the parameter>      as it stands beside the base, or in it
    base_model.model.classifier.weight | bias     the head

The file is as large as what trains; that of full fine-tuning is as large as the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.errors import BadValue
from lora_lab.methods.base import Method, Report
from lora_lab.methods.layouts.base import PREFIX, Layout, common_config


class OwnLayout(Layout):
    """Keys are paths."""

    peft_types = ("LORA_LAB",)

    def tensors(self, model: nn.Module, report: Report) -> dict[str, Tensor]:
        trains = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
        return {_key(name, report): p for name, p in trains}

    def config(self, model: nn.Module, report: Report) -> dict[str, Any]:
        return {"peft_type": self.peft_types[0], "method": report.method.settings(), **common_config(model, report)}

    def method(self, config: Mapping[str, Any], model: nn.Module) -> Method:
        raise BadValue("the header of the adapter's weights is gone, in which its method stood: save it anew")

    @torch.no_grad()
    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        for key, parameter in self.tensors(model, report).items():
            parameter.copy_(tensors[key])


def _key(name: str, report: Report) -> str:
    """The parameter's path; that of a head leads to where the base has its own."""
    head = next((head for head, _ in report.heads if name.startswith(f"{head}.trained.")), None)
    return PREFIX + (name.replace(".trained.", ".", 1) if head else name)
