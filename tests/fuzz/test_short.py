import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lora_lab import LoRA, detach, load_adapter, save_adapter
from lora_lab.methods.inspect import inspect_adapter
from lora_lab.methods.io import WEIGHTS
from tests.fuzz.kinds import READ
from tests.fuzz.run import CONSTANT, Fuzzer, Outcome, size_of, watched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak memory")


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory) -> Fuzzer:
    return Fuzzer(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module", autouse=True)
def frozen_objects() -> Iterator[None]:
    """Exclude existing objects from garbage collection, which runs before each case."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_damaged_adapters_are_loaded_or_refused(fuzzer):
    for number in range(100):
        fuzzer.case(number)
    assert fuzzer.failures == []
    assert fuzzer.results["refused"] > 50
    assert fuzzer.results["loaded"] > 3  # some changes are harmless
    first, again = fuzzer.case(7), fuzzer.case(7)
    assert (first.result, first.reason) == (again.result, again.reason)


@pytest.mark.parametrize("kind", READ)
def test_other_damaged_files_are_read_or_refused(kind, tmp_path):
    fuzzer = Fuzzer(tmp_path, kind=kind)
    for number in range(80):
        fuzzer.case(number)
    assert fuzzer.failures == []
    assert fuzzer.results["refused"] > 8 < fuzzer.results["loaded"]


@pytest.mark.parametrize(
    ("load", "fault"),
    [
        (lambda folder: torch.ones(CONSTANT // 2), "bytes for files of 10"),
        (lambda folder: (folder / "x").write_text(""), "to write"),
        (lambda folder: {}["no"], "KeyError"),
    ],
    ids=["memory", "writing", "a crash"],
)
def test_forbidden_effect_is_reported(fuzzer, tmp_path: Path, load, fault):
    assert any(fault in reported for reported in watched(lambda: load(tmp_path), 10).faults)


@pytest.mark.slow
def test_large_adapter_takes_at_most_twice_its_size(tmp_path):
    """The process is new, because one that has trained a pack keeps freed memory (see lora_lab/training/device.py)."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        outcomes = executor.submit(read_large_adapters, tmp_path).result()
    for size, loaded, inspected in outcomes:
        assert size > 16 * 2**20
        assert loaded.result == "loaded"
        # In bf16 the file is half as large as the adapter in the model; one more tensor is read at a time.
        assert loaded.grown <= 2 * size + 6 * 2**20
        assert inspected.grown <= 2 * size


def read_large_adapters(folder: Path) -> list[tuple[int, Outcome, Outcome]]:
    """Load and inspect a large adapter in fp32 and bf16; return its size and both outcomes."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    size = {"vocab_size": 96, "hidden_size": 1024, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**size, intermediate_size=2048)).eval()
    LoRA(rank=512, targets=("all-linear",)).attach(model)
    file, outcomes = save_adapter(model, folder) / WEIGHTS, []
    for dtype in (torch.float32, torch.bfloat16):
        save_file({key: t.to(dtype) for key, t in load_file(file).items()}, file)
        detach(model)
        load_adapter(model, folder)  # imports what loading needs
        detach(model)
        loaded = watched(lambda: load_adapter(model, folder), size_of(folder))
        outcomes.append((size_of(folder), loaded, watched(lambda: inspect_adapter(folder), size_of(folder))))
    return outcomes
