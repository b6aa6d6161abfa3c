import json
import math
import sys
import threading
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
from nltk.translate.nist_score import corpus_nist
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu, corpus_chrf

from lora_lab import IA3, BadValue, LoRA, NotFound, Recipe, Store, load_task, verdicts
from lora_lab.errors import Changed, Failed
from lora_lab.experiments import afterwards
from lora_lab.experiments import compare as module
from lora_lab.experiments.afterwards import score_answers, text_scores
from lora_lab.experiments.compare import Comparison, Terms, compare
from lora_lab.experiments.margins import shown, unpacked
from lora_lab.experiments.results import Runs
from lora_lab.experiments.study import Study, contenders, label
from lora_lab.files import read_json, write_atomically
from lora_lab.training.assets import shipped
from lora_lab.training.runs import stores
from tests.conftest import PLAIN, assert_raises, made_run

TERMS = {"steps": 6, "rates": 2, "growth": 1, "seeds": 2, "max_length": 64, **PLAIN}
METHODS, PAIR = "probe,lora:rank=2,prompt:tokens=3,full", "probe,lora:rank=2"


def test_contenders_are_named_by_their_settings():
    found = contenders("lora, lora:rank=4:targets=q+k+v:rslora=true:alpha=8.5")
    assert found == [LoRA(), LoRA(rank=4, targets=("q", "k", "v"), rslora=True, alpha=8.5)]
    assert [label(method) for method in found] == ["LoRA r8 q,v", "LoRA r4 q,k,v alpha 8.5 rslora True"]
    assert contenders(["lora:rank=2", LoRA()]) == [LoRA(rank=2), *contenders(LoRA())]
    (ia3,) = contenders("ia3:targets=q:feedforward=none")
    assert (ia3, label(ia3)) == (IA3(targets=("q",), feedforward=()), "ia3 targets q feedforward none")
    dtypes = [Terms(Recipe("minilm", "rt", dtype="nf4")).recipe(m).computed["dtype"] for m in contenders("full,lora")]
    assert dtypes == ["fp32", "nf4"]  # full fine-tuning needs weights that train


def test_invalid_contender_is_refused():
    assert_raises("unknown method 'loar'", contenders, "lora,loar")
    assert_raises("no option 'rnk'", contenders, "lora:rnk=4")
    assert_raises("option=value", contenders, "lora:rank")
    assert_raises("integer", contenders, "lora:rank=x")
    assert_raises("sets rank twice", contenders, "lora:rank=4:rank=8")
    almost_equal = "lora:alpha=8.0000001,lora:alpha=8.0000002"
    assert_raises("named twice: .*settings that differ more", contenders, almost_equal)
    assert_raises("write lora:rank=4:targets=all-linear and --dtype nf4", contenders, "lora,qlora:rank=4")
    assert_raises("sets name twice", contenders, "lora:name=full")
    assert_raises("at least one method", contenders, " , ")
    assert_raises("method must be", contenders, [LoRA])


def test_impossible_terms_are_refused_before_training(tiny_encoder, opinions, tmp_path):
    invalid = {"rates": (0, "rates must"), "steps": (0, "steps must"), "stop": (threading.Event(), "workers=1")}
    invalid |= {"lr": (1e-3, "pass rates instead"), "seed": (9, "pass seeds"), "method": (LoRA(), "pass methods")}
    invalid |= {"forgetting": ("shakespeare", "for language models"), "prompts": (4, "for language models")}
    invalid |= {"minutes": (5, "not both"), "workers": (0, "workers must"), "base": (1, "no field 'base'")}
    terms = [*invalid.items(), ("foo", (3, "foo")), ("seeds", (0, "seeds must")), ("seeds", (2.5, "seeds must"))]
    terms += [("margin", (margin, "0.015 is 1.5 points")) for margin in (1.5, "wide")]
    for name, (value, message) in terms:
        with pytest.raises(BadValue, match=message):
            compare(tiny_encoder, opinions, "lora", tmp_path / "out", **{**TERMS, "workers": 2, name: value})
    assert_raises("not None", compare, tiny_encoder, opinions, "lora", None, **TERMS)
    assert_raises("minutes must", compare, tiny_encoder, opinions, "lora", tmp_path / "out", minutes="5", seeds=2)
    assert_raises("9999 exceeds", compare, tiny_encoder, opinions, "lora", tmp_path / "out", minutes=5, max_length=9999)
    with pytest.raises(NotFound):
        compare("minilmm", opinions, "lora", tmp_path / "out", **TERMS)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def compared(tiny_encoder, opinions, tmp_path_factory):
    out, messages = tmp_path_factory.mktemp("compared"), []
    return compare(tiny_encoder, opinions, METHODS, out, say=messages.append, **TERMS).to_json(), out, messages


