"""Metrics of predictions against labels: Matthews, F1, Pearson, Spearman. `lora_lab.metrics` lists them all.

An undefined value (for a constant prediction) is 0, as for guessing. All others equal scikit-learn's and SciPy's, as
the tests verify. They are implemented here since importing scikit-learn takes longer than a validation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np


def matthews(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the Matthews correlation of two classes, -1 to 1; both arguments are (rows,) of 0 and 1.

    (TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN)). CoLA's metric (Matthews 1975, not read here).
    """
    return pearson((predicted == 1).astype(float), (true == 1).astype(float))  # equal for two 0-1 columns


def f1(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return 2 TP / (2 TP + FP + FN) of booleans (rows,); 0 if the class neither occurs nor is predicted."""
    total = predicted.sum() + true.sum()
    return float(2 * (predicted & true).sum() / total) if total else 0.0


def pearson(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the Pearson correlation, -1 to 1, of two arrays (rows,)."""
    if any((column == column[:1]).all() for column in (predicted, true)):  # 0.1 minus its mean isn't exactly 0
        return 0.0
    x, y = predicted - predicted.mean(), true - true.mean()
    scale = math.sqrt(float((x * x).sum()) * float((y * y).sum()))
    return float((x * y).sum()) / scale if scale > 0 else 0.0


def spearman(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the Spearman correlation: Pearson's of the ranks, where ties share their mean rank."""
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    return pearson(rankdata(predicted), rankdata(true))


def regression_metrics(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return the metrics of predicted numbers: pearson, spearman, and the mean squared error as loss."""
    return {
        "pearson": pearson(predicted, true),
        "spearman": spearman(predicted, true),
        "loss": float(((predicted - true) ** 2).mean()),
    }


OF_CLASSES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "matthews": matthews,
    "f1": lambda predicted, true: f1(predicted == 1, true == 1),
}


def also(names: Iterable[str], predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return the named metrics other than accuracy and macro F1; class 1 is the positive class."""
    return {name: OF_CLASSES[name](predicted, true) for name in names if name in OF_CLASSES}
