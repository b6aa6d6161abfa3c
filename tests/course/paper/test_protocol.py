import json
import math
import random

import pytest
from tokenizers.processors import RobertaProcessing

from lora_course.paper.glue import TASKS
from lora_course.paper.protocol import FACTS, TABLES, VARIANTS, plan, plan_in_words, recipes, result_in_words, run
from lora_lab import FullFineTuning, LoRA, NotFound, Store, memory
from lora_lab.errors import Failed
from lora_lab.experiments.afterwards import text_scores
from lora_lab.training.recipe import recipe_from
from lora_lab.training.runs import failed
from tests.conftest import PLAIN, TWO_LAYERS, assert_raises, make_model, save_tokenizer


@pytest.fixture(scope="session")
def roberta(tmp_path_factory) -> str:
    """The folder of a random RoBERTa whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("roberta")
    special = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    processor = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    vocab_size = save_tokenizer(folder, processor, **special, mask_token="<mask>")
    more = {"vocab_size": vocab_size, "max_position_embeddings": 514, "type_vocab_size": 1}
    make_model("RobertaModel", TWO_LAYERS, **more).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def glue(tmp_path_factory):
    """A folder with CoLA, RTE, STS-B and MNLI, without header lines."""
    folder, rng = tmp_path_factory.mktemp("glue"), random.Random(0)
    nouns = ["a boat", 'the "old" mill', "two foxes", "rain", "her uncle's hat"]
    labels = ["entailment", "neutral", "contradiction"]
    formats = {
        "CoLA": lambda n, a, b: f"gj04\t{n % 2}\t{'' if n % 2 else '*'}\t{a} {'sings' if n % 2 else 'sing of'}.",
        "RTE": lambda n, a, b: f"{n}\t{a}\t{b}\t{('entailment', 'not_entailment')[n % 2]}",
        "STS-B": lambda n, a, b: f"{n}\tg\tf\t2012\t{n}\ts\ts\t{a}\t{b}\t{n % 6 * 0.9:.3f}",
        "MNLI": lambda n, a, b: f"{n}\tp\tq\tg\tb\tb\tp\tp\t{a}\t{b}\t{labels[n % 3]}\t{labels[n % 3]}",
    }
    for task, line in formats.items():
        (folder / task).mkdir()
        dev = {"dev_matched": 6, "dev_mismatched": 9} if task == "MNLI" else {"dev": 10}
        for split, rows in {"train": 24, **dev}.items():
            text = "".join(f"{line(n, *rng.choices(nouns, k=2))}\n" for n in range(rows))
            (folder / task / f"{split}.tsv").write_text(text)
    return folder


def test_every_hyperparameter_has_a_source():
    assert FACTS["tasks"].keys() == TASKS.keys() | {"e2e"}
    for recipe in (r for table in TABLES for variant in VARIANTS for r in recipes(table, variant=variant)):
        assert all(given.source for given in recipe.settings.values())
        assert {"batch", "epochs", "lr", "max_length", "weight_decay", "seeds"} <= recipe.settings.keys()
        assert ("warmup_ratio" in recipe.settings) != ("warmup_steps" in recipe.settings)
        assert recipe.published


def test_paper_and_repository_differ_in_known_settings():
    for model, task, name, *expected in (
        ("roberta-base", "cola", "alpha", 8, 16),
        ("deberta-v2-xxlarge", "rte", "rank", 8, 16),
        ("deberta-v2-xxlarge", "mnli", "warmup_steps", None, 1000),
    ):
        variants = [recipes("table2", variant=v, model=model, task=task)[0] for v in ("paper", "repo")]
        assert [recipe.get(name) for recipe in variants] == expected
    paper, repo = (recipes("table3", variant=v, model="gpt2-medium")[0] for v in ("paper", "repo"))
    assert {name for name in paper.settings if paper[name] != repo[name]} == {"length_penalty"}
    assert paper.published["bleu"] == "70.4±0.1"
    assert "68.65 (V100)" in paper.expected
    assert recipes("table2", variant="repo", model="roberta-base", task="cola")[0].batch == 2 * 32
    decays = [recipe["weight_decay"] for recipe in recipes("table2", model="deberta-v2-xxlarge", row="LoRA")]
    assert decays == [0, 0.01, 0.01, 0, 0.01, 0.01, 0.01, 0.1]  # table 10's
    assert recipes("table2", row="AdapterP 3.0M dagger", task="sst-2")[0]["lr"] == 3e-5
    assert recipes("table2", row="LoRA dagger", task="mrpc")[0].published == {"accuracy": "90.2±1.0"}  # as printed


def test_three_tasks_start_from_mnli():
    assert {r.task for r in recipes("table2", row="LoRA") if r.warm == "mnli"} == {"mrpc", "rte", "sts-b"}
    assert not any(r.warm for r in recipes("table2", row="LoRA dagger"))
    copied = [r for r in recipes("table2", row="FT") if r.task in ("mrpc", "rte", "sts-b")]
    assert not any(r.warm for r in copied)  # the paper copied these results from earlier work
    assert all(any("no start from MNLI" in note for note in r.notes) for r in copied)
    assert any("4.7M" in note for note in recipes("table2", model="deberta-v2-xxlarge")[0].notes)


@pytest.fixture(scope="module")
def plans():
    """Some of table 2's plans, by model, row and task; all of them would take four times as long."""
    deberta = plan("table2", model="deberta-v2-xxlarge", task="rte")
    selected = [*plan("table2", task="cola"), *plan("table2", task="mnli", row="LoRA"), *deberta]
    return {(p["model"], p["row"], p["task"]): p for p in selected}


