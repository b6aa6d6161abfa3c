"""The voices of lessons 00 and 06: a bank of their adapters, their sizes, and the schema of the JSON voice."""

import json
from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from lora_lab import AdapterBank, NotFound
from lora_lab.files import as_path
from lora_lab.methods.io import WEIGHTS
from lora_lab.training import device
from lora_lab.training.models import load_model, load_tokenizer, weight_bytes

BASE = "base"  # the name of the model without an adapter
CERTAINTY = ("high", "medium", "low")
KEYS = ("topic", "answer", "steps", "certainty")


def misfit(text: str) -> str:
    """Return why an answer isn't JSON that follows the schema, or "" if it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    if not isinstance(value, dict) or sorted(value) != sorted(KEYS):
        return f"not an object with just the keys {', '.join(KEYS)}"
    if not all(isinstance(value[key], str) and value[key] for key in ("topic", "answer")):
        return "topic and answer must be strings"
    if not isinstance(value["steps"], list) or not all(isinstance(step, str) and step for step in value["steps"]):
        return "steps must be a list of strings"
    return "" if value["certainty"] in CERTAINTY else f"certainty must be one of {', '.join(CERTAINTY)}"


def open_bank(
    adapters: Mapping[str, str | Path], model: str = "smollm2"
) -> tuple[AdapterBank, PreTrainedTokenizerBase]:
    """Load a base in this machine's fastest dtype, with these adapters, into a bank; return the bank and tokenizer."""
    choice = device.choose(64)
    base = load_model(model, dtype=choice.dtype, attention=choice.attention)
    bank = AdapterBank(base.to(choice.device))
    for name, folder in adapters.items():
        bank.load(name, folder)
    return bank, load_tokenizer(model)


def file_sizes(adapters: Mapping[str, str | Path], base: str = "smollm2") -> dict[str, int]:
    """Return the sizes of the weights in bytes, base first, then adapters. Raises: NotFound if a file is missing."""
    files = {name: as_path(folder) / WEIGHTS for name, folder in adapters.items()}
    if missing := [file.parent for file in files.values() if not file.is_file()]:
        raise NotFound(f"{missing[0]} is not an adapter: it has no {WEIGHTS}")
    return {BASE: weight_bytes(base)} | {name: file.stat().st_size for name, file in files.items()}
