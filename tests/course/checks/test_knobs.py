import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lora_course import checks
from lora_course.checks import knobs
from lora_lab.experiments import playground


class FakePanel:
    """A sweep panel in which accuracy falls with the distance from the best rate: 2e-3 at alpha 16."""

    def __init__(self, error: str = "") -> None:
        cells = [self.cell(8, alpha, 2.0**octave) for alpha in (4.0, 16.0, 64.0) for octave in range(-16, -4)]
        self.data: dict[str, Any] = {"cells": cells}
        self.seeds, self.picked, self.live = [0, 1, 2], list[list[float]](), {"busy": False}
        self.work = SimpleNamespace(alive=False, error=error)
        self.runs = 0

    def run(self) -> None:
        self.runs += 1
        if not self.work.error:
            self.data["cells"] += [self.cell(*picked) for picked in self.picked]

    def cell(self, rank: float, alpha: float, lr: float) -> dict[str, Any]:
        mean = max(50, 77 - 2 * abs(math.log2(lr / (2e-3 * (16 / alpha) ** 0.5))))
        return {"targets": "q,v", "rank": rank, "alpha": alpha, "lr": lr, "mean": mean, "runs": [0, 1, 2]}


BEST = 2e-3 / 8**0.5  # at alpha 128
RIGHT = [
    ("missed", (lambda r, R: math.sqrt(1 - r / R),)),
    ("bracket", ([2.4e-4, 7e-4, 2.1e-3], 128.0, FakePanel())),
    ("bracket", ([BEST / 2.1, BEST, 2.1 * BEST], 128.0, FakePanel())),  # 2.1 points worse on each side
]
UNSOLVED = [
    ("bracket", ([..., ..., ...], 128.0, FakePanel()), "replace each ... with a rate"),
    ("bracket", ([2.4e-4, 7e-4, 2.1e-3], 128.0, FakePanel(error="the disk is full")), "the disk is full"),
]
WRONG = [
    ("missed", (lambda r, R: 1 - r / R,), "a size is its square root"),
    ("missed", (lambda r, R: (r / R) ** 0.5,), "what the student finds"),
    ("missed", (lambda r, R: 1 - (r / R) ** 0.5,), "energies do"),
    ("missed", (lambda r, R: R - r,), "R - r are missing"),
    ("bracket", ([5e-4, 7e-4, 1e-3], 128.0, FakePanel()), "closer rates differ only by luck"),
    ("bracket", ([2.1e-3, 7e-4, 2.4e-4], 128.0, FakePanel()), "lowest rate first"),
    ("bracket", ([7e-5, 7e-4, 7e-3], 128.0, FakePanel()), "rates farther apart may miss the peak"),
    ("bracket", ([1e-3, 2e-3, 4e-3], 128.0, FakePanel()), "at a lower rate (rates for alpha 16 are too high here)"),
    ("bracket", ([BEST / 1.6, 1.25 * BEST, 4 * BEST], 128.0, FakePanel()), "75.6, 76.4, 73.0% on validation; your sm"),
    ("bracket", ([BEST / 4, BEST / 1.25, 1.6 * BEST], 128.0, FakePanel()), "73.0, 76.4, 75.6% on validation; your la"),
    ("bracket", ([0.5, 2.0, 8.0], 128.0, FakePanel()), "none of the three rates trains"),
]


def test_fast_bracket_is_judged_by_the_stored_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAST", "1")
    panel = SimpleNamespace(data=playground.shown(playground.load())[0])
    assert f"{panel.data['luck']:.1f}" == f"{knobs.LUCK}"
    assert all(f"({knobs.LUCK} points)" in knobs.WORDS[side] for side in ("lower", "higher"))
    for alpha in (128.0, 32.0, 8.0):
        middle = 2e-3 * (16 / alpha) ** 0.5
        lowest, highest = knobs.plateau(panel.data, alpha)
        assert lowest < middle < highest < 6 * lowest
        for step in (3, 4, 5):
            assert checks.check_bracket([middle / step, middle, step * middle], alpha, panel).passed
        for factors in ((4, 16, 64), (1 / 20, 1 / 5, 1)):
            assert checks.check_bracket([factor * middle for factor in factors], alpha, panel).passed is False
    for rates, lower in (([3e-4, 6e-4, 1.2e-3], True), ([1e-4, 3e-4, 6e-4], False)):  # on the plateau; too low
        verdict = checks.check_bracket(rates, 128.0, panel)
        assert (verdict.passed, knobs.WORDS["lower"] in verdict.words) == (False, lower)
    assert knobs.WORDS["higher"] in verdict.words


def test_bracket_trains_only_missing_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAST", "")
    panel = FakePanel()
    for _ in range(2):
        assert "77.0" in checks.check_bracket([2.5e-4, BEST, 2e-3], 128.0, panel).words
    assert panel.runs == 1


def test_teacher_has_the_rank_drawn_for_the_student(monkeypatch: pytest.MonkeyPatch):
    assert torch.linalg.matrix_rank(knobs.teacher()) == 6
    ranks = set()
    for name in ("Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Hedy"):
        monkeypatch.setenv("LORA_LAB_STUDENT", name)
        values = torch.linalg.svdvals(knobs.teacher())
        rank = int((values > 0.5).sum())
        assert torch.allclose(values[:rank], torch.ones(rank), atol=1e-5)
        assert f"the secret has rank {rank}: expect" in checks.check_missed(...).right.why
        ranks.add(rank)
    assert len(ranks) > 2
