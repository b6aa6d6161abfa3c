"""A run in training (`Member`), its training step, and the probe's solver. The loop is in `Pack.fit`."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lora_lab.adapter_layer import AdapterLayer
from lora_lab.errors import Failed, warn
from lora_lab.methods.attach import PooledHead
from lora_lab.methods.full import Probe
from lora_lab.metrics import goodness
from lora_lab.training.batches import Batch, Row, scoring_batches
from lora_lab.training.early_warnings import gradient_warning, rate_warning
from lora_lab.training.evaluate import ROWS, learned_tokens, logits_of, loss_of
from lora_lab.training.recipe import Recipe

Metrics = dict[str, float]
Losses = Callable[[Tensor, Tensor, Sequence["Member"]], Tensor]  # each member's loss, from logits and labels
MOMENTS = ("exp_avg", "exp_avg_sq")
TOLERANCE, ROUNDS = 1e-8, 5000  # settings of scikit-learn's solver


def label_losses(logits: Tensor, labels: Tensor, members: Sequence[Member]) -> Tensor:
    """Return the mean loss of each member: over rows or, with `token_mean`, over tokens as in Hu et al."""
    recipe = members[0].recipe
    losses = loss_of(logits, labels, recipe.label_smoothing).view(len(members), -1)  # (members, rows)
    if not recipe.token_mean or labels.dim() == 1:
        return losses.mean(1)
    tokens = learned_tokens(labels).view(len(members), -1)
    return (losses * tokens).sum(1) / tokens.sum(1).clamp(min=1)


def train_step(
    step: int, batch: Batch, members: Sequence[Member], model: nn.Module, part: slice, losses: Losses = label_losses
) -> None:
    """Run forward, backward and the optimizer step for the members in one part of the model."""
    members_of_part, rows = members[part], len(batch.labels) // len(members)  # rows per member
    own = batch.map(lambda t: t[part.start * rows : part.stop * rows])
    values = losses(logits_of(model, own), own.labels, members_of_part)
    values.sum().backward()
    norms = torch.stack([member.clip() for member in members_of_part])
    both = torch.stack([values.detach(), norms], dim=1).tolist()  # waits for a GPU only once, for all members together
    for member, (loss, norm) in zip(members_of_part, both, strict=True):
        member.optimizer_step(step, loss, norm)  # AdamW; a non-finite loss ends the run
        member.optimizer.zero_grad(set_to_none=member.row is None)  # in a pack, gradients are views of its table


def training_mode(model: nn.Module, *, base_dropout: bool) -> None:
    """Enable dropout in adapters and heads, and in the frozen base only with `base_dropout`."""
    model.train(base_dropout)
    for module in model.modules():
        if isinstance(module, AdapterLayer):
            module.train()
            module.base_layer.train(base_dropout)


@dataclass(frozen=True)
class Progress:
    """A step of a run, as passed to callbacks. `validation` holds metrics if a validation followed the step."""

    step: int
    steps: int
    loss: float
    lr: float
    validation: Metrics | None = None


Callback = Callable[[Progress], None]


class Member:
    """A run in training, either alone or in a pack.

    model     A model with the recipe's method attached, whose parameters with `requires_grad=True` are trained.
    row       In a pack, the member's row of the parameter table: all trained parameters, padded, as one tensor.
    history   Lists for JSON: `step`, `loss` and `lr` of every update, and `validation` with a record per validation.
              The first record of `validation` is step 0, the untrained model, except in a sweep with `choose`.
    status    At first "training"; later "done", "early" (patience), "stopped" (by hand) or "failed" (with `error`).
              A sweep with `choose` may also stop a run as "behind".
    right     The value of `Score.right` in the last validation.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, callbacks: Sequence[Callback] = ()) -> None:
        self.recipe, self.model, self.callbacks = recipe, model, callbacks
        self.trained: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.row: Tensor | None = None
        self.start_adamw({})
        self.history: dict[str, list[Any]] = {"step": [], "loss": [], "lr": [], "validation": []}
        self.status = "training"
        self.error: str | None = None
        self.warnings: list[str] = []
        self.best: Metrics | None = None  # best validation so far
        self.since = 0  # validations since the best one
        self.right: np.ndarray | None = None

    @property
    def ended(self) -> bool:
        return self.status != "training"

    def clip(self) -> Tensor:
        """Clip the current gradients to the recipe's norm, and return their norm before clipping."""
        return nn.utils.clip_grad_norm_(self.trained if self.row is None else self.row, self.recipe.clip or math.inf)

    def optimizer_step(self, step: int, loss: float, norm: float) -> None:
        """Update the parameters at this step's rate. If the loss or gradient norm isn't finite, end the run instead."""
        recipe, rate = self.recipe, self.recipe.lr_at(step)
        if not self.history["step"]:
            for message in filter(None, (rate_warning(recipe), gradient_warning(self.model))):
                self.warnings.append(message)
                warn(message)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["ratio"]
        if self.fail_unless_finite({"loss": loss, "gradient": norm}, step):
            self.optimizer.step()
            for name, value in (("step", step), ("loss", loss), ("lr", rate)):
                self.history[name].append(value)

    def end_step(self, metrics: Metrics | None) -> None:
        """Unless training has ended, record the last update's validation, if any, and call the callbacks."""
        if self.ended:
            return
        step, loss, lr = (self.history[name][-1] for name in ("step", "loss", "lr"))
        if metrics:
            if not self.fail_unless_finite({"validation loss": metrics.get("loss", 0.0)}, step):
                return
            self.history["validation"].append({"step": step, **metrics})
        for callback in self.callbacks:
            callback(Progress(step, self.recipe.steps, loss, lr, metrics))
        if metrics:
            improved = self.best is None or goodness(metrics) > goodness(self.best)
            self.best, self.since = (metrics, 0) if improved else (self.best, self.since + 1)
            if 0 < self.recipe.patience <= self.since:
                self.end("early")

    def end(self, status: str) -> None:
        """Set the final status, unless training has already ended."""
        self.status = self.status if self.ended else status

    def fail(self, reason: str) -> None:
        self.status, self.error = "failed", reason

    def fail_unless_finite(self, values: Mapping[str, float], step: int | None = None) -> bool:
        """Return whether all values are finite. If not, end the run as failed: records hold only finite numbers."""
        for name, value in values.items():
            if not math.isfinite(value):
                at = f" at step {step}" if step else ""
                reason = f"became {value}{at}: lower the rate (lr was {self.recipe.lr:g})"
                if not self.history["step"]:
                    reason = f"is {value} before the first update: check the model's weights, or train with dtype fp32"
                self.fail(f"the {name} {reason}")
                return False
        return True

    def join(self, numbers: Tensor, gradients: Tensor, state: Mapping[str, Sequence[Tensor]]) -> None:
        """Make this member train a row of a pack's table from now on, starting from the optimizer's `state`."""
        self.row, self.row.grad = numbers, gradients
        self.start_adamw(state)

    def remain(self) -> None:
        """Train the member's own parameters from now on, because all other members have left."""
        state, self.row = self.state(), None
        for p in self.trained:
            p.data, p.grad = p.data.clone(), None  # no longer views of the table
        self.start_adamw(state)

    def state(self) -> dict[str, list[Tensor]]:
        """Return the state of AdamW, or {} before the first update.

        step                  A tensor with the number of updates.
        exp_avg, exp_avg_sq   The moments of each trained parameter, in its shape (in a pack, views of a row).
        """
        state, row = self.optimizer.state, self.row
        if not state:
            return {}
        if row is None:
            # A parameter that never had a gradient has no state
            moments = {n: [state[p][n] if p in state else torch.zeros_like(p) for p in self.trained] for n in MOMENTS}
        else:
            places = [(p.shape, p.stride(), p.storage_offset() - row.storage_offset()) for p in self.trained]
            moments = {name: [state[row][name].as_strided(*place) for place in places] for name in MOMENTS}
        return {"step": [next(iter(state.values()))["step"]], **moments}

    def start_adamw(self, state: Mapping[str, Sequence[Tensor]]) -> None:
        """Create AdamW with this state; see `state`. In LoRA+, B's rate is `lr_ratio` times A's (Hayou et al. 2024)."""
        owners, ratio = self.trained if self.row is None else [self.row], getattr(self.recipe.method, "lr_ratio", 1.0)
        named = self.model.named_parameters()
        fast = {id(p) for name, p in named if name.endswith(("lora_B", "lora_embedding_B")) and ratio != 1.0}
        sides = (1.0, [t for t in owners if id(t) not in fast]), (ratio, [t for t in owners if id(t) in fast])
        groups = [{"params": side, "ratio": r} for r, side in sides]
        self.optimizer = torch.optim.AdamW(groups, lr=self.recipe.lr, weight_decay=self.recipe.weight_decay, fused=True)
        if not state:
            return
        for owner in owners:
            zeros = {name: torch.zeros_like(owner) for name in MOMENTS}
            self.optimizer.state[owner] = {"step": state["step"][0].clone().to(owner.device), **zeros}
        own = self.state()
        for name in MOMENTS:
            for moment, value in zip(own[name], state[name], strict=True):
                moment.copy_(value)


