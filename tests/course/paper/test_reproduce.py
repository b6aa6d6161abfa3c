import json
import threading
from functools import partial

import pytest

from lora_course.lesson import reference_reproductions
from lora_course.paper import protocol
from lora_course.paper import reproduce as paper_reproduce
from lora_course.paper.reproduce import Item, Judged, Kept, Place, Plan, Row, by_verdict, item, items, studies, timing
from lora_course.paper.reproduce import run as engine
from lora_course.paper.reproduce.report import write_report
from lora_course.paper.reproduce.run import LATE, kept, rejudged, reproduce
from lora_course.plots.forest import effects, forest, headline
from lora_lab.errors import BadValue, Failed
from lora_lab.experiments.results import load
from lora_lab.training.runs import Store, failed
from tests.conftest import HOSTILE, PLAIN


def place_at(folder, minutes: float = 1) -> Place:
    return Place(folder, minutes, lambda words: None, threading.Event())


def verdict(outcome: str, low: float, high: float):
    return {"outcome": outcome, "low": low, "high": high, "margin": 0.015, "words": outcome}


BETTER, WORSE, EVEN = verdict("better", 0.02, 0.04), verdict("worse", -0.04, -0.02), verdict("equivalent", -0.01, 0.01)
SLIGHTLY_BETTER, SLIGHTLY_WORSE = verdict("better", 0.001, 0.028), verdict("worse", -0.028, -0.001)


def costs(peak: float, file: float, speed: float) -> dict[str, list[float]]:
    rows = {"peak of a step, full": [1.0], "peak of a step, LoRA": [peak], "file, full": [1.0], "file, LoRA": [file]}
    return {**rows, timing.RATIO: [speed]}


RULES = [  # item, standing, changes to rows, sizes and verdicts of the shipped result
    ("table1", "fails", {"1 x 128 bottleneck H": [1.05]}),  # less than in the largest cell
    ("table1", "fails", {"32 x 512 LoRA merged": [1.2]}),
    ("section4_2", "holds", costs(peak=0.49, file=0.009, speed=1.11)),
    ("section4_2", "fails", costs(peak=0.51, file=0.009, speed=1.11)),
    ("section4_2", "fails", costs(peak=0.49, file=0.011, speed=1.11)),
    ("section4_2", "fails", costs(peak=0.49, file=0.009, speed=1.0)),
    ("table2", "holds", {"LoRA against full": EVEN, "head": [75.0]}),
    ("table2", "fails", {"LoRA against full": WORSE}),
    ("table2", "undecided", {"LoRA against full": SLIGHTLY_WORSE}),
    ("table2", "not tested", {"LoRA against full": EVEN, "head": [75.5]}),
    ("table2", "not tested", {"LoRA against full": EVEN, "full": [95.5]}),
    ("table2", "not tested", {"LoRA against full": WORSE, "steps": 376}),
    ("table3", "holds", {"LoRA against full": EVEN, "LoRA against prefix": BETTER}),
    ("table3", "fails", {"LoRA against full": EVEN, "LoRA against prefix": WORSE}),
    ("table3", "not tested", {"LoRA against full": WORSE, "LoRA against prefix": BETTER, "steps": 59}),
    ("table5", "holds", {"q,v r4 against k r8": SLIGHTLY_BETTER, "q r8": [60.0]}),
    ("table5", "fails", {"q,v r4 against k r8": WORSE}),
    ("table5", "not tested", {"q,v r4 against k r8": WORSE, "q r8": [59.9]}),
    ("table6", "holds", {"q,v, rank 1 against 64": EVEN, "q,k,v,o, rank 1 against 64": BETTER}),
    ("table6", "not tested", {"q,v, rank 1 against 64": EVEN, "q,v r1": [95.5]}),
    ("table7", "holds", {"rank 4, amplification": [2.0] * 5, "rank 64, amplification": [20.0] * 5}),
    ("table7", "undecided", {"rank 64, amplification": [2.0, 2.0, 2.0, 2.0, 0.5]}),
    ("table7", "fails", {"rank 64, amplification": [2.0] * 5, "rank 4, ||U'WV|| of dW": [0.3] * 5}),  # below chance
    ("fig3", "holds", {"BA of q, phi(1, 1)": [0.8] * 5, "BA of v, phi(1, 1)": [0.7] * 5}),
    ("fig3", "fails", {"BA of q, phi(1, 1)": [1] * 5, "BA of v, phi(1, 1)": [1] * 5, "BA of v, phi(8, 8)": [1] * 5}),
    ("fig4", "holds", {"BA of q, phi(8, 8)": [0.4] * 5, "BA of v, phi(8, 8)": [0.2] * 5}),
    ("fig4", "undecided", {"BA of q, phi(8, 8)": [0.4] * 3, "BA of v, phi(8, 8)": [0.2] * 3}),  # too few seeds
    ("fig4", "fails", {"BA of q, phi(8, 8)": [0.4] * 5, "BA of v, phi(8, 8)": [-0.1] * 5}),
    ("table16", "holds", {"full against LoRA": EVEN, "prefix against LoRA": WORSE}),
    ("table16", "fails", {"full against LoRA": BETTER, "prefix against LoRA": WORSE}),
    ("table16", "fails", {"full against LoRA": EVEN, "prefix against LoRA": BETTER}),
    ("table16", "not tested", {"full against LoRA": EVEN, "6,030 examples, prefix 20": [59.0]}),
    ("table18", "holds", {"rank 16 against 1": BETTER, "rank 64 against 16": EVEN}),
    ("table18", "undecided", {"rank 16 against 1": BETTER, "rank 64 against 16": SLIGHTLY_BETTER}),
    ("table18", "fails", {"rank 16 against 1": BETTER, "rank 64 against 16": BETTER}),
    ("table18", "fails", {"rank 16 against 1": BETTER, "rank 64 against 16": WORSE}),
    ("table18", "not tested", {"rank 16 against 1": WORSE, "rank 64 against 16": EVEN, "steps": 99}),
]


