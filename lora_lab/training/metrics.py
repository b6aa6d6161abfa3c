"""Metrics of predictions against labels: Matthews', F1, Pearson's, Spearman's. `lora_lab.metrics` names them all.

Where one is not defined (a constant prediction) it is 0, which is what a guess is worth. Equal to scikit-learn's and
scipy's, with which the tests compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np


def matthews(predicted: np.ndarray, true: np.ndarray) -> float:
    """Matthews' correlation of two classes, -1 to 1; (rows,) of 0 and 1 each.

    (TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN)). Source: Matthews 1975 (not read here); CoLA is judged
    by it.
    """
    return pearson((predicted == 1).astype(float), (true == 1).astype(float))  # which it is, of two 0-1 columns


def f1(predicted: np.ndarray, true: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN) of booleans (rows,), and 0 where a class is neither there nor predicted."""
    either = predicted.sum() + true.sum()
    return float(2 * (predicted & true).sum() / either) if either else 0.0


def pearson(predicted: np.ndarray, true: np.ndarray) -> float:
    """Pearson's correlation, -1 to 1, of (rows,) each."""
    if any((column == column[:1]).all() for column in (predicted, true)):  # less its mean it is not quite 0, as of 0.1
        return 0.0
    x, y = predicted - predicted.mean(), true - true.mean()
    size = math.sqrt(float((x * x).sum()) * float((y * y).sum()))
    return float((x * y).sum()) / size if size > 0 else 0.0


def spearman(predicted: np.ndarray, true: np.ndarray) -> float:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs."""
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    return pearson(rankdata(predicted), rankdata(true))


def regression_metrics(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Of predicted numbers: pearson, spearman, and the mean squared error as loss."""
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
    """Those of the metrics named that are of classes and not measured anyway; class 1 is the one that is looked for."""
    return {name: OF_CLASSES[name](predicted, true) for name in names if name in OF_CLASSES}
