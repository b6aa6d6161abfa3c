"""Comparisons: equal terms for all, the same after a stop, and a method that fails beside those that do not."""

import json
import threading
from pathlib import Path

import pytest

from lora_lab import IA3, BadValue, Grid, LoRA, NotFound, Recipe, Store, memory, params, sweep
from lora_lab.errors import Changed
from lora_lab.experiments import afterwards
from lora_lab.experiments.compare import Comparison, compare, terms_of
from lora_lab.experiments.margins import shown, unpacked
from lora_lab.experiments.study import contenders, label
from lora_lab.training.runs import stores
from tests.conftest import PLAIN

SMALL = {"steps": 6, "rates": 2, "growth": 1, "seeds": 2, "max_length": 64, **PLAIN}
KEYS = {
    "model", "task", "steps", "batch", "metric", "margin", "seeds", "tuning_seeds", "rates", "seconds",
    "environment", "methods",
}  # fmt: skip
ROW = {
    "method", "label", "settings", "lr", "edge", "tried", "accuracy", "trainable", "head", "adapter_bytes",
    "predicted_bytes", "peak_bytes", "dtype", "products", "seconds", "added_tokens", "against", "answers", "runs",
}  # fmt: skip


def test_contenders_are_named_with_their_settings():
    found = contenders("lora, lora:rank=4:targets=q+k+v:rslora=true:alpha=8.5")
    assert found == [LoRA(), LoRA(rank=4, targets=("q", "k", "v"), rslora=True, alpha=8.5)]
    assert [label(one) for one in found] == ["LoRA r8 q,v", "LoRA r4 q,k,v alpha 8.5 rslora True"]
    assert contenders(["lora:rank=2", LoRA()]) == [LoRA(rank=2), LoRA()]
    (outputs,) = contenders("ia3:targets=q:feedforward=none")
    assert (outputs, label(outputs)) == (IA3(targets=("q",), feedforward=()), "ia3 targets q feedforward none")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("lora,loar", "unknown method 'loar'"),
        ("lora:rnk=4", "no option 'rnk'"),
        ("lora:rank", "option=value"),
        ("lora:rank=x", "integer"),
        ("lora:rank=4:rank=8", "sets rank twice"),
        ("lora,lora:rank=8", "named twice"),
        ("lora,qlora:rank=4", "write lora:rank=4:targets=all-linear and --dtype nf4"),
        ("lora:name=full", "name comes first"),
        (" , ", "at least one method"),
    ],
)
def test_what_is_no_method_is_said_in_a_sentence(words, says):
    with pytest.raises(BadValue, match=says):
        contenders(words)


@pytest.mark.parametrize("call", [
    lambda: compare("minilm", "rt", LoRA(), foo=3),
    lambda: compare("minilm", "rt", LoRA(), seeds=2.5),
    lambda: compare("minilm", "rt", LoRA(), margin="wide"),
    lambda: sweep(Grid(), foo=3),
    lambda: sweep(Grid(), task="rt", steps=1, size=-1),
    lambda: memory("minilm", LoRA(), foo=3),
    lambda: memory("minilm", LoRA(), shard=8),
    lambda: memory("minilm", "lora"),
    lambda: params("minilm", LoRA),
])  # fmt: skip
def test_what_has_the_wrong_type_or_name_is_said_in_a_sentence(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadValue, match=r"foo|seeds|margin|size|shard|method must be"):
        call()


METHODS, PAIR = "probe,lora:rank=2,prompt:tokens=3,full", "probe,lora:rank=2"


@pytest.fixture(scope="module")
def compared(tiny_encoder, opinions, tmp_path_factory):
    """A small comparison, its folder and what was said on the way."""
    out, said = tmp_path_factory.mktemp("compared"), []
    return compare(tiny_encoder, opinions, METHODS, out, say=said.append, **SMALL).to_json(), out, said


def by_name(found: dict) -> dict[str, dict]:
    return {one["method"]: one for one in found["methods"]}


def test_a_folder_with_a_comparison_is_read_as_its_stores(compared):
    """What it measured of costs is named like no run: a panel on the folder refused it."""
    assert {store.name for store in stores(compared[1])} == {"tuning", "runs"}


