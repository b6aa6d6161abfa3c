"""Score a model on held-out rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.special import log_softmax  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn import functional as F

from lora_lab.methods.attach import answering
from lora_lab.training.batches import Batch, Row, scoring_batches
from lora_lab.training.device import Parts, in_parts

ROWS = 32  # rows scored at once
PACKED_ROWS = 64  # rows that a part scores at once, over all its members; 128 wouldn't fit in a core's cache
LOGITS = 2**25  # limit on the number of elements in a batch's logits: 128 MiB in fp32


@dataclass(frozen=True)
class Score:
    """Metrics and results by row: logits (rows, classes), predicted numbers (rows,) or mean token losses (rows,)."""

    metrics: dict[str, float]
    by_row: np.ndarray

    @property
    def predictions(self) -> np.ndarray:
        """The predicted class (int64) or number for each row, or in language modeling, each row's mean loss."""
        return self.by_row.argmax(-1) if self.by_row.ndim == 2 else self.by_row

    def right(self, rows: Sequence[Row]) -> np.ndarray | None:
        """Return which rows are right, or each row's negative loss in language modeling, or None in regression."""
        if self.by_row.ndim == 2:
            return self.predictions == np.array([row.label for row in rows])
        return -self.by_row if rows[0].label is None else None


def logits_of(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Return fp32 logits: (rows, classes), or (rows, tokens, vocabulary) for a language model."""
    logits: Tensor = model(**batch.inputs(model)).logits
    if logits.dim() == 3:
        logits = logits[:, -batch.input_ids.shape[1] :]  # the first positions belong to a soft prompt
    return logits.float()


def loss_of(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the loss of each row: squared error, or cross-entropy (in language modeling, averaged over tokens)."""
    if labels.is_floating_point():
        return F.mse_loss(logits.squeeze(-1), labels, reduction="none")
    if labels.dim() == 1:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    return _token_losses(logits, labels, smoothing).sum(1) / learned_tokens(labels).clamp(min=1)


def learned_tokens(labels: Tensor) -> Tensor:
    """Return the number of tokens in each row that count toward the loss."""
    return (labels[:, 1:] != -100).sum(1)


def _token_losses(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the loss of each next token (rows, tokens), or 0 if the token is padding, in a prompt, or past the end."""
    targets = F.pad(labels[:, 1:], (0, 1), value=-100).flatten()  # cutting the logits instead would copy them
    losses = F.cross_entropy(logits.flatten(0, 1), targets, reduction="none", label_smoothing=smoothing)
    return losses.view(labels.shape)


def evaluate(
    model: torch.nn.Module, rows: Sequence[Row], pad: int, device: str = "cpu", judged_by: Sequence[str] = ()
) -> Score:
    """Score a model on rows in eval mode, then restore its mode. The metrics depend on the kind of task:

    - Classification has `accuracy`, `macro_f1` (mean F1 over classes), `loss` (nats per row), and the metrics in
      `judged_by`.
    - Language modeling has `loss` (nats per token, over all tokens) and `perplexity` = exp(loss).
    - Regression has `pearson`, `spearman`, and `loss` (the mean squared error).
    """
    return evaluate_members(model, rows, pad, device, 1, judged_by)[0]


def evaluate_members(
    model: torch.nn.Module, rows: Sequence[Row], pad: int, device: str, members: int, judged_by: Sequence[str] = ()
) -> list[Score]:
    """Score rows like `evaluate`, with a model that runs several members at once. Each member scores all rows."""
    if rows[0].label is None:  # the longest rows' logits stay below LOGITS
        vocabulary = getattr(getattr(model, "config", None), "vocab_size", 0) or 1
        at_once = max(1, min(ROWS, LOGITS // (vocabulary * max(map(len, rows)))) // members)
    else:
        parts = len(model) if isinstance(model, Parts) else 1
        at_once = max(1, PACKED_ROWS * parts // members) if members > 1 else ROWS
    places, chunks = list[int](), list[np.ndarray]()
    with answering(model):
        for batch in scoring_batches(rows, at_once, pad):
            places += batch.places
            chunks.append(np.concatenate(in_parts(partial(_row_values, batch.to(device)), model, members)))
    by_row = np.concatenate(chunks, axis=1)[:, np.argsort(places)]  # (members, rows, values)
    return [_score(values, rows, judged_by) for values in by_row]


def _score(values: np.ndarray, rows: Sequence[Row], judged_by: Sequence[str]) -> Score:
    if rows[0].label is None:
        loss = float(values[:, 0].sum() / values[:, 1].sum())
        metrics = {"perplexity": math.exp(min(loss, 700)), "loss": loss}  # exp overflows above 709
        return Score(metrics, values[:, 0] / values[:, 1].clip(1))  # a row of one token predicts nothing
    true = np.array([row.label for row in rows])
    if isinstance(rows[0].label, float):
        return Score(regression_metrics(values[:, 0], true), values[:, 0])
    return Score(classification_metrics(values, true, judged_by), values)


@torch.inference_mode()
def _row_values(batch: Batch, model: torch.nn.Module, part: slice) -> np.ndarray:
    """Return the logits (members, rows, classes), or each row's total loss and number of tokens (..., 2)."""
    members = part.stop - part.start
    batch = batch.map(lambda t: torch.cat([t] * members))
    values = logits_of(model, batch)
    if batch.labels.dim() > 1:
        losses, tokens = _token_losses(values, batch.labels).sum(1), learned_tokens(batch.labels).float()
        values = torch.stack([losses, tokens], dim=1)
    return values.reshape(members, len(batch.places), -1).cpu().double().numpy()


def classification_metrics(logits: np.ndarray, labels: np.ndarray, also: Sequence[str] = ()) -> dict[str, float]:
    """Return accuracy, macro F1 and cross-entropy in nats from logits (rows, classes) and labels (rows,).

    The F1 of a class is 2 TP / (2 TP + FP + FN), as in scikit-learn, which is not used because its import is slow.
    also   May contain "f1", the F1 of class 1, and "matthews", the Matthews correlation (CoLA's metric).
    """
    predicted, log_p = logits.argmax(-1), log_softmax(logits, axis=-1)
    f1 = {}
    for label in np.union1d(predicted, labels).tolist():
        found, true = predicted == label, labels == label
        f1[label] = float(2 * (found & true).sum() / (found.sum() + true.sum()))
    metrics = {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(np.mean(list(f1.values()))),
        "loss": float(-log_p[np.arange(len(labels)), labels].mean()),
    }
    if "f1" in also:
        metrics["f1"] = f1.get(1, 0.0)
    if "matthews" in also:
        from sklearn.metrics import matthews_corrcoef  # type: ignore[import-untyped]

        metrics["matthews"] = float(matthews_corrcoef(labels, predicted))
    return metrics


def regression_metrics(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return `pearson`, `spearman` and `loss`, the mean squared error. Constant predictions have correlations of 0."""
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    metrics = {"pearson": 0.0, "spearman": 0.0, "loss": float(((predicted - true) ** 2).mean())}
    if len(set(predicted)) > 1 and len(set(true)) > 1:  # otherwise, rounding might make value - mean nonzero
        for name, ranks in (("pearson", np.asarray), ("spearman", rankdata)):
            metrics[name] = float(np.nan_to_num(np.corrcoef(ranks(predicted), ranks(true))[0, 1]))
    return metrics
