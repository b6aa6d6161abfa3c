"""The curve shows every seed and each verdict, and says in its title and words what was found."""

from __future__ import annotations

import numpy as np
import pytest

from lora_course.experiments.bits import CURVE, Curve
from lora_course.plots.bits import headline, levels_among_weights, quality_against_bits
from lora_lab import LoRA, Recipe, load_task
from lora_lab.experiments.results import Runs
from lora_lab.training.runs import Run


@pytest.fixture(scope="module")
def found() -> Curve:
    """Five seeds a format on the rows of `rt`: 2 bits far worse than all others."""
    labels, rng = np.array(load_task("rt").test.labels), np.random.default_rng(0)
    hard = rng.random(len(labels))

    def run(dtype: str, seed: int) -> Run:
        share = 0.6 if dtype.startswith("nf2") else 0.8
        answers = np.where(hard + 0.01 * rng.standard_normal(len(labels)) < share, labels, 1 - labels)
        history = {"step": [], "loss": [], "lr": [], "validation": []}
        metrics = {"accuracy": float((answers == labels).mean())}
        recipe = Recipe("minilm", "rt", LoRA(), seed=seed, dtype=dtype)
        return Run(recipe, metrics, history, 1, 1, 2, 1.0, 1, {}, predictions=answers)

    return Curve({dtype: Runs(tuple(run(dtype, seed) for seed in range(5))) for dtype in CURVE})


def test_every_seed_is_a_dot_and_the_title_is_the_verdicts(found):
    picture = quality_against_bits(found)
    dots = sum(len(one.get_offsets()) for one in picture.axes[0].collections)
    assert dots == 5 * 5 + 5
    assert headline(found) == "LoRA on a base of few bits, against 16: int8 and nf4 and nf3 equivalent, nf2 worse"
    assert "nf2 worse" in picture.get_suptitle()
    assert "worse by" in picture.alt
    assert picture._repr_png_()


def test_the_table_goes_from_most_bits_to_fewest(found):
    bits = [row["bits"] for row in found.table()]
    assert bits == pytest.approx([16, 8.127, 4.127, 3.127, 2.127], abs=0.001)
    assert [row["outcome"] for row in found.table()] == [None, "equivalent", "equivalent", "equivalent", "worse"]


def test_without_runs_of_16_bits_there_is_no_verdict(found):
    alone = Curve({"nf4+bf16": found.runs["nf4+bf16"]})
    assert alone.verdicts == {}
    assert headline(alone) == "LoRA on a base of few bits"
    assert len(quality_against_bits(found, alone).axes[0].collections) == 11


def test_levels_are_drawn_beneath_the_weights():
    scaled = np.random.default_rng(0).standard_normal(1000) / 4
    levels = {"nf4": np.linspace(-1, 1, 16), "int4": np.linspace(-1, 1, 15)}
    picture = levels_among_weights(scaled, levels, {"nf4": 0.09, "int4": 0.11})
    assert "nf4 has its levels where the weights are" in picture.get_suptitle()
    assert [len(c.get_segments()) for c in picture.axes[1].collections] == [16, 15]
