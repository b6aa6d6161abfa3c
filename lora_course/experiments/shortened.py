"""Lesson 12: an adapter whose update of a matrix is shortened by as much as rounding to 4 bits changes the matrix."""

from pathlib import Path

import torch

from lora_lab import load_adapter, load_model, save_adapter
from lora_lab.methods.lora_layers import lora_layers
from lora_lab.methods.quant import quantize


@torch.no_grad()
def shortened(adapter: Path, folder: Path) -> Path:
    """Save a copy of a LoRA of MiniLM in which B of each layer is multiplied by 1 - ||NF4's error|| / ||update||."""
    load_adapter(model := load_model("minilm", num_labels=2), adapter)
    for layer in (layer for layers in lora_layers(model).values() for layer in layers):
        weight = layer.frozen_weight()
        layer.lora_B *= 1 - (quantize(weight).dequantized() - weight).norm() / layer.delta_weight().norm()
    return save_adapter(model, folder)
