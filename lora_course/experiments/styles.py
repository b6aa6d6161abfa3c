"""Whether voices can be told apart: by their form, by their words, and by what each adapter finds likely.

    perplexity   adapter x voice, of held-out answers: learnt is a voice whose own adapter has its column's lowest
    fits         share of an adapter's answers that parse as JSON and fit the schema (data/styles/README.md)
    heard        share of an adapter's answers that an `Ear`, which counts words, takes for each voice

A perplexity within a row compares texts, and a strict form is easier to foresee than a sermon: read columns, not rows.
An ear always names one of its voices, of a plain answer, too; and it hears words, not wit. `heard_of_texts` says how
often it is right on held-out answers that were written, not generated.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_lab.errors import BadValue, NotFound
from lora_lab.methods.bank import AdapterBank
from lora_lab.methods.io import WEIGHTS
from lora_lab.training import device
from lora_lab.training.batches import collate, encode
from lora_lab.training.chat import Prompt
from lora_lab.training.evaluate import evaluate, logits_of
from lora_lab.training.generate import Decoding, generate
from lora_lab.training.models import load_model, load_tokenizer, weight_bytes
from lora_lab.training.pairs import VOICES, voice
from lora_lab.training.tasks import Task

BASE = "base"  # what the model without an adapter is called in tables
DECODING = Decoding(max_new_tokens=96)
CERTAINTY = ("high", "medium", "low")
KEYS = ("topic", "answer", "steps", "certainty")


# ---- one answer


def misfit(text: str) -> str:
    """What keeps an answer from being JSON of the schema, in words; empty where nothing does."""
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
    """Says whose words an answer is made of: naive Bayes over `pieces`, each voice as likely as the others beforehand.

    score of a voice = sum over an answer's pieces of log((times in its texts + 1) / (pieces in its texts + kinds))

    texts   what each voice has said, at least one voice; never the texts that are to be judged
    """

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        self.counts = {
            voice: Counter(piece for text in some for piece in pieces(text)) for voice, some in texts.items()
        }
        self._different = len(set().union(*self.counts.values()))
        self._totals = {voice: counts.total() for voice, counts in self.counts.items()}

    def hears(self, text: str) -> str:
        """The likeliest voice; of equals the first."""
        return max(self.counts, key=lambda voice: self._score(voice, text))

    def shares(self, texts: Sequence[str]) -> dict[str, float]:
        """The share of texts that it takes for each voice. Raises: BadValue for no texts."""
        if not texts:
            raise BadValue("there is no text to listen to")
        heard = Counter(map(self.hears, texts))
        return {voice: heard[voice] / len(texts) for voice in self.counts}

    def _score(self, voice: str, text: str) -> float:
        counts, room = self.counts[voice], self._totals[voice] + self._different
        return sum(math.log((counts[piece] + 1) / room) for piece in pieces(text))


def pieces(text: str) -> list[str]:
    """Words in lower case, signs, and the last three letters of longer words: "o'", ";" and "-eth" are telling."""
    found = re.findall(r"[a-z']+|[^\w\s]", text.lower())
    return found + [f"-{piece[-3:]}" for piece in found if len(piece) > 4]


@cache
def our_ear() -> Ear:
    """An ear for the three voices that ship with the lab, from their training answers."""
    return Ear({name: [pair.response for pair in voice(name)["train"]] for name in VOICES})


# ---- many adapters


@contextmanager
def speaking(bank: AdapterBank, name: str) -> Iterator[None]:
    """Inside the block that adapter answers, BASE for none; then whoever answered before."""
    before = bank.used
    bank.use(None if name == BASE else name)
    try:
        yield
    finally:
        bank.use(before if before is None or isinstance(before, str) else None)


def speakers(bank: AdapterBank) -> tuple[str, ...]:
    """The base and every adapter."""
    return (BASE, *bank.names)


def perplexities(
    bank: AdapterBank, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[Task], rows: int = 0
) -> dict[str, dict[str, float]]:
    """Of each adapter, and of the base, on each task's test answers: {adapter: {task: perplexity}}. `rows` 0: all."""
    device, pad = str(bank.model.device), int(tokenizer.pad_token_id)
    encoded = {task.name: encode(task.test, task, tokenizer)[: rows or None] for task in tasks}
    table: dict[str, dict[str, float]] = {}
    for name in speakers(bank):
        with speaking(bank, name):
            scores = {task: evaluate(bank.model, some, pad, device) for task, some in encoded.items()}
        table[name] = {task: score.metrics["perplexity"] for task, score in scores.items()}
    return table