@pytest.fixture(scope="module")
def rows(compared) -> dict[str, dict]:
    return {row["method"]: row for row in compared[0]["methods"]}


def test_methods_are_tuned_and_scored_on_equal_terms(compared):
    found, out, messages = compared
    reference = read_json(shipped("data/results/compare/minilm_rt.json"))
    assert set(found) >= set(reference)
    assert found["rates"]["LoRA r2 q,v"] == [1e-3, 2e-3]
    assert (found["seeds"], found["tuning_seeds"], found["metric"]) == ([0, 1], [1000], "accuracy")
    for row in found["methods"]:
        tuned = row["tried"][0].keys() - {"validation", "each"}
        runs = [Store(out / "runs").read(name) for name in row["runs"]]
        assert set(row) >= set(reference["methods"][0])
        assert (row["error"], row["accuracy"]["n"]) == (None, 2)
        assert len(row["tried"]) == 3  # with two values, both are ends, so a third is added
        assert tuned == ({"l2"} if row["method"] == "probe" else {"lr"})
        assert {row["lr"], row["settings"].get("l2")} & {tried[name] for tried in row["tried"] for name in tuned}
        assert [run.metrics["accuracy"] for run in runs] == row["accuracy"]["each"]
        assert [(run.recipe.seed, run.recipe.steps) for run in runs] == [(0, 6), (1, 6)]
        assert {run.environment["dtype"] for run in runs} == {"fp32"}
    assert found["seconds"] > 0
    assert "LoRA r2 q,v: tuning lr over 0.001, 0.002" in messages
    assert json.loads((out / "comparison.json").read_text()) == found
    assert {store.name for store in stores(out)} == {"tuning", "runs"}  # files that store costs are not runs


def test_costs_are_predicted_and_measured(rows, recipe):
    lora, prompt, full = (rows[name] for name in ("lora", "prompt", "full"))
    assert (lora["trainable"], lora["head"], lora["added_tokens"]) == (2 * 2 * 2 * (32 + 32), 66, 0)
    assert lora["adapter_bytes"] == pytest.approx(lora["file_bytes"], rel=0.25)
    assert (prompt["trainable"], prompt["added_tokens"]) == (3 * 32, 3)
    assert rows["probe"]["trainable"] == 0
    assert full["trainable"] > 100 * lora["trainable"]
    quantized = module.costs_of(recipe(method=LoRA(rank=2), dtype="nf4+fp32"))
    for row in (lora, full, quantized):
        assert row["peak_bytes"] == pytest.approx(row["predicted_bytes"], rel=0.001)
        assert sum(row["predicted_parts"].values()) == row["predicted_bytes"]
    assert full["peak_bytes"] > 1.5 * lora["peak_bytes"]


def test_methods_are_judged_against_full_and_the_probe(rows):
    assert {name: set(row["against"]) for name, row in rows.items()} == {
        "probe": {"full"}, "lora": {"full", "probe"}, "prompt": {"full", "probe"}, "full": {"probe"},
    }  # fmt: skip
    verdict = rows["lora"]["against"]["full"]
    assert "2 seeds x 16 rows; Holm over 3 pairs" in verdict["words"]
    accuracies = [rows[name]["accuracy"]["mean"] for name in ("lora", "full")]
    assert verdict["difference"] == pytest.approx(accuracies[0] - accuracies[1])
    assert [interval["level"] for interval in verdict["intervals"]] == [90, 95]


def test_stopped_comparison_resumes_to_the_same_result(compared, tiny_encoder, opinions, tmp_path):
    stop, finished = threading.Event(), []

    def on_result(comparison) -> None:
        finished.append([row["label"] for row in comparison.rows])
        stop.set()

    stopped = compare(tiny_encoder, opinions, PAIR, tmp_path, stop=stop, on_result=on_result, **TERMS)
    assert finished == [["probe"]]
    assert "repeat the call to resume" in stopped.rows[1]["error"]
    assert not (tmp_path / "comparison.json").exists()
    write_atomically(left := tmp_path / "tuning" / "unfinished" / ".a.safetensors.0123", b"")  # by a killed process
    resumed = compare(tiny_encoder, opinions, PAIR, tmp_path, **TERMS).to_json()["methods"]
    assert not left.exists()
    for actual, expected in zip(resumed, compared[0]["methods"][:2], strict=True):
        names = expected.keys() - {"seconds", "against"}
        assert {name: actual[name] for name in names} == {name: expected[name] for name in names}


