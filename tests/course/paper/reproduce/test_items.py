"""Items once through on a tiny model: trained, timed, measured, resumed."""

from __future__ import annotations

import pytest

from lora_course import paper
from lora_course.experiments.subspace import amplification
from lora_course.paper.reproduce import fit, item, section4_2, table1, table2, table5, table7, table16
from lora_course.paper.reproduce.base import Place, Plan
from lora_course.paper.reproduce.run import reproduce
from lora_lab.errors import BadValue, Failed
from lora_lab.experiments.budget import Timing
from lora_lab.methods.lora import LoRA
from lora_lab.training.tasks import load_task
from tests.training.conftest import PLAIN


@pytest.fixture
def small(tiny_encoder, opinions, monkeypatch):
    """Table 5 on a tiny model and task."""
    monkeypatch.setattr(fit, "best_speed", lambda where: 1e6)
    return table5.WhichMatrices(tiny_encoder, opinions, **PLAIN)


def test_an_item_that_trains_goes_on_where_it_was(small, tmp_path, monkeypatch):
    monkeypatch.setattr(small, "plan", lambda place: Plan({"steps": 2, "seeds": 2}, 1.0))
    (found,) = reproduce([small], tmp_path)
    assert found["error"] is None
    assert {row["name"]: len(row["yours"]) for row in found["rows"]} == dict.fromkeys(small.methods, 2)
    assert all(len(row["predictions"]) == 2 for row in found["rows"])
    assert found["verdicts"].keys() == small.pairs.keys()
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "table5" / "runs").glob("*.json")}
    assert len(stamps) == 14
    (again,) = reproduce([small], tmp_path, again=True)
    assert again["rows"] == found["rows"]
    assert stamps == {file: file.stat().st_mtime_ns for file in (tmp_path / "table5" / "runs").glob("*.json")}


def test_one_that_is_late_says_so_and_goes_on_later(small, tmp_path, monkeypatch):
    from lora_course.paper.reproduce import base

    monkeypatch.setattr(small, "plan", lambda place: Plan({"steps": 2, "seeds": 1}, 1.0))
    monkeypatch.setattr(base, "LATE", 1e-9)
    (late,) = reproduce([small], tmp_path)
    assert "goes on where it was" in late["error"]
    monkeypatch.undo()
    assert reproduce([small], tmp_path)[0]["error"] is None


def test_real_steps_are_timed_and_become_a_plan(small, tmp_path):
    plan = small.plan(Place(tmp_path, 5))
    assert plan.sizes["steps"] >= fit.LEAST
    assert plan.seconds < 6 * 60


def test_methods_are_compared_within_the_minutes(tiny_encoder, opinions, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "best_speed", lambda where: 1e7)
    monkeypatch.setattr(table2.Methods, "methods", "full,lora")
    monkeypatch.setattr(table2.Methods, "published", lambda *_: {})
    one = table2.Methods(tiny_encoder, opinions, **PLAIN)
    assert one.expected(40).sizes == {"steps": 400, "rates": 4, "growth": 1, "seeds": 3}
    monkeypatch.setattr(one, "plan", lambda place: Plan({"steps": 2, "rates": 1, "growth": 0, "seeds": 2}, 1.0))
    (found,) = reproduce([one], tmp_path)
    assert found["error"] is None
    assert {row["name"]: len(row["yours"]) for row in found["rows"]} == {"full": 2, "LoRA r8 q,v": 2}
    with pytest.raises(BadValue, match="two seeds take about"):
        one._sized(0.01, [Timing(1, 1, 1)])


def test_little_data_is_drawn_and_judged(tiny_encoder, opinions, tmp_path, monkeypatch):
    monkeypatch.setattr(table16.LittleData, "published", lambda *_: {})
    one = table16.LittleData(tiny_encoder, opinions, sizes=(8, 0), **PLAIN)
    monkeypatch.setattr(one, "plan", lambda place: Plan({"steps": 2, "seeds": 1}, 1.0))
    (found,) = reproduce([one], tmp_path)
    assert found["error"] is None
    assert [row["name"] for row in found["rows"]][:2] == ["8 examples, lora r8", "8 examples, full"]
    assert len(found["rows"]) == 8


