"""`lora-lab reproduce`: every rule on made figures, every kind of item once through on a tiny model, and results."""

import json
import threading
from typing import Any

import numpy as np
import pytest

from lora_course import paper
from lora_course.lesson import reference_reproductions
from lora_course.paper.reproduce import Item, Judged, Kept, Place, Plan, Row, by_verdict, item, items, studies, timing
from lora_course.paper.reproduce import run as engine
from lora_course.paper.reproduce.report import write_report
from lora_course.paper.reproduce.run import LATE, kept, rejudged, reproduce
from lora_course.plots.forest import effects, forest, headline
from lora_lab.errors import BadValue, Failed, NotFound
from lora_lab.experiments.results import load
from tests.conftest import HOSTILE, PLAIN

MARGIN = 0.015


def at(folder, minutes: float) -> Place:
    return Place(folder, minutes, lambda words: None, threading.Event())


# ---- rules


def said(outcome: str, low: float, high: float) -> dict[str, Any]:
    """A verdict as result.json has it."""
    return {"outcome": outcome, "low": low, "high": high, "margin": MARGIN, "words": outcome}


BETTER, WORSE, EVEN = said("better", 0.02, 0.04), said("worse", -0.04, -0.02), said("equivalent", -0.01, 0.01)
BEHIND = said("worse", -0.028, -0.001)  # some of the interval is within the margin
AHEAD, OPEN = said("better", 0.001, 0.028), said("undecided", -0.03, 0.03)


OUTCOMES = {  # which verdicts make a finding hold, and which make it fail
    "better": ([BETTER, AHEAD], [WORSE]),
    "no worse": ([BETTER, AHEAD, EVEN], [WORSE]),
    "equal": ([EVEN], [BETTER, WORSE]),
    "worse": ([WORSE, BEHIND], [BETTER]),
    "no better": ([WORSE, BEHIND, EVEN], [BETTER]),
}


def test_a_finding_fails_only_if_the_whole_interval_lies_beyond_the_margin():
    for wanted, (holds, fails) in OUTCOMES.items():
        for one in (BETTER, WORSE, EVEN, BEHIND, AHEAD, OPEN):
            standing = "holds" if one in holds else "fails" if one in fails else "undecided"
            assert by_verdict(one, wanted).standing == standing
    assert "more than the margin" in by_verdict(BEHIND, "no worse").words
    assert by_verdict(said("worse", -0.03, -0.0151), "no worse").standing == "fails"
    assert by_verdict(said("worse", -0.03, -0.0149), "no worse").standing == "undecided"


def pairs(name: str, *verdicts: dict[str, Any], steps: int = 1523, **rows: float) -> Kept:
    """Results of an item that trained long enough and learned, with these verdicts on its pairs."""
    one = item(name)
    learned = [*(one.learned or {}).get("rows", ()), *(row for a, b, _ in one.pairs.values() for row in (a, b))]
    levels = {row: [level, level + 1] for row, level in {**dict.fromkeys(learned, 80.0), **rows}.items()}
    return Kept(levels, {"steps": steps}, dict(zip(one.pairs, verdicts, strict=True)))


def latency(h_small: float, h_large: float, merged: float = 1.0, noise: float = 0.01) -> Kept:
    rng = np.random.default_rng(0)
    middles = {f"{cell} {way}": middle for cell, h in (("1 x 128", h_small), ("32 x 512", h_large))
               for way, middle in ((timing.MERGED, merged), (timing.HOULSBY, h))}  # fmt: skip
    return Kept({name: list(rng.normal(middle, noise, 20)) for name, middle in middles.items()})


def costs(peak: float, file: float, speed: float) -> Kept:
    shares = {"peak of a step": peak, "file": file}
    rows = {f"{name}, {of}": [own] for name, share in shares.items() for of, own in (("full", 1.0), ("LoRA", share))}
    return Kept({**rows, timing.RATIO: list(np.random.default_rng(0).normal(speed, 0.01, 20))})


