"""The voices of lessons 00 and 06: a bank of their adapters, and whether an answer is in a voice.

    misfit(text)               why an answer isn't JSON of the schema (data/styles/README.md)
    our_ear().shares(texts)    the share of answers that sound like each voice, by their words
    open_bank(adapters)        a base with adapters by name; `answers` asks them all

An ear names one of its voices for any text, also for a plain one. It hears words, not wit.
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

from lora_lab.errors import BadValue, NotFound
from lora_lab.methods.bank import AdapterBank
from lora_lab.methods.io import WEIGHTS
from lora_lab.training import device
from lora_lab.training.chat import Prompt
from lora_lab.training.generate import Decoding, generate
from lora_lab.training.models import load_model, load_tokenizer, weight_bytes
from lora_lab.training.pairs import VOICES, voice

BASE = "base"  # the name of the model without an adapter
CERTAINTY = ("high", "medium", "low")
KEYS = ("topic", "answer", "steps", "certainty")


def misfit(text: str) -> str:
    """Why an answer isn't JSON of the schema, in words; empty if it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    if not isinstance(value, dict) or sorted(value) != sorted(KEYS):
        return f"not an object with just the keys {', '.join(KEYS)}"
    if not all(isinstance(value[key], str) and value[key] for key in ("topic", "answer")):
        return "topic and answer must be texts"
    if not isinstance(value["steps"], list) or not all(isinstance(step, str) and step for step in value["steps"]):
        return "steps must be a list of texts"
    return "" if value["certainty"] in CERTAINTY else f"certainty must be one of {', '.join(CERTAINTY)}"


class Ear:
    """Says whose words an answer is made of: naive Bayes over `pieces`, with all voices equally likely at first.

    score of a voice = sum over an answer's pieces of log((times in its texts + 1) / (pieces in its texts + kinds))

    texts   what each voice has said; never the texts to be judged
    """

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        self.counts = {name: Counter(piece for text in some for piece in pieces(text)) for name, some in texts.items()}
        self.kinds = len(set().union(*self.counts.values()))

    def hears(self, text: str) -> str:
        """The likeliest voice; the first of equals."""

        def score(name: str) -> float:
            counts, room = self.counts[name], self.counts[name].total() + self.kinds
            return sum(math.log((counts[piece] + 1) / room) for piece in pieces(text))

        return max(self.counts, key=score)

    def shares(self, texts: Sequence[str]) -> dict[str, float]:
        """The share of texts heard as each voice. Raises: BadValue for no texts."""
        if not texts:
            raise BadValue("shares needs at least one text")
        heard = Counter(map(self.hears, texts))
        return {name: heard[name] / len(texts) for name in self.counts}


def pieces(text: str) -> list[str]:
    """Words in lower case, punctuation, and the last three letters of longer words, such as "-eth"."""
    found = re.findall(r"[a-z']+|[^\w\s]", text.lower())
    return found + [f"-{piece[-3:]}" for piece in found if len(piece) > 4]


@cache
def our_ear() -> Ear:
    """An ear for the three voices that ship with the lab, from their training answers."""
    return Ear({name: [pair.response for pair in voice(name)["train"]] for name in VOICES})


def answers(
    bank: AdapterBank, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], decoding: Decoding
) -> dict[str, list[str]]:
    """What the base and each adapter answer to the prompts. Afterwards no adapter is in use."""
    said = {}
    for name in (*bank.names, BASE):
        bank.use(None if name == BASE else name)
        said[name] = generate(bank.model, tokenizer, prompts, decoding)
    return said


def open_bank(
    adapters: Mapping[str, str | Path],
    model: str = "smollm2",
    *,
    dtype: str = device.AUTO,
    attention: str = device.AUTO,
) -> tuple[AdapterBank, PreTrainedTokenizerBase]:
    """A base in the dtype that is fastest here, in a bank that holds these adapters by name, and its tokenizer.

    Raises: NotFound, BadValue as `load_model` and `AdapterBank.load`.
    """
    choice = device.choose(64, dtype=dtype, attention=attention)
    base = load_model(model, dtype=choice.torch_dtype, attention=choice.attention)
    bank = AdapterBank(base.to(choice.device))
    for name, folder in adapters.items():
        bank.load(name, folder)
    return bank, load_tokenizer(model)


def file_sizes(adapters: Mapping[str, str | Path], base: str = "smollm2") -> dict[str, int]:
    """Bytes of the base's weight files and of each adapter's, the base first. Raises: NotFound if one is missing."""
    files = {name: Path(folder) / WEIGHTS for name, folder in adapters.items()}
    if missing := [file.parent for file in files.values() if not file.is_file()]:
        raise NotFound(f"{missing[0]} is not an adapter: it holds no {WEIGHTS}")
    return {BASE: weight_bytes(base)} | {name: file.stat().st_size for name, file in files.items()}
