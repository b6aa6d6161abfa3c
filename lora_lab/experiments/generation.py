"""What a tuned model says, scored: slot errors first, then how like the references its sentences are.

A sentence can be fluent, near its references and wrong about the price, so the slot error rate comes first. The same is
asked of the model with its adapter switched off, for what was there before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_lab.errors import BadValue
from lora_lab.experiments.slot_errors import kinds_of, matcher_of, slot_errors
from lora_lab.experiments.text_scores import NAMES, check_installed, text_scores
from lora_lab.training.generate import GREEDY, Decoding, generate
from lora_lab.training.meanings import parse
from lora_lab.training.tasks import Task
from lora_lab.training.train import open_adapter

PROMPTS = 64
METRICS = ("slot_errors", *NAMES)


def scored(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    prompts: int = PROMPTS,
    decoding: Decoding = GREEDY,
) -> dict[str, Any]:
    """What a model answers to the first `prompts` meanings of the test split, and how good that is.

    Returns slot_errors (errors over slots, see `slot_errors.py`), bleu, chrf, rouge_l, nist; n, the number of answers;
    kinds, how many slots are right, missing, wrong, added; and texts: meaning, text and slots of each answer.
    Raises: BadValue for a task without meanings, for fewer than one prompt, or where a package that scores is missing.
    """
    check_scorable(task)
    if prompts < 1:
        raise BadValue(f"prompts must be at least 1, not {prompts}")
    rows: Any = task.test  # its prompts are meanings, and no chats
    asked, references = rows.prompts[:prompts], rows.references[:prompts]
    texts = generate(model, tokenizer, asked, decoding)
    meanings = [parse(prompt) for prompt in asked]
    matcher = matcher_of(parse(prompt) for prompt in {*rows.prompts, *task.train.prompts})
    judged = [matcher.judge(meaning, text) for meaning, text in zip(meanings, texts, strict=True)]
    each = zip(meanings, texts, judged, strict=True)
    return {
        "slot_errors": slot_errors(judged),
        **text_scores(texts, references),
        "n": len(texts),
        "kinds": kinds_of(judged),
        "texts": [{"meaning": str(meaning), "text": text, "slots": dict(j.slots)} for meaning, text, j in each],
    }


def check_scorable(task: Task) -> None:
    """Raises: BadValue for a task without meanings, or where a package that scores is missing."""
    if not task.generates:
        raise BadValue(f"{task.name} has no meanings to be said; a task such as restaurants has")
    check_installed()


def evaluated(
    adapter: str | Path, task: str, *, prompts: int = PROMPTS, decoding: Decoding = GREEDY, **options: Any
) -> dict[str, float]:
    """The metrics of a saved adapter on a task's test split; where the task has meanings to be said, also those of
    `scored`. Options: as `open_adapter`. Raises: as there and as `scored`.
    """
    opened = open_adapter(adapter, task, **options)
    if not opened.task.generates:
        return opened.metrics()
    said = scored(opened.model, opened.tokenizer, opened.task, prompts, decoding)
    return opened.metrics() | {name: said[name] for name in (*METRICS, "n")}
