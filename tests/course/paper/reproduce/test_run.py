"""Items are planned, run, judged and reported; what fails is recorded; a second call reads what is there."""

from __future__ import annotations

import json

import pytest

from lora_course import paper
from lora_course.lesson import reference_reproductions
from lora_course.paper.reproduce import NAMES, item, items
from lora_course.paper.reproduce.base import LATE, Item, Judged, Plan, Row
from lora_course.paper.reproduce.report import write_report
from lora_course.paper.reproduce.run import kept, planned, rejudge, rejudged, reproduce
from lora_course.plots.reproduced import picture
from lora_lab.errors import BadValue, Failed, NotFound


class Made(Item):
    """An item that counts how often it ran, and measures nothing."""

    name, title, finding, rule, minutes, limits = (
        "table6",
        "A stub",
        "Two is two.",
        "Two is equal to two.",
        2.0,
        "None.",
    )

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails, self.ran = fails, 0

    def expected(self, minutes):
        if minutes < 1:
            raise BadValue("too few minutes")
        return Plan({"steps": round(100 * minutes)}, 60 * minutes)

    def run(self, plan, place):
        self.ran += 1
        if self.fails:
            raise self.fails
        return [2.0, 2.5]

    def rows(self, found):
        return [Row("q r1", tuple(found), "%"), Row("own", (), "%")]

    def untested(self, kept):
        return "one seed is not enough" if len(kept.rows["q r1"]) < 2 else ""

    def judge(self, kept):
        return Judged("holds", "they are two")

    def published(self, table):
        return {"q r1": str(table.row(weights="Wq", rank=1)["MNLI"])}

    def others(self, table):
        return {"q r1": "more"}


class Other(Made):
    name = "table5"

    def published(self, table):
        return {}


def test_a_result_holds_everything_that_a_reader_needs(tmp_path):
    one = Made()
    (found,) = reproduce([one], tmp_path)
    assert found == json.loads((tmp_path / "table6" / "result.json").read_text())
    mine = {"name": "q r1", "yours": [2.0, 2.5], "unit": "%", "predictions": []}
    assert found["rows"][0] == {**mine, "published": "90.7", "expected": "more"}
    assert (found["standing"], found["words"], found["error"]) == ("holds", "they are two", None)
    assert found["sizes"] == {"steps": 200}
    assert found["discrepancies"] == list(paper.table("table6").discrepancies)
    assert "surrogate" in found["title"]
    assert found["environment"]["hardware"]


def test_a_second_call_runs_nothing_unless_told_to_or_given_other_minutes(tmp_path):
    one = Made()
    assert reproduce([one], tmp_path) == reproduce([one], tmp_path)
    assert one.ran == 1
    reproduce([one], tmp_path, again=True)
    assert one.ran == 2
    (longer,) = reproduce([one], tmp_path, minutes=5)
    assert (one.ran, longer["sizes"]["steps"]) == (3, 500)


def test_a_plan_once_made_is_kept_for_the_call_that_goes_on(tmp_path):
    one = Made(Failed("the time is over"))
    reproduce([one], tmp_path)
    one.fails, one.expected = None, lambda minutes: pytest.fail("it was planned anew")
    assert reproduce([one], tmp_path)[0]["sizes"] == {"steps": 200}


def test_what_fails_is_recorded_and_the_rest_go_on(tmp_path):
    heard = []
    broken, sound = Made(RuntimeError("no luck")), Other()
    found = reproduce([broken, sound], tmp_path, after=lambda results: heard.append(len(results)))
    assert found[0]["error"] == "RuntimeError: no luck"
    assert found[0]["standing"] == "undecided"
    assert found[1]["error"] is None
    assert heard == [1, 2]
    broken.fails = None
    assert reproduce([broken, sound], tmp_path)[0]["error"] is None  # tried again
    assert sound.ran == 1


def test_what_fails_takes_nothing_away_that_was_measured(tmp_path):
    one = Made()
    (found,) = reproduce([one], tmp_path)
    (short,) = reproduce([one], tmp_path, minutes=0.5)
    one.fails = Failed("the time is over")
    (late,) = reproduce([one], tmp_path, again=True)
    assert (short["error"], late["error"]) == ("too few minutes", "the time is over")
    assert kept(tmp_path) == [found]


