"""Lesson 06: twenty invented facts, asked as in training, in other words, and backward.

`port_velda` is a task of questions with answers: 60 to train on (each fact three times), 20 for validation in other
words, 20 for test backward. We invented the town and its people, so no model can have read about them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_lab.training.assets import shipped
from lora_lab.training.chat import Chat
from lora_lab.training.generate import Decoding, generate
from lora_lab.training.tasks import Task, load_task

TOWN = "port_velda"
WAYS = ("as in training", "in other words", "backward")


class Answer(NamedTuple):
    """`right`: the text contains the name, or the job if the question is backward."""

    question: str
    text: str
    right: bool


def read(max_length: int | None = None, **_: object) -> Task:
    """The task by its name. Raises: BadValue for an impossible max_length."""
    return replace(load_task(str(shipped("data/facts/port_velda.jsonl")), max_length=max_length), name=TOWN, data=None)


def asked(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, way: str, facts: int = 20, *, looked_up: bool = False
) -> list[Answer]:
    """What a model answers about the first `facts` facts, asked in one of WAYS.

    looked_up   each question has its own fact written above it, as a search in a handbook would
    """
    town = load_task(TOWN)
    sentences = [str(text) for text in town.train.texts[::3]][:facts]  # "The baker of Port Velda is Tamsin Orrick."
    split = {"as in training": town.train, "in other words": town.validation, "backward": town.test}[way]
    questions = [str(question) for question in split.prompts[:: len(split.texts) // 20]][:facts]
    above = [f"{sentence} " if looked_up else "" for sentence in sentences]
    chats = [Chat((("user", a + q),)) for a, q in zip(above, questions, strict=True)]
    texts = generate(model, tokenizer, chats, Decoding(max_new_tokens=24))
    return [Answer(q, text, _key(s, way) in text) for q, text, s in zip(questions, texts, sentences, strict=True)]


def _key(sentence: str, way: str) -> str:
    job, _, name = sentence.rstrip(".").partition(" of Port Velda is ")
    return job.removeprefix("The ") if way == "backward" else name
