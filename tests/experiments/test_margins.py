"""Outcomes at each margin are those of `verdict`; resampled studies miss as seldom as they should."""

from typing import Any

import numpy as np
import pytest

from lora_lab.experiments.margins import MARGINS, judged, packed, resampled, shown, unpacked
from lora_lab.experiments.statistics import LEVEL, verdict, verdicts
from lora_lab.files import read_json
from lora_lab.training.assets import shipped

NAMED = {"better": "b", "worse": "w", "equivalent": "e", "undecided": "u"}


def answers(chance: np.random.Generator, *shares: float, seeds: int = 4, rows: int = 600) -> list[np.ndarray]:
    """Right and wrong answers of methods that find the same rows hard."""
    hard = chance.random(rows)
    return [hard + 0.1 * chance.standard_normal((seeds, rows)) < share for share in shares]


def letter_of(found: Any) -> str:
    both = found.outcome == "equivalent" and found.p_difference < LEVEL
    return ("B" if found.difference > 0 else "W") if both else NAMED[found.outcome]


@pytest.mark.parametrize("case", ["seeds", "one seed", "unlike seeds", "losses", "the same"])
def test_at_each_margin_the_outcome_and_the_interval_are_those_of_the_verdict(case: str):
    chance = np.random.default_rng(len(case))
    a, b = answers(chance, 0.8, 0.77)
    if case == "one seed":
        a, b = a[:1], b[:1]
    elif case == "unlike seeds":
        b = b[:2]
    elif case == "losses":
        a, b = -chance.random((3, 200)), -chance.random((3, 200))
    elif case == "the same":
        b = a.copy()
    margins = MARGINS[::4]
    entries = judged({"a": a, "b": b}, margins)
    for entry, one, other in ((entries["b"]["a"], a, b), (entries["a"]["b"], b, a)):
        undecided = 0
        for at, margin in enumerate(margins):
            found = verdict(one, other, margin)
            assert entry["outcomes"][at] == letter_of(found)
            low, high = next(ends for start, *ends in reversed(entry["within"]) if start <= at)
            assert (low, high) == pytest.approx((found.low, found.high), abs=1e-5)
            assert (entry["low"], entry["high"]) == pytest.approx((found.low95, found.high95), abs=1e-5)
            if found.outcome == "undecided":
                more = entry["more"][undecided]
                undecided += 1
                for here, there in zip(more, (found.more_seeds, found.more_rows), strict=True):
                    assert here == (there and pytest.approx(there, rel=0.05))
        assert len(entry["more"]) == undecided


def test_together_is_holms_correction_over_all_that_meet_the_rival():
    named = dict(zip("abcd", answers(np.random.default_rng(3), 0.8, 0.785, 0.77, 0.8), strict=True))
    margins = MARGINS[4:40:7]
    entries, differ = judged(named, margins), 0
    for rival, others in entries.items():
        for at, margin in enumerate(margins):
            for name, found in verdicts(named, rival, margin).items():
                assert others[name]["together"][at] == letter_of(found)
                differ += others[name]["together"][at] != others[name]["outcomes"][at]
    assert differ  # the correction is seen


def test_answers_come_back_from_json():
    chance = np.random.default_rng(0)
    right, losses = chance.random((3, 77)) < 0.5, chance.standard_normal((2, 5)).astype(np.float32)
    for scores in (right, losses):
        back = unpacked(packed(scores))
        assert np.array_equal(back, scores)
        assert (back.dtype == bool) == (scores.dtype == bool)


def test_resampled_studies_know_the_truth_and_miss_it_seldom():
    a, b = answers(np.random.default_rng(1), 0.8, 0.77, rows=1000)
    margins = MARGINS[::6]
    found = resampled(a, b, 100, margins)
    assert found["truth"] == pytest.approx(a.mean() - b.mean(), abs=1e-6)
    missed = sum(not low <= found["truth"] <= high for _, low, high in found["studies"])
    assert missed <= 12  # of 95% intervals; more than that has a chance below 1 in 500
    for outcomes in found["outcomes"]:
        assert len(outcomes) == len(margins)
        assert set(outcomes.rstrip("eBW")) <= set("ubw")  # once equivalent, equivalent at each larger margin
    assert resampled(a, b, 100, margins) == found != resampled(a, b, 100, margins, seed=1)


INTERVALS = [{"level": 90, "low": 0.003, "high": 0.019}, {"level": 95, "low": 0.002, "high": 0.02}]
VERDICT = {"kind": "equivalent", "difference": 0.011, "margin": 0.015, "points": True, "intervals": INTERVALS}


def test_without_answers_only_the_margin_that_was_judged_is_known():
    found = read_json(shipped("data/results/compare/minilm_rt.json"))
    for one in found["methods"]:
        one |= {"answers": None, "against": {"full": VERDICT} if one["label"] == "LoRA r8 q,v" else {}}
    data = shown(found)
    entry = data["against"]["full"]["LoRA r8 q,v"]
    assert set(entry["outcomes"]) == {"-", "B"}  # 1.1 points ahead in both intervals, and equivalent
    assert entry["outcomes"][data["margins"].index(0.015)] == "B"
    back = data["against"]["LoRA r8 q,v"]["full"]
    assert (back["low"], back["high"]) == (-entry["high"], -entry["low"])
    assert set(back["outcomes"]) == {"-", "W"}
