"""Fit the probe: the frozen model reads every text once, then scikit-learn fits a logistic regression.

Features are scaled to mean 0 and standard deviation 1 on the training texts, so that a penalty has the same meaning for
all models. W and b are then converted back to unscaled features:

    u = (z - mean) / deviation        W u + b = (W / deviation) z + (b - W mean / deviation)
"""

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from lora_lab.errors import Failed
from lora_lab.methods.attach import PooledHead
from lora_lab.methods.probe import Probe
from lora_lab.training.batches import Row, scoring_batches
from lora_lab.training.evaluate import ROWS
from lora_lab.training.loop import Member

TOLERANCE, ROUNDS = 1e-8, 5000
_kept: tuple[Any, np.ndarray] | None = None  # last texts and features, reused for other penalties and seeds


def fit_probe(
    member: Member, rows: Sequence[Row], pad: int, device: str, validate: Callable[[], dict[str, float]],
    *, stop: threading.Event | None = None,
) -> None:  # fmt: skip
    """Train the probe, as `loop.fit` does for other methods; the history has one entry, at the recipe's last step."""
    global _kept
    model: Any = member.model
    recipe, method = member.recipe, member.recipe.method
    assert isinstance(method, Probe)
    texts = model.lora_lab_report.base_fingerprint, recipe.model, str(model.dtype), [row.tokens for row in rows]
    if _kept is None or _kept[0] != texts or (stop is not None and stop.is_set()):
        z = features(model, rows, pad, device, stop=stop)
        if z is None:
            member.end("stopped")
            return
        _kept = texts, z
    try:
        weight, bias, loss = solve(_kept[1], np.array([row.label for row in rows]), model.config.num_labels, method.l2)
    except Failed as error:
        member.fail(str(error))
        return
    trained: Any = _head_of(model).trained
    with torch.no_grad():
        trained.weight.copy_(torch.from_numpy(weight))
        trained.bias.copy_(torch.from_numpy(bias))
    member.history |= {"step": [recipe.steps], "loss": [loss], "lr": [0.0]}
    member.note(validate() if recipe.validations else None)
    member.end("done")


@torch.inference_mode()
def features(
    model: nn.Module, rows: Sequence[Row], pad: int, device: str, *, stop: threading.Event | None = None
) -> np.ndarray | None:
    """Return the mean hidden state of each row, as the probe sees it: (rows, d), float64; None after `stop`."""
    head = _head_of(model)
    base: Any = model.eval().base_model
    places, chunks = list[int](), list[np.ndarray]()
    for batch in scoring_batches(rows, ROWS, pad):
        if stop is not None and stop.is_set():
            return None
        base(**batch.to(device).inputs(base))
        places += batch.places
        chunks.append(head.features().cpu().double().numpy())
    return np.concatenate(chunks)[np.argsort(places)]


def solve(z: np.ndarray, labels: np.ndarray, classes: int, l2: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Return W (classes, d) and b (classes,) at the minimum defined in `methods/probe.py`, and the mean loss in nats.

    z is (rows, d), labels (rows,). Raises: Failed for non-finite features, or if no minimum is found.
    """
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    from sklearn.metrics import log_loss  # type: ignore[import-untyped]
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

    if not np.isfinite(z).all():
        raise Failed("the model's hidden states are not finite: train with dtype fp32")
    scaler = StandardScaler()  # a constant feature gets deviation 1
    u = scaler.fit_transform(z)
    inverse_penalty = (2 if classes == 2 else 1) / l2  # for two classes scikit-learn has one row of W
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            fitted = LogisticRegression(C=inverse_penalty, tol=TOLERANCE, max_iter=ROUNDS).fit(u, labels)
        except ConvergenceWarning as error:
            raise Failed(f"no minimum found in {ROUNDS} iterations at l2 {l2:g}: use a larger l2") from error
    weight, bias = fitted.coef_, fitted.intercept_
    if classes == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    return weight, bias - weight @ scaler.mean_, float(log_loss(labels, fitted.predict_proba(u)))


def _head_of(model: nn.Module) -> Any:
    return next(module for module in model.modules() if isinstance(module, PooledHead))
