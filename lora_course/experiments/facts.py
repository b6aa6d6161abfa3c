"""Lesson 06: twenty invented facts, asked as in training, rephrased, and backward.

`port_velda` is a question-answering task: 60 questions for training (three per fact), 20 rephrased for validation,
and 20 asked backward for the test. We invented the town and its people, so no model can have read about them.
"""

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
    """An answer; `right` says whether its text contains the name, or the job if the question is backward."""

    question: str
    text: str
    right: bool


def read(max_length: int | None = None) -> Task:
    """Load the task. Raises: BadValue for an impossible max_length."""
    return replace(load_task(str(shipped("data/facts/port_velda.jsonl")), max_length=max_length), name=TOWN, data=None)


def asked(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, way: str, facts: int = 20, *, looked_up: bool = False
) -> list[Answer]:
    """Return a model's answers about the first `facts` facts; `way` is one of the `WAYS` to ask.

    looked_up   Put each fact in front of its question, as a retrieval system would.
    """
    town = load_task(TOWN)
    sentences = [str(text) for text in town.train.texts[::3]][:facts]  # "The baker of Port Velda is Tamsin Orrick."
    split = {"as in training": town.train, "in other words": town.validation, "backward": town.test}[way]
    questions = [str(question) for question in split.prompts[:: len(split.texts) // 20]][:facts]
    contexts = [f"{sentence} " if looked_up else "" for sentence in sentences]
    chats = [Chat((("user", c + q),)) for c, q in zip(contexts, questions, strict=True)]
    texts = generate(model, tokenizer, chats, Decoding(max_new_tokens=24))
    answers = []
    for question, text, sentence in zip(questions, texts, sentences, strict=True):
        job, _, name = sentence.rstrip(".").partition(" of Port Velda is ")
        answers.append(Answer(question, text, (job.removeprefix("The ") if way == "backward" else name) in text))
    return answers