def test_rules_give_the_expected_standings():
    for name, standing, changes in RULES:
        result = reference_reproductions()[name]
        rows = {row["name"]: row["yours"] for row in result["rows"]}
        values = (rows, result["sizes"], result.get("verdicts", {}))
        kept = Kept(*({key: changes.get(key, value) for key, value in part.items()} for part in values))
        judged = item(name).judged(kept)
        assert (judged.standing, bool(judged.words)) == (standing, True), (name, changes, judged)


def test_shipped_results_match_the_current_rules():
    shipped = reference_reproductions()
    assert list(shipped) == list(engine.described())
    assert [entry.name for entry in items(["table6", "table1", "table6"])] == ["table6", "table1"]
    for name, result in shipped.items():
        assert rejudged(item(name), result) == result
        assert all((result["environment"]["date"], result["rows"]))
        assert item(name).judged(Kept({})).standing == "not tested"


@pytest.fixture
def tiny_item(tiny_encoder, opinions, monkeypatch):
    """`tiny_item("table5")` returns the item on a tiny model and task, with a plan of two steps and two seeds."""

    def make(name: str, sizes=None, **changes) -> Item:
        entry = item(name, model=tiny_encoder, task=opinions, fields=PLAIN, **changes)
        plan = Plan({"steps": 2, "seeds": 2, **(sizes or {})}, 1.0)
        monkeypatch.setattr(type(entry), "plan", lambda self, place: plan)
        return entry

    return make


def test_late_item_resumes_and_repeats_no_training(tiny_item, tmp_path, monkeypatch):
    entry = tiny_item("table5")
    monkeypatch.setattr(engine, "LATE", 1e-9)
    (late,) = reproduce([entry], tmp_path)
    assert "to resume" in late["error"]
    monkeypatch.setattr(engine, "LATE", LATE)
    Store(tmp_path / "table5" / "runs").add(failed(entry.study(2, 2).recipes[0], "memory ran out"))  # is retried
    (result,) = reproduce([entry], tmp_path)
    assert {row["name"]: len(row["yours"]) for row in result["rows"]} == dict.fromkeys(entry.groups, 2)
    assert result["verdicts"].keys() == entry.pairs.keys()
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "table5" / "runs").glob("*.json")}
    (repeated,) = reproduce([entry], tmp_path, again=True)
    assert repeated["rows"] == result["rows"]
    assert times == {file: file.stat().st_mtime_ns for file in (tmp_path / "table5" / "runs").glob("*.json")}


