"""Each planted fault is named, a sound adapter has no problems, and the numbers are those of plain torch."""

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch

from lora_lab import LoRA, load_adapter, save_adapter
from lora_lab.adapter_layer import out_by_in
from lora_lab.errors import NotFound
from lora_lab.methods import faults
from lora_lab.methods.inspect import inspect_adapter
from lora_lab.methods.io import OLD_WEIGHTS, WEIGHTS
from tests.conftest import lora_layers, snapshot, tiny
from tests.fuzz.corpus import METHODS, base
from tests.methods.conftest import with_adapter
from tests.methods.test_io import config_with, header_with, tensors_with
from tests.methods.test_peft_parity import lora, peft_model, save_peft

QV = {"roberta": ["query", "value"], "llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"]}


def theirs(folder: Path, kind: str = "roberta", dtype: torch.dtype = torch.float32, config=None, **options) -> Path:
    """PEFT's file; LoRA unless a config is given."""
    config = config or lora(kind, options.pop("target_modules", QV[kind]), **options)
    return save_peft(peft_model(tiny(kind), config, seed=2).to(dtype), folder)


def names(folder: Path, kind: str | None = "roberta") -> list[str]:
    found = inspect_adapter(folder, tiny(kind) if kind else None)
    json.dumps(found.to_json(), allow_nan=False)
    return [problem.name for problem in found.problems]


# ---- sound ones

CAUSAL = {"task_type": "CAUSAL_LM"}
SOUND = {
    "LoRA": ("roberta", {}),
    "rank 32, PEFT's alpha": ("roberta", {"r": 32, "lora_alpha": 8}),
    "rank 32, rsLoRA": ("roberta", {"r": 32, "lora_alpha": 4, "use_rslora": True}),
    "patterns": ("roberta", {"rank_pattern": {"query": 2}, "alpha_pattern": {"value": 32}}),
    "llama, bf16, DoRA": ("llama", {"dtype": torch.bfloat16, "use_dora": True}),
    "llama, embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "prompt": ("llama", {"config": peft.PromptTuningConfig(num_virtual_tokens=4, **CAUSAL)}),
    "fused": ("gpt2", {"fan_in_fan_out": True}),
}


@pytest.mark.parametrize(("kind", "options"), SOUND.values(), ids=SOUND)
def test_no_false_alarm_on_pefts(kind, options, tmp_path):
    assert names(theirs(tmp_path, kind, **copy.deepcopy(options)), kind) == []


OURS = ("patterns", "fused", "dora", "embedding", "pissa", "ia3", "ptuning", "prefix", "bitfit", "full")


@pytest.mark.parametrize(("kind", "method"), [METHODS[name] for name in OURS], ids=OURS)
def test_no_false_alarm_on_ours(kind, method, tmp_path):
    found = inspect_adapter(save_adapter(with_adapter(base(kind), method), tmp_path), base(kind))
    assert found.problems == []
    assert found.does_something


# ---- what it says


def test_norms_are_those_of_the_update_and_of_the_weight_and_the_model_stays_as_it_was(tmp_path):
    model = tiny("llama").requires_grad_(False)
    before = snapshot(model)
    folder = theirs(tmp_path, "llama", rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 32}, use_rslora=True)
    found = {norm.module: norm for norm in inspect_adapter(folder, model).norms}
    assert snapshot(model) == before
    load_adapter(model, folder)
    for norm, layer in zip(found.values(), lora_layers(model), strict=True):
        assert norm.update == pytest.approx(layer.delta_weight().norm().item(), rel=1e-5)
        assert norm.weight == pytest.approx(out_by_in(layer).norm().item(), rel=1e-5)
        assert norm.rank == layer.rank
        assert norm.scaling == pytest.approx(layer.scaling)


# ---- faults


def renamed(old: str, new: str) -> Callable[[Path], None]:
    return tensors_with(lambda t: {key.replace(old, new, 1): value for key, value in t.items()})


def only_a_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / OLD_WEIGHTS).write_bytes(pickle.dumps({}).ljust(44_300, b"\0"))


FAULTY = {  # beside those that are the patients of a lesson, see tests/course/experiments/test_broken.py
    "a whole pickle": (only_a_pickle, faults.PICKLE),
    "a live model's keys": (renamed(".weight", ".default.weight"), faults.RENAMED),
    "no prefix": (renamed("base_model.model.", ""), faults.RENAMED),
    "kohya's words": (renamed("lora_A", "lora_down"), faults.RENAMED),
    "one more model.": (renamed("model.roberta", "model.model.roberta"), faults.RENAMED),
    "a tensor of another layer": (
        tensors_with(lambda t: t.update({"base_model.model.roberta.pooler.dense.weight": torch.ones(2)})),
        faults.TOO_MANY,
    ),
    "whole numbers": (tensors_with(lambda t: {k: v.int() for k, v in t.items()}), faults.WRONG_DTYPE),
    "targets of another model": (config_with(target_modules=["q_proj"]), faults.WRONG_BASE),
    "fp16 of tiny numbers": (
        tensors_with(lambda t: {k: (v * 1e-6 if "lora_B" in k else v).half() for k, v in t.items()}),
        faults.ROUNDED,
    ),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return theirs(tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize(("edit", "name"), FAULTY.values(), ids=FAULTY)
def test_a_fault_gets_its_name_and_no_other(edit, name, sound, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(sound, folder)
    edit(folder)
    found = inspect_adapter(folder, tiny("roberta"))
    assert [problem.name for problem in found.problems] == [name]
    (told,) = json.loads(json.dumps(found.to_json(), allow_nan=False))["problems"]
    assert list(told) == ["name", "where", "why", "remedy"]
    assert all(told.values())


def test_an_update_that_bf16_would_round_away_is_named(tmp_path):
    folder = theirs(tmp_path)
    tensors_with(lambda t: {k: v * (1e-4 if "lora_B" in k else 1) for k, v in t.items()})(folder)
    assert [p.name for p in inspect_adapter(folder, tiny("roberta").bfloat16()).problems] == [faults.ROUNDED]
    assert names(folder) == []


def test_a_header_of_ours_that_is_damaged_and_a_folder_that_is_not_there(tmp_path):
    folder = save_adapter(with_adapter("roberta", LoRA(rank=4, alpha=8)), tmp_path)
    header_with('{"method": 5}')(folder)
    assert names(folder) == [faults.SETTINGS]
    with pytest.raises(NotFound, match="there is no folder"):
        inspect_adapter(tmp_path / "nowhere")
