"""The fuzzer, for some seconds: the same cases as the first of `python -m tests.fuzz`, and a look at its own watch."""

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
from tests.fuzz.run import Fuzzer
from tests.fuzz.watch import CONSTANT, Outcome, size_of, watched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its memory's peak")


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory) -> Fuzzer:
    return Fuzzer(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """Leave what other tests have made out of the collection before each case."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_no_file_crashes_hangs_grows_or_writes(fuzzer):
    for number in range(100):
        fuzzer.case(number)
    assert fuzzer.failures == []
    assert fuzzer.results["refused"] > 50
    assert fuzzer.results["loaded"] > 3  # some changes are harmless, or the fuzzer would try nothing but the reader
    first, again = fuzzer.case(7), fuzzer.case(7)
    assert (first.result, first.reason) == (again.result, again.reason)


@pytest.mark.parametrize("kind", READ)
def test_nothing_else_that_is_sent_crashes_hangs_or_writes(kind, tmp_path):
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
def test_the_watch_sees(fuzzer, tmp_path: Path, load, fault):
    assert any(fault in found for found in watched(lambda: load(tmp_path), 10).faults)


@pytest.mark.slow
def test_a_large_file_takes_no_more_than_twice_its_size(tmp_path):
    """In bf16 the adapter alone is twice its file, for it is fp32 in the model; beside it is room for one tensor.

    In a process of its own: one that has trained a pack keeps freed memory from then on, as `device` tells it to.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        found = fresh.submit(large_files, tmp_path).result()
    for size, loaded, inspected in found:
        assert size > 16 * 2**20
        assert loaded.result == "loaded"
        assert loaded.grown <= 2 * size + 6 * 2**20
        assert inspected.grown <= 2 * size  # a pair of matrices at a time


def large_files(folder: Path) -> list[tuple[int, Outcome, Outcome]]:
    """Bytes of a large adapter's folder, in fp32 and in bf16, and what came of loading it and of inspecting it."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    size = {"vocab_size": 96, "hidden_size": 1024, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**size, intermediate_size=2048)).eval()
    LoRA(rank=512, targets=("all-linear",)).attach(model)
    file, found = save_adapter(model, folder) / WEIGHTS, []
    for dtype in (torch.float32, torch.bfloat16):
        save_file({key: t.to(dtype) for key, t in load_file(file).items()}, file)
        detach(model)
        load_adapter(model, folder)  # once unwatched: what Python imports at first use is no memory of the file's
        detach(model)
        loaded = watched(lambda: load_adapter(model, folder), size_of(folder))
        found.append((size_of(folder), loaded, watched(lambda: inspect_adapter(folder), size_of(folder))))
    return found
