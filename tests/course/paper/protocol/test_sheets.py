"""The paper's recipes: every hyperparameter as the paper or the scripts print it, and where it stands."""

from __future__ import annotations

import pytest

from lora_course.paper.protocol import recipes
from lora_lab.errors import BadValue, NotFound

TASKS = ("mnli", "sst-2", "mrpc", "cola", "qnli", "qqp", "rte", "sts-b")


def test_each_hyperparameter_says_where_it_stands():
    for table in ("table2", "table3"):
        for variant in ("paper", "repo"):
            for recipe in recipes(table, variant=variant):
                assert all(given.source for given in recipe.settings.values())
                assert {"batch", "epochs", "lr", "max_length", "weight_decay", "seeds"} <= recipe.settings.keys()
                assert ("warmup_ratio" in recipe.settings) != ("warmup_steps" in recipe.settings)
                assert recipe.published


@pytest.mark.parametrize(
    ("model", "row", "name", "expected"),
    [
        ("roberta-base", "LoRA", "batch", [16, 16, 16, 32, 32, 16, 32, 16]),
        ("roberta-base", "LoRA", "epochs", [30, 60, 30, 80, 25, 25, 80, 40]),
        ("roberta-base", "LoRA", "lr", [5e-4, 5e-4, 4e-4, 4e-4, 4e-4, 5e-4, 5e-4, 4e-4]),
        ("roberta-base", "LoRA", "alpha", [8] * 8),
        ("roberta-large", "LoRA", "max_length", [128, 128, 512, 128, 512, 512, 512, 512]),
        ("roberta-large", "LoRA", "epochs", [10, 10, 20, 20, 10, 20, 20, 30]),
        ("roberta-large", "LoRA dagger", "epochs", [10, 10, 20, 20, 10, 20, 20, 10]),
        ("roberta-large", "AdapterP 3.0M dagger", "lr", [3e-5, 3e-5] + [3e-4] * 6),
        ("roberta-large", "AdapterH 6.0M dagger", "lr", [3e-5] + [3e-4] * 7),
        ("deberta-v2-xxlarge", "LoRA", "cls_dropout", [0.15, 0, 0, 0.1, 0.1, 0.2, 0.2, 0.2]),
        ("deberta-v2-xxlarge", "LoRA", "weight_decay", [0, 0.01, 0.01, 0, 0.01, 0.01, 0.01, 0.1]),
    ],
)
def test_tables_9_and_10_are_as_printed(model, row, name, expected):
    found = recipes("table2", model=model, row=row)
    assert [recipe.task for recipe in found] == list(TASKS)
    assert [recipe[name] for recipe in found] == expected


def test_paper_and_scripts_differ_where_they_are_known_to():
    def both(model, task, name):
        return tuple(recipes("table2", variant=v, model=model, task=task)[0].get(name) for v in ("paper", "repo"))

    assert both("roberta-base", "cola", "alpha") == (8, 16)
    assert both("roberta-base", "cola", "weight_decay") == (0.0, 0.1)
    assert both("roberta-large", "cola", "lr") == (2e-4, 3e-4)
    assert both("roberta-large", "sst-2", "max_length") == (128, 512)
    assert both("deberta-v2-xxlarge", "rte", "rank") == (8, 16)
    assert both("deberta-v2-xxlarge", "mnli", "warmup_steps") == (None, 1000)
    assert recipes("table2", variant="repo", model="roberta-base", task="cola")[0].batch == 2 * 32


def test_beam_search_differs_in_the_length_penalty_alone():
    paper, repo = (recipes("table3", variant=v, model="gpt2-medium")[0] for v in ("paper", "repo"))
    assert {name for name in paper.settings if paper[name] != repo[name]} == {"length_penalty"}
    assert (paper["length_penalty"], repo["length_penalty"]) == (0.9, 0.8)
    assert (paper["beams"], paper["no_repeat_ngram"], paper["label_smoothing"]) == (10, 4, 0.1)
    assert "68.65 (V100)" in paper.expected
    assert paper.published["bleu"] == "70.4±0.1"


def test_three_tasks_start_from_mnli_and_the_restricted_setting_does_not():
    assert {r.task for r in recipes("table2", row="LoRA") if r.warm == "mnli"} == {"mrpc", "rte", "sts-b"}
    assert not any(r.warm for r in recipes("table2", row="LoRA dagger"))
    copied = [r for r in recipes("table2", row="FT") if r.task in ("mrpc", "rte", "sts-b")]
    assert not any(r.warm for r in copied)  # the figures that the paper copied were got without
    assert all(any("no start from MNLI" in note for note in r.notes) for r in copied)


def test_rank_8_on_deberta_is_said_not_to_be_what_the_table_counts():
    assert any("4.7M" in note for note in recipes("table2", model="deberta-v2-xxlarge")[0].notes)


def test_what_is_not_there_is_named():
    with pytest.raises(NotFound, match="table2 and table3"):
        recipes("table4")
    with pytest.raises(NotFound, match="nearest: sst-2"):
        recipes("table2", task="sst2")
    with pytest.raises(BadValue, match="paper, repo"):
        recipes("table2", variant="readme")
    with pytest.raises(BadValue, match="nearest: lr"):
        recipes("table2")[0]["lrr"]
