"""Other text is read along training, kept with the run, and compared where the own loss is the same."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pytest

from lora_course.experiments.forgetting import Forgetting, at_loss, forgetting, perplexity_on
from lora_lab import BadValue, LoRA, Recipe, Store, load_model, load_tokenizer, sweep
from lora_lab.training.runs import Run
from tests.experiments.conftest import on_step
from tests.training.conftest import PLAIN


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> dict[str, str]:
    """Two files of plain text of two kinds."""
    folder = tmp_path_factory.mktemp("texts")
    for name, words in (("psalms", "sing unto him all ye lands"), ("plays", "good my lord what news from court")):
        paragraphs = [f"{words} {n} " * 25 for n in range(14)]
        (folder / f"{name}.txt").write_text("\n\n".join(paragraphs))
    return {"task": str(folder / "psalms.txt"), "other": str(folder / "plays.txt")}


@pytest.fixture(scope="module")
def told(tiny_causal, texts, tmp_path_factory):
    """`told()`: two ranks of the tiny causal model, two seeds of each."""
    store = tmp_path_factory.mktemp("forgetting")

    def make(**changes) -> Forgetting:
        few = {"steps": 8, "batch": 4, "validations": 4, "rows": 2, "seeds": range(2), "store": store}
        few |= {"model": tiny_causal, "fields": PLAIN | {"max_length": 16}, **texts, **changes}
        return forgetting({LoRA(1): 3e-2, LoRA(4): 3e-2}, **few)

    return make


def run(losses: list[float], others: list[list[float]], seed: int = 0) -> Run:
    """A run with these own losses and other losses, one for each validation."""
    records = [
        {"step": n, "loss": own, "other_losses": other, "other_perplexity": math.exp(np.mean(other))}
        for n, (own, other) in enumerate(zip(losses, others, strict=True))
    ]
    history = {"step": [], "loss": [], "lr": [], "validation": records}
    return Run(Recipe("smollm2", "kjv", LoRA(), seed=seed), {}, history, 1, 0, 2, 1.0, 1, {})


def test_each_validation_reads_the_other_text_and_the_run_keeps_it(told):
    found = told()
    assert found.frame.groupby(["method", "seed"]).size().to_dict() == {
        (name, seed): 5 for name in ("lora r1", "lora r4") for seed in (0, 1)
    }
    start = found.frame[found.frame["step"] == 0]["other_perplexity"]
    assert start.to_numpy() == pytest.approx(np.full(4, found.base), rel=1e-4)  # LoRA is nothing before it has trained
    one = found.runs["lora r4"][0]
    assert one.metrics["other_perplexity"] == one.history["validation"][-1]["other_perplexity"] != found.base
    assert {len(record["other_losses"]) for record in one.history["validation"]} == {2}


def test_a_saved_run_has_the_perplexity_that_its_adapter_gives(told, tiny_causal, texts):
    from lora_lab import load_adapter

    one = told().runs["lora r4"][1]
    model = load_model(tiny_causal)
    load_adapter(model, one.adapter)
    measured = perplexity_on(model, load_tokenizer(tiny_causal), texts["other"], rows=2)
    assert measured == pytest.approx(one.metrics["other_perplexity"], rel=1e-4)


def test_nothing_is_run_twice_but_for_other_text_or_where_nobody_watched(told, tiny_causal, texts, tmp_path):
    told()
    plans = []

    def note(event, facts):
        plans.extend([facts["runs"]] if event == "plan" else [])

    told(note=note)
    told(rows=1, store=tmp_path, note=note)
    told(rows=2, store=tmp_path, note=note)
    assert plans == [0, 4, 4]
    plain = Recipe(
        tiny_causal, texts["task"], LoRA(1), lr=3e-2, steps=8, batch=4, validations=4, max_length=16, **PLAIN
    )
    sweep([plain], tmp_path / "plain")
    assert "other_perplexity" not in Store(tmp_path / "plain").find(plain).metrics
    told(store=tmp_path / "plain", seeds=[0], note=note)
    assert plans[-1] == 2


def test_a_broken_off_pack_goes_on_with_what_it_had_read(told, tmp_path):
    stop = threading.Event()
    seen = []

    def watch(progress):
        seen.append(progress.step)
        if progress.step == 5:
            stop.set()

    with pytest.raises(BadValue, match="no run finished: stopped"):
        told(store=tmp_path, note=on_step(watch), stop=stop)
    again, whole = told(store=tmp_path), told()
    assert again.frame["other_perplexity"].to_numpy() == pytest.approx(
        whole.frame["other_perplexity"].to_numpy(), rel=1e-4
    )


def test_other_losses_at_an_own_loss_lie_between_the_validations_round_it():
    one = run([3.0, 2.0, 2.5, 1.0], [[4.0, 5.0], [4.2, 5.4], [9.0, 9.0], [6.0, 6.0]])
    assert at_loss(one, 2.25) == pytest.approx([4.15, 5.3])  # where it first gets there
    assert at_loss(one, 1.5) == pytest.approx([7.0, 7.0])
    assert at_loss(one, 3.5) == pytest.approx([4.0, 5.0])
    with pytest.raises(BadValue, match=r"never comes to a loss of 0\.900; its lowest is 1\.000"):
        at_loss(one, 0.9)


def made(others: dict[str, float], lowest: dict[str, float] | None = None) -> Forgetting:
    """Runs of three seeds on 60 rows, whose other text's loss rises by so much while the own falls from 3 to 2."""
    rng = np.random.default_rng(0)
    rows, runs = 4 + 0.3 * rng.standard_normal(60), {}
    for name, rise in others.items():
        ends = [rows + rise + 0.01 * rng.standard_normal(60) for _ in range(3)]
        low = (lowest or {}).get(name, 2.0)
        runs[name] = [run([3.0, low], [rows.tolist(), end.tolist()], seed) for seed, end in enumerate(ends)]
    return Forgetting(runs, "kjv", "shakespeare", float(np.exp(rows.mean())), "full")


