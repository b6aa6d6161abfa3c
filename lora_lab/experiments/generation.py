"""What a tuned model says, scored: by the scorers of plugins first, then how like the references its sentences are.

A sentence can be fluent, near its references and wrong about the price, so a slot error rate comes first.
The same is asked of the model with its adapter switched off, for what was there before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_lab import plugins
from lora_lab.errors import BadValue
from lora_lab.experiments.text_scores import check_installed, text_scores
from lora_lab.training.generate import GREEDY, Decoding, generate
from lora_lab.training.tasks import Task
from lora_lab.training.train import open_adapter

PROMPTS = 64


def scored(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    prompts: int = PROMPTS,
    decoding: Decoding = GREEDY,
) -> dict[str, Any]:
    """What a model answers to the first `prompts` meanings of the test split, and how good that is.

    Returns the metrics of plugins' scorers, bleu, chrf, rouge_l, nist; n, the number of answers; the scorers' details;
    and texts: meaning and text of each answer, with what the scorers say of it.
    Raises: BadValue for a task without meanings, for fewer than one prompt, or where a package that scores is missing.
    """
    check_scorable(task)
    if prompts < 1:
        raise BadValue(f"prompts must be at least 1, not {prompts}")
    rows: Any = task.test  # its prompts are meanings, and no chats
    asked, references = rows.prompts[:prompts], rows.references[:prompts]
    texts = generate(model, tokenizer, asked, decoding)
    found = plugins.scores(task, asked, texts)
    answers = [{"meaning": str(prompt).strip(), "text": text} for prompt, text in zip(asked, texts, strict=True)]
    for scores in found:
        answers = [{**answer, **own} for answer, own in zip(answers, scores.each, strict=True)]
    return {
        **{name: value for scores in found for name, value in scores.metrics.items()},
        **text_scores(texts, references),
        "n": len(texts),
        **{name: value for scores in found for name, value in scores.details.items()},
        "texts": answers,
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
        return opened.score().metrics
    said = scored(opened.model, opened.tokenizer, opened.task, prompts, decoding)
    return opened.score().metrics | {name: value for name, value in said.items() if isinstance(value, int | float)}