def test_too_few_minutes_are_said_and_no_reason_to_stop(tmp_path):
    (found,) = reproduce([Made()], tmp_path, minutes=0.5)
    assert found["error"] == "too few minutes"
    plans = planned([Made(), Other()], 0.5)
    assert [one["error"] for one in plans] == ["too few minutes"] * 2
    assert planned([Made()])[0]["minutes"] == 2.0
    with pytest.raises(BadValue, match="above 0"):
        reproduce([Made()], tmp_path, minutes=-1)


def test_the_report_tells_finding_rule_verdict_and_discrepancies(tmp_path):
    found = reproduce([Made(), Other(Failed("no"))], tmp_path)
    text = write_report(found, tmp_path).read_text()
    for words in ("Two is two.", "Two is equal to two.", "**holds**", "| q r1 | 90.7 | more | 2.25 ± 0.3536 (2, 2.5)"):
        assert words in text
    assert all(words in text for words in paper.table("table6").discrepancies)
    assert "**not run**" in text
    assert "![" in text.split("## table6")[1].split("## table5")[0]


def test_a_result_is_judged_again_by_a_new_rule_from_the_figures_that_it_holds(tmp_path, monkeypatch):
    (found,) = reproduce([Made()], tmp_path)
    assert rejudge([Made(), Other()], tmp_path) == [found]
    monkeypatch.setattr(Made, "rule", "Two is more than three.")
    monkeypatch.setattr(Made, "judge", lambda self, kept: Judged("fails", f"{kept.rows['q r1']}, {kept.sizes}"))
    (again,) = rejudge([Made()], tmp_path)
    assert (again["standing"], again["words"], again["ruled"]) == ("fails", "[2.0, 2.5], {'steps': 200}", "after")
    assert {name for name in found if found[name] != again[name]} == {"standing", "words", "ruled", "rule"}
    assert kept(tmp_path) == [again]
    assert "written after this run" in write_report([again], tmp_path).read_text()
    with pytest.raises(BadValue, match="no result"):
        rejudge([Other()], tmp_path)


def test_what_does_not_pass_its_check_is_not_tested_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(Made, "run", lambda self, plan, place: [2.0])
    (found,) = reproduce([Made()], tmp_path)
    assert found["standing"] == "not tested"
    assert found["words"] == "one seed is not enough. Not judged: they are two"
    assert "**not tested**. one seed" in write_report([found], tmp_path).read_text()
    assert "was not tested" in picture(found).alt


def test_the_picture_says_surrogate_and_finding(tmp_path):
    (found,) = reproduce([Made()], tmp_path)
    made = picture(found, reference=found)
    assert "surrogate" in made._suptitle.get_text()
    assert "90.7" in [text.get_text() for text in made.axes[0].texts]
    assert "Two is two" in made.alt


def test_names():
    assert [one.name for one in items()] == list(NAMES)
    assert [one.name for one in items(["table6", "table1", "table6"])] == ["table6", "table1"]
    with pytest.raises(NotFound, match="nearest: table6"):
        item("tabel6")


def test_every_item_says_what_it_is_and_stands_beside_a_table():
    for name in NAMES:
        one = item(name)
        assert one.name == name in paper.names()
        assert all((one.title, one.finding, one.rule, one.limits))
        assert all(word in one.rule.lower() for word in ("holds if", "fails if", "undecided"))
        assert one.minutes < 45


def test_all_together_take_less_than_four_hours():
    shared = {one.store: one.minutes for one in items() if one.store}  # trained once
    together = sum(one.minutes for one in items() if not one.store) + sum(shared.values())
    assert LATE * together < 240
    assert all(LATE * one.minutes < 45 for one in items())


def test_runs_that_items_share_are_planned_once(monkeypatch):
    monkeypatch.setattr(Made, "store", "together")
    first, second = planned([Made(), Other()])
    assert (first["minutes"], second["minutes"]) == (2.0, 0.1)
    assert "another item" in second["words"]


def test_what_ships_was_judged_by_the_rules_in_force():
    shipped = reference_reproductions()
    assert shipped
    for name, found in shipped.items():
        one = item(name)
        judged = rejudged(one, found)
        assert all(found[part] == judged[part] for part in ("finding", "rule", "limits", "standing", "words"))
        assert found["environment"]["date"]
        assert found["error"] or found["rows"]
