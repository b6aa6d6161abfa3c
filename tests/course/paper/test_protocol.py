"""The paper's protocol: recipes as printed, plans without model or data, and whole runs on tiny random models."""

import json
import math

import pytest

from lora_course.paper import glue as glue_files
from lora_course.paper.protocol import FACTS, plan, plan_in_words, recipes, result_in_words, run
from lora_lab import FullFineTuning, LoRA, memory
from lora_lab.errors import BadValue, NotFound
from lora_lab.experiments.afterwards import text_scores
from lora_lab.training.recipe import recipe_from
from lora_lab.training.runs import Store
from tests.conftest import PLAIN

TASKS = ["mnli", "sst-2", "mrpc", "cola", "qnli", "qqp", "rte", "sts-b"]

# ---- recipes


def test_each_hyperparameter_says_where_it_stands():
    for recipe in (one for t in ("table2", "table3") for v in ("paper", "repo") for one in recipes(t, variant=v)):
        assert all(given.source for given in recipe.settings.values())
        assert {"batch", "epochs", "lr", "max_length", "weight_decay", "seeds"} <= recipe.settings.keys()
        assert ("warmup_ratio" in recipe.settings) != ("warmup_steps" in recipe.settings)
        assert recipe.published


def test_tables_9_and_10_are_as_printed():
    for model, row, name, expected in (
        ("roberta-base", "LoRA", "epochs", [30, 60, 30, 80, 25, 25, 80, 40]),
        ("roberta-large", "LoRA", "max_length", [128, 128, 512, 128, 512, 512, 512, 512]),
        ("roberta-large", "AdapterP 3.0M dagger", "lr", [3e-5, 3e-5] + [3e-4] * 6),
        ("deberta-v2-xxlarge", "LoRA", "weight_decay", [0, 0.01, 0.01, 0, 0.01, 0.01, 0.01, 0.1]),
    ):
        found = recipes("table2", model=model, row=row)
        assert [recipe.task for recipe in found] == TASKS
        assert [recipe[name] for recipe in found] == expected


def test_paper_and_scripts_differ_where_they_are_known_to():
    for model, task, name, paper, repo in (
        ("roberta-base", "cola", "alpha", 8, 16),
        ("deberta-v2-xxlarge", "rte", "rank", 8, 16),
        ("deberta-v2-xxlarge", "mnli", "warmup_steps", None, 1000),
    ):
        found = (recipes("table2", variant=v, model=model, task=task)[0].get(name) for v in ("paper", "repo"))
        assert tuple(found) == (paper, repo)
    paper, repo = (recipes("table3", variant=v, model="gpt2-medium")[0] for v in ("paper", "repo"))
    assert {name for name in paper.settings if paper[name] != repo[name]} == {"length_penalty"}
    assert (paper.published["bleu"], "68.65 (V100)" in paper.expected) == ("70.4±0.1", True)


def test_three_tasks_start_from_mnli_and_notes_say_what_differs():
    assert {r.task for r in recipes("table2", row="LoRA") if r.warm == "mnli"} == {"mrpc", "rte", "sts-b"}
    assert not any(r.warm for r in recipes("table2", row="LoRA dagger"))
    copied = [r for r in recipes("table2", row="FT") if r.task in ("mrpc", "rte", "sts-b")]
    assert not any(r.warm for r in copied)  # the figures that the paper copied were got without
    assert all(any("no start from MNLI" in note for note in r.notes) for r in copied)
    assert any("4.7M" in note for note in recipes("table2", model="deberta-v2-xxlarge")[0].notes)
    assert recipes("table2", variant="repo", model="roberta-base", task="cola")[0].batch == 2 * 32


def test_what_is_not_there_is_named():
    for ask, error, words in (
        (lambda: recipes("table4"), NotFound, "table2 and table3"),
        (lambda: recipes("table2", task="sst2"), NotFound, "nearest: sst-2"),
        (lambda: recipes("table2", variant="readme"), BadValue, "paper, repo"),
        (lambda: plan("table3", gpu="V1000"), NotFound, "nearest"),
    ):
        with pytest.raises(error, match=words):
            ask()


# ---- plans