def test_methods_are_compared_at_their_own_rates(tiny_item, tmp_path):
    pairs = {"LoRA against full": ("LoRA r8 q,v", "full", "no worse")}
    changes = {"methods": "full,lora", "metrics": {"right": ("accuracy", 100)}, "prompts": 0, "also": {}}
    (result,) = reproduce([tiny_item("table3", {"rates": 1, "growth": 0}, pairs=pairs, **changes)], tmp_path)
    assert {row["name"]: len(row["yours"]) for row in result["rows"]} == {"right, full": 2, "right, LoRA r8 q,v": 2}
    assert [row["unit"] for row in result["rows"]] == [f"right, rate {r} (at an end) of [{r}]" for r in (5e-05, 0.001)]
    assert set(result["verdicts"]) == set(pairs)


def test_groups_are_compared_at_a_common_rate_and_at_their_own(tiny_item, tmp_path):
    groups, pairs = {"r1": "lora:rank=1", "r4": "lora:rank=4"}, {"common": ("r4", "r1", "better")}
    also = {"own": ("r4, own rate", "r1, own rate", "better")}
    entry = tiny_item("table5", rates=[1e-4, 1e-2], tuned_at="r4", groups=groups, pairs=pairs, also=also)
    (result,) = reproduce([entry], tmp_path)
    rates = {row["name"]: float(row["unit"].split()[-1]) for row in result["rows"]}
    assert rates["r1"] == rates["r4"] == rates["r4, own rate"]
    losses = load(tmp_path / "table5" / "runs").groupby(["rank", "lr"])["validation_loss"].mean()
    assert [rates["r1, own rate"], rates["r4"]] == [losses[rank].idxmin() for rank in (1, 4)]
    assert set(result["verdicts"]) == {"common", "own"}


def test_items_on_subspaces_share_their_runs(tiny_item, tmp_path):
    groups = {"rank 4": "lora:rank=2", "rank 8": "lora:rank=4", "rank 64": "lora:rank=8"}
    for result in reproduce([tiny_item(name, groups=groups) for name in ("table7", "fig3")], tmp_path):
        assert (result["error"], result["standing"]) == (None, "not tested")  # two steps are too few
        assert all(len(row["yours"]) >= 2 for row in result["rows"])
    assert len(list((tmp_path / "subspaces" / "runs").glob("*.json"))) == 3 * 2


def test_costs_are_measured(tmp_path, tiny_causal):
    entry = item("section4_2", model=tiny_causal)
    assert entry.expected(1).sizes["rounds"] >= timing.FEWEST
    measured, _ = entry.measured({"rounds": 5}, place_at(tmp_path))
    rows = {row.name: row.yours for row in measured}
    assert rows["peak of a step, LoRA"] < rows["peak of a step, full"]
    assert rows["file, LoRA"] < rows["file, full"]
    assert list(rows) == [row["name"] for row in reference_reproductions()["section4_2"]["rows"]]


def test_latency_is_measured_in_enough_rounds(tmp_path, monkeypatch, tiny_encoder):
    monkeypatch.setattr(timing, "SIZE", 8)
    entry, place = item("table1", model=tiny_encoder), place_at(tmp_path)
    rows, _ = entry.measured({"rounds": 7, "cells": [[1, 8], [2, 16]]}, place)
    assert [len(row.yours) for row in rows] == [7] * 8
    place.stop.set()
    with pytest.raises(Failed, match="out after 0 rounds, but 6 are needed"):
        entry.measured({"rounds": 7, "cells": [[1, 8]]}, place)


def test_plan_uses_the_machine_speed_or_real_steps(tiny_encoder, opinions, tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "best_speed", lambda where: 1e7)
    entry = item("table3", model=tiny_encoder, task=opinions, methods="full,lora", fields=PLAIN, prompts=0)
    assert entry.expected(40).sizes == {"steps": 60, "rates": 4, "growth": 1, "seeds": 3}
    assert entry.plan(place_at(tmp_path, 5)).sizes["steps"] >= studies.MIN_STEPS