def test_every_method_is_tuned_and_scored_on_the_same_terms(compared):
    found, out, said = compared
    assert set(found) >= KEYS
    assert found["rates"]["LoRA r2 q,v"] == [1e-3, 2e-3]
    assert (found["seeds"], found["tuning_seeds"], found["metric"]) == ([0, 1], [1000], "accuracy")
    for one in found["methods"]:
        tuned = one["tried"][0].keys() - {"validation", "each"}
        runs = [Store(out / "runs").read(n) for n in one["runs"]]
        assert set(one) >= ROW
        assert (one["error"], one["accuracy"]["n"]) == (None, 2)
        assert len(one["tried"]) == 3  # two values are both ends, so there is one beyond
        assert tuned == ({"l2"} if one["method"] == "probe" else {"lr"})
        assert {one["lr"], one["settings"].get("l2")} & {tried[name] for tried in one["tried"] for name in tuned}
        assert [run.metrics["accuracy"] for run in runs] == one["accuracy"]["each"]
        assert [(run.recipe.seed, run.recipe.steps) for run in runs] == [(0, 6), (1, 6)]
        assert {run.environment["dtype"] for run in runs} == {"fp32"}
    assert found["seconds"] > 0
    assert "LoRA r2 q,v: tuning lr over 0.001, 0.002" in said
    assert json.loads((out / "comparison.json").read_text()) == found
    assert Comparison.from_json(found).to_json() == found
    assert Comparison.from_json(found).results[1].values("accuracy") == found["methods"][1]["accuracy"]["each"]


def test_costs_stand_beside_quality(compared):
    rows = by_name(compared[0])
    lora, prompt, full, probe = (rows[name] for name in ("lora", "prompt", "full", "probe"))
    assert (lora["trainable"], lora["head"], lora["added_tokens"]) == (2 * 2 * 2 * (32 + 32), 66, 0)
    assert lora["adapter_bytes"] == pytest.approx(lora["file_bytes"], rel=0.25)
    assert (prompt["trainable"], prompt["added_tokens"]) == (3 * 32, 3)
    assert probe["trainable"] == 0
    assert full["trainable"] > 100 * lora["trainable"]
    for one in (lora, full):
        assert one["peak_bytes"] == pytest.approx(one["predicted_bytes"], rel=0.001)
        assert sum(one["predicted_parts"].values()) == one["predicted_bytes"]
    assert full["peak_bytes"] > 1.5 * lora["peak_bytes"]


def test_every_method_is_judged_against_full_and_the_probe(compared):
    rows = by_name(compared[0])
    assert {name: set(one["against"]) for name, one in rows.items()} == {
        "probe": {"full"}, "lora": {"full", "probe"}, "prompt": {"full", "probe"}, "full": {"probe"},
    }  # fmt: skip
    verdict = rows["lora"]["against"]["full"]
    assert verdict["kind"] in ("better", "worse", "equivalent", "undecided")
    assert verdict["words"].startswith(verdict["kind"])
    assert "2 seeds x 16 rows; Holm over 3 pairs" in verdict["words"]
    accuracies = [rows[name]["accuracy"]["mean"] for name in ("lora", "full")]
    assert verdict["difference"] == pytest.approx(accuracies[0] - accuracies[1])
    for one, level in zip(verdict["intervals"], (90, 95), strict=True):
        assert one["level"] == level
        assert one["low"] <= verdict["difference"] <= one["high"]


def test_a_method_that_fails_is_recorded_and_the_rest_go_on(tiny_encoder, opinions, tmp_path):
    found = compare(tiny_encoder, opinions, "lora:targets=c_attn,lora:rank=33,lora:rank=2", tmp_path, **SMALL).to_json()
    absent, large, good = found["methods"]
    assert "matches no layer" in absent["error"]
    assert "rank 33" in large["error"]
    assert (absent["runs"], absent["accuracy"]["mean"], absent["lr"], absent["against"]) == ([], None, None, {})
    assert good["accuracy"]["n"] == 2


def test_methods_on_an_edited_file_are_not_compared_with_those_on_the_old_one(tiny_encoder, opinions, tmp_path):
    file, terms = tmp_path / "own.csv", {**SMALL, "steps": 2, "growth": 0, "seeds": 1}
    file.write_text(Path(opinions).read_text())
    compare(tiny_encoder, str(file), "probe", tmp_path / "out", **terms)
    before = (tmp_path / "out" / "comparison.json").read_bytes()
    file.write_text(file.read_text().replace("awful,bad", "awful,good", 10))
    with pytest.raises(Changed, match=r"own\.csv has changed"):
        compare(tiny_encoder, str(file), "probe,bitfit", tmp_path / "out", **terms)
    assert (tmp_path / "out" / "comparison.json").read_bytes() == before


def test_terms_that_cannot_be_are_refused_before_anything_is_trained(tiny_encoder, opinions, tmp_path):
    refused = {"seeds": (0, "seeds must"), "rates": (0, "rates must"), "steps": (0, "steps must")}
    refused |= {"forgetting": ("shakespeare", "for language models"), "prompts": (4, "for language models")}
    refused |= {"margin": (1.5, "0.015 is 1.5 points"), "stop": (threading.Event(), "workers=1")}
    for name, (value, says) in refused.items():
        with pytest.raises(BadValue, match=says):
            compare(tiny_encoder, opinions, "lora", tmp_path / "out", **{**SMALL, "workers": 2, name: value})
    with pytest.raises(NotFound):
        compare("minilmm", opinions, "lora", tmp_path / "out", **SMALL)
    assert not (tmp_path / "out").exists()


