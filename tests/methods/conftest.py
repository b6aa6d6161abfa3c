"""Helpers for the tests of methods: adapters on tiny models, PEFT's adapters, and edits of adapter files."""

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import peft
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lora_lab.errors import BadValue, LabError
from lora_lab.methods.base import Method
from lora_lab.methods.io import CONFIG, WEIGHTS
from tests.conftest import randomise, snapshot, tiny

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
TARGETS = {
    "bert": ["q,v", "all-linear", "k", "pooler.dense,o", "*.0.*.query"],
    "roberta": ["q,v", "all-linear", "k", "o,up", "*.0.*.query", "word_embeddings,q"],
    "gpt2": ["q,v", "c_attn", "k", "all-linear"],  # slices of one fused layer
    "phi3": ["q,v", "gate,down", "qkv_proj", "all-linear"],
    "llama": ["q,v", "o", "lm_head,q", "embed"],
}
PEFT_TARGETS = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"]}
PEFT_TARGETS["roberta"] = PEFT_TARGETS["bert"]
TASKS = dict.fromkeys(("minilm", "roberta", "bert"), "SEQ_CLS")  # others are CAUSAL_LM


def with_adapter(base: nn.Module | str, method: Method, seed: int = 2) -> nn.Module:
    """Attach the method to a model, or to the tiny model of that kind, and randomize what trains."""
    model = tiny(base) if isinstance(base, str) else base
    method.attach(model)
    randomise(model, seed)
    return model


@contextmanager
def raises_unchanged(model: nn.Module, match: str, error: type[LabError] = BadValue) -> Iterator[None]:
    """Check that the block raises an error of one line and leaves the model as it was."""
    before = snapshot(model)
    with pytest.raises(error, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert snapshot(model) == before


def peft_lora(kind: str, targets, **options) -> peft.LoraConfig:
    """Return the config of a LoRA of rank 4 and alpha 8 for a model of that kind."""
    options = {"r": 4, "lora_alpha": 8, "task_type": TASKS.get(kind, "CAUSAL_LM"), **options}
    return peft.LoraConfig(target_modules=targets, **options)


def peft_model(model: nn.Module, config: peft.PeftConfig, seed: int = 1) -> peft.PeftModel:
    """Attach PEFT's adapter to a model and randomize what trains."""
    adapted = peft.get_peft_model(model, copy.deepcopy(config)).eval()
    randomise(adapted, seed)
    return adapted


def save_peft(adapted: peft.PeftModel, folder: Path) -> Path:
    adapted.save_pretrained(folder)
    return folder


def load_peft(model: nn.Module, folder: Path, **options) -> peft.PeftModel:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected).*key(?!.*tinylora_P)")  # PEFT 0.19 to 0.21.1
        return peft.PeftModel.from_pretrained(model, str(folder), **options).eval()


Edit = Callable[[Path], object]


def edit_tensors(change: Callable[[dict], object]) -> Edit:
    """Change the tensors, in place or by returning a new dictionary; the header stays."""

    def edit(folder: Path) -> None:
        with safe_open(folder / WEIGHTS, "pt") as file:
            header = file.metadata()
        tensors = load_file(folder / WEIGHTS)
        changed = change(tensors)
        save_file(changed if isinstance(changed, dict) else tensors, folder / WEIGHTS, header)

    return edit


def edit_config(**options: object) -> Edit:
    """Change options of the config; None removes an option."""

    def edit(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text()) | options
        (folder / CONFIG).write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return edit


def replace_header(value: str) -> Edit:
    """Replace lora_lab's part of the header."""
    return lambda folder: save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, {"format": "pt", "lora_lab": value})