def own_is_lowest(table: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether each voice's own adapter has the lowest perplexity on it, of all adapters and the base."""
    own = [name for name in table if name in table[name]]
    return bool(own) and all(table[voice][voice] <= min(row[voice] for row in table.values()) for voice in own)


def answers(
    bank: AdapterBank, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], decoding: Decoding = DECODING
) -> dict[str, list[str]]:
    """What each adapter, and the base, answers to the prompts."""
    said: dict[str, list[str]] = {}
    for name in speakers(bank):
        with speaking(bank, name):
            said[name] = generate(bank.model, tokenizer, prompts, decoding)
    return said


def plain_of(bank: AdapterBank, model: str = "smollm2") -> PreTrainedModel:
    """The base again, read from its files, in the bank's dtype and on its device: no bank has ever touched it."""
    base: Any = bank.model
    plain = load_model(model, dtype=base.dtype, attention=base.config._attn_implementation)
    return plain.to(base.device)


@torch.inference_mode()
def off_is_base(bank: AdapterBank, plain: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, task: Task) -> bool:
    """Whether with no adapter in use the bank's model gives the plain model's logits, to the bit."""
    rows = encode(task.test.at(range(min(4, len(task.test)))), task, tokenizer)
    batch = collate(rows, int(tokenizer.pad_token_id)).to(str(bank.model.device))
    with speaking(bank, BASE):
        return torch.equal(logits_of(bank.model, batch), logits_of(plain, batch))


def told_apart(bank: AdapterBank, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[Task]) -> dict[str, Any]:
    """All measures on the test questions, which are the same in all tasks.

    Returns perplexity, diagonal (whether own is lowest), fits {adapter: share}, heard {adapter: {voice: share}},
    heard_of_texts (the same of the written answers), n, questions, answers {adapter: texts}.
    """
    table, said = perplexities(bank, tokenizer, tasks), answers(bank, tokenizer, tasks[0].test.prompts)
    ear = Ear({task.name: task.train.texts for task in tasks})
    return {
        "n": len(tasks[0].test),
        "perplexity": table,
        "diagonal": own_is_lowest(table),
        "fits": {name: sum(not misfit(text) for text in texts) / len(texts) for name, texts in said.items()},
        "heard": {name: ear.shares(texts) for name, texts in said.items()},
        "heard_of_texts": {task.name: ear.shares(task.test.texts) for task in tasks},
        "questions": [str(prompt) for prompt in tasks[0].test.prompts],
        "answers": said,
    }


# ---- from files


def open_bank(
    adapters: Mapping[str, str | Path],
    model: str = "smollm2",
    *,
    dtype: str = device.AUTO,
    attention: str = device.AUTO,
) -> tuple[AdapterBank, PreTrainedTokenizerBase]:
    """A base in whatever is fastest here, with these adapter folders in its bank by name, and its tokenizer.

    Raises: NotFound, BadValue as `load_model` and `AdapterBank.load`.
    """
    choice = device.choose(64, dtype=dtype, attention=attention)
    base = load_model(model, dtype=choice.torch_dtype, attention=choice.attention)
    bank = AdapterBank(base.to(choice.device))
    for name, folder in adapters.items():
        bank.load(name, folder)
    return bank, load_tokenizer(model)


def file_sizes(adapters: Mapping[str, str | Path], base: str = "smollm2") -> dict[str, int]:
    """Bytes of the base's weight files and of each adapter's, the base first. Raises: NotFound where one is missing."""
    files = {name: Path(folder) / WEIGHTS for name, folder in adapters.items()}
    if missing := [file.parent for file in files.values() if not file.is_file()]:
        raise NotFound(f"{missing[0]} is not an adapter: it holds no {WEIGHTS}")
    return {BASE: weight_bytes(base)} | {name: file.stat().st_size for name, file in files.items()}