def amplified(low: float, high: float, in_update: float = 1.0, seeds: int = 5) -> Kept:
    told = {"||U'WV|| by chance": 0.5, "||U'WV|| of dW": in_update, "||U'WV|| of W": 5.0, "||dW||": 3.0}
    rows = {f"rank {rank}, {what}": [at] * seeds for rank in (4, 64) for what, at in told.items()}
    rows |= {f"rank {rank}, amplification": [own] * seeds for rank, own in ((4, low), (64, high))}
    return Kept(rows, {"steps": 377})


def phi(first: tuple[float, float], eight: tuple[float, float]) -> Kept:
    cells = {(1, 1): first, (8, 8): eight}
    rows = {f"BA of {role}, phi{cell}": [own] * 5 for cell, both in cells.items()
            for role, own in zip("qv", both, strict=True)}  # fmt: skip
    return Kept(rows, {"steps": 377})


RULES = [
    ("table1", "holds", latency(1.3, 1.03)),
    ("table1", "fails", latency(1.1, 1.3)),
    ("table1", "fails", latency(1.3, 1.03, merged=1.2)),
    ("table1", "not tested", Kept({})),
    ("section4_2", "holds", costs(0.49, 0.009, 1.3)),
    ("section4_2", "fails", costs(0.51, 0.001, 1.3)),
    ("section4_2", "fails", costs(0.3, 0.011, 1.3)),
    ("section4_2", "fails", costs(0.3, 0.001, 1.0)),
    ("table2", "holds", pairs("table2", EVEN, head=74.0)),
    ("table2", "fails", pairs("table2", WORSE, head=67.0)),
    ("table2", "undecided", pairs("table2", BEHIND, head=67.0)),
    ("table2", "not tested", pairs("table2", EVEN, head=75.5)),
    ("table2", "not tested", pairs("table2", EVEN, head=67.0, full=94.5)),
    ("table2", "not tested", pairs("table2", WORSE, head=67.0, steps=376)),
    ("table3", "holds", pairs("table3", EVEN, BETTER)),
    ("table3", "fails", pairs("table3", EVEN, WORSE)),
    ("table3", "not tested", pairs("table3", WORSE, BETTER, steps=48)),
    ("table5", "holds", pairs("table5", BETTER, AHEAD, **{"q r8": 60.0})),
    ("table5", "fails", pairs("table5", BETTER, WORSE)),
    ("table5", "not tested", pairs("table5", BETTER, WORSE, **{"q r8": 59.9})),
    ("table6", "holds", pairs("table6", EVEN, BETTER)),
    ("table6", "not tested", pairs("table6", EVEN, WORSE, **{"q,v r1": 94.5})),
    ("table7", "holds", amplified(2.0, 20.0)),  # chance alone orders the ranks
    ("table7", "fails", amplified(5.0, 0.24)),  # a shrinking
    ("table7", "fails", amplified(20.0, 2.0, in_update=0.4)),  # less of W than by chance
    ("table7", "undecided", amplified(20.0, 2.0, seeds=3)),
    ("fig3", "holds", phi((0.8, 0.7), (0.1, 0.1))),
    ("fig3", "fails", phi((0.8, 0.7), (0.6, 0.6))),  # the first eight overlap as well
    ("fig4", "holds", phi((0.5, 0.5), (0.4, 0.2))),
    ("fig4", "fails", phi((0.5, 0.5), (0.4, -0.1))),  # no more than chance
    ("table16", "holds", pairs("table16", EVEN, WORSE)),
    ("table16", "fails", pairs("table16", BETTER, WORSE)),
    ("table16", "not tested", pairs("table16", EVEN, WORSE, **{"6,030 examples, prefix 20": 59.0})),
    ("table18", "holds", pairs("table18", BETTER, EVEN)),
    ("table18", "not tested", pairs("table18", WORSE, EVEN, steps=99)),
]


