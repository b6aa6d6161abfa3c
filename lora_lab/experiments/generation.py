"""Score generated answers with plugins' scorers and by similarity to the references."""

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


def score_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    prompts: int = PROMPTS,
    decoding: Decoding = GREEDY,
) -> dict[str, Any]:
    """Generate answers to the first `prompts` meanings of the test split, and score them.

    Return the metrics and details of plugins' scorers, those of `text_scores`, n, and texts: [{meaning, text, ...}].
    Raises: BadValue for a task without meanings, fewer than one prompt, or a missing package.
    """
    check_scorable(task)
    if prompts < 1:
        raise BadValue(f"prompts must be at least 1, not {prompts}")
    rows: Any = task.test  # its prompts are the meanings
    meanings, references = rows.prompts[:prompts], rows.references[:prompts]
    texts = generate(model, tokenizer, meanings, decoding)
    result: dict[str, Any] = {"n": len(texts), **text_scores(texts, references)}
    answers = [{"meaning": str(meaning).strip(), "text": text} for meaning, text in zip(meanings, texts, strict=True)]
    for scores in plugins.scores(task, meanings, texts):
        result |= {**scores.metrics, **scores.details}
        answers = [{**answer, **details} for answer, details in zip(answers, scores.each, strict=True)]
    return {**result, "texts": answers}


def check_scorable(task: Task) -> None:
    """Check that a task has meanings and the scoring packages are installed. Raises: BadValue."""
    if not task.generates:
        raise BadValue(f"{task.name} has no meanings to put into sentences; use a task such as restaurants")
    check_installed()


def evaluate_with_answers(
    adapter: str | Path, task: str, *, prompts: int = PROMPTS, decoding: Decoding = GREEDY, **options: Any
) -> dict[str, float]:
    """Return a saved adapter's metrics on a task's test split, plus those of `score_answers` if the task has meanings.

    Options and errors: see `open_adapter` and `score_answers`.
    """
    opened = open_adapter(adapter, task, **options)
    generated: dict[str, Any] = {}
    if opened.task.generates:
        generated = score_answers(opened.model, opened.tokenizer, opened.task, prompts, decoding)
    return opened.score().metrics | {name: n for name, n in generated.items() if isinstance(n, int | float)}
