"""Write the numbers of lesson 14's sentences for pages, which can't run the adapter: `python docs/words.py`.

The menus' words make 90 sentences. For each, the file has the percentage for "positive", then A x for each word.
"""

import json
from itertools import product
from pathlib import Path

import torch

from lora_course.checks.reading import STORED
from lora_lab import load_adapter, load_model
from lora_lab.files import write_atomically
from lora_lab.training.assets import shipped
from lora_lab.training.models import load_tokenizer

FILE = Path(__file__).resolve().parent.parent / "site" / "words.json"
MENUS = (
    ("a", "what a", "not a", "never a", "hardly a"),
    ("bad", "boring", "dull", "funny", "good", "wonderful"),
    ("film", "masterpiece", "mess"),
)


@torch.no_grad()
def readings() -> dict[str, list[float]]:
    """Return the percentage and the numbers for each sentence."""
    model, tokenizer, told = load_model("minilm", num_labels=2), load_tokenizer("minilm"), {}
    load_adapter(model, shipped(f"{STORED}/seed0"))
    adapter, kept = model.bert.encoder.layer[5].attention.self.value, []
    adapter.register_forward_pre_hook(lambda layer, inputs: kept.append(inputs[0][0, 1:-1] @ layer.lora_A[0]))
    for sentence in map(" ".join, product(*MENUS)):
        sure = model(**tokenizer(sentence, return_tensors="pt")).logits.softmax(-1)[0, 1].item()
        told[sentence] = [round(100 * sure), *(round(number, 1) for number in kept.pop().tolist())]
    return told


if __name__ == "__main__":
    write_atomically(FILE, json.dumps({"menus": MENUS, "read": readings()}).encode())