@pytest.mark.usefixtures("fork_server")
def test_methods_in_parallel_give_the_same_result(compared, tiny_encoder, opinions, tmp_path):
    messages: list[str] = []
    notes: list[Comparison] = []
    say, on_result = messages.append, notes.append
    found = compare(tiny_encoder, opinions, PAIR, tmp_path, workers=2, say=say, on_result=on_result, **TERMS).to_json()
    assert [len(comparison.rows) for comparison in notes] == [1, 2]
    assert notes[-1].to_json() == found  # in the order of the methods, not in the order in which they finish
    for actual, expected in zip(found["methods"], compared[0]["methods"][:2], strict=True):
        for name in ("label", "lr", "trainable", "runs", "error", "file_bytes", "peak_bytes"):
            assert actual[name] == expected[name]  # losses may differ in their last digits
    assert messages[0] == "running 2 methods at once, each in its own process"
    assert any("tuning lr over" in message for message in messages)


def test_comparison_on_an_edited_file_is_refused(tiny_encoder, opinions, tmp_path):
    file, terms = tmp_path / "own.csv", {**TERMS, "steps": 2, "growth": 0, "seeds": 1}
    file.write_text(Path(opinions).read_text())
    compare(Path(tiny_encoder), file, "probe", tmp_path / "out", **terms | {"seeds": np.int64(terms["seeds"])})
    before = (tmp_path / "out" / "comparison.json").read_bytes()
    file.write_text(file.read_text().replace("awful,bad", "awful,good", 10))
    with pytest.raises(Changed, match=r"own\.csv has changed"):
        compare(tiny_encoder, str(file), "probe,bitfit", tmp_path / "out", **terms)
    assert (tmp_path / "out" / "comparison.json").read_bytes() == before


def test_language_models_have_perplexity_and_forgetting(tiny_causal, tmp_path):
    texts = {name: tmp_path / f"{name}.txt" for name in ("psalms", "plays")}
    for name, file in texts.items():
        file.write_text("\n\n".join(f"{name} {n} " + f"{name[: n % 5]} and so on " * 40 for n in range(24)))
    terms = {**TERMS, "rates": 1, "max_length": 32, "forgetting": str(texts["plays"])}
    found = compare(tiny_causal, str(texts["psalms"]), "lora,lora:rank=1", tmp_path / "out", **terms).to_json()
    assert found["metric"] == "perplexity"
    for row in found["methods"]:
        forgetting = row["forgetting"]
        assert row["error"] is None
        assert row["perplexity"]["n"] == forgetting["after"]["n"] == 2
        assert forgetting["before"] > 1
        assert all(value != forgetting["before"] for value in forgetting["after"]["each"])
        assert row["edge"]  # a single rate is always at the edge
        assert row["perplexity"]["mean"] < 400
    entry = shown(found)["against"]["LoRA r1 q,v"]["LoRA r8 q,v"]
    first, second = (unpacked(row["answers"]) for row in found["methods"])
    assert entry["difference"] == pytest.approx(first.mean() - second.mean(), abs=1e-5)  # answers are minus the loss
    assert (first < 0).all()


def test_perplexity_before_training_is_cached_per_model_and_text(tmp_path, monkeypatch):
    def score(opened) -> SimpleNamespace:
        return SimpleNamespace(metrics={"perplexity": len(opened.model.name) + ord(Path(opened.task).read_text())})

    monkeypatch.setattr(afterwards, "load_model", lambda name, **_: SimpleNamespace(name=name, to=print))
    monkeypatch.setattr(afterwards, "load_tokenizer", Mock())
    monkeypatch.setattr(afterwards, "load_task", lambda name: name)
    monkeypatch.setattr(afterwards.Opened, "score", score)
    found = []
    for model in ("small", "larger"):
        for letter in ("a", "b"):
            text = tmp_path / letter / "text.txt"
            text.parent.mkdir(exist_ok=True)
            text.write_text(letter)
            found.append(afterwards.before(Recipe(model, "kjv"), str(text), tmp_path / "out"))
    assert found == [102, 103, 103, 104]
    monkeypatch.setattr(afterwards.Opened, "score", Mock(side_effect=AssertionError("scored again")))
    assert afterwards.before(Recipe("larger", "kjv"), str(text), tmp_path / "out") == 104