class Made(Item):
    """An item that measures nothing, counts its runs, and raises `fails` if given."""

    def __init__(self, fails: Exception | None = None, name: str = "table6", **changes) -> None:
        texts = {"title": "A stub", "finding": "Two is two.", "rule": "Two is equal to two.", "limits": "None."}
        super().__init__(name, minutes=2.0, passes=0, others={"q r1": "more"}, **{**texts, **changes})
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


def test_result_is_stored_and_reused(tmp_path):
    entry = Made()
    (result,) = reproduce([entry], tmp_path)
    assert result == json.loads((tmp_path / "table6" / "result.json").read_text())
    row = {"name": "q r1", "yours": [2.0, 2.5], "unit": "%"}
    assert result["rows"][0] == {**row, "published": "WikiSQL 68.8, MNLI 90.7", "expected": "more"}
    assert (result["standing"], result["words"], result["sizes"]) == ("holds", "they are two", {"steps": 200})
    assert result["environment"]["hardware"]
    assert list(reproduce([entry], tmp_path)) == [result]
    assert entry.ran == 1
    assert rejudged(entry, result)["ruled"] == "before"
    assert rejudged(Made(rule="Three is three."), result)["ruled"] == "after"
    (longer,) = reproduce([entry], tmp_path, minutes=5)
    assert (entry.ran, longer["sizes"]["steps"]) == (2, 500)
    entry.values = (2.0,)
    (untested,) = reproduce([entry], tmp_path, again=True)
    assert untested["words"] == "one seed is not enough. Not judged: they are two"


def test_report_shows_rules_values_and_escaped_errors(tmp_path):
    results = [*reproduce([Made(), Made(Failed(HOSTILE), name="table5")], tmp_path)]
    report = write_report(results, tmp_path).read_text()
    for text in ("Two is equal to two.", "**holds**", "**not run**", "report.png", *results[0]["discrepancies"]):
        assert text in report
    assert "| q r1 | WikiSQL 68.8, MNLI 90.7 | more | 2.25 ± 0.3536 (2, 2.5)" in report
    assert r"\> \$\\frac{ \| \* \`x\` " in report


def test_failure_is_recorded_and_loses_no_result(tmp_path):
    broken, sound = Made(RuntimeError("no luck")), Made(name="table5")
    results = reproduce([broken, sound], tmp_path)
    failed = next(results)
    assert sound.ran == 0  # each result is yielded before the next item runs
    assert (failed["error"], failed["standing"]) == ("RuntimeError: no luck", "undecided")
    (success,) = results
    assert success["error"] is None
    broken.fails, broken.expected = None, lambda minutes: pytest.fail("planned again")
    retried, _ = reproduce([broken, sound], tmp_path)
    assert (retried["error"], retried["sizes"], sound.ran) == (None, {"steps": 200}, 1)
    sound.fails = Failed("the time is over")
    (late,) = reproduce([sound], tmp_path, again=True)
    assert late["error"] == "the time is over"
    assert kept(tmp_path)[0] == success


def test_forest_plot_agrees_with_the_rules():
    shipped = reference_reproductions()
    for name, result in shipped.items():
        inside = [row.holds[0] <= row.low and row.high <= row.holds[1] for row in effects(result)]
        assert (len(inside), effects(result, short=True)[0].inside) == (len(item(name).shown), all(inside))
        if result["standing"] != "not tested":
            assert all(inside) == (result["standing"] == "holds")
    assert effects(shipped["table5"])[0].middle == pytest.approx(0.027 / 0.015)
    assert effects(shipped["table5"])[0].paper == pytest.approx((3.3 / 1.5, 0.3 / 1.5))  # WikiSQL and MNLI
    pair = shipped["table16"]["verdicts"]["full against LoRA"]  # the paper found that full is no better
    assert effects(shipped["table16"])[0].middle == pytest.approx(-pair["difference"] / pair["margin"])
    assert effects(shipped["table18"])[0].paper == pytest.approx([0.07 / 0.015])  # a lower loss is better
    assert "two hold, none fail, none undecided" in headline([shipped["table1"], shipped["table5"]])
    close = {**EVEN, "low": 0.002, "difference": 0.008, "high": 0.013}  # better, but within the margin
    changed = {**shipped["table5"], "verdicts": {**shipped["table5"]["verdicts"], "q,v r4 against q r8": close}}
    assert effects(changed)[0].outcome == by_verdict(close, "better").standing == "undecided"
    told = "LoRA beats prefixes: paper no number; ours +0.265 nats (+0.052 to +0.478); needed above 0: undecided."
    assert told in forest(shipped.values()).alt