@pytest.mark.parametrize("name", dict.fromkeys(name for name, _, _ in RULES))
def test_every_rule_holds_fails_stays_undecided_or_is_not_tested(name):
    for standing, made in (case for other, *case in RULES if other == name):
        judged = item(name).judged(made)
        assert judged.standing == standing, judged.words
        assert judged.words


def test_what_ships_was_judged_by_the_rules_in_force():
    found = reference_reproductions()
    assert list(found) == list(engine.described())
    for name, one in found.items():
        assert rejudged(item(name), one) == one
        assert all((one["environment"]["date"], one["rows"]))


def test_every_item_says_what_it_is_and_stands_beside_a_table():
    for one in items():
        assert all((one.title, one.finding, one.rule, one.limits))
        assert all(word in one.rule.lower() for word in ("holds if", "fails if", "undecided"))
        table = paper.table(one.name)
        assert all({**one.paper_says(table), **one.others_say(table)}.values())
    assert item("table5").paper_says(paper.table("table5"))["q,v r4"] == "WikiSQL 73.7, MNLI 91.3"
    assert "68.65" in item("table3").others_say(paper.table("table3"))["BLEU, LoRA r4 q,v alpha 32"]
    assert LATE * sum({one.store or one.name: one.minutes for one in items()}.values()) < 240
    assert [one.name for one in items(["table6", "table1", "table6"])] == ["table6", "table1"]
    with pytest.raises(NotFound, match="nearest: table6"):
        item("tabel6")
    with pytest.raises(BadValue, match="'grid'; nearest: grids"):
        item("table1", grid=[[(1, 128)]])


# ---- items on a tiny model


@pytest.fixture
def tiny(tiny_encoder, opinions, monkeypatch):
    """`tiny("table5")`: the item on a tiny model and task, with a plan of two steps and two seeds."""

    def made(name: str, sizes: dict[str, Any] | None = None, **changes: Any) -> Item:
        one = item(name, model=tiny_encoder, task=opinions, fields=PLAIN, **changes)
        plan = Plan({"steps": 2, "seeds": 2, **(sizes or {})}, 1.0)
        monkeypatch.setattr(type(one), "plan", lambda self, place: plan)
        return one

    return made


def test_an_item_that_trains_goes_on_where_it_was(tiny, tmp_path, monkeypatch):
    one = tiny("table5")
    monkeypatch.setattr(engine, "LATE", 1e-9)
    (late,) = reproduce([one], tmp_path)
    assert "to resume" in late["error"]
    monkeypatch.setattr(engine, "LATE", 1.03)
    (found,) = reproduce([one], tmp_path)
    assert {row["name"]: len(row["yours"]) for row in found["rows"]} == dict.fromkeys(one.groups, 2)
    assert all(len(row["predictions"]) == 2 for row in found["rows"])
    assert found["verdicts"].keys() == one.pairs.keys()
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "table5" / "runs").glob("*.json")}
    (again,) = reproduce([one], tmp_path, again=True)
    assert again["rows"] == found["rows"]
    assert stamps == {file: file.stat().st_mtime_ns for file in (tmp_path / "table5" / "runs").glob("*.json")}


def test_methods_are_compared_each_at_its_own_rate(tiny, tmp_path):
    changes = {"methods": "full,lora", "metrics": {"right": ("accuracy", 100)}, "prompts": 0}
    pair = {"LoRA against full": ("LoRA r8 q,v", "full", "no worse")}
    (found,) = reproduce([tiny("table3", {"rates": 1, "growth": 0}, pairs=pair, also={}, **changes)], tmp_path)
    assert {row["name"]: len(row["yours"]) for row in found["rows"]} == {"right, full": 2, "right, LoRA r8 q,v": 2}
    assert [row["unit"] for row in found["rows"]] == [f"right, rate {r} (at an end) of [{r}]" for r in (5e-05, 0.001)]
    assert set(found["verdicts"]) == set(pair)