def test_groups_share_fields_and_start_without_runs():
    study = Study.of("minilm", "rt", {"a": LoRA(rank=1), "b": "lora:rank=2", "c": {"method": "full", "lr": 1e-4}}, 2)
    assert study.groups["a"][1] == replace(study.groups["a"][0], seed=1)
    assert study.groups["b"][0].method == LoRA(rank=2)
    assert [recipe.lr for recipe in study.groups["c"]] == [1e-4, 1e-4]
    assert study.missing == "6 of 6 runs are missing: stopped; repeat the call to resume"
    assert study.verdicts({"rank": ("b", "a")}) == {}
    assert_raises(r"no group 'd'; nearest: a, b, c", study.verdicts, {"rank": ("b", "d")}, error=NotFound)
    for invalid in ({}, {"method": "lora", "lrr": 1}):
        with pytest.raises(BadValue):
            Study.of("minilm", "rt", {"a": invalid})
    assert_raises("margin must", Study.of, "minilm", "rt", {"a": LoRA()}, margin=0)  # before anything is trained
    own = {"few": {"method": "lora", "model": "a"}}
    few = Study.of("", "rt", own, np.int64(3), examples=50, subset=4).groups["few"]
    assert [(recipe.model, recipe.seed, recipe.subset) for recipe in few] == [("a", 0, 4), ("a", 1, 5), ("a", 2, 6)]


def test_verdicts_use_the_seeds_that_both_groups_finished():
    labels = np.array(load_task("rt").test.labels)
    study = Study.of("minilm", "rt", {"good": LoRA(rank=2), "bad": LoRA(rank=1)}, 3)
    runs = {}
    for name, finished, errors in (("good", 3, 0.1), ("bad", 2, 0.3)):
        for recipe in study.groups[name][:finished]:
            wrong = np.random.default_rng([recipe.seed, int(1000 * errors)]).random(len(labels)) < errors
            answers = np.where(wrong, 1 - labels, labels)
            runs[recipe] = made_run(recipe, answers, {"dtype": "fp32"}, accuracy=float((answers == labels).mean()))
    study = replace(study, found=runs)
    good, bad = (Runs(tuple(study.runs(name))).scores for name in ("good", "bad"))
    assert good.shape == (3, len(labels))
    assert [run.metrics["accuracy"] for run in study.runs("bad")] == pytest.approx(bad.mean(1).tolist())
    assert study.missing.startswith("1 of 6 runs are missing")
    expected = verdicts({"good": good[:2], "bad": bad}, "bad")["good"]
    assert study.verdicts({"rank": ("good", "bad", "better")})["rank"] == expected
    assert expected.outcome == "better"


def test_methods_are_timed_and_steps_are_cached(tiny_encoder, opinions, tmp_path):
    terms = Terms(Recipe(tiny_encoder, opinions, batch=4, **PLAIN), rates=2, growth=1, seeds=3)
    methods = [LoRA(rank=2), LoRA(targets="c_attn")]  # BERT has no c_attn
    messages: list[str] = []
    steps = module.steps_within(60, terms, terms.loaded(), methods, tmp_path, messages.append)
    assert steps > 100
    assert "in a pack of 2" in messages[0]
    assert "not timed" in messages[1]
    assert f"{steps} steps per run" in messages[2]
    assert module.steps_within(60, terms, terms.loaded(), methods, tmp_path, messages.append) == steps
    assert len(messages) == 4  # nothing was timed again
    with pytest.raises(NotFound, match="c_attn"):  # without any timing, no number of steps is stored
        module.steps_within(60, terms, terms.loaded(), methods[1:], tmp_path, messages.append)
    assert_raises("lower the rate", module.pack_timed, [replace(terms.base, lr=1e30)], error=Failed)


def test_plan_counts_loads_and_scoring_and_scales_only_generation(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "pack_timed", lambda pack, download: module.Timing(60.0, 1.0, 30.0))
    monkeypatch.setattr(module, "Sweep", MagicMock())

    def spent(run, forgetting, prompts, **_) -> dict[str, float]:
        return {"seconds": 600.0 * bool(forgetting) + 15.0 * prompts}

    monkeypatch.setattr(module, "afterwards", spent)
    restaurants = Recipe("smollm2", "restaurants")
    for method, terms, minutes in (
        (LoRA(), {}, 3),  # a pack each for tuning, growth and the final seeds
        (LoRA(dora=True), {}, 1 * (2 + 1 + 3)),
        (LoRA(), {"prompts": 8, "forgetting": "shakespeare"}, 3 + 3 * (10 + 2 * 1)),
    ):
        terms = Terms(restaurants, rates=2, growth=1, seeds=3, **terms)
        task = SimpleNamespace(test=[1, 2], validation=[1])
        steps = module.steps_within(60, terms, task, [method], tmp_path, print)
        scored = (3 + 3 * 2) * 0.5  # three rates are validated; three seeds are tested, on twice the rows
        assert steps == int((0.8 * 60 - minutes - scored) * 60 / (2 + 1 + 3))


