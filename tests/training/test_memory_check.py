"""The memory check: what does not fit is refused with what would, and everything else is let through."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from lora_lab import LoRA, PromptTuning, Recipe
from lora_lab.accounting.gpus import PROCESS
from lora_lab.accounting.memory import prompt_of
from lora_lab.errors import BadValue
from lora_lab.training import memory_check
from lora_lab.training.batches import STEP
from lora_lab.training.device import Choice
from lora_lab.training.memory_check import SWITCH, check_memory, free_bytes, need_of

MIB = 2**20
FP32, EAGER = Choice("cpu", "fp32", "sdpa"), Choice("cpu", "fp32", "eager")


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    """The check, whatever the machine that tests says."""
    monkeypatch.delenv(SWITCH, raising=False)


@pytest.fixture
def free(monkeypatch):
    """`free(300)`: the machine seems to have so many MiB left."""
    return lambda mib: monkeypatch.setattr(memory_check, "free_bytes", lambda _: int(mib * MIB))


def refused(recipe: Recipe) -> str:
    with pytest.raises(BadValue) as error:
        check_memory(recipe, FP32)
    return str(error.value)


@pytest.mark.parametrize(("model", "task"), [("minilm", "rt"), ("minilm", "imdb"), ("smollm2", "kjv")])
def test_the_batch_that_is_offered_fits_and_one_more_does_not(free, model, task):
    recipe = Recipe(model, task, batch=64)
    mib = (need_of(recipe, FP32).bytes(batch=8) + need_of(recipe, FP32).bytes(batch=9)) / 2 / MIB
    free(mib)
    offered = int(re.search(r"batch (\d+) at", refused(recipe))[1])
    assert offered in (7, 8, 9)  # the process grows a little meanwhile
    check_memory(replace(recipe, batch=offered - 1), FP32)
    assert "GiB are free" in refused(replace(recipe, batch=offered + 2))


def test_the_length_that_is_offered_fits(free):
    recipe = Recipe("minilm", "imdb", batch=64)
    free(need_of(recipe, FP32).bytes(seq=100) / MIB)
    offered = int(re.search(r"max_length (\d+) at batch 64", refused(recipe))[1])
    assert 80 <= offered <= 104
    assert offered % STEP == 0
    check_memory(replace(recipe, max_length=offered - 8), FP32)


def test_where_no_batch_helps_a_smaller_model_is_offered_or_none_said_to_be(free):
    free(300)
    assert "no model" in refused(Recipe("smollm2", "kjv"))  # the smallest causal model there is
    big = Recipe("bert-base", "rt", batch=1)
    assert "a smaller model such as minilm" in refused(big)


def test_the_sentence_is_one_and_names_the_way_around(free, monkeypatch):
    free(100)
    said = refused(Recipe("smollm2", "kjv"))
    assert "\n" not in said
    assert f"{SWITCH}=1" in said
    monkeypatch.setenv(SWITCH, "1")
    check_memory(Recipe("smollm2", "kjv"), FP32)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("no-such-model", "rt"),
        Recipe("minilm", "no-such-task"),
        Recipe("minilm", "rt", LoRA(targets=("gate",))),
        Recipe("smollm2", "rt"),  # a causal classifier is not modeled
        Recipe("minilm", "rt", device="tpu"),
    ],
    ids=lambda r: f"{r.model} {r.task} {r.device}",
)
def test_what_is_wrong_or_not_modelled_is_left_to_the_run(free, recipe):
    free(0)
    check_memory(recipe)


def test_what_the_recipe_says_is_what_is_asked():
    plain = need_of(Recipe("minilm", "rt", batch=4, max_length=61), FP32)
    assert (plain.setup.batch, plain.setup.seq, plain.setup.device, plain.labels) == (4, 62, "cpu", 2)
    assert need_of(Recipe("minilm", "rt", dropout=True), FP32).bytes() > need_of(Recipe("minilm", "rt"), FP32).bytes()
    assert prompt_of(need_of(Recipe("minilm", "rt", PromptTuning(8)), FP32).method) == 8


def test_eager_attention_keeps_its_scores():
    fused, eager = (need_of(Recipe("minilm", "imdb"), choice).bytes() for choice in (FP32, EAGER))
    scores = 6 * 16 * 12 * 256**2 * 8
    assert eager - fused == pytest.approx(scores * (1 + memory_check.CPU_GAPS), rel=0.02)


def test_what_is_not_imported_yet_counts(monkeypatch):
    need = need_of(Recipe("minilm", "rt"), FP32)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: SimpleNamespace(rss=PROCESS))
    small = need.bytes()
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: SimpleNamespace(rss=PROCESS - 100 * MIB))
    assert need.bytes() - small == 100 * MIB


def test_free_memory_is_that_of_the_machine_now():
    assert 0 < free_bytes("cpu") <= psutil.virtual_memory().total
    assert free_bytes("mps") > 0


def test_a_users_own_file_and_folder_are_checked(free, tiny_encoder, opinions):
    recipe = Recipe(tiny_encoder, opinions, batch=4096)
    free(64)
    assert "this would fit" in refused(recipe)


def test_a_gpus_own_kernels_and_dropout_are_asked_where_there_is_one():
    setup = need_of(Recipe("minilm", "rt", dropout=True), Choice("cuda", "bf16", "sdpa")).setup
    assert (setup.device, setup.dropout, setup.dtype) == ("cuda", 0.1, "bf16")
    setup = need_of(Recipe("minilm", "rt"), Choice("mps", "fp32", "sdpa")).setup
    assert (setup.device, setup.dropout) == ("cpu", 0)