def test_groups_at_several_rates_are_compared_at_the_best_for_one_of_them_and_each_at_its_own(tiny, tmp_path):
    groups, pair = {"r1": "lora:rank=1", "r4": "lora:rank=4"}, {"one": ("r4", "r1", "better")}
    also = {"own": ("r4, own rate", "r1, own rate", "better")}
    one = tiny("table5", rates=[1e-4, 1e-2], tuned_at="r4", groups=groups, pairs=pair, also=also)
    (found,) = reproduce([one], tmp_path)
    rates = {row["name"]: float(row["unit"].split()[-1]) for row in found["rows"]}
    assert rates["r1"] == rates["r4"] == rates["r4, own rate"]
    losses = load(tmp_path / "table5" / "runs").groupby(["rank", "lr"])["validation_loss"].mean()
    assert [rates["r1, own rate"], rates["r4"]] == [losses[rank].idxmin() for rank in (1, 4)]
    assert set(found["verdicts"]) == {"one", "own"}


def test_subspaces_are_trained_once_and_looked_at(tiny, tmp_path):
    groups = {"rank 4": "lora:rank=2", "rank 8": "lora:rank=4", "rank 64": "lora:rank=8"}
    for found in reproduce([tiny(name, groups=groups) for name in ("table7", "fig3")], tmp_path):
        assert (found["error"], found["standing"]) == (None, "not tested")  # two steps
        assert all(len(row["yours"]) >= 2 for row in found["rows"])
    assert len(list((tmp_path / "subspaces" / "runs").glob("*.json"))) == 3 * 2


def test_costs_are_measured(tmp_path, tiny_causal):
    one = item("section4_2", model=tiny_causal)
    assert one.expected(1).sizes["rounds"] >= timing.FEWEST
    rows, _ = one.measured({"rounds": 5}, at(tmp_path, 1))
    found = {row.name: row.yours for row in rows}
    assert found["peak of a step, LoRA"] < found["peak of a step, full"]
    assert found["file, LoRA"] < found["file, full"]
    assert list(found) == [row["name"] for row in reference_reproductions()["section4_2"]["rows"]]


def test_latency_is_measured_and_too_few_rounds_are_not_judged(tmp_path, monkeypatch, tiny_encoder):
    monkeypatch.setattr(timing, "SIZE", 8)
    one = item("table1", model=tiny_encoder)
    rows, _ = one.measured({"rounds": 7, "cells": [[1, 8], [2, 16]]}, at(tmp_path, 1))
    assert [len(row.yours) for row in rows] == [7] * 8
    late = at(tmp_path, 1)
    late.stop.set()
    with pytest.raises(Failed, match="out after 0 rounds, but 6 are needed"):
        one.measured({"rounds": 7, "cells": [[1, 8]]}, late)


def test_a_plan_is_by_the_machines_speed_or_by_real_steps(tiny_encoder, opinions, tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "best_speed", lambda where: 1e7)
    one = item("table3", model=tiny_encoder, task=opinions, methods="full,lora", fields=PLAIN, prompts=0)
    assert one.expected(40).sizes == {"steps": 60, "rates": 4, "growth": 1, "seeds": 3}
    assert one.plan(at(tmp_path, 5)).sizes["steps"] >= studies.FEWEST


# ---- results and reports


class Made(Item):
    """An item that counts how often it ran, and measures nothing."""

    def __init__(self, fails: Exception | None = None, name: str = "table6", **changes: Any) -> None:
        words = {"title": "A stub", "finding": "Two is two.", "rule": "Two is equal to two.", "limits": "None."}
        super().__init__(name, minutes=2.0, learned=None, passes=0, **{**words, **changes})
        self.fails, self.ran, self.values = fails, 0, (2.0, 2.5)

    def expected(self, minutes):
        if minutes < 1:
            raise BadValue("too few minutes")
        return Plan({"steps": round(100 * minutes)}, 60 * minutes)

    def measured(self, sizes, place):
        self.ran += 1
        if self.fails:
            raise self.fails
        return [Row("q r1", self.values, "%"), Row("own", (), "%")], {}

    def untested(self, kept):
        return "one seed is not enough" if len(kept.rows["q r1"]) < 2 else ""

    def judge(self, kept):
        return Judged("holds", "they are two")

    def others_say(self, table):
        return {"q r1": "more"}