def test_little_data_that_is_late_with_its_last_run_is_done(tiny_encoder, opinions, tmp_path):
    one = table16.LittleData(tiny_encoder, opinions, sizes=(8,), max_length=64, **PLAIN)
    plan, late = Plan({"steps": 1, "seeds": 1}, 1.0), Place(tmp_path, 1)
    one.run(plan, late)
    late.stop.set()
    assert all(len(row.yours) == 1 for row in one.rows(one.run(plan, late)))


def test_costs_are_measured(tmp_path, tiny_causal):
    one = section4_2.Costly(tiny_causal)
    assert one.expected(1).sizes["rounds"] >= section4_2.LEAST
    found = one.run(Plan({"rounds": 3}, 1.0), Place(tmp_path, 1))
    assert found.peaks["LoRA"] < found.peaks["full"]
    assert found.files["LoRA"] < found.files["full"]
    assert len(found.gains) == 3
    names = [row.name for row in one.rows(found)]
    assert set(one.published(paper.table("section4_2"))) <= set(names)


@pytest.mark.parametrize("name", ["table7", "fig3", "fig4"])
def test_subspaces_are_trained_once_and_looked_at(tiny_encoder, opinions, tmp_path, monkeypatch, name):
    from lora_course.paper.reproduce import subspaces

    small_ranks = {"rank 4": LoRA(rank=2), "rank 8": LoRA(rank=4), "rank 64": LoRA(rank=8)}
    monkeypatch.setattr(subspaces.Subspaces, "methods", small_ranks)
    monkeypatch.setattr(subspaces.Subspaces, "plan", lambda *_: Plan({"steps": 2, "seeds": 2}, 1.0))
    monkeypatch.setattr(table7, "amplification", lambda w, u, rank: amplification(w, u, min(rank, len(u.values))))
    one = type(item(name))(tiny_encoder, opinions, **PLAIN)
    (found,) = reproduce([one], tmp_path)
    assert found["error"] is None
    assert (tmp_path / "subspaces" / "runs").is_dir()
    assert all(len(row["yours"]) >= 2 for row in found["rows"])
    assert found["standing"] == "not tested"  # two steps


@pytest.mark.parametrize(("step", "steps", "seeds"), [(0.01, 400, 5), (0.1, 120, 4), (0.5, 48, 2)])
def test_seeds_give_way_to_steps(opinions, step, steps, seeds):
    plan = fit.sized(10, 10, Timing(0, step, 0), load_task(opinions))
    assert plan.sizes == {"steps": steps, "seeds": seeds}
    assert plan.seconds <= 600
    assert fit.sized(1, 600, Timing(0, 0.01, 0), load_task(opinions), most=1523).sizes["steps"] == 1523


def test_too_few_minutes_name_how_many(opinions):
    with pytest.raises(BadValue, match="two seeds take about"):
        fit.sized(10, 1, Timing(1, 5, 1), load_task(opinions))


def test_latency_is_measured_and_too_few_rounds_are_not_judged(tmp_path, monkeypatch, tiny_encoder):
    monkeypatch.setattr(table1, "SIZE", 8)
    one, plan = table1.Latency(tiny_encoder), Plan({"rounds": 7, "cells": [[1, 8], [2, 16]]}, 1.0)
    monkeypatch.setattr(one, "expected", lambda minutes: plan)
    (found,) = reproduce([one], tmp_path)
    assert found["error"] is None
    assert [len(row["yours"]) for row in found["rows"]] == [7] * 8
    late = Place(tmp_path, 1)
    late.stop.set()
    with pytest.raises(Failed, match="over after 0 rounds, 6 are needed"):
        one.run(plan, late)
