"""Every item's rule, by figures that are made: holds, fails, undecided, not tested.

Cases stand in one test for each item: a test more costs more than the case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lora_course import paper
from lora_course.paper.reproduce import NAMES, item, table1, table3, table5, table6, table16
from lora_course.paper.reproduce.base import Kept, all_of, by_verdict, in_every, kept_verdict
from lora_course.paper.reproduce.trained import marks
from lora_lab.experiments.compare import Result
from lora_lab.experiments.statistics import verdict
from lora_lab.experiments.text_scores import text_scores
from lora_lab.methods.lora import LoRA

ONE_PASS = {"rt": 377, "restaurants": 1523}  # steps, of 16 rows and of 4
MARGIN = 0.015


def said(outcome: str, low: float, high: float, margin: float = MARGIN) -> dict[str, Any]:
    """A verdict as result.json has it."""
    middle = (low + high) / 2
    return {"outcome": outcome, "difference": middle, "low": low, "high": high, "margin": margin, "words": outcome}


BETTER, WORSE, EVEN = said("better", 0.02, 0.04), said("worse", -0.04, -0.02), said("equivalent", -0.01, 0.01)
BEHIND = said("worse", -0.028, -0.001)  # some of the interval is within the margin
AHEAD, OPEN = said("better", 0.001, 0.028), said("undecided", -0.03, 0.03)


def kept(name: str, *verdicts: Mapping[str, Any], steps: int = 0, **rows: float) -> Kept:
    """Results of an item that trained long enough and learned, with these verdicts on its pairs."""
    one = item(name)
    learned = dict.fromkeys(name for a, b, _ in one.pairs.values() for name in (a, b))
    levels = {row: [level, level + 1] for row, level in {**dict.fromkeys(learned, 80.0), **rows}.items()}
    steps = steps or ONE_PASS[getattr(one, "task", "rt")]
    return Kept(levels, {"steps": steps}, dict(zip(one.pairs, verdicts, strict=True)))


def check(name: str, cases: Iterable[tuple[str, Kept]]) -> None:
    """Every case is judged as it should be, with a reason."""
    for standing, made in cases:
        judged = item(name).judged(made)
        assert judged.standing == standing, judged.words
        assert judged.words


@pytest.mark.parametrize(
    ("wanted", "holds", "fails"),
    [
        ("better", [BETTER, AHEAD], [WORSE]),
        ("no worse", [BETTER, AHEAD, EVEN], [WORSE]),
        ("equal", [EVEN], [BETTER, WORSE]),
        ("worse", [WORSE, BEHIND], [BETTER]),
        ("no better", [WORSE, BEHIND, EVEN], [BETTER]),
    ],
)
def test_a_finding_fails_only_where_the_whole_interval_lies_beyond_the_margin(wanted, holds, fails):
    for one in (BETTER, WORSE, EVEN, BEHIND, AHEAD, OPEN):
        standing = "holds" if one in holds else "fails" if one in fails else "undecided"
        assert by_verdict(one, wanted).standing == standing
    assert "more than the margin" in by_verdict(BEHIND, "no worse").words
    assert "not better by more than the margin" in by_verdict(EVEN, "better").words
    assert "not worse by more than the margin" in by_verdict(EVEN, "worse").words
    assert "more than the margin" in by_verdict(BEHIND, "better").words
    assert "more than the margin" not in by_verdict(EVEN, "equal").words
    assert by_verdict(said("worse", -0.03, -0.0151), "no worse").standing == "fails"
    assert by_verdict(said("worse", -0.03, -0.0149), "no worse").standing == "undecided"


def test_runs_that_do_not_test_a_finding_say_so_although_records_are_missing_and_a_mistake_in_a_rule_is_one():
    short = item("table6").judged(Kept({}, {"steps": 1}))
    assert (short.standing, "saw" in short.words) == ("not tested", True)
    lacking = item("table6").judged(Kept({}, {"steps": 2000}))
    assert (lacking.standing, "is not recorded" in lacking.words) == ("not tested", True)
    broken = {name: {"outcome": "better"} for name in item("table6").pairs}
    with pytest.raises(KeyError):
        item("table6").judge(Kept({}, {}, broken))
    full = kept("table6", EVEN, EVEN)
    with pytest.raises(KeyError):
        item("table6").judged(Kept(full.rows, full.sizes, broken))


def test_what_all_rules_are_made_of():
    assert [in_every(so, 5, "so").standing for so in ([True] * 4, [True] * 5, [False] * 5, [True, False] * 3)] == [
        "undecided", "holds", "fails", "undecided",
    ]  # fmt: skip
    assert all_of({}).standing == "undecided"
    runs = np.random.default_rng(0).random((3, 2000)) < 0.8
    same = kept_verdict(verdict(runs, runs))
    assert (same["outcome"], same["margin"]) == ("equivalent", MARGIN)
    assert kept_verdict(verdict(runs, np.zeros_like(runs)))["low"] > 0.5


def test_equal_predictions_have_equal_marks_whatever_they_were_read_as():
    first, other = np.array([0, 1, 1]), np.array([1, 1, 1])
    runs = [SimpleNamespace(predictions=p) for p in (first, first.astype(np.uint8), other, None)]
    one, again, different = marks(runs)
    assert one == again != different


def test_methods():
    def made(verdict: Mapping[str, Any], head: float = 67.0, full: float = 82.0, steps: int = 377) -> Kept:
        rows = {"LoRA r8 q,v": 80.0, "full": full, "head": head}
        return kept("table2", verdict, steps=steps, **rows)

    cases = [("holds", made(EVEN)), ("fails", made(WORSE)), ("undecided", made(BEHIND))]
    untested = [made(EVEN, head=75.5), made(EVEN, full=94.5), made(WORSE, steps=376)]
    check("table2", [*cases, ("holds", made(EVEN, head=74.0)), *(("not tested", one) for one in untested)])


def test_writing():
    def made(full: Mapping[str, Any], prefix: Mapping[str, Any], steps: int = 1523) -> Kept:
        return kept("table3", full, prefix, steps=steps)

    check(
        "table3",
        [
            ("holds", made(EVEN, BETTER)),
            ("fails", made(EVEN, WORSE)),
            ("undecided", made(EVEN, EVEN)),  # it may still be a little better than a prefix
            ("fails", made(WORSE, BETTER)),
            ("undecided", made(BEHIND, BETTER)),
            ("not tested", made(WORSE, BETTER, steps=48)),
        ],
    )


def test_what_is_written_is_shown_in_the_papers_units():
    found = {**text_scores(["the cat sat on the mat"], [["the cat sat on the mat"]]), "slot_errors": 0.25}
    row = {"settings": LoRA().settings(), **{name: {"each": [value]} for name, value in found.items()}}
    result = Result(row, runs=(SimpleNamespace(metrics={}, predictions=None),))
    shown = {row.name: row.yours for row in table3.ITEM.rows(SimpleNamespace(results=[result]))}
    assert [shown[f"{name}, lora"] for name in ("BLEU", "ROUGE-L", "slot errors (%)")] == [
        pytest.approx((value,)) for value in (100, 100, 25)
    ]


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("table5", {"holds": (BETTER, AHEAD), "fails": (BETTER, WORSE), "undecided": (BETTER, EVEN)}),
        ("table6", {"holds": (EVEN, BETTER), "fails": (EVEN, WORSE), "undecided": (EVEN, BEHIND)}),
        ("table18", {"holds": (BETTER, EVEN), "fails": (WORSE, EVEN), "undecided": (BETTER, BEHIND)}),
    ],
)
def test_rows_at_one_rate(name, cases):
    check(name, [(standing, kept(name, *verdicts)) for standing, verdicts in cases.items()])
    short = ONE_PASS[item(name).task] - 1
    check(name, [("not tested", kept(name, *cases["fails"], steps=short))])
    if name != "table18":  # its figures are losses
        first = next(iter(item(name).pairs.values()))[0]
        check(name, [("holds", kept(name, *cases["holds"], **{first: 60.0}))])
        check(name, [("not tested", kept(name, *cases["fails"], **{first: level})) for level in (59.9, 94.5)])
    assert item(name).judged(Kept({}, {"steps": 2000})).standing == "not tested"  # nothing was recorded


def test_little_data():
    def made(full: Mapping[str, Any], prefix: Mapping[str, Any], level: float = 70.0) -> Kept:
        methods = {"lora r8": 80.0, "full": 80.0, "prefix 20": level, "prompt 20": 50.0}
        rows = {f"100 examples, {name}": [55.0] for name in methods}
        rows |= {f"6,030 examples, {name}": [own, 80.0] for name, own in methods.items()}
        return Kept(rows, {}, {"full against LoRA": full, "prefix against LoRA": prefix})

    check(
        "table16",
        [
            ("holds", made(EVEN, WORSE)),
            ("fails", made(BETTER, WORSE)),
            ("fails", made(WORSE, BETTER)),
            ("undecided", made(AHEAD, WORSE)),
            ("undecided", made(EVEN, OPEN)),
            ("not tested", made(EVEN, WORSE, level=59.0)),  # prefix tuning learns nothing with all of the examples
        ],
    )
    assert {one.name for one in table16.rates()} == {"lora", "full", "prefix", "prompt"}


def test_latency():
    def made(small: float, large: float, merged: float = 1.0, noise: float = 0.01) -> Kept:
        rng = np.random.default_rng(0)
        ratios = {f"{cell} bottleneck H": at for cell, at in (("1 x 128", small), ("32 x 512", large))}
        ratios |= {f"{cell} LoRA merged": merged for cell in ("1 x 128", "32 x 512")}
        return Kept({name: list(at * np.exp(noise * rng.standard_normal(40))) for name, at in ratios.items()})

    check(
        "table1",
        [
            ("holds", made(1.3, 1.03)),
            ("fails", made(1.0, 1.0)),
            ("fails", made(1.1, 1.2)),
            ("fails", made(1.3, 1.03, merged=1.2)),
            ("undecided", made(1.3, 1.03, merged=1.05)),  # the interval has 1.05 in it
            ("undecided", made(1.3, 1.25, noise=0.3)),
        ],
    )


def test_costs():
    def made(peak: float, file: float, speed: float) -> Kept:
        rounds = list(np.random.default_rng(0).normal(speed, 0.01, 20))
        shares = {"peak of a step": peak, "file": file}
        rows = {
            f"{name}, {of}": [own] for name, share in shares.items() for of, own in (("full", 1.0), ("LoRA", share))
        }
        return Kept({**rows, "speed, LoRA over full": rounds})

    check(
        "section4_2",
        [
            ("holds", made(0.49, 0.009, 1.3)),
            ("fails", made(0.51, 0.001, 1.3)),
            ("fails", made(0.3, 0.011, 1.3)),
            ("fails", made(0.3, 0.001, 1.0)),
            ("undecided", made(0.3, 0.001, 1.1)),
        ],
    )


def test_amplification():
    def made(low: float, high: float, in_update: float = 1.0, seeds: int = 5, steps: int = 377) -> Kept:
        told = {"||U'WV|| by chance": 0.5, "||U'WV|| of dW": in_update, "||U'WV|| of W": 5.0, "||dW||": 3.0}
        rows = {f"rank {rank}, {what}": [at] * seeds for rank in (4, 64) for what, at in told.items()}
        factors = {f"rank {rank}, amplification": [own] * seeds for rank, own in ((4, low), (64, high))}
        return Kept({**rows, **factors}, {"steps": steps})

    mixed = made(20.0, 2.0)
    mixed.rows["rank 4, amplification"][0] = 0.9
    check(
        "table7",
        [
            ("holds", made(20.0, 2.0)),
            ("holds", made(2.0, 20.0)),  # chance alone orders the ranks
            ("fails", made(5.0, 0.24)),  # a shrinking
            ("fails", made(20.0, 2.0, in_update=0.4)),  # less of W than by chance
            ("undecided", mixed),
            ("undecided", made(20.0, 2.0, seeds=3)),
            ("not tested", made(5.0, 0.24, steps=81)),
        ],
    )


def test_directions_that_are_shared():
    def phi(first: Iterable[float], eight: Iterable[float], seeds: int = 5, steps: int = 377) -> Kept:
        cells = {(1, 1): first, (8, 8): eight}
        at = [(role, cell, own) for cell, both in cells.items() for role, own in zip("qv", both, strict=True)]
        return Kept({f"BA of {role}, phi{cell}": [own] * seeds for role, cell, own in at}, {"steps": steps})

    check(
        "fig3",
        [
            ("holds", phi((0.8, 0.7), (0.1, 0.1))),
            ("fails", phi((0.8, 0.3), (0.1, 0.1))),
            ("fails", phi((0.8, 0.7), (0.6, 0.6))),  # the first eight overlap as well
            ("undecided", phi((0.8, 0.7), (0.1, 0.1), seeds=3)),
            ("not tested", phi((0.2, 0.3), (0.1, 0.1), steps=81)),
        ],
    )
    mixed = phi((0.5, 0.5), (0.4, 0.2))
    mixed.rows["BA of v, phi(8, 8)"][0] = 0.5
    check(
        "fig4",
        [
            ("holds", phi((0.5, 0.5), (0.4, 0.2))),
            ("fails", phi((0.5, 0.5), (0.2, 0.4))),
            ("fails", phi((0.5, 0.5), (0.4, -0.1))),  # no more than chance
            ("undecided", mixed),
            ("not tested", phi((0.5, 0.5), (0.2, 0.4), steps=81)),
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