def test_a_result_and_its_report_hold_everything_that_a_reader_needs(tmp_path):
    one = Made()
    (found,) = reproduce([one], tmp_path)
    assert found == json.loads((tmp_path / "table6" / "result.json").read_text())
    mine = {"name": "q r1", "yours": [2.0, 2.5], "unit": "%", "predictions": []}
    assert found["rows"][0] == {**mine, "published": "WikiSQL 68.8, MNLI 90.7", "expected": "more"}
    assert (found["standing"], found["words"], found["sizes"]) == ("holds", "they are two", {"steps": 200})
    assert found["environment"]["hardware"]
    assert list(reproduce([one], tmp_path)) == [found]  # a second call runs nothing
    assert [rejudged(item, found)["ruled"] for item in (one, Made(rule="Three is three."))] == ["before", "after"]
    (longer,) = reproduce([one], tmp_path, minutes=5)
    assert (one.ran, longer["sizes"]["steps"]) == (2, 500)
    one.values = (2.0,)
    (single,) = reproduce([one], tmp_path, again=True)
    assert single["words"] == "one seed is not enough. Not judged: they are two"
    text = write_report([found, *reproduce([Made(Failed(HOSTILE), name="table5")], tmp_path)], tmp_path).read_text()
    line, error = "| q r1 | WikiSQL 68.8, MNLI 90.7 | more | 2.25 ± 0.3536 (2, 2.5)", r"\> \$\\frac{ \| \* \`x\` "
    told = ("Two is equal to two.", "**holds**", "**not run**", "report.png", line, error)
    assert all(words in text for words in (*told, *paper.table("table6").discrepancies))


def test_what_fails_is_recorded_and_takes_nothing_away(tmp_path):
    broken, sound = Made(RuntimeError("no luck")), Made(name="table5")
    results = reproduce([broken, sound], tmp_path)
    found = [next(results)]
    assert sound.ran == 0  # each result comes before the next item runs
    found += results
    assert (found[0]["error"], found[0]["standing"]) == ("RuntimeError: no luck", "undecided")
    assert (len(found), found[1]["error"]) == (2, None)
    broken.fails, broken.expected = None, lambda minutes: pytest.fail("it was planned anew")
    again, _ = reproduce([broken, sound], tmp_path)
    assert (again["error"], again["sizes"], sound.ran) == (None, {"steps": 200}, 1)
    sound.fails = Failed("the time is over")
    (late,) = reproduce([sound], tmp_path, again=True)
    assert late["error"] == "the time is over"
    assert kept(tmp_path)[0] == found[1]


def test_every_effect_lies_in_the_blue_exactly_if_its_item_holds():
    found = reference_reproductions()
    for name, one in found.items():
        inside = [row.holds[0] <= row.low and row.high <= row.holds[1] for row in effects(one)]
        assert len(inside) == len(item(name).shown)
        if one["standing"] != "not tested":
            assert all(inside) == (one["standing"] == "holds")
    assert effects(found["table5"])[0].middle == pytest.approx(0.027 / 0.015)
    assert effects(found["table5"])[0].paper == pytest.approx((3.3 / 1.5, 0.3 / 1.5))  # WikiSQL and MNLI
    assert effects(found["table18"])[0].paper == pytest.approx([0.07 / 0.015])  # a lower loss is better
    assert "two hold, none fail, none undecided" in headline([found["table1"], found["table5"]])
    assert "Section 4.2, its file is under a hundredth" in forest(found.values()).alt
