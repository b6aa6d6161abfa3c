import copy
import json
import warnings
from pathlib import Path

import peft
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lora_lab.methods.io import CONFIG, WEIGHTS
from tests.conftest import randomise

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
TARGETS = {
    "bert": ["q,v", "all-linear", "k", "pooler.dense,o", "*.0.*.query"],
    "roberta": ["q,v", "all-linear", "k", "o,up", "*.0.*.query", "word_embeddings,q"],
    "gpt2": ["q,v", "c_attn", "k", "all-linear"],  # slices of one fused layer
    "phi3": ["q,v", "gate,down", "qkv_proj", "all-linear"],
    "llama": ["q,v", "o", "lm_head,q", "embed"],
}
PEFT_TARGETS = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn"]}
PEFT_TARGETS["roberta"] = PEFT_TARGETS["bert"]
TASKS = dict.fromkeys(("roberta", "bert"), "SEQ_CLS")  # others are CAUSAL_LM


def peft_lora(kind: str, targets=None, **options) -> peft.LoraConfig:
    options = {"r": 4, "lora_alpha": 8, "task_type": TASKS.get(kind, "CAUSAL_LM"), **options}
    return peft.LoraConfig(target_modules=targets or PEFT_TARGETS[kind], **options)


def peft_model(model, config: peft.PeftConfig, seed: int = 1) -> peft.PeftModel:
    adapted = peft.get_peft_model(model, copy.deepcopy(config)).eval()
    randomise(adapted, seed)
    return adapted


def save_peft(adapted: peft.PeftModel, folder: Path) -> Path:
    adapted.save_pretrained(folder)
    return folder


def load_peft(model, folder: Path, **options) -> peft.PeftModel:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected).*key(?!.*tinylora_P)")  # PEFT 0.19 to 0.21.1
        return peft.PeftModel.from_pretrained(model, str(folder), **options).eval()


def edit_tensors(change):
    """Return an edit of a folder's tensors, in place or by returning a new dictionary; the header stays."""

    def edit(folder: Path) -> None:
        with safe_open(folder / WEIGHTS, "pt") as file:
            header = file.metadata()
        tensors = load_file(folder / WEIGHTS)
        changed = change(tensors)
        save_file(changed if isinstance(changed, dict) else tensors, folder / WEIGHTS, header)

    return edit


def edit_config(**options):
    """Return an edit of options of the config; None removes an option."""

    def edit(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text()) | options
        (folder / CONFIG).write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return edit


def replace_header(value: str):
    return lambda folder: save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, {"format": "pt", "lora_lab": value})