def test_plan_counts_steps_and_trainable_parameters(plans):
    assert plans["roberta-base", "LoRA", "cola"]["steps"] == 80 * math.ceil(8551 / 32)
    assert plans["roberta-large", "LoRA", "mnli"]["steps"] == 10 * math.ceil(392_702 / 4)
    assert {p["steps"] for p in plan("table3")} == {5 * math.ceil(42_061 / 8)}  # the repository's last is 26,289
    assert plans["roberta-base", "LoRA", "cola"]["trainable"] == 294_912
    assert plans["roberta-large", "LoRA", "cola"]["trainable"] == 786_432
    assert {p["trainable"] for p in plan("table2", variant="repo", model="deberta-v2-xxlarge")} == {4_718_592}
    assert [p["trainable"] for p in plan("table3")] == [393_216, 737_280]


def test_plan_predicts_memory_and_time(plans):
    lora, full = (plans["roberta-base", row, "cola"] for row in ("LoRA", "FT"))
    setup = {"batch": 32, "seq": 512, "dtype": "bf16", "optimizer": "adamw-fused", "padded": True, "dropout": 0.1}
    assert lora["memory"] == lora["together"] == memory("roberta-base", LoRA(8, 8, ("q", "v")), **setup).peak
    assert full["memory"] == memory("roberta-base", FullFineTuning(), **setup).peak
    lora_step, full_step = (p["seconds"] / p["steps"] for p in (lora, full))
    assert lora_step < full_step < 1.6 * lora_step  # three matrix products per layer instead of a little over two
    eight_gpus = plan("table2", variant="repo", model="roberta-large", task="rte")[0]
    assert eight_gpus["memory"] < eight_gpus["together"]
    assert {model for (model, _, _), p in plans.items() if p["at_least"]} == {"deberta-v2-xxlarge"}
    assert "at least" in plan_in_words(plans["deberta-v2-xxlarge", "LoRA", "rte"])


def test_plan_counts_given_rows_and_lists_what_is_missing(plans, roberta, glue):
    published = json.loads(json.dumps(plans["roberta-base", "LoRA", "mnli"]))
    assert published["settings"]["lr"] == {"value": 5e-4, "source": "Table 9"}
    assert published["rows"]["source"].startswith("published")
    missing = [item["bring"] for item in plan("table3", model_path="smollm2")[0]["missing"]]
    assert any("--data" in bring for bring in missing)
    assert not any("--model-path" in bring for bring in missing)  # SmolLM2 is bundled
    (complete,) = plan("table2", model="roberta-base", task="rte", row="LoRA", model_path=roberta, data=glue)
    assert (complete["rows"]["value"], complete["steps"]) == (24, 80)
    assert not any("--data" in item["bring"] or "--model-path" in item["bring"] for item in complete["missing"])


def test_cola_run_follows_the_recipe_and_is_reused(roberta, glue, tmp_path):
    options = {"model_path": roberta, "data": glue, "out": tmp_path, "seeds": 2, "steps_limit": 3, **PLAIN}
    result = run("table2", task="cola", **options)
    assert (result["steps"], result["full_steps"], len(result["seeds"])) == (3, 80, 2)  # 24 rows are one batch of 32
    for seed in result["seeds"]:
        recipe = recipe_from(seed["settings"])
        assert (recipe.lr, recipe.batch, recipe.method.rank, recipe.method.alpha) == (4e-4, 32, 8, 8)
        assert (recipe.dropout, recipe.weight_decay, recipe.clip, recipe.max_length) == (True, 0.0, 1.0, 512)
    (row,) = result["over_seeds"]
    assert (row["metric"], row["published"]) == ("matthews", "63.4±1.2")
    words = result_in_words(result)
    for deviation in ("3 of 80 steps", "is not roberta-base", "24 rows", "2 of 5 seeds", "best epoch"):
        assert deviation in words
    stored = json.loads((tmp_path / "protocol-table2-cola.json").read_text())
    assert stored["over_seeds"] == result["over_seeds"]
    times = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    third = recipe_from(result["seeds"][0]["settings"] | {"seed": 2})
    Store(tmp_path).add(failed(third, "memory ran out"))
    more = options | {"seeds": 3}
    assert run("table2", task="cola", **more)["failed"] == {"2": "memory ran out"}
    assert run("table2", task="cola", **more, again=True)["failed"] == {}
    assert run("table2", task="cola", **options)["over_seeds"] == result["over_seeds"]
    assert times.items() <= {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}.items()


