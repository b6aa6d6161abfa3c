"""The memory check: what does not fit is refused with what would, and everything else is let through."""

import re
from dataclasses import replace

import pytest

from lora_lab import LoRA, PromptTuning, Recipe
from lora_lab.errors import BadValue
from lora_lab.training import memory_check
from lora_lab.training.batches import STEP
from lora_lab.training.device import Choice
from lora_lab.training.memory_check import SWITCH, after_running_out, check_memory, need_of

MIB = 2**20
FP32 = Choice("cpu", "fp32", "sdpa")


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


@pytest.mark.parametrize(("model", "task"), [("minilm", "imdb"), ("smollm2", "kjv")])
def test_the_batch_that_is_offered_fits_and_one_more_does_not(free, model, task):
    recipe = Recipe(model, task, batch=64)
    mib = (need_of(recipe, FP32).bytes(batch=8) + need_of(recipe, FP32).bytes(batch=9)) / 2 / MIB
    free(mib)
    offered = int(re.search(r"batch (\d+) at", refused(recipe))[1])
    assert offered in (7, 8, 9)  # the process grows a little meanwhile
    check_memory(replace(recipe, batch=offered - 1), FP32)
    assert "GiB is free" in refused(replace(recipe, batch=offered + 2))
    assert int(re.search(r"try batch (\d+),", after_running_out(recipe, FP32))[1]) in (7, 8, 9)
    free(2**20)  # what ran out may be less than the estimate sees
    assert "with batch 64: try batch 32," in after_running_out(recipe, FP32)


def test_the_length_that_is_offered_fits_also_of_ones_own_file_and_folder(free, tiny_encoder, opinions):
    recipe = Recipe("minilm", "imdb", batch=64)
    free(need_of(recipe, FP32).bytes(seq=100) / MIB)
    offered = int(re.search(r"max_length (\d+) at batch 64", refused(recipe))[1])
    assert 80 <= offered <= 104
    assert offered % STEP == 0
    check_memory(replace(recipe, max_length=offered - 8), FP32)
    free(64)
    assert "this would fit" in refused(Recipe(tiny_encoder, opinions, batch=4096))


def test_where_no_batch_helps_a_smaller_model_is_offered_and_the_check_can_be_left_out(free, monkeypatch):
    free(300)
    assert "a smaller model such as minilm" in refused(Recipe("bert-base", "rt", batch=1))
    said = refused(Recipe("smollm2", "kjv"))  # the smallest causal model there is
    assert "no model" in said
    assert "\n" not in said
    assert f"{SWITCH}=1" in said
    monkeypatch.setenv(SWITCH, "1")
    check_memory(Recipe("smollm2", "kjv"), FP32)


def test_what_is_wrong_or_not_modelled_is_left_to_the_run(free):
    free(0)
    check_memory(Recipe("no-such-model", "rt"))
    check_memory(Recipe("minilm", "rt", LoRA(targets=("gate",))))
    check_memory(Recipe("smollm2", "rt"))  # a causal classifier is not modeled
    check_memory(Recipe("minilm", "rt", device="tpu"))


def test_what_the_recipe_says_is_what_is_asked():
    plain = need_of(Recipe("minilm", "rt", batch=4, max_length=61), FP32)
    assert (plain.setup.batch, plain.setup.seq, plain.setup.device, plain.labels) == (4, 62, "cpu", 2)
    eager = need_of(Recipe("minilm", "rt", batch=4, max_length=61), Choice("cpu", "fp32", "eager"))
    assert eager.bytes() > plain.bytes()  # it keeps its scores
    gpu = need_of(Recipe("minilm", "rt", dropout=True), Choice("cuda", "bf16", "sdpa")).setup
    assert (gpu.device, gpu.dropout, gpu.dtype) == ("cuda", 0.1, "bf16")
    assert need_of(Recipe("minilm", "rt", dropout=True), FP32).bytes() > need_of(Recipe("minilm", "rt"), FP32).bytes()
    assert need_of(Recipe("minilm", "rt", PromptTuning(8)), FP32).method.added_tokens == 8