@pytest.fixture(scope="module")
def table2():
    """CoLA's plans, and some of others; all would take four times as long."""
    deberta = plan("table2", model="deberta-v2-xxlarge", task="rte")
    plans = [*plan("table2", task="cola"), *plan("table2", task="mnli", row="LoRA"), *deberta]
    return {(d["model"], d["row"], d["task"]): d for d in plans}


def test_steps_and_trainable_parameters_are_those_that_the_paper_can_only_have_meant(table2):
    assert table2["roberta-base", "LoRA", "cola"]["steps"] == 80 * math.ceil(8551 / 32)
    assert table2["roberta-large", "LoRA", "mnli"]["steps"] == 10 * math.ceil(392_702 / 4)
    assert {d["steps"] for d in plan("table3")} == {5 * math.ceil(42_061 / 8)}  # the repository's last is 26,289
    assert table2["roberta-base", "LoRA", "cola"]["trainable"] == 294_912
    assert table2["roberta-large", "LoRA", "cola"]["trainable"] == 786_432
    assert {d["trainable"] for d in plan("table2", variant="repo", model="deberta-v2-xxlarge")} == {4_718_592}
    assert [d["trainable"] for d in plan("table3")] == [393_216, 737_280]


def test_memory_and_time_are_the_accountants(table2):
    cola, full = (table2["roberta-base", row, "cola"] for row in ("LoRA", "FT"))
    asked = {"batch": 32, "seq": 512, "dtype": "bf16", "optimizer": "adamw-fused", "padded": True, "dropout": 0.1}
    assert cola["memory"] == cola["together"] == memory("roberta-base", LoRA(8, 8, ("q", "v")), **asked).peak
    assert full["memory"] == memory("roberta-base", FullFineTuning(), **asked).peak
    per_step = [d["seconds"] / d["steps"] for d in (cola, full)]
    assert per_step[0] < per_step[1] < 1.6 * per_step[0]  # three products a layer against two and a little
    rte = plan("table2", variant="repo", model="roberta-large", task="rte")[0]  # a script on eight GPUs
    assert rte["memory"] < rte["together"]
    assert {model for (model, _, _), d in table2.items() if d["at_least"]} == {"deberta-v2-xxlarge"}
    assert "at least" in plan_in_words(table2["deberta-v2-xxlarge", "LoRA", "rte"])


def test_what_is_missing_is_said_with_how_to_bring_it(table2):
    lacks = [one["bring"] for one in plan("table3", model_path="smollm2")[0]["missing"]]
    assert any("--data" in one for one in lacks)
    assert not any("--model-path" in one for one in lacks)  # a bundled model is here
    assert "use the authors' own" in table2["deberta-v2-xxlarge", "LoRA", "rte"]["missing"][0]["bring"]


def test_a_plan_is_plain_values_and_counts_the_data_that_are_there(table2, roberta, glue):
    told = json.loads(json.dumps(table2["roberta-base", "LoRA", "mnli"]))
    assert told["settings"]["lr"] == {"value": 5e-4, "source": "Table 9"}
    assert told["rows"]["source"].startswith("published")
    assert FACTS["tasks"].keys() == glue_files.TASKS.keys() | {"e2e"}
    dry = plan("table2", model="roberta-base", task="rte", row="LoRA", model_path=roberta, data=glue)[0]
    assert (dry["rows"]["value"], dry["steps"]) == (24, 80)
    assert not any("--data" in one["bring"] or "--model-path" in one["bring"] for one in dry["missing"])


# ---- runs


@pytest.fixture(scope="module")
def cola(roberta, glue, tmp_path_factory):
    """CoLA, two seeds of three epochs; with the folder that they are kept in."""
    out = tmp_path_factory.mktemp("cola")
    return run("table2", task="cola", model_path=roberta, data=glue, out=out, seeds=2, steps_limit=3, **PLAIN), out


