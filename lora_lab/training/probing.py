"""The probe, solved: the frozen model reads every text once, then a convex problem is minimised to its end.

Features are brought to mean 0 and deviation 1 on the training texts, so that one penalty means the same for models
whose hidden states differ in size; W and b are then written down for the features as they come:

    u = (z - mean) / deviation        W u + b = (W / deviation) z + (b - W mean / deviation)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.special import log_softmax  # type: ignore[import-untyped]
from torch import nn

from lora_lab.errors import BadValue, Failed
from lora_lab.methods.pooled_head import pooled_head_of
from lora_lab.methods.probe import Probe
from lora_lab.training.batches import Row, scoring_batches
from lora_lab.training.device import Choice
from lora_lab.training.evaluate import ROWS
from lora_lab.training.loop import Member, Progress

Solution = tuple[np.ndarray, np.ndarray, float]  # W, b, and the mean loss there
TOLERANCE = 1e-8  # of the gradient of the mean loss, where the search ends
ROUNDS = 5000


def fit_probe(
    lane: Member,
    rows: Sequence[Row],
    pad: int,
    choice: Choice,
    validate: Callable[[], dict[str, float]],
    *,
    stop: threading.Event | None = None,
) -> None:
    """What `loop.fit` is to the other methods: solve a lane's probe on its training rows, in the place of all steps.

    Its history has one entry, at the recipe's last step, with a rate of 0; it is validated there, unless the recipe
    wants no validation. Set `stop` to end while texts are read: nothing is then solved.
    """
    model, recipe = lane.model, lane.recipe
    assert isinstance(recipe.method, Probe)
    kept = _read_once(model, rows, pad, choice, stop)
    if kept is None:
        lane.end("stopped")
        return
    try:
        weight, bias, loss = kept.solved(int(model.config.num_labels), recipe.method.l2)  # type: ignore[union-attr, arg-type]
    except Failed as error:
        lane.fail(str(error))
        return
    write(model, weight, bias)
    lane.history.progress = [Progress(recipe.steps, recipe.steps, loss, 0.0)]
    lane.note(validate() if recipe.validations else None)
    lane.end("done")


@dataclass(frozen=True)
class Read:
    """Training texts that a frozen model has read: their features and labels, and what was solved for them so far."""

    of: tuple[Any, ...]
    features: np.ndarray
    labels: np.ndarray
    solutions: dict[tuple[int, float], Solution] = field(default_factory=dict)

    def solved(self, classes: int, l2: float) -> Solution:
        """As `solve`, once for each penalty: no seed changes it."""
        asked = classes, l2
        if asked not in self.solutions:
            self.solutions[asked] = solve(self.features, self.labels, *asked)
        return self.solutions[asked]


def _read_once(
    model: nn.Module, rows: Sequence[Row], pad: int, choice: Choice, stop: threading.Event | None
) -> Read | None:
    """The training texts read; the last ones are kept, for penalties and seeds read the same texts."""
    global _kept
    mark = (choice, *(float(p.double().sum()) for p in model.base_model.parameters()))  # type: ignore[operator, union-attr]
    of = (mark, [(row.tokens, row.label) for row in rows])
    if _kept is None or _kept.of != of or (stop is not None and stop.is_set()):
        found = features(model, rows, pad, choice.device, stop=stop)
        if found is None:
            return None
        _kept = Read(of, found, np.array([row.label for row in rows]))
    return _kept


_kept: Read | None = None


@torch.inference_mode()
def features(
    model: nn.Module, rows: Sequence[Row], pad: int, device: str, *, stop: threading.Event | None = None
) -> np.ndarray | None:
    """The mean hidden state of each row, in the rows' order: (rows, d), float64. None where `stop` was set meanwhile.

    Raises: BadValue for a model that carries no probe.
    """
    head = pooled_head_of(model)
    if head is None:
        raise BadValue("this model carries no probe; attach one first: Probe().attach(model)")
    model.eval()
    base: nn.Module = model.base_model  # type: ignore[assignment]
    numbered = [replace(row, place=number) for number, row in enumerate(rows)]
    found = np.empty((len(rows), int(head.trained.in_features)))  # type: ignore[arg-type]
    for batch in scoring_batches(numbered, ROWS, pad):
        if stop is not None and stop.is_set():
            return None
        moved = batch.to(device)
        base(**moved.inputs(base))
        found[list(batch.places)] = head.features().cpu().numpy()
    return found


def solve(z: np.ndarray, labels: np.ndarray, classes: int, l2: float) -> Solution:
    """The W (classes, d) and b (classes,) of `methods/probe.py`'s minimum, and the mean loss there in nats.

    z (rows, d) and labels (rows,). Raises: Failed where the features are no finite numbers, or no minimum is found.
    """
    if not np.isfinite(z).all():
        raise Failed("the model's hidden states are no finite numbers: give the recipe dtype fp32")
    mean, deviation = z.mean(0), z.std(0)
    deviation[deviation < 1e-12 * max(1.0, float(np.abs(mean).max()))] = 1.0  # a constant says nothing; b takes it up
    u, wanted, rows = (z - mean) / deviation, np.eye(classes)[labels], len(z)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Of the mean loss with l2 / (2 rows): its value and its gradient."""
        parts = flat.reshape(classes, -1)
        log_p = log_softmax(u @ parts[:, :-1].T + parts[:, -1], axis=1)
        off = (np.exp(log_p) - wanted) / rows  # (rows, classes)
        down = np.column_stack([off.T @ u + l2 / rows * parts[:, :-1], off.sum(0)])
        return -(wanted * log_p).sum() / rows + l2 / (2 * rows) * np.square(parts[:, :-1]).sum(), down.ravel()

    options = {"maxiter": ROUNDS, "maxfun": 2 * ROUNDS, "gtol": TOLERANCE, "ftol": 0.0}
    best = minimize(objective, np.zeros(classes * (z.shape[1] + 1)), jac=True, method="L-BFGS-B", options=options)
    if best.nit >= ROUNDS:
        raise Failed(f"no minimum was found in {ROUNDS} rounds at l2 {l2:g}: raise it")
    weight = best.x.reshape(classes, -1)[:, :-1]
    penalty = l2 / (2 * rows) * float(np.square(weight).sum())
    bias = best.x.reshape(classes, -1)[:, -1] - weight @ (mean / deviation)
    return weight / deviation, bias, float(best.fun) - penalty


@torch.no_grad()
def write(model: nn.Module, weight: np.ndarray, bias: np.ndarray) -> None:
    """Put W (classes, d) and b (classes,) into the probe that `model` carries."""
    head = pooled_head_of(model)
    assert head is not None
    head.trained.weight.copy_(torch.from_numpy(weight))  # type: ignore[operator, union-attr]
    head.trained.bias.copy_(torch.from_numpy(bias))  # type: ignore[operator, union-attr]
