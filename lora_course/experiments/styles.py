"""The voices of lessons 00 and 06: a bank of their adapters, and whether an answer is in a voice.

    misfit(text)               why an answer isn't JSON of the schema (data/styles/README.md)
    our_ear().shares(texts)    the fraction of answers that sound like each voice, by their words
    open_bank(adapters)        a base with named adapters; `answers` asks the base and every adapter

An ear assigns every text to one of its voices, even a text in no voice. It sees only words, not meaning.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from lora_lab import AdapterBank, BadValue, NotFound
from lora_lab.methods.io import WEIGHTS
from lora_lab.training import device
from lora_lab.training.chat import Prompt
from lora_lab.training.generate import Decoding, generate
from lora_lab.training.models import load_model, load_tokenizer, weight_bytes
from lora_lab.training.tasks import VOICES, voice

BASE = "base"  # the name of the model without an adapter
CERTAINTY = ("high", "medium", "low")
KEYS = ("topic", "answer", "steps", "certainty")


def misfit(text: str) -> str:
    """Return why an answer isn't JSON of the schema, or "" if it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    if not isinstance(value, dict) or sorted(value) != sorted(KEYS):
        return f"not an object with just the keys {', '.join(KEYS)}"
    if not all(isinstance(value[key], str) and value[key] for key in ("topic", "answer")):
        return "topic and answer must be texts"
    if not isinstance(value["steps"], list) or not all(isinstance(step, str) and step for step in value["steps"]):
        return "steps must be a list of texts"
    return "" if value["certainty"] in CERTAINTY else f"certainty must be one of {', '.join(CERTAINTY)}"


class Ear:
    """Tells which voice an answer sounds like: naive Bayes over `pieces` with a uniform prior.

    score of a voice = sum over an answer's pieces of log((count in its texts + 1) / (pieces in its texts + kinds))

    texts   of each voice, for training; never the texts to be classified
    """

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        self.counts = {name: Counter(piece for text in own for piece in pieces(text)) for name, own in texts.items()}
        self.kinds = len(set().union(*self.counts.values()))

    def hears(self, text: str) -> str:
        """Return the most likely voice; the first one in a tie."""

        def score(name: str) -> float:
            counts, total = self.counts[name], self.counts[name].total() + self.kinds
            return sum(math.log((counts[piece] + 1) / total) for piece in pieces(text))

        return max(self.counts, key=score)

    def shares(self, texts: Sequence[str]) -> dict[str, float]:
        """Return the fraction of texts that sound like each voice. Raises: BadValue for no texts."""
        if not texts:
            raise BadValue("shares needs at least one text")
        heard = Counter(map(self.hears, texts))
        return {name: heard[name] / len(texts) for name in self.counts}


def pieces(text: str) -> list[str]:
    """Return lowercase words, punctuation, and the last three letters of longer words, such as "-eth"."""
    tokens = re.findall(r"[a-z']+|[^\w\s]", text.lower())
    return tokens + [f"-{token[-3:]}" for token in tokens if len(token) > 4]


@cache
def our_ear() -> Ear:
    """Return an ear for the three voices that ship with the lab, trained on their training answers."""
    return Ear({name: voice(name)["train"].texts for name in VOICES})


def answers(
    bank: AdapterBank, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], decoding: Decoding
) -> dict[str, list[str]]:
    """Return the answers of each adapter and of the base. Afterwards no adapter is in use."""
    texts = {}
    for name in (*bank.names, BASE):
        bank.use(None if name == BASE else name)
        texts[name] = generate(bank.model, tokenizer, prompts, decoding)
    return texts


def open_bank(
    adapters: Mapping[str, str | Path],
    model: str = "smollm2",
    *,
    dtype: str = device.AUTO,
    attention: str = device.AUTO,
) -> tuple[AdapterBank, PreTrainedTokenizerBase]:
    """Load a base in this machine's fastest dtype, with these adapters, into a bank; return it and the tokenizer.

    Raises: NotFound, BadValue; see `load_model` and `AdapterBank.load`.
    """
    choice = device.choose(64, dtype=dtype, attention=attention)
    base = load_model(model, dtype=choice.torch_dtype, attention=choice.attention)
    bank = AdapterBank(base.to(choice.device))
    for name, folder in adapters.items():
        bank.load(name, folder)
    return bank, load_tokenizer(model)


def file_sizes(adapters: Mapping[str, str | Path], base: str = "smollm2") -> dict[str, int]:
    """Return the bytes of the base's and each adapter's weights, base first. Raises: NotFound if a file is missing."""
    files = {name: Path(folder) / WEIGHTS for name, folder in adapters.items()}
    if missing := [file.parent for file in files.values() if not file.is_file()]:
        raise NotFound(f"{missing[0]} is not an adapter: it has no {WEIGHTS}")
    return {BASE: weight_bytes(base)} | {name: file.stat().st_size for name, file in files.items()}