@pytest.fixture
def run(monkeypatch, lora_lab):
    monkeypatch.setattr(paper_reproduce, "items", lambda names: [Made()])
    return partial(lora_lab, "reproduce")


def test_dry_run_prints_the_plan_and_writes_nothing(run, tmp_path):
    done = run("--dry-run", "--json", "--out", str(tmp_path / "out"))
    plan = json.loads(done.stdout)
    assert done.returncode == 0
    assert plan["items"][0].items() >= {"item": "table6", "minutes": 2.0, "budget_minutes": 2.0}.items()
    assert (plan["scale"], plan["minutes"]) == ("laptop", 2.0)
    assert "steps 200" in run("--dry-run", "--out", str(tmp_path / "out")).stdout
    assert not (tmp_path / "out").exists()
    short = run("--minutes", "0.5", "--out", str(tmp_path))
    assert short.returncode == 1
    assert "too few minutes" in short.stderr
    assert "Traceback" not in short.stderr


def test_results_are_kept_and_reported_again_later(run, tmp_path, monkeypatch):
    done = run("table6", "--json", "--out", str(tmp_path))
    result = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (result["scale"], result["items"][0]["standing"]) == ("laptop", "holds")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "The rule: Two is equal to two." in done.stderr
    assert "holds" in run("table6", "--out", str(tmp_path)).stdout
    (tmp_path / "report.md").unlink()
    assert json.loads(run("--rejudge", "--json", "--out", str(tmp_path)).stdout)["items"] == result["items"]
    both = run("--rejudge", "--again", "--out", str(tmp_path))
    assert (both.returncode, "--again has no effect" in both.stderr) == (2, True)
    assert (tmp_path / "report.md").is_file()
    assert run("--out", str(tmp_path / "report.png" / "below")).returncode == 2
    (tmp_path / "table6" / "result.json").write_text('{"item": "table6"}')
    assert "no result for these items" in run("--rejudge", "--out", str(tmp_path)).stderr
    run("table6", "--out", str(tmp_path))
    monkeypatch.setattr(paper_reproduce, "items", lambda names: [Made(name="table5")])
    run("--out", str(tmp_path))
    assert {"## table5", "## table6"} <= set((tmp_path / "report.md").read_text().splitlines())


def test_paper_scale_runs_the_protocol(run, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(protocol, "plan", lambda table, **given: calls.append((table, given)) or [{"table": table}])
    monkeypatch.setattr(protocol, "plan_in_words", str)
    monkeypatch.setattr(protocol, "run", lambda table, **given: calls.append((table, given)) or {"table": table})
    monkeypatch.setattr(protocol, "result_in_words", str)
    done = run("--scale", "paper", "--dry-run", "--variant", "repo", "--json")
    assert json.loads(done.stdout) == {"scale": "paper", "items": [{"table": "table2"}, {"table": "table3"}]}
    for option in (("--seeds", "1"), ("--download",)):
        assert "doesn't change the plan" in run("--scale", "paper", "--dry-run", *option).stderr
    options = {"model_path": "m", "data": "d", "seeds": 1, "out": str(tmp_path)}
    words = ("--model-path", "m", "--data", "d", "--seeds", "1", "--out", str(tmp_path), "--json")
    assert json.loads(run("table3", "--scale", "paper", *words).stdout) == {"scale": "paper", "table": "table3"}
    assert calls == [("table2", {"variant": "repo"}), ("table3", {"variant": "repo"}), ("table3", options)]
