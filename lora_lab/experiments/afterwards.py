"""Extra scores for a finished language-model run: perplexity on another text, and scores of generated answers."""

from __future__ import annotations

import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_lab.errors import BadValue
from lora_lab.experiments import generation
from lora_lab.files import cached_json
from lora_lab.methods.io import load_adapter
from lora_lab.training import device
from lora_lab.training.batches import encode
from lora_lab.training.evaluate import evaluate
from lora_lab.training.models import load_model, load_tokenizer
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run
from lora_lab.training.tasks import fingerprint, load_task, typical_tokens


def perplexity_on(model: nn.Module, tokenizer: PreTrainedTokenizerBase, task: str) -> float:
    """Return the perplexity of a causal model, including its adapters, on a task's test texts.

    Raises: BadValue for a task with labels; NotFound for an unknown task.
    """
    data = load_task(task)
    if data.labels:
        raise BadValue(f"forgetting is measured on plain text such as shakespeare, not on {task}")
    device = str(next(model.parameters()).device)
    rows = encode(data.test, data, tokenizer)
    return evaluate(model, rows, int(tokenizer.pad_token_id), device).metrics["perplexity"]


def before(recipe: Recipe, forgetting: str, folder: Path, *, download: bool = False) -> float:
    """Return the untrained base model's perplexity on another task, in the recipe's dtype; cached in `folder`."""

    def compute() -> dict[str, Any]:
        return {"perplexity": perplexity_on(*_base(recipe, download), forgetting)}

    key = (recipe.model, recipe.base_dtype, recipe.device, recipe.attention, fingerprint(forgetting) or forgetting)
    return float(cached_json(folder / f"before-{Path(forgetting).stem}-{_digest(*key)}.json", compute)["perplexity"])


def afterwards(
    run: Run, forgetting: str | None, prompts: int, folder: Path, *, download: bool = False
) -> dict[str, Any]:
    """Return `forgetting` (perplexity on that task's text), the scores of generated answers, and `seconds`.

    Cached in `folder`. Raises: BadValue for a run without an adapter.
    """
    if not forgetting and not prompts:
        return {"seconds": 0.0}

    def compute() -> dict[str, Any]:
        started = time.perf_counter()
        if run.adapter is None:
            raise BadValue(f"the run {run.recipe.hash} has no adapter: remove its record and repeat the comparison")
        model, tokenizer = _base(run.recipe, download)
        load_adapter(model, run.adapter)
        scores = {"forgetting": perplexity_on(model, tokenizer, forgetting)} if forgetting else {}
        if prompts:
            task = load_task(run.recipe.task, max_length=run.recipe.max_length)
            scores |= generation.score_answers(model, tokenizer, task, prompts=prompts)
        return {**scores, "seconds": time.perf_counter() - started}

    text = f"{Path(forgetting).stem}-{_digest(fingerprint(forgetting) or forgetting)}" if forgetting else "none"
    return cached_json(folder / f"{run.recipe.hash}-{text}-{prompts}.json", compute)


def _digest(*parts: str) -> str:
    return sha256("\n".join(parts).encode()).hexdigest()[:12]


def _base(recipe: Recipe, download: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the base model and tokenizer as the recipe's run did."""
    task = load_task(recipe.task, max_length=recipe.max_length)
    choice = device.choose(typical_tokens(task), **recipe.computed)
    labels, dtype, attention = task.num_labels, choice.load_as, choice.attention
    model = load_model(recipe.model, labels, dtype=dtype, attention=attention, download=download)
    tokenizer = load_tokenizer(recipe.model, download=download)
    model.config.pad_token_id = tokenizer.pad_token_id
    return model.to(choice.device), tokenizer  # type: ignore[arg-type]
