import re
import warnings
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lora_lab import BadValue, LoRA, PromptTuning, Recipe, machine, train
from lora_lab.training import memory_check
from lora_lab.training.batches import PAD_MULTIPLE
from lora_lab.training.device import Choice
from lora_lab.training.memory_check import SWITCH, check_memory, free_bytes, need_of

MIB = 2**20
FP32 = Choice("cpu", "fp32", "sdpa")


@pytest.fixture
def free(monkeypatch):
    """`free(300)` enables the check and fakes the free memory in MiB."""
    monkeypatch.delenv(SWITCH, raising=False)
    return lambda mib: monkeypatch.setattr(memory_check, "free_bytes", lambda _: int(mib * MIB))


def refusal(recipe: Recipe) -> str:
    with pytest.raises(BadValue) as error:
        check_memory(recipe, FP32)
    return str(error.value)


def test_suggested_batch_or_length_fits_and_a_larger_batch_does_not(free, tiny_encoder, opinions):
    recipe = Recipe("minilm", "imdb", batch=64)
    free((need_of(recipe, FP32).bytes(batch=8) + need_of(recipe, FP32).bytes(batch=9)) / 2 / MIB)
    suggested = int(re.search(r"batch (\d+) at", refusal(recipe))[1])
    assert suggested in (7, 8, 9)  # the test process itself grows meanwhile
    check_memory(replace(recipe, batch=suggested - 1), FP32)
    assert "GiB is free" in refusal(replace(recipe, batch=suggested + 2))
    free(need_of(recipe, FP32).bytes(seq=100) / MIB)
    suggested = int(re.search(r"max_length (\d+) at batch 64", refusal(recipe))[1])
    assert 80 <= suggested <= 104
    assert suggested % PAD_MULTIPLE == 0
    check_memory(replace(recipe, max_length=suggested - 8), FP32)
    free(32)  # a user's own model and file are checked too
    assert re.search("use (batch|max_length)", refusal(Recipe(tiny_encoder, opinions, batch=4096)))


def test_smaller_model_is_suggested_and_the_check_can_be_skipped(free, monkeypatch):
    free(300)
    message = refusal(Recipe("smollm2", "kjv"))
    assert "GiB is free; use a smaller model, close other programs" in message
    assert "\n" not in message
    assert f"{SWITCH}=1" in message
    monkeypatch.setenv(SWITCH, "1")
    check_memory(Recipe("smollm2", "kjv"), FP32)


def test_invalid_and_unsupported_recipes_pass(free):
    free(0)
    check_memory(Recipe("no-such-model", "rt"))
    check_memory(Recipe("minilm", "rt", LoRA(targets=("gate",))))
    check_memory(Recipe("smollm2", "rt"))  # a causal classifier
    check_memory(Recipe("minilm", "rt", device="tpu"))


def test_training_reads_its_file_once(tiny_encoder, opinions, free, tmp_path):
    free(10**6)
    file = tmp_path / "own.csv"
    file.write_text(Path(opinions).read_text() + "\n ,good")
    with warnings.catch_warnings(record=True, action="always") as issued:
        train(tiny_encoder, str(file), LoRA(), steps=1, store=tmp_path)
    assert ["skipped rows" in str(warning.message) for warning in issued].count(True) == 1


def test_need_follows_the_recipe(tiny_encoder, opinions):
    assert need_of(Recipe(tiny_encoder, opinions, batch=10**6), FP32).setup.batch < 100  # at most all training rows
    assert need_of(Recipe("minilm", "rt", examples=8, batch=64), FP32).setup.batch == 8
    plain = need_of(Recipe("minilm", "rt", batch=4, max_length=61), FP32)
    assert (plain.setup.batch, plain.setup.seq, plain.setup.device, plain.setup.num_labels) == (4, 62, "cpu", 2)
    eager = need_of(Recipe("minilm", "rt", batch=4, max_length=61), Choice("cpu", "fp32", "eager"))
    assert eager.bytes() > plain.bytes()  # eager attention stores its scores
    gpu = need_of(Recipe("minilm", "rt", dropout=True), Choice("cuda", "bf16", "sdpa")).setup
    assert (gpu.device, gpu.dropout, gpu.dtype) == ("cuda", 0.1, "bf16")
    assert need_of(Recipe("minilm", "rt", dropout=True), FP32).bytes() > need_of(Recipe("minilm", "rt"), FP32).bytes()
    few, many = (need_of(Recipe("minilm", "rt", PromptTuning(tokens)), FP32).bytes() for tokens in (8, 80))
    assert many > 1.5 * few


@pytest.mark.parametrize(
    ("version", "limit"),
    [(1, f"{4 * MIB}\n"), (2, f"{4 * MIB}\n"), (1, "9223372036854771712\n"), (2, "max\n"), (2, "")],
)
def test_container_limit_replaces_the_machines_memory(tmp_path, monkeypatch, version, limit):
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    folder, file = (tmp_path, "memory.max") if version == 2 else (tmp_path / "memory", "memory.limit_in_bytes")
    folder.mkdir(exist_ok=True)
    own, shared = ("anon", "shmem") if version == 2 else ("total_rss", "total_shmem")
    (folder / "memory.stat").write_text(f"{own} {MIB}\nfile {3 * MIB}\n{shared} {MIB // 2}\n")
    (folder / file).write_text(limit)
    if str(4 * MIB) in limit:
        assert machine.container() == (4 * MIB, 1.5 * MIB)
        assert (machine.memory(), free_bytes("cpu")) == ((4 * MIB, 2.5 * MIB), 2.5 * MIB)
    else:
        assert machine.memory()[0] == psutil.virtual_memory().total
