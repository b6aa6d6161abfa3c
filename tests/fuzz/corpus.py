"""Valid adapters of every layout, for the fuzzer and for the tests of files."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lora_lab import LoRA, save_adapter
from lora_lab.methods.base import Method
from lora_lab.methods.io import CONFIG, WEIGHTS
from tests.conftest import BERT, tiny, with_adapter
from tests.methods import test_every_method as every
from tests.methods.conftest import make_model

METHODS: dict[str, tuple[str, Method]] = {name: (kind, every.METHODS[name]) for name, kind in dict(every.CASES).items()}
METHODS |= {
    "patterns": ("roberta", LoRA(rank=4, rank_pattern={"v": 2}, alpha_pattern={"*.0.*.query": 3})),
    "fused": ("gpt2", LoRA(rank=2, rslora=True)),
    "embedding": ("llama", LoRA(rank=2, targets=("embed", "v"))),
    "large": ("wide", LoRA(rank=64, targets=("all-linear",))),  # 2 MB, large enough to notice excessive memory
}
WITHOUT_HEADER = ("lora", "patterns", "fused", "embedding", "ia3", "vera", "tinylora", "prompt", "prefix", "large")


def base(kind: str) -> nn.Module:
    """Return a tiny model; "wide" is a Llama of width 256."""
    wide = {**BERT, "hidden_size": 256, "num_hidden_layers": 2, "intermediate_size": 512}
    return make_model("LlamaForCausalLM", wide) if kind == "wide" else tiny(kind)


def adapters(place: Path) -> None:
    """Write an adapter of each of METHODS, and PEFT's methods also without our header (the large one in bf16)."""
    for name, (kind, method) in METHODS.items():
        ours, theirs = save_adapter(with_adapter(base(kind), method), place / name), place / f"peft-{name}"
        if name in WITHOUT_HEADER:
            theirs.mkdir()
            shutil.copy(ours / CONFIG, theirs)
            dtype = torch.bfloat16 if name == "large" else torch.float32
            save_file({key: t.to(dtype) for key, t in load_file(ours / WEIGHTS).items()}, theirs / WEIGHTS)
