"""Score a model on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_lab.training.batches import Batch, Row, scoring_batches
from lora_lab.training.metrics import classification_metrics, regression_metrics
from lora_lab.training.models import answering
from lora_lab.training.parts import Parts, in_parts

ROWS = 32  # rows scored at once
PACKED_ROWS = 64  # the same, over all members of a part: twice as many wouldn't fit in a core's cache
LOGITS = 2**25  # limit on the elements of a batch's logits: 128 MiB in fp32


@dataclass(frozen=True)
class Score:
    """Metrics, and values by row: (rows, classes) logits, (rows,) predicted numbers or (rows,) mean token losses."""

    metrics: dict[str, float]
    by_row: np.ndarray

    @property
    def predictions(self) -> np.ndarray:
        """Each row's predicted class (int64) or number; in language modeling its mean loss."""
        return self.by_row.argmax(-1) if self.by_row.ndim == 2 else self.by_row

    def right(self, rows: Sequence[Row]) -> np.ndarray | None:
        """Return whether each row is right, (rows,); in language modeling, its negative loss. None for regression."""
        if self.by_row.ndim == 2:
            return self.predictions == np.array([row.label for row in rows])
        return -self.by_row if rows[0].label is None else None


def logits_of(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Return fp32 logits: (rows, classes), or (rows, tokens, vocabulary) for a language model."""
    logits: Tensor = model(**batch.inputs(model)).logits
    if logits.dim() == 3:
        logits = logits[:, -batch.input_ids.shape[1] :]  # the first ones belong to a soft prompt
    return logits.float()


def loss_of(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return each row's loss, (rows,): cross-entropy (the mean over tokens in language modeling) or squared error."""
    if labels.is_floating_point():
        return F.mse_loss(logits.squeeze(-1), labels, reduction="none")
    if labels.dim() == 1:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    return _token_losses(logits, labels, smoothing).sum(1) / learned_tokens(labels).clamp(min=1)


def learned_tokens(labels: Tensor) -> Tensor:
    """Return the number of tokens that count in each row's loss: (rows,)."""
    return (labels[:, 1:] != -100).sum(1)


def _token_losses(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return each token's loss, (rows, tokens - 1); 0 where the next token is padding."""
    return F.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none", label_smoothing=smoothing
    )


def evaluate(
    model: torch.nn.Module, rows: Sequence[Row], pad: int, device: str = "cpu", judged_by: Sequence[str] = ()
) -> Score:
    """Score a model on rows in eval mode, then restore its mode.

    Classification: accuracy, macro_f1 (the mean F1 over classes), loss in nats per row. Language modeling: loss in nats
    per token over all tokens, perplexity = exp(loss). Regression: pearson, spearman, and mean squared error as loss.
    `judged_by` names additional metrics of a classification task.
    """
    return evaluate_members(model, rows, pad, device, 1, judged_by)[0]


def evaluate_members(
    model: torch.nn.Module, rows: Sequence[Row], pad: int, device: str, members: int, judged_by: Sequence[str] = ()
) -> list[Score]:
    """Like `evaluate`, for a model that computes several members at once; each member scores all rows."""
    by_place: list[list[Any]] = [[None] * len(rows) for _ in range(members)]
    with answering(model):
        for batch in scoring_batches(rows, _rows_at_once(model, rows, members), pad):
            batch_values = in_parts(partial(_row_values, batch.to(device)), model, members)
            for member_values, values in zip(by_place, batch_values, strict=True):
                for place, value in zip(batch.places, values, strict=True):
                    member_values[place] = value
    return [_score(np.array(values), [row.label for row in rows], judged_by) for values in by_place]


def _score(values: np.ndarray, labels: Sequence[float | None], judged_by: Sequence[str]) -> Score:
    if labels[0] is None:
        loss, tokens = values.sum(0)
        loss = loss / tokens
        metrics = {"perplexity": math.exp(min(loss, 700)), "loss": loss}  # exp overflows above 709
        return Score(metrics, values[:, 0] / values[:, 1].clip(1))  # a row of one token predicts nothing
    true = np.array(labels)
    if isinstance(labels[0], float):
        return Score(regression_metrics(values[:, 0], true), values[:, 0])
    return Score(classification_metrics(values, true, judged_by), values)


def _rows_at_once(model: torch.nn.Module, rows: Sequence[Row], members: int) -> int:
    """Return how many rows to score at once, so that the longest rows' logits stay below LOGITS."""
    if rows[0].label is not None:
        parts = len(model) if isinstance(model, Parts) else 1
        return max(1, PACKED_ROWS * parts // members) if members > 1 else ROWS
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", 0) or 1
    return max(1, min(ROWS, LOGITS // (vocabulary * max(len(row.tokens) for row in rows))) // members)


@torch.inference_mode()
def _row_values(batch: Batch, model: torch.nn.Module, part: slice) -> list[list[Any]]:
    """Return each row's logits for each member; in language modeling, its summed loss and number of tokens."""
    members = part.stop - part.start
    repeated = batch.repeated(members)
    values = logits_of(model, repeated)
    if repeated.labels.dim() > 1:
        losses, tokens = _token_losses(values, repeated.labels).sum(1), learned_tokens(repeated.labels).float()
        values = torch.stack([losses, tokens], dim=1)
    return values.reshape(members, len(batch.places), -1).tolist()  # type: ignore[no-any-return]