# ---- the probe: the frozen model reads every text once, then a logistic regression is solved, not trained

_kept: tuple[Any, np.ndarray] | None = None  # last texts and features, reused for other penalties and seeds


def fit_probe(
    member: Member, rows: Sequence[Row], pad: int, device: str, validate: Callable[[], dict[str, float]],
    *, stop: threading.Event | None = None,
) -> None:  # fmt: skip
    """Train the probe without the training loop. The history has a single entry, at the recipe's last step."""
    global _kept
    model: Any = member.model
    recipe, method = member.recipe, member.recipe.method
    assert isinstance(method, Probe)
    read_by = model.lora_lab_report.base_fingerprint, recipe.model, recipe.dtype, str(model.dtype)
    texts = read_by, [row.tokens for row in rows]
    z = _kept[1] if _kept is not None and _kept[0] == texts else features(model, rows, pad, device, stop=stop)
    if z is None or (stop is not None and stop.is_set()):
        member.end("stopped")
        return
    _kept = texts, z
    try:
        weight, bias, loss = solve(z, np.array([row.label for row in rows]), model.config.num_labels, method.l2)
    except Failed as error:
        member.fail(str(error))
        return
    trained: Any = next(module for module in model.modules() if isinstance(module, PooledHead)).trained
    trained.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    member.history |= {"step": [recipe.steps], "loss": [loss], "lr": [0.0]}
    member.end_step(validate() if recipe.validations else None)
    member.end("done")


