"""Tests of comparisons judged at every margin: the outcomes of `verdict`, and resampled studies."""

from typing import Any

import numpy as np
import pytest

from lora_lab.experiments.margins import MARGINS, judged, packed, resampled, shown, unpacked
from lora_lab.experiments.statistics import LEVEL, verdict, verdicts
from lora_lab.files import read_json
from lora_lab.training.assets import shipped

LETTERS = {"better": "b", "worse": "w", "equivalent": "e", "undecided": "u"}


def simulate(rng: np.random.Generator, *accuracies: float, seeds: int = 4, rows: int = 600) -> list[np.ndarray]:
    """Return right and wrong answers of methods that find the same rows hard."""
    difficulty = rng.random(rows)
    return [difficulty + 0.1 * rng.standard_normal((seeds, rows)) < accuracy for accuracy in accuracies]


def letter_of(found: Any) -> str:
    both = found.outcome == "equivalent" and found.p_difference < LEVEL
    return ("B" if found.difference > 0 else "W") if both else LETTERS[found.outcome]


@pytest.mark.parametrize("case", ["four seeds", "one seed", "unpaired seeds", "losses", "identical"])
def test_outcomes_and_intervals_equal_those_of_verdict(case):
    rng = np.random.default_rng(len(case))
    a, b = simulate(rng, 0.8, 0.77)
    if case == "one seed":
        a, b = a[:1], b[:1]
    elif case == "unpaired seeds":
        b = b[:2]
    elif case == "losses":
        a, b = -rng.random((3, 200)), -rng.random((3, 200))
    elif case == "identical":
        b = a.copy()
    margins = MARGINS[::4]
    entries = judged({"a": a, "b": b}, margins)
    for entry, first, second in ((entries["b"]["a"], a, b), (entries["a"]["b"], b, a)):
        more = iter(entry["more"])  # an entry for each undecided margin
        for position, margin in enumerate(margins):
            found = verdict(first, second, margin)
            assert entry["outcomes"][position] == letter_of(found)
            low, high = next(ends for start, *ends in reversed(entry["within"]) if start <= position)
            assert (low, high) == pytest.approx((found.low, found.high), abs=1e-5)
            assert (entry["low"], entry["high"]) == pytest.approx((found.low95, found.high95), abs=1e-5)
            if found.outcome == "undecided":
                for actual, expected in zip(next(more), (found.more_seeds, found.more_rows), strict=True):
                    assert actual == (expected and pytest.approx(expected, rel=0.05))
        assert next(more, None) is None


def test_joint_outcomes_are_holm_corrected():
    scores = dict(zip("abcd", simulate(np.random.default_rng(3), 0.8, 0.785, 0.77, 0.8), strict=True))
    margins, corrected = MARGINS[4:40:7], 0
    for rival, entries in judged(scores, margins).items():
        for position, margin in enumerate(margins):
            for name, found in verdicts(scores, rival, margin).items():
                assert entries[name]["together"][position] == letter_of(found)
                corrected += entries[name]["together"][position] != entries[name]["outcomes"][position]
    assert corrected  # the correction changes an outcome


def test_answers_survive_json():
    rng = np.random.default_rng(0)
    for scores in (rng.random((3, 77)) < 0.5, rng.standard_normal((2, 5)).astype(np.float32)):
        restored = unpacked(packed(scores))
        assert np.array_equal(restored, scores)
        assert (restored.dtype == bool) == (scores.dtype == bool)


def test_resampled_studies_rarely_miss_the_truth():
    a, b = simulate(np.random.default_rng(1), 0.8, 0.77, rows=1000)
    margins = MARGINS[::6]
    found = resampled(a, b, 100, margins)
    assert found["truth"] == pytest.approx(a.mean() - b.mean(), abs=1e-6)
    missed = sum(not low <= found["truth"] <= high for _, low, high in found["studies"])
    assert missed <= 12  # of 95% intervals; more than that has a chance below 1 in 500
    for outcomes in found["outcomes"]:
        assert len(outcomes) == len(margins)
        assert set(outcomes.rstrip("eBW")) <= set("ubw")  # once equivalent, equivalent at each larger margin
    assert resampled(a, b, 100, margins) == found != resampled(a, b, 100, margins, seed=1)


def test_without_answers_only_the_judged_margin_is_known():
    intervals = [{"level": 90, "low": 0.003, "high": 0.019}, {"level": 95, "low": 0.002, "high": 0.02}]
    verdict = {"kind": "equivalent", "difference": 0.011, "margin": 0.015, "points": True, "intervals": intervals}
    comparison = read_json(shipped("data/results/compare/minilm_rt.json"))
    for row in comparison["methods"]:
        row |= {"answers": None, "against": {"full": verdict} if row["label"] == "LoRA r8 q,v" else {}}
    data = shown(comparison)
    entry, reverse = data["against"]["full"]["LoRA r8 q,v"], data["against"]["LoRA r8 q,v"]["full"]
    assert set(entry["outcomes"]) == {"-", "B"}  # 1.1 points ahead in both intervals, and equivalent
    assert entry["outcomes"][data["margins"].index(0.015)] == "B"
    assert (reverse["low"], reverse["high"]) == (-entry["high"], -entry["low"])
    assert set(reverse["outcomes"]) == {"-", "W"}
