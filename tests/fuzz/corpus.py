"""Valid adapters of every layout, for the fuzzer and for the tests of files."""

import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

import lora_lab as lab
from lora_lab.methods.base import Method
from lora_lab.methods.io import CONFIG, WEIGHTS
from tests.conftest import randomise, tiny

METHODS: dict[str, tuple[str, Method]] = {
    "lora": ("roberta", lab.LoRA(rank=4)),
    "patterns": ("roberta", lab.LoRA(rank=4, rank_pattern={"v": 2}, alpha_pattern={"*.0.*.query": 3})),
    "fused": ("gpt2", lab.LoRA(rank=2, rslora=True)),
    "dora": ("llama", lab.LoRA(rank=2, targets=("q", "down"), dora=True)),
    "embedding": ("llama", lab.LoRA(rank=2, targets=("embed", "v"))),
    "pissa": ("roberta", lab.LoRA(rank=2, init="pissa")),
    "ia3": ("gpt2", lab.IA3()),
    "vera": ("llama", lab.VeRA(rank=4, save_projection=False)),
    "lora-xs": ("roberta", lab.LoRAXS(rank=4)),
    "tinylora": ("gpt2", lab.TinyLoRA(u=4, weight_tying=0.5)),
    "prompt": ("llama", lab.PromptTuning(tokens=3)),
    "ptuning": ("roberta", lab.PTuning(tokens=3)),
    "prefix": ("llama", lab.PrefixTuning(tokens=3)),
    "bitfit": ("roberta", lab.BitFit()),
    "bottleneck": ("roberta", lab.Bottleneck(size=4)),
    "full": ("gpt2", lab.FullFineTuning()),
    "large": ("wide", lab.LoRA(rank=64, targets=("all-linear",))),  # 2 MB, large enough to notice excessive memory
}
ONLY_OURS = ("pissa", "lora-xs", "ptuning", "bitfit", "bottleneck", "full")  # other methods without our header


def base(kind: str) -> nn.Module:
    """Return a tiny model; "wide" is a Llama of width 256."""
    if kind != "wide":
        return tiny(kind)
    size = {"vocab_size": 96, "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**size, intermediate_size=512)).eval()


def adapters(place: Path) -> None:
    """Write an adapter of each of METHODS, and PEFT's methods also without our header (the large one in bf16)."""
    for name, (kind, method) in METHODS.items():
        model = base(kind)
        method.attach(model)
        randomise(model)
        ours, theirs = lab.save_adapter(model, place / name), place / f"peft-{name}"
        if name not in ONLY_OURS:
            theirs.mkdir()
            shutil.copy(ours / CONFIG, theirs)
            dtype = torch.bfloat16 if name == "large" else torch.float32
            save_file({key: t.to(dtype) for key, t in load_file(ours / WEIGHTS).items()}, theirs / WEIGHTS)
