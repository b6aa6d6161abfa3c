"""Every item's rule, by results that are made: holds, fails, undecided.

Cases stand in one test for each item: a test more costs more than the case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lora_lab.experiments import paper
from lora_lab.experiments.compare import Result
from lora_lab.experiments.reproduce import (
    NAMES,
    fig3,
    fig4,
    item,
    section4_2,
    table1,
    table2,
    table3,
    table5,
    table6,
    table7,
    table16,
    table18,
)  # fmt: skip
from lora_lab.experiments.reproduce.base import Judged, by_verdicts, in_every
from lora_lab.experiments.statistics import verdict
from lora_lab.experiments.text_scores import text_scores
from lora_lab.methods.lora import LoRA

ROWS = 2000


def check(judge: Callable[[Any], Judged], cases: Iterable[tuple[str, Any]]) -> None:
    """Every case is judged as it should be, with a reason."""
    seen = set()
    for standing, made in cases:
        judged = judge(made)
        assert judged.standing == standing, judged.words
        assert judged.words
        seen.add(standing)
    assert seen == {"holds", "fails", "undecided"}


def right(share: float, seed: int = 0) -> np.ndarray:
    """Answers of three runs, so many of them right; the same rows are hard for all."""
    rng, hard = np.random.default_rng(seed), np.random.default_rng(0).random(ROWS)
    return np.stack([hard + 0.02 * rng.standard_normal(ROWS) < share for _ in range(3)])


def scores(names: Iterable[str], **others: float) -> dict[str, np.ndarray]:
    """80 % right everywhere, but in some."""
    return {name: right(others.get(name, 0.8), seed) for seed, name in enumerate(names)}


def few(made: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One run and sixty rows of it."""
    return {name: own[:1, :60] for name, own in made.items()}


def losses(level: float, seed: int, spread: float = 0.001) -> np.ndarray:
    """Minus the loss of each of 200 rows, of three runs."""
    rng = np.random.default_rng(seed)
    return -(level + np.random.default_rng(0).random(200) + spread * rng.standard_normal((3, 200)))


def test_latency():
    def times(small: float, large: float, merged: float = 1.0, noise: float = 0.01) -> dict:
        rng = np.random.default_rng(0)

        def rounds(ratio: float) -> list[float]:
            return list(ratio * np.exp(noise * rng.standard_normal(40)))

        def cell(bottleneck: float) -> dict[str, list[float]]:
            ratios = {"base": 1.0, table1.MERGED: merged, table1.HOULSBY: bottleneck}
            return {way: rounds(ratio) for way, ratio in ratios.items()}

        return {"1 x 128": cell(small), "32 x 512": cell(large)}

    check(
        table1.ITEM.judge,
        [
            ("holds", times(1.3, 1.03)),
            ("fails", times(1.0, 1.0)),
            ("fails", times(1.1, 1.2)),
            ("fails", times(1.3, 1.03, merged=1.2)),
            ("undecided", times(1.3, 1.25, noise=0.3)),
        ],
    )


def test_methods():
    def made(lora: float) -> dict[str, np.ndarray]:
        return scores(("full", "lora", "head"), lora=lora)

    cases = [("holds", made(0.8)), ("holds", made(0.85)), ("fails", made(0.75)), ("undecided", few(made(0.8)))]
    check(table2.ITEM.verdict, cases)


def test_writing():
    def made(lora: float, prefix: float, spread: float = 0.001) -> dict[str, np.ndarray]:
        levels = {"full": 1.0, "lora": lora, "prefix": prefix}
        return {name: losses(level, seed, spread) for seed, (name, level) in enumerate(levels.items())}

    check(
        table3.ITEM.verdict,
        [
            ("holds", made(1.0, 1.2)),
            ("holds", made(0.9, 1.2)),
            ("fails", made(1.1, 1.2)),
            ("fails", made(1.0, 0.9)),
            ("undecided", made(1.0, 1.2, spread=3.0)),
            ("undecided", made(1.0, 1.0)),  # no better than a prefix
        ],
    )


def test_what_is_written_is_shown_in_the_papers_units():
    found = ({**text_scores(["the cat sat on the mat"], [["the cat sat on the mat"]]), "slot_errors": 0.25},)
    result = Result(LoRA(), runs=(SimpleNamespace(metrics={}),), found=found)
    shown = {row.name: row.yours for row in table3.ITEM.rows(SimpleNamespace(results=[result]))}
    assert [shown[f"{name}, lora"] for name in ("BLEU", "ROUGE-L", "slot errors (%)")] == [
        pytest.approx((value,)) for value in (100, 100, 25)
    ]


def test_which_matrices():
    def made(q: float, k: float) -> dict[str, np.ndarray]:
        return scores(table5.ITEM.methods, **{"q r8": q, "k r8": k})

    cases = [("holds", made(0.75, 0.75)), ("fails", made(0.80, 0.75)), ("fails", made(0.85, 0.75))]
    check(table5.ITEM.verdict, [*cases, ("undecided", few(made(0.77, 0.75)))])