@torch.inference_mode()
def features(
    model: nn.Module, rows: Sequence[Row], pad: int, device: str, *, stop: threading.Event | None = None
) -> np.ndarray | None:
    """Return each row's mean hidden state for the probe, float64 (rows, d), or None if `stop` ended the run."""
    head = next(module for module in model.modules() if isinstance(module, PooledHead))
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
    """Return W (classes, d) and b (classes,) at the minimum defined in `methods/full.py`, and the mean loss in nats.

    `z` is (rows, d), and `labels` is (rows,). scikit-learn uses features u with mean 0 and standard deviation 1 on the
    training texts, so that a penalty has the same meaning for all models. Then W and b are rewritten to apply to z
    instead of u. Raises: Failed for non-finite features, or if no minimum is found.
        u = (z - mean) / deviation        W u + b = (W / deviation) z + (b - W mean / deviation)
    """
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    from sklearn.metrics import log_loss  # type: ignore[import-untyped]
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

    if not np.isfinite(z).all():
        raise Failed("the model's hidden states are not finite: train with dtype fp32")
    scaler = StandardScaler()  # a constant feature gets deviation 1
    u = scaler.fit_transform(z)
    inverse_penalty = (2 if classes == 2 else 1) / l2  # for two classes, scikit-learn has only one row of W
    with warnings.catch_warnings(action="error", category=ConvergenceWarning):
        try:
            fitted = LogisticRegression(C=inverse_penalty, tol=TOLERANCE, max_iter=ROUNDS).fit(u, labels)
        except ConvergenceWarning as error:
            raise Failed(f"no minimum was found in {ROUNDS} iterations with l2 {l2:g}: use a larger l2") from error
    weight, bias = fitted.coef_, fitted.intercept_
    if classes == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    return weight, bias - weight @ scaler.mean_, float(log_loss(labels, fitted.predict_proba(u)))
