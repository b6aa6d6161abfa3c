import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_lab import LoRA, detach, load_adapter, save_adapter
from lora_lab.methods.inspect import inspect_adapter
from lora_lab.methods.io import WEIGHTS
from tests.conftest import make_model
from tests.fuzz.kinds import READ
from tests.fuzz.run import CONSTANT, Fuzzer, Outcome, size_of, watched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak memory")


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory) -> Fuzzer:
    return Fuzzer(tmp_path_factory.mktemp("fuzz"))


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


def test_forbidden_effects_are_reported(fuzzer, tmp_path):
    for load, fault in (
        (lambda: torch.ones(CONSTANT // 2), "bytes for files of 10"),
        (lambda: (tmp_path / "x").write_text(""), "to write"),
        (lambda: {}["no"], "KeyError"),
    ):
        assert any(fault in reported for reported in watched(load, 10).faults)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_adapter_takes_its_size_in_the_model_and_in_the_file(dtype, tmp_path):
    """The process is new, because one that has trained a pack keeps freed memory (see lora_lab/training/device.py)."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        size, loaded, inspected = executor.submit(read_large_adapter, tmp_path, dtype).result()
    assert size > 16 * 2**20
    assert loaded.result == "loaded"
    in_model = size * 4 // dtype.itemsize  # in fp32
    assert max(loaded.grown, inspected.grown) <= in_model + size + 6 * 2**20


def read_large_adapter(folder, dtype: torch.dtype) -> tuple[int, Outcome, Outcome]:
    torch.set_num_threads(1)
    size = {"hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = make_model("LlamaForCausalLM", size, vocab_size=96)
    LoRA(rank=512, targets=("all-linear",)).attach(model)
    file = save_adapter(model, folder) / WEIGHTS
    save_file({key: t.to(dtype) for key, t in load_file(file).items()}, file)
    for _ in range(2):  # the first time imports what loading needs
        detach(model)
        loaded = watched(lambda: load_adapter(model, folder), size_of(folder))
    return size_of(folder), loaded, watched(lambda: inspect_adapter(folder), size_of(folder))
