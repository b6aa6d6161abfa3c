"""The dry run: steps, parameters, memory, time and what is missing, without model, data or GPU."""

from __future__ import annotations

import json
import math

import pytest

from lora_course.paper import glue
from lora_course.paper.protocol import plan
from lora_course.paper.protocol.sizes import TRAIN
from lora_lab import FullFineTuning, LoRA, memory
from lora_lab.errors import NotFound


@pytest.fixture(scope="module")
def table2():
    return plan("table2")


def test_steps_are_epochs_times_batches(table2):
    by = {(d.recipe.model, d.recipe.row, d.recipe.task): d.steps for d in table2}
    assert by["roberta-base", "LoRA", "cola"] == 80 * math.ceil(8551 / 32)
    assert by["roberta-large", "LoRA", "mnli"] == 10 * math.ceil(392_702 / 4)
    assert {d.steps for d in plan("table3")} == {5 * math.ceil(42_061 / 8)}  # the repository's last step is 26,289


def test_trainable_parameters_are_those_that_the_paper_can_only_have_meant(table2):
    assert {d.trainable for d in table2 if (d.recipe.model, d.recipe.row) == ("roberta-base", "LoRA")} == {294_912}
    assert {d.trainable for d in table2 if (d.recipe.model, d.recipe.row) == ("roberta-large", "LoRA")} == {786_432}
    assert {d.trainable for d in plan("table2", variant="repo", model="deberta-v2-xxlarge")} == {4_718_592}
    assert [d.trainable for d in plan("table3")] == [393_216, 737_280]


def test_memory_and_time_are_the_accountants(table2):
    cola = next(d for d in table2 if (d.recipe.model, d.recipe.row, d.recipe.task) == ("roberta-base", "LoRA", "cola"))
    asked = {"batch": 32, "seq": 512, "dtype": "bf16", "optimizer": "adamw-fused", "padded": True, "dropout": 0.1}
    assert cola.memory == cola.together == memory("roberta-base", LoRA(8, 8, ("q", "v")), **asked).peak
    full = next(d for d in table2 if (d.recipe.model, d.recipe.row, d.recipe.task) == ("roberta-base", "FT", "cola"))
    assert full.memory == memory("roberta-base", FullFineTuning(), **asked).peak
    per_step = [d.seconds / d.steps for d in (cola, full)]
    assert per_step[0] < per_step[1] < 1.6 * per_step[0]  # three products a layer against two and a little
    assert plan("table2", task="cola", utilisation=0.2)[0].seconds == pytest.approx(2 * cola.seconds)


def test_a_script_on_eight_gpus_takes_less_on_each():
    dry = plan("table2", variant="repo", model="roberta-large", task="rte")[0]
    assert dry.memory < dry.together
    assert dry.fits == (dry.together <= dry.usable)


def test_what_is_not_modelled_is_a_lower_bound(table2):
    assert {d.recipe.model for d in table2 if d.at_least} == {"deberta-v2-xxlarge"}
    assert "at least" in str(next(d for d in table2 if d.at_least))


def test_what_is_missing_is_said_with_how_to_bring_it():
    dry = plan("table3", model_path="smollm2")[0]
    said = " ".join(map(str, dry.missing))
    assert "--data" in said
    assert "--model-path" not in said  # a bundled model is here
    assert "use the authors' own" in str(plan("table2", model="deberta-v2-xxlarge", task="rte")[0].missing[0])
    gone = plan("table2", task="rte", model_path="/nowhere/roberta", data="/nowhere/glue")[0]
    assert "/nowhere/glue" in str(gone.missing[1])
    assert "FacebookAI/roberta-base" in str(gone.missing[0])


def test_sizes_say_where_they_come_from(table2):
    assert TRAIN.keys() == glue.TASKS.keys() | {"e2e"}
    assert all(d.rows.source.startswith("published") for d in table2)


def test_json_holds_everything(table2):
    told = json.loads(json.dumps(table2[0].to_json()))
    assert told["settings"]["lr"] == {"value": 5e-4, "source": "Table 9"}
    assert {"steps", "memory", "seconds", "missing", "rows", "notes", "published"} <= told.keys()


def test_an_unknown_card_is_named():
    with pytest.raises(NotFound, match="nearest"):
        plan("table3", gpu="V1000")