def test_a_language_model_has_perplexity_and_what_it_forgot(tiny_causal, tmp_path):
    texts = {name: tmp_path / f"{name}.txt" for name in ("psalms", "plays")}
    for name, file in texts.items():
        file.write_text("\n\n".join(f"{name} {n} " + f"{name[: n % 5]} and so on " * 40 for n in range(24)))
    terms = {**SMALL, "rates": 1, "max_length": 32, "forgetting": str(texts["plays"])}
    found = compare(tiny_causal, str(texts["psalms"]), "lora,lora:rank=1", tmp_path / "out", **terms).to_json()
    assert found["metric"] == "perplexity"
    for one in found["methods"]:
        forgotten = one["forgetting"]
        assert one["error"] is None
        assert one["perplexity"]["n"] == forgotten["after"]["n"] == 2
        assert forgotten["before"] > 1
        assert all(value != forgotten["before"] for value in forgotten["after"]["each"])
        assert one["edge"]  # one rate is no grid
        assert one["perplexity"]["mean"] < 400
    entry = shown(found)["against"]["LoRA r1 q,v"]["LoRA r8 q,v"]
    first, second = (unpacked(one["answers"]) for one in found["methods"])
    assert entry["difference"] == pytest.approx(first.mean() - second.mean(), abs=1e-5)  # of minus the loss
    assert (first < 0).all()


def test_what_another_model_made_of_another_text_is_not_taken_for_this_ones(tmp_path, monkeypatch):
    """One folder may serve many comparisons."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text.txt").write_text(name)
    monkeypatch.setattr(afterwards, "_base", lambda recipe, _: (recipe.model, None))
    monkeypatch.setattr(afterwards, "perplexity_on", lambda model, _, text: len(model) + ord(Path(text).read_text()))
    asked = [(model, str(tmp_path / name / "text.txt")) for model in ("small", "larger") for name in ("a", "b")]
    found = [afterwards.before(Recipe(model, "kjv"), text, tmp_path / "out") for model, text in asked]
    assert found == [102, 103, 103, 104]


def test_a_task_that_is_judged_by_a_correlation_is_refused(tiny_encoder, tmp_path):
    """STS-B: no row has a score of its own, so seeds and rows can give no verdict."""
    (tmp_path / "train.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "label": 1.5}\n')
    (tmp_path / "validation.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "label": 1.5}\n')
    with pytest.raises(BadValue, match="a correlation"):
        compare(tiny_encoder, f"glue:sts-b:{tmp_path}", "head,lora", tmp_path / "out", **SMALL)


def test_stopped_it_tells_of_what_is_finished_and_the_same_call_gives_what_it_would_have_given(
    compared, tiny_encoder, opinions, tmp_path
):
    stop, told = threading.Event(), []
    how = {"stop": stop, "note": lambda made: told.append([one.label for one in made.results]) or stop.set()}
    stopped = compare(tiny_encoder, opinions, PAIR, tmp_path, **how, **SMALL)
    assert told == [["probe"]]
    assert "repeat the call to resume" in stopped.results[1].error
    assert not (tmp_path / "comparison.json").exists()
    repeated = compare(tiny_encoder, opinions, PAIR, tmp_path, **SMALL).to_json()
    assert [facts(one) for one in repeated["methods"]] == [facts(one) for one in compared[0]["methods"][:2]]


def facts(one: dict) -> dict:
    """What must not depend on when it was stopped, nor on the other methods."""
    return {name: value for name, value in one.items() if name not in ("seconds", "against")}


def test_methods_compared_at_once_come_out_as_one_after_another(compared, tiny_encoder, opinions, tmp_path):
    alone, _, _ = compared
    heard: list[str] = []
    notes: list[Comparison] = []
    found = compare(tiny_encoder, opinions, PAIR, tmp_path, workers=2, say=heard.append, note=notes.append, **SMALL)
    assert [len(one.results) for one in notes] == [1, 2]
    assert notes[-1].to_json() == found.to_json()  # in the order of the methods, whichever came first
    assert [plain(one) for one in found.to_json()["methods"]] == [plain(one) for one in alone["methods"][:2]]
    assert heard[0] == "running 2 methods at once, each in its own process"
    assert any("tuning lr over" in words for words in heard)


def plain(one: dict) -> dict:
    """What must not depend on how many threads multiply: not the last digits of a loss."""
    return {name: one[name] for name in ("label", "lr", "trainable", "runs", "error", "file_bytes", "peak_bytes")}


def test_full_fine_tuning_is_computed_in_fp32_where_the_rest_may_be_in_less():
    terms = terms_of("minilm", "rt", {"dtype": "nf4"})
    assert terms.recipe(contenders("full")[0]).computed["dtype"] == "fp32"
    assert terms.recipe(LoRA()).computed["dtype"] == "nf4"