def test_who_forgets_less_for_equal_learning_is_said_and_so_is_what_is_undecided():
    found = made({"full": 0.2, "lora r8": 0.1, "lora r256": 0.199, "head": 0.3})
    assert {name: v.outcome for name, v in found.verdicts.items()} == {
        "lora r8": "better",
        "lora r256": "equivalent",
        "head": "worse",
    }
    assert found.verdicts["lora r8"].difference == pytest.approx(0.1, abs=0.01)
    words = str(found)
    assert "lora r8 forgets less than full at a loss of 2.000 on kjv (better by 0." in words
    assert "lora r256 forgets as much as full" in words
    assert "head forgets more than full" in words
    assert "nothing was forgotten" not in words
    wide = replace(found, margin=1e-6)
    assert "undecided whether lora r256 forgets less than full at a loss of" in str(wide)


def test_the_more_that_one_learns_is_not_held_against_it():
    """At its end full has forgotten twice as much, but has learned twice as much: on the way it was no worse."""
    found = made({"full": 0.4, "lora r8": 0.2}, lowest={"full": 1.0})
    assert found.levels == {"lora r8": 2.0}
    assert found.verdicts["lora r8"].outcome == "equivalent"


def test_methods_without_a_common_loss_are_not_compared():
    found = made({"full": 0.2, "prompt 20": 0.0}, lowest={"prompt 20": 3.1})
    assert found.verdicts == {}
    assert "prompt 20 and full come to no common loss" in str(found)


def test_a_method_of_which_no_run_finished_is_named():
    found = replace(made({"full": 0.2, "head": 0.1, "lora r8": 0.1}), against="head")
    found = replace(found, runs=found.runs | {"head": [], "full": []})
    assert found.verdicts == {}
    assert "lora r8 and head are not compared: head has no finished run" in str(found)


def test_other_text_that_became_easier_is_not_called_forgotten():
    assert "It rose for none: nothing was forgotten here." in str(made({"full": -0.2, "lora r8": -0.1}))


def test_what_cannot_be_is_refused(told, opinions, tiny_encoder, texts):
    for wrong in ({"other": opinions}, {"task": opinions}, {"rows": 0}):
        with pytest.raises(BadValue, match="plain text"):
            told(**wrong)
    with pytest.raises(BadValue, match="margin 0 is impossible"):
        told(margin=0)
    with pytest.raises(BadValue, match="at each validation"):
        told(validations=0)
    with pytest.raises(BadValue, match="choose on this machine, without client"):
        told(client=object())
    with pytest.raises(BadValue, match="at least one method"):
        forgetting({}, **texts)