def test_unpackable_runs_do_not_share_a_step(recipe, monkeypatch):
    """DeBERTa, for example, trains one run after the other."""
    pack = [recipe(method=LoRA(rank=2), lr=rate) for rate in (1e-3, 2e-3)]
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=partial(next, count())))  # a second per step
    assert module.pack_timed(pack).step == 1 / 2
    monkeypatch.setattr("lora_lab.training.pack.stack_members", Mock(side_effect=BadValue("cannot be packed")))
    assert module.pack_timed(pack).step == 1


# ---- generated texts

ANSWERS = ["The Quince is a cheap pub.", "Near Tilney Park, there is a pub called Quince!", "Cotto serves Thai food."]
REFERENCES = [
    ["The Quince is a cheap pub by the river.", "By the river is The Quince, a pub."],
    ["Quince is a pub near Tilney Park.", "There is a pub called Quince, near Tilney Park."],
    ["Cotto serves Thai food for less than £20.", "At Cotto the food is Thai."],
]


def test_scores_equal_those_of_the_packages():
    streams = [list(stream) for stream in zip(*REFERENCES, strict=True)]
    scores = text_scores(ANSWERS, REFERENCES)
    assert scores["bleu"] == corpus_bleu(ANSWERS, streams, lowercase=True).score
    assert scores["chrf"] == corpus_chrf(ANSWERS, streams).score
    scorer = RougeScorer(["rougeL"])
    each = [
        max(scorer.score(reference, text)["rougeL"].fmeasure for reference in references)
        for text, references in zip(ANSWERS, REFERENCES, strict=True)
    ]
    assert scores["rouge_l"] == pytest.approx(100 * sum(each) / 3)
    words = [text.lower().replace(".", " .").replace("!", " !").replace(",", " ,").split() for text in ANSWERS]
    known = [[r.lower().replace(".", " .").replace(",", " ,").split() for r in group] for group in REFERENCES]
    assert scores["nist"] == pytest.approx(corpus_nist(known, words, n=5))


def test_tasks_and_machines_without_what_scores_need_are_refused(opinions, monkeypatch):
    score = partial(score_answers, None, None)
    assert_raises("has no meaning representations", score, load_task(opinions), prompts=1)
    assert_raises("prompts must be an integer of at least 1", score, load_task("restaurants"), prompts=0)
    for name in ("nltk", "rouge-score", "sacrebleu"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name.replace("-", "_"), None)
            assert_raises(rf"needs {name}: pip install 'lora-lab\[metrics\]'$", text_scores, ANSWERS, REFERENCES)


def test_scores_of_plugins_are_kept_for_all_texts_and_for_each(monkeypatch):
    task = load_task("restaurants")
    monkeypatch.setattr(afterwards, "generate", lambda *_: task.test.texts[:2])
    scores = score_answers(None, None, task, prompts=2)
    assert scores["bleu"] == pytest.approx(100)
    assert sum(scores["kinds"].values()) == sum(len(row["slots"]) for row in scores["texts"]) > 0


def test_evaluate_prints_text_scores_next_to_perplexity(tiny_causal, voices, tmp_path, lora_lab):
    (tmp_path / "test.txt").write_text("name : Quince | area : riverside||Quince is by the river .\n")
    (tmp_path / "valid.txt").write_text("name : Fable | food : Thai||Fable is Thai .\n")
    words = ["--model", tiny_causal, "--dtype", "fp32", "--attention", "eager", "--device", "cpu", "--prompts", "2"]
    done = lora_lab("evaluate", str(voices["json"]), "--task", str(tmp_path), *words, "--json")
    metrics = json.loads(done.stdout)["metrics"]
    assert set(metrics) == {"perplexity", "loss", "n", "slot_errors", "bleu", "chrf", "rouge_l", "nist"}
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    assert metrics["n"] == 1
    assert metrics["slot_errors"] >= 1
