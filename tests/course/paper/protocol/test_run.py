"""The whole way on tiny random models: files of GLUE and E2E in, trained, scored as the paper does, kept, resumed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lora_course.paper.protocol import plan, run
from lora_lab.errors import BadValue, NotFound
from lora_lab.experiments import text_scores
from lora_lab.training import loop
from lora_lab.training.generate import Decoding
from lora_lab.training.runs import Store
from tests.training.conftest import PLAIN

SHORT = Decoding(max_new_tokens=4)


@pytest.fixture(scope="module")
def cola(roberta, glue, tmp_path_factory):
    """CoLA, two seeds of three epochs; with the folder that they are kept in."""
    out = tmp_path_factory.mktemp("cola")
    made = run("table2", task="cola", model_path=roberta, data=glue, out=out, seeds=2, steps_limit=3, **PLAIN)
    return made, out


def test_cola_is_trained_by_the_recipe_and_judged_by_matthews(cola):
    result, _ = cola
    assert (result.steps, result.full, len(result.seeds)) == (3, 80, 2)  # 24 rows are one batch of 32
    for seed in result.seeds:
        made = seed.run.recipe
        assert (made.lr, made.batch, made.method.rank, made.method.alpha) == (4e-4, 32, 8, 8)
        assert (made.dropout, made.weight_decay, made.clip, made.max_length) == (True, 0.0, 1.0, 512)
        epochs = [row for row in seed.run.history["validation"] if row["step"]]
        assert seed.best["matthews"] == max(row["matthews"] for row in epochs)
        assert seed.last["matthews"] == epochs[-1]["matthews"] == seed.run.metrics["matthews"]
    row = result.over_seeds()[0]
    assert row["best"] >= row["last"]
    assert (row["metric"], row["published"]) == ("matthews", "63.4±1.2")


def test_what_differs_from_the_paper_is_said(cola, roberta):
    result, out = cola
    said = str(result)
    for words in ("3 of 80 steps", f"{roberta} is not roberta-base", "24 rows", "2 of 5 seeds", "best epoch"):
        assert words in said
    told = json.loads((out / "protocol-table2-cola.json").read_text())
    assert told["over_seeds"][0]["published"] == "63.4±1.2"
    assert told["recipe"]["settings"]["lr"]["source"] == "Table 9"


def test_what_is_done_is_not_made_again(cola, roberta, glue, monkeypatch):
    result, out = cola
    monkeypatch.setattr(loop, "fit", None)
    again = run("table2", task="cola", model_path=roberta, data=glue, out=out, seeds=2, steps_limit=3, **PLAIN)
    assert [seed.run.recipe.hash for seed in again.seeds] == [seed.run.recipe.hash for seed in result.seeds]
    assert again.over_seeds() == result.over_seeds()


@pytest.mark.parametrize("count", [{"steps_limit": 0}, {"seeds": 0}, {"seeds": ()}, {"prompts": -1}, {"max_length": 0}])
def test_nothing_is_not_read_as_all_there_is(roberta, glue, tmp_path, count):
    with pytest.raises(BadValue, match=f"{next(iter(count))} must be at least 1"):
        run("table2", task="cola", model_path=roberta, data=glue, out=tmp_path, **count, **PLAIN)
    assert not list(tmp_path.iterdir())


def test_a_broken_off_run_goes_on_from_its_last_epoch(roberta, glue, tmp_path, monkeypatch):
    """Killed in the third epoch, the run goes on and ends as one that was left alone."""
    options = {"task": "cola", "model_path": roberta, "data": glue, "seeds": 1, "steps_limit": 4, **PLAIN}
    whole = run("table2", out=tmp_path / "whole", **options)
    usual, seen = loop.member_losses, []

    def killed(*args, **more):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return usual(*args, **more)

    monkeypatch.setattr(loop, "member_losses", killed)
    with pytest.raises(KeyboardInterrupt):
        run("table2", out=tmp_path / "parts", **options)
    went_on = run("table2", out=tmp_path / "parts", **options)
    assert len(seen) == 3 + 2  # two steps were left, not four
    assert went_on.seeds[0].run.history == whole.seeds[0].run.history


def test_sts_b_is_a_number_and_mnli_starts_it(roberta, glue, tmp_path):
    mnli = run("table2", task="mnli", model_path=roberta, data=glue, out=tmp_path, seeds=1, steps_limit=2, **PLAIN)
    assert mnli.seeds[0].run.metrics["accuracy"] in [n / 15 for n in range(16)]  # matched and mismatched together
    start = mnli.seeds[0].run.adapter
    options = {"task": "sts-b", "model_path": roberta, "data": glue, "seeds": 1, "steps_limit": 2, **PLAIN}
    warm = run("table2", out=tmp_path, start=start, **options)
    cold = run("table2", out=tmp_path, **options)
    assert {"step", "pearson", "spearman", "loss"} == set(warm.seeds[0].last)
    assert warm.seeds[0].run.history["loss"] != cold.seeds[0].run.history["loss"]
    assert "starts anew" in str(cold)
    assert "starts anew" not in str(warm)
    with pytest.raises(BadValue, match="leave out start"):
        run("table2", task="cola", model_path=roberta, data=glue, out=tmp_path, start=start, **PLAIN)


@pytest.mark.parametrize("row", ["FT", "AdapterH 0.8M dagger"])
def test_other_rows_take_the_same_way(roberta, glue, tmp_path, row):
    own = {} if row == "FT" else {"model": "roberta-large"}
    made = run("table2", task="rte", row=row, model_path=roberta, data=glue, out=tmp_path, seeds=1, steps_limit=1,
               **own, **PLAIN)  # fmt: skip
    assert 0 <= made.seeds[0].run.metrics["accuracy"] <= 1


def test_e2e_is_trained_decoded_and_scored(gpt2, e2e, tmp_path):
    options = {"model_path": gpt2, "data": e2e, "out": tmp_path, "seeds": 1, "steps_limit": 2, "decoding": SHORT}
    result = run("table3", **options, **PLAIN)
    made = result.seeds[0].run.recipe
    assert (made.method.rank, made.method.alpha, made.method.dropout) == (4, 32, 0.1)
    assert (made.label_smoothing, made.token_mean, made.clip, made.dropout) == (0.1, True, 0.0, False)
    assert result.full == 5 * 2  # twelve lines, eight a batch
    kept = json.loads((tmp_path / made.hash / "answers.json").read_text())
    texts = [row["text"] for row in kept["texts"]]
    references = [[f"{p} cooks Thai by the river.", f"By the river {p} is Thai."] for p in "IJ"]
    wanted = text_scores.text_scores(texts, references)
    assert {name: result.seeds[0].answers[name] for name in wanted} == pytest.approx(wanted)
    assert "68.65 (V100)" in str(result)
    assert "cider" in str(result)  # published only
    assert not any("cooks Thai" in part for part in map(str, result.to_json().values()))  # no text of the data


def test_the_papers_own_decoding_is_beam_search(gpt2, e2e, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "lora_lab.experiments.generation.generate", lambda m, t, prompts, say: asked.append(say) or ["A"] * len(prompts)
    )
    run("table3", variant="repo", model_path=gpt2, data=e2e, out=tmp_path, seeds=1, steps_limit=1, **PLAIN)
    assert asked == [Decoding(beams=10, length_penalty=0.8, no_repeat_ngram=4, max_new_tokens=64)]


def test_a_plan_counts_the_data_that_are_there(roberta, glue):
    dry = plan("table2", model="roberta-base", task="rte", row="LoRA", model_path=roberta, data=glue)[0]
    assert (dry.rows.value, dry.steps) == (24, 80)
    assert not any("--data" in str(one) or "--model-path" in str(one) for one in dry.missing)


def test_what_is_not_there_stops_it_before_training(roberta, glue, tmp_path):
    with pytest.raises(NotFound, match="no folder"):
        run("table2", task="rte", model_path=roberta, data="/nowhere", out=tmp_path, **PLAIN)
    with pytest.raises(NotFound, match="there is no model"):
        run("table2", task="rte", model_path="no-such-model", data=glue, out=tmp_path, **PLAIN)
    with pytest.raises(BadValue, match="planned here but not run: DeBERTa's classifier has a random pooler"):
        run("table2", model="deberta-v2-xxlarge", task="rte", model_path=roberta, data=glue, out=tmp_path, **PLAIN)
    assert not Store(tmp_path).runs()


def test_no_run_has_the_hash_of_another_start(cola):
    recipe = cola[0].seeds[0].run.recipe
    assert replace(recipe, start="/somewhere").hash != recipe.hash
