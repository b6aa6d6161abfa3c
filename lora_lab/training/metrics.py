"""Metrics of predictions against labels. `lora_lab.metrics` lists them all, with labels and units.

An undefined value (for a constant prediction) is 0, as for guessing. F1 and accuracy equal scikit-learn's; they are
implemented here since importing it takes longer than a validation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax  # type: ignore[import-untyped]


def classification_metrics(logits: np.ndarray, labels: np.ndarray, also: Sequence[str] = ()) -> dict[str, float]:
    """Return accuracy, macro F1 and cross-entropy in nats from logits (rows, classes) and labels (rows,).

    also   may contain "f1", the F1 of class 1, and "matthews", the correlation of two classes (CoLA's metric)
    """
    predicted, log_p = logits.argmax(-1), log_softmax(logits, axis=-1)
    metrics = {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(np.mean([_f1(predicted == c, labels == c) for c in np.union1d(predicted, labels)])),
        "loss": float(-log_p[np.arange(len(labels)), labels].mean()),
    }
    if "f1" in also:
        metrics["f1"] = _f1(predicted == 1, labels == 1)
    if "matthews" in also:
        from sklearn.metrics import matthews_corrcoef  # type: ignore[import-untyped]

        metrics["matthews"] = float(matthews_corrcoef(labels, predicted))
    return metrics


def regression_metrics(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return pearson, spearman (where ties share their mean rank) and the mean squared error as loss."""
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    return {
        "pearson": _pearson(predicted, true),
        "spearman": _pearson(rankdata(predicted), rankdata(true)),
        "loss": float(((predicted - true) ** 2).mean()),
    }


def _f1(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return 2 TP / (2 TP + FP + FN) of booleans (rows,); 0 if the class neither occurs nor is predicted."""
    total = predicted.sum() + true.sum()
    return float(2 * (predicted & true).sum() / total) if total else 0.0


def _pearson(predicted: np.ndarray, true: np.ndarray) -> float:
    if any((column == column[:1]).all() for column in (predicted, true)):  # 0.1 minus its mean isn't exactly 0
        return 0.0
    return float(np.nan_to_num(np.corrcoef(predicted, true)[0, 1]))
