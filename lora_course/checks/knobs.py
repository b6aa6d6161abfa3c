"""Exercises for lesson 03 (knobs): the loss that a low-rank student can't remove, and three rates around the best."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch

from lora_course.checks.verdict import Function, Verdict, exercise, plain, texts, unsolved
from lora_course.receipts import draw, seed_of
from lora_lab.errors import switched_on
from lora_lab.widgets.sweep_panel import SweepPanel

SIZE, RANKS = 32, (6, 4, 8, 5, 7)  # size of a teacher's update; its possible ranks (the first if no student is named)
RANK, TARGETS = 8, "q,v"  # the map's row in which three rates must bracket the best one
NEAREST, FARTHEST = 1.9, 5.1  # limits of the ratio of neighboring rates
LUCK = 2.0  # points: 1.96 standard errors of the difference between two settings, with three seeds each
LEARNED = 60  # percent right; guessing gets 50
TOO_HIGH = 1e-3  # for alphas above 16
TEXTS = texts("knobs")
WORDS = TEXTS["bracket"]


def teacher() -> torch.Tensor:
    """Return the update that a student has to find, (SIZE, SIZE); its singular values are 1 up to its rank, then 0."""
    rank, random = draw("teacher", *RANKS), torch.Generator().manual_seed(seed_of())
    left, right = (torch.linalg.qr(torch.randn(SIZE, rank, generator=random))[0] for _ in range(2))
    return left @ right.T


@exercise
def check_missed(missed: Callable[[int, int], float]) -> Verdict:
    """Lesson 03: check f(r, R), the share of the loss that a rank-r student can't remove if `teacher()` has rank R."""
    near: dict[str, Callable[[int, int], float]] = {
        "the loss is already squared: it needs no root": lambda r, R: (1 - r / R) ** 0.5,
        "that is the share that the student removes: what is left?": lambda r, R: r / R,
        "that is the number of missing pieces: what share of all pieces is it?": lambda r, R: R - r,
    }
    why, fallback = "of R pieces, R - r are missing", "the student finds r of the R pieces: what share is missing?"
    cases = [(r, R) for R in (4, 6, 8) for r in range(1, R + 1)]
    return Function(cases, lambda r, R: 1 - r / R, why, near, fallback, within=0.01).judge(missed)


@exercise
def check_bracket(rates: Iterable[float] | None, alpha: float, panel: SweepPanel) -> Verdict:
    """Lesson 03: check three rates at rank 8; both outer ones must be worse than the middle one by more than `LUCK`.

    The check trains the runs that the panel lacks. With FAST=1, it trains nothing and judges by the panel's other rows.
    """
    rates = [plain(rate) for rate in rates] if isinstance(rates, Iterable) else []
    if not rates or any(map(unsolved, rates)):
        return Verdict(None, "replace each ... with a rate, smallest first")
    if len(rates) != 3 or not all(isinstance(rate, Real) and rate > 0 for rate in rates):
        return Verdict(None, "give three numbers above zero, such as [1e-5, 3e-5, 1e-4]")
    low, middle, high = rates = [float(rate) for rate in rates]
    ratios = middle / low, high / middle
    if min(ratios) < NEAREST or max(ratios) > FARTHEST:
        return Verdict(False, WORDS["order" if min(ratios) < 1 else "close" if min(ratios) < NEAREST else "wide"])
    carried = TEXTS["carried"] * (alpha > 16 and middle > TOO_HIGH)
    if switched_on("FAST"):
        lowest, highest = plateau(panel.data, alpha)
        words = f"FAST=1 trains nothing; {TEXTS['plateau'].format(least=f'{lowest:g}', most=f'{highest:g}')}"
        if not lowest <= middle <= highest:
            return Verdict(False, f"{words}; {WORDS['below'] if middle < lowest else WORDS['above'] + carried}")
        worse = [low < lowest, high > highest]
    else:
        scores, words = _train(rates, alpha, panel)
        if not scores:
            return Verdict(None, words)
        if max(scores) < LEARNED:
            return Verdict(False, f"{words}; {TEXTS['idle']}")
        worse = [score < scores[1] - LUCK for score in (scores[0], scores[2])]
    if all(worse):
        return Verdict(True, f"{words}; {WORDS['peak'].format(low=f'{low:.2g}', high=f'{high:.2g}')}")
    replies = zip((WORDS["lower"] + carried, WORDS["higher"]), worse, strict=True)
    sides = [reply for reply, enough in replies if not enough]
    return Verdict(False, "; ".join([words, *sides]))


def plateau(data: dict[str, Any], alpha: float) -> tuple[float, float]:
    """Estimate, from other alphas, the lowest and the highest rate (to two digits) that may be as good as the best one.

    A higher alpha needs a lower rate, so each row's rates are scaled by 1 / sqrt(alpha) before losses are averaged.
    """
    octaves, losses = np.arange(-20, 0, 0.02), []
    for other in {cell["alpha"] for cell in data["cells"]} - {alpha}:
        cells = [c for c in data["cells"] if (c["targets"], c["rank"], c["alpha"]) == (TARGETS, RANK, other)]
        row = sorted((math.log2(c["lr"] * (other / alpha) ** 0.5), c["mean"]) for c in cells if c["mean"] is not None)
        if len(row) >= 3:
            log_rates, means = np.array(row).T
            losses.append(means.max() - np.interp(octaves, log_rates, means))
    loss = np.mean(losses, axis=0)
    near = 2 ** octaves[loss <= loss.min() + LUCK]
    return float(f"{near[0]:.2g}"), float(f"{near[-1]:.2g}")


def _train(rates: Sequence[float], alpha: float, panel: SweepPanel) -> tuple[list[float], str]:
    """Return each rate's mean validation accuracy in percent, or [] and the reason if runs are still missing."""

    def scores() -> list[float]:
        row = [c for c in panel.data["cells"] if (c["targets"], c["rank"], c["alpha"]) == (TARGETS, RANK, alpha)]
        done = [cell for cell in row if len(cell["runs"]) >= len(panel.seeds)]
        complete = {f"{cell['lr']:.3g}": cell["mean"] or 0.0 for cell in done}  # a cell's rates agree to three digits
        return [complete[rate] for rate in (f"{rate:.3g}" for rate in rates) if rate in complete]

    error = ""
    if len(scores()) < len(rates):
        panel.picked = [[RANK, alpha, rate] for rate in rates]
        panel.run()
        while (panel.work and panel.work.alive) or panel.live.get("busy"):
            time.sleep(0.1)
        error = panel.work.error if panel.work else ""
    if len(means := scores()) < len(rates):
        return [], error or "the runs have not finished: run this cell again to continue them"
    return means, f"{', '.join(f'{score:.1f}' for score in means)}% on validation"
