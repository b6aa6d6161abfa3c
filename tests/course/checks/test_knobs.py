"""The checks of lesson 03, which knob first: answers for `test_checks`, and what the right ones rest on."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lora_course import checks
from lora_course.checks import knobs
from lora_lab.experiments import playground


class Map:
    """A panel whose runs score less the farther their rate is from the best one, 2e-3 at alpha 16."""

    def __init__(self, error: str = "") -> None:
        others = [self.cell(8, alpha, 2.0**octave) for alpha in (4.0, 16.0, 64.0) for octave in range(-16, -4)]
        self.data: dict[str, Any] = {"cells": others}
        self.seeds, self.picked, self.live = [0, 1, 2], list[list[float]](), {"busy": False}
        self.work = SimpleNamespace(alive=False, error=error)
        self.trained = 0

    def run(self) -> None:
        self.trained += 1
        if not self.work.error:
            self.data["cells"] += [self.cell(*picked) for picked in self.picked]

    def cell(self, rank: float, alpha: float, lr: float) -> dict[str, Any]:
        mean = max(50, 77 - 2 * abs(math.log2(lr / (2e-3 * (16 / alpha) ** 0.5))))
        return {"targets": "q,v", "rank": rank, "alpha": alpha, "lr": lr, "mean": mean, "runs": [0, 1, 2]}


RIGHT = {"missed": (lambda r, R: math.sqrt(1 - r / R),), "bracket": ([2.4e-4, 7e-4, 2.1e-3], 128.0, Map())}
UNSOLVED = {"bracket": ([..., ..., ...], 128.0, Map())}
WRONG = [
    ("missed", (lambda r, R: 1 - r / R,), "a size is its square root"),
    ("missed", (lambda r, R: (r / R) ** 0.5,), "what the student finds"),
    ("missed", (lambda r, R: 1 - (r / R) ** 0.5,), "energies do"),
    ("missed", (lambda r, R: R - r,), "R - r are missing"),
    ("bracket", ([5e-4, 7e-4, 1e-3], 128.0, Map()), "closer ones differ only by luck"),
    ("bracket", ([7e-5, 7e-4, 7e-3], 128.0, Map()), "wider ones may step over the peak"),
    ("bracket", ([1e-3, 2e-3, 4e-3], 128.0, Map()), "the peak may be lower (rates for alpha 16 are too high here)"),
    ("bracket", ([1e-4, 2e-4, 4e-4], 128.0, Map()), "the peak may be higher"),
]


def test_the_ridge_of_the_runs_that_ship_passes_the_lessons_rule(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAST", "1")
    panel = SimpleNamespace(data=playground.shown(playground.load())[0])
    for alpha in (128.0, 32.0, 8.0):
        middle = 2e-3 * (16 / alpha) ** 0.5
        for step in (3, 4, 5):
            assert checks.check_bracket([middle / step, middle, step * middle], alpha, panel).passed is True
        assert checks.check_bracket([4 * middle, 16 * middle, 64 * middle], alpha, panel).passed is False
        assert checks.check_bracket([middle / 20, middle / 5, middle], alpha, panel).passed is False
        least, most = knobs.plateau(panel.data, alpha)
        assert least < middle < most < 6 * least
    assert f"{panel.data['luck']:.1f}" == f"{knobs.LUCK}"
    on_the_plateau = checks.check_bracket([3e-4, 6e-4, 1.2e-3], 128.0, panel)
    assert (on_the_plateau.passed, knobs.LOWER in on_the_plateau.words) == (False, True)
    one_side = checks.check_bracket([1e-4, 3e-4, 6e-4], 128.0, panel)
    assert (one_side.passed, knobs.LOWER in one_side.words, knobs.HIGHER in one_side.words) == (False, False, True)


def test_both_outer_rates_must_be_worse_by_more_than_luck_and_a_row_that_learns_nothing_has_no_peak(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("FAST", "")
    best = 2e-3 / 8**0.5
    low = checks.check_bracket([best / 1.6, 1.25 * best, 4 * best], 128.0, Map())  # 75.6, 76.4 and 73%
    high = checks.check_bracket([best / 4, best / 1.25, 1.6 * best], 128.0, Map())  # 73, 76.4 and 75.6%
    assert (low.passed, low.words.split("; ")[1:]) == (False, [knobs.LOWER])
    assert (high.passed, high.words.split("; ")[1:]) == (False, [knobs.HIGHER])
    assert checks.check_bracket([best / 2.1, best, 2.1 * best], 128.0, Map()).passed is True  # 2.1 points on each side
    idle = checks.check_bracket([0.5, 2.0, 8.0], 128.0, Map())
    assert (idle.passed, "none of the three learns" in idle.words) == (False, True)


def test_what_is_trained_is_not_trained_again_and_a_failure_is_no_try(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAST", "")
    panel = Map()
    for _ in range(2):
        assert "77.0" in checks.check_bracket([2.5e-4, 2e-3 / 8**0.5, 2e-3], 128.0, panel).words
    assert panel.trained == 1
    verdict = checks.check_bracket([2.4e-4, 7e-4, 2.1e-3], 128.0, Map(error="the disk is full"))
    assert (verdict.passed, verdict.words) == (None, "the disk is full")


def test_a_secret_has_the_rank_that_the_students_name_draws(monkeypatch: pytest.MonkeyPatch):
    assert torch.linalg.matrix_rank(knobs.teacher()) == 6
    drawn = set()
    for name in ("Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Hedy"):
        monkeypatch.setenv("LORA_LAB_STUDENT", name)
        values = torch.linalg.svdvals(knobs.teacher())
        rank = int((values > 0.5).sum())
        assert torch.allclose(values[:rank], torch.ones(rank), atol=1e-5)
        assert f"your secret has R = {rank}, so expect" in checks.check_missed(*RIGHT["missed"]).words
        drawn.add(rank)
    assert len(drawn) > 2
