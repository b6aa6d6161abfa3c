"""Lesson 12: an adapter whose updates are shortened by as much as rounding to 4 bits changes each matrix."""

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from lora_lab import load_model
from lora_lab.methods.io import WEIGHTS
from lora_lab.methods.quant import quantize


def opposed(adapter: Path, folder: Path) -> Path:
    """Copy a LoRA of MiniLM (alpha = 2 r), shortening each update by the norm of NF4's error in that matrix."""
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    model, tensors = load_model("minilm", num_labels=2), load_file(adapter / WEIGHTS)
    for name in [name for name in tensors if name.endswith(".lora_B.weight")]:
        path = name.removeprefix("base_model.model.").removesuffix(".lora_B.weight")
        weight = model.get_submodule(path).weight.detach()
        update = 2 * tensors[name] @ tensors[name.replace("lora_B", "lora_A")]
        tensors[name] *= 1 - (quantize(weight).dequantized() - weight).norm() / update.norm()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return folder