def test_sts_b_run_starts_from_mnli(roberta, glue, tmp_path):
    options = {"model_path": roberta, "data": glue, "out": tmp_path, "seeds": 1, "steps_limit": 4, **PLAIN}
    mnli = run("table2", task="mnli", **options)["seeds"][0]
    assert mnli["last"]["accuracy"] in [n / 15 for n in range(16)]  # matched and mismatched together
    start = Store(tmp_path).read(mnli["hash"]).adapter
    warm, cold = (run("table2", task="sts-b", start=folder, **options) for folder in (start, ""))
    assert {"step", "pearson", "spearman", "loss"} == set(warm["seeds"][0]["last"])
    assert warm["seeds"][0]["validation"] != cold["seeds"][0]["validation"]
    first, last = (epoch for epoch in cold["seeds"][0]["validation"] if epoch["step"])
    assert first["pearson"] != last["pearson"]
    assert cold["seeds"][0]["best"] == max(first, last, key=lambda epoch: epoch["pearson"])
    assert cold["seeds"][0]["last"] == last
    assert "starts from scratch" in result_in_words(cold)
    assert "starts from scratch" not in result_in_words(warm)
    assert_raises("omit start", run, "table2", task="cola", start=start, **options)
    assert_raises("omit prompts", run, "table2", task="sts-b", prompts=3, **options)
    written = (file := tmp_path / "protocol-table2-sts-b.json").read_bytes()
    with pytest.raises(NotFound, match="is not an adapter"):
        run("table2", task="sts-b", start=tmp_path, **options)  # the store instead of one of its runs
    with pytest.raises(Failed, match="has alpha"):  # 8, and the scripts' is 16
        run("table2", task="sts-b", variant="repo", start=start, **options)
    assert file.read_bytes() == written
    full = run("table2", task="rte", row="FT", **options)["seeds"][0]
    assert recipe_from(full["settings"]).method == FullFineTuning()


def test_e2e_run_is_decoded_and_scored(tiny_causal, tmp_path):
    (data := tmp_path / "e2e").mkdir()
    for name, places in (("trainset", "ABCDEF"), ("devset", "GH"), ("testset_w_refs", "IJ")):
        lines = ["mr,ref"]
        for place in places:  # with two references
            meaning = f'"name[{place}], food[Thai], area[riverside]"'
            lines += [f"{meaning},{place} cooks Thai by the river.", f"{meaning},By the river {place} is Thai."]
        (data / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")
    options = {"model_path": tiny_causal, "data": data, "out": tmp_path, "seeds": 1, "steps_limit": 2, **PLAIN}
    result = run("table3", **options)
    (seed,) = result["seeds"]
    recipe = recipe_from(seed["settings"])
    assert (recipe.method.rank, recipe.method.alpha, recipe.method.dropout) == (4, 32, 0.1)
    assert (recipe.label_smoothing, recipe.token_mean, recipe.clip, recipe.dropout) == (0.1, True, 0.0, False)
    assert result["full_steps"] == 5 * 2  # twelve lines, eight per batch
    answers = json.loads(next((tmp_path / "answers").iterdir()).read_text())["texts"]
    references = [[f"{p} cooks Thai by the river.", f"By the river {p} is Thai."] for p in "IJ"]
    expected = text_scores([answer["text"] for answer in answers], references)
    assert {name: seed["answers"][name] for name in expected} == pytest.approx(expected)
    words = result_in_words(result)
    assert "68.65 (V100)" in words
    assert "cider" in words  # published, but not computed
    assert "cooks Thai" not in json.dumps(result)  # the result holds no text of the data


def test_invalid_run_is_refused_before_training(roberta, glue, tmp_path):
    options = {"model_path": roberta, "data": glue, "out": tmp_path, **PLAIN}
    for name, value, message in (("data", "/nowhere", "no folder"), ("model_path", "no-such-model", "is no model")):
        assert_raises(message, run, "table2", task="rte", **options | {name: value}, error=NotFound)
        assert not Store(tmp_path).runs()