def test_cola_is_trained_by_the_recipe_and_judged_by_matthews(cola):
    result, out = cola
    assert (result["steps"], result["full_steps"], len(result["seeds"])) == (3, 80, 2)  # 24 rows are one batch of 32
    for seed in result["seeds"]:
        made = recipe_from(seed["settings"])
        assert (made.lr, made.batch, made.method.rank, made.method.alpha) == (4e-4, 32, 8, 8)
        assert (made.dropout, made.weight_decay, made.clip, made.max_length) == (True, 0.0, 1.0, 512)
        epochs = [row for row in seed["validation"] if row["step"]]
        assert seed["best"]["matthews"] == max(row["matthews"] for row in epochs)
        assert seed["last"] == epochs[-1]
    (row,) = result["over_seeds"]
    assert row["best"] >= row["last"]
    assert (row["metric"], row["published"]) == ("matthews", "63.4±1.2")
    assert json.loads((out / "protocol-table2-cola.json").read_text())["over_seeds"] == result["over_seeds"]


def test_what_differs_from_the_paper_is_said_and_what_is_done_is_not_made_again(cola, roberta, glue):
    said = result_in_words(cola[0])
    for words in ("3 of 80 steps", f"{roberta} is not roberta-base", "24 rows", "2 of 5 seeds", "best epoch"):
        assert words in said
    stamps = {file: file.stat().st_mtime_ns for file in cola[1].rglob("*.safetensors")}
    again = run("table2", task="cola", model_path=roberta, data=glue, out=cola[1], seeds=2, steps_limit=3, **PLAIN)
    assert again["over_seeds"] == cola[0]["over_seeds"]
    assert stamps == {file: file.stat().st_mtime_ns for file in cola[1].rglob("*.safetensors")}


def test_sts_b_is_a_number_and_mnli_starts_it(roberta, glue, tmp_path):
    options = {"model_path": roberta, "data": glue, "out": tmp_path, "seeds": 1, "steps_limit": 2, **PLAIN}
    mnli = run("table2", task="mnli", **options)["seeds"][0]
    assert mnli["last"]["accuracy"] in [n / 15 for n in range(16)]  # matched and mismatched together
    start = Store(tmp_path).read(mnli["hash"]).adapter
    warm, cold = (run("table2", task="sts-b", start=folder, **options) for folder in (start, ""))
    assert {"step", "pearson", "spearman", "loss"} == set(warm["seeds"][0]["last"])
    assert warm["seeds"][0]["validation"] != cold["seeds"][0]["validation"]
    assert "starts from scratch" in result_in_words(cold)
    assert "starts from scratch" not in result_in_words(warm)
    with pytest.raises(BadValue, match="omit start"):
        run("table2", task="cola", start=start, **options)
    assert 0 <= run("table2", task="rte", row="FT", **options)["seeds"][0]["last"]["accuracy"] <= 1


def test_e2e_is_trained_decoded_and_scored(tiny_causal, e2e, tmp_path):
    options = {"model_path": tiny_causal, "data": e2e, "out": tmp_path, "seeds": 1, "steps_limit": 2, **PLAIN}
    result = run("table3", **options)
    (seed,) = result["seeds"]
    made = recipe_from(seed["settings"])
    assert (made.method.rank, made.method.alpha, made.method.dropout) == (4, 32, 0.1)
    assert (made.label_smoothing, made.token_mean, made.clip, made.dropout) == (0.1, True, 0.0, False)
    assert result["full_steps"] == 5 * 2  # twelve lines, eight a batch
    kept = json.loads((tmp_path / made.hash / "answers.json").read_text())
    references = [[f"{p} cooks Thai by the river.", f"By the river {p} is Thai."] for p in "IJ"]
    wanted = text_scores([row["text"] for row in kept["texts"]], references)
    assert {name: seed["answers"][name] for name in wanted} == pytest.approx(wanted)
    said = result_in_words(result)
    assert "68.65 (V100)" in said
    assert "cider" in said  # published only
    assert "cooks Thai" not in json.dumps(result)  # no text of the data


def test_what_cannot_be_stops_it_before_training(roberta, glue, tmp_path):
    for options, error, words in (
        ({"steps_limit": 0}, BadValue, "steps_limit must be at least 1"),
        ({"data": "/nowhere"}, NotFound, "no folder"),
        ({"model_path": "no-such-model"}, NotFound, "there is no model"),
        ({"model": "deberta-v2-xxlarge"}, BadValue, "can be planned here but not run: DeBERTa's classifier has a"),
    ):
        with pytest.raises(error, match=words):
            run("table2", **{"task": "rte", "model_path": roberta, "data": glue, "out": tmp_path, **options}, **PLAIN)
    assert not Store(tmp_path).runs()