def test_how_low():
    def made(low: float) -> dict[str, np.ndarray]:
        return scores(table6.ITEM.methods, **{"q,v r1": low})

    cases = [("holds", made(0.80)), ("holds", made(0.86)), ("fails", made(0.75)), ("undecided", few(made(0.80)))]
    check(table6.ITEM.verdict, cases)


def test_rank_and_loss():
    def made(one: float, sixty_four: float, spread: float = 0.001) -> dict[str, np.ndarray]:
        levels = {"rank 1": one, "rank 4": 1.05, "rank 16": 1.0, "rank 64": sixty_four}
        return {name: losses(level, seed, spread) for seed, (name, level) in enumerate(levels.items())}

    check(
        table18.ITEM.verdict,
        [
            ("holds", made(1.1, 1.0)),
            ("fails", made(1.0, 1.0)),
            ("fails", made(1.1, 0.9)),
            ("fails", made(1.1, 1.1)),
            ("undecided", made(1.1, 1.0, spread=3.0)),
        ],
    )


def test_little_data():
    def made(full: float, prefix: float) -> dict:
        lora = right(0.75)
        return {("full", 100): verdict(right(full, 1), lora), ("prefix 20", 100): verdict(right(prefix, 2), lora)}

    cases = [
        ("holds", made(0.7, 0.6)),
        ("holds", made(0.75, 0.6)),
        ("fails", made(0.75, 0.8)),
        ("fails", made(0.9, 0.6)),
    ]
    check(lambda found: table16.at_little(found, 100), [*cases, ("undecided", made(0.7, 0.75))])


def test_amplification():
    def made(low: float, high: float, in_update: float = 1.0, seeds: int = 5) -> dict:
        told = {"in_random": 0.5, "in_update": in_update, "in_weight": 5.0, "update": 3.0}
        return {rank: [{**told, "factor": f} for _ in range(seeds)] for rank, f in ((4, low), (64, high))}

    mixed = made(20.0, 2.0)
    mixed[4][0]["factor"] = 1.0
    check(
        table7.judged,
        [
            ("holds", made(20.0, 2.0)),
            ("fails", made(2.0, 20.0)),
            ("fails", made(20.0, 2.0, in_update=0.4)),  # less of W than by chance
            ("undecided", mixed),
            ("undecided", made(20.0, 2.0, seeds=3)),
        ],
    )


def test_between_ranks():
    def made(q: float, v: float, rest: float = 0.1, seeds: int = 5) -> dict:
        first, others = {"q": q, "v": v}, {"q": rest, "v": rest}
        cells = {(1, 1): first, (8, 8): others}
        return {("BA", role, cell): [of[role]] * seeds for cell, of in cells.items() for role in "qv"}

    check(
        fig3.judged,
        [
            ("holds", made(0.8, 0.7)),
            ("fails", made(0.8, 0.3)),
            ("fails", made(0.8, 0.7, rest=0.6)),  # the others overlap as well
            ("undecided", made(0.8, 0.7, seeds=3)),
        ],
    )


def test_between_seeds():
    def made(q: list[float], v: list[float]) -> dict:
        return {("BA", "q", (8, 8)): q, ("BA", "v", (8, 8)): v}

    check(
        fig4.judged,
        [
            ("holds", made([0.4] * 4, [0.2] * 4)),
            ("fails", made([0.2] * 4, [0.4] * 4)),
            ("fails", made([0.4] * 4, [-0.1] * 4)),  # no more than chance
            ("undecided", made([0.4] * 4, [0.2, 0.2, 0.5, 0.2])),
        ],
    )


def test_costs():
    def made(peak: float, file: float, speed: float) -> section4_2.Costs:
        rounds = list(np.random.default_rng(0).normal(speed, 0.01, 20))
        peaks, files = ({"full": 10**6, "LoRA": round(10**6 * share)} for share in (peak, file))
        return section4_2.Costs(peaks, files, {"full": [1.0] * 20, "LoRA": rounds}, {})

    check(
        section4_2.ITEM.judge,
        [
            ("holds", made(0.3, 0.001, 1.3)),
            ("fails", made(0.95, 0.001, 1.3)),
            ("fails", made(0.3, 0.2, 1.3)),
            ("fails", made(0.3, 0.001, 0.9)),
            ("undecided", made(0.7, 0.001, 1.3)),
        ],
    )


def test_what_all_rules_are_made_of():
    assert by_verdicts({}, ("better",), ("worse",)).standing == "undecided"
    check(
        lambda so: in_every(so, 5, "so"),
        [
            ("undecided", [True] * 4),
            ("holds", [True] * 5),
            ("fails", [False] * 5),
            ("undecided", [True, False] * 3),
        ],
    )


def test_published_figures_stand_at_rows():
    for name in NAMES:
        one, table = item(name), paper.table(name)
        assert all({**one.published(table), **one.others(table)}.values())
    assert table5.ITEM.published(paper.table("table5"))["q,v r4"] == "WikiSQL 73.7, MNLI 91.3"
    assert table6.ITEM.published(paper.table("table6")).keys() == table6.ITEM.methods.keys()
    assert table1.ITEM.published(paper.table("table1"))["1 x 128 bottleneck H"] == "1.303 (11M)"
    assert "68.65" in table3.ITEM.others(paper.table("table3"))["BLEU, lora"]
