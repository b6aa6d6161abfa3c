import copy
import json
import pickle
import shutil
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
from tests.conftest import lora_layers, snapshot, tiny, with_adapter
from tests.fuzz.corpus import METHODS, base
from tests.methods.conftest import Edit, edit_config, edit_tensors, peft_lora, peft_model, replace_header, save_peft


def save_sound(folder: Path, kind: str = "roberta", dtype=torch.float32, config=None, **options) -> Path:
    config = config or peft_lora(kind, options.pop("target_modules", None), **options)
    return save_peft(peft_model(tiny(kind), config, seed=2).to(dtype), folder)


SOUND = {
    "LoRA": ("roberta", {}),
    "rank 32, PEFT's alpha": ("roberta", {"r": 32, "lora_alpha": 8}),
    "rank 32, rsLoRA": ("roberta", {"r": 32, "lora_alpha": 4, "use_rslora": True}),
    "patterns": ("roberta", {"rank_pattern": {"query": 2}, "alpha_pattern": {"value": 32}}),
    "fp64": ("roberta", {"dtype": torch.float64}),
    "llama, bf16, DoRA": ("llama", {"dtype": torch.bfloat16, "use_dora": True}),
    "llama, embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "prompt": ("llama", {"config": peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")}),
    "fused": ("gpt2", {"fan_in_fan_out": True}),
}
OURS = ("patterns", "fused", "dora", "embedding", "pissa", "ia3", "ptuning", "prefix", "bitfit", "full")


@pytest.mark.parametrize(("kind", "options"), SOUND.values(), ids=SOUND)
def test_sound_peft_adapter_has_no_problems(kind, options, tmp_path):
    folder = save_sound(tmp_path, kind, **copy.deepcopy(options))
    assert inspect_adapter(folder, tiny(kind)).problems == []


@pytest.mark.parametrize("name", OURS)
def test_sound_adapter_of_ours_has_no_problems(name, tmp_path):
    kind, method = METHODS[name]
    result = inspect_adapter(save_adapter(with_adapter(base(kind), method), tmp_path), base(kind))
    assert result.problems == []
    assert result.does_something


def test_norms_are_exact_and_the_model_is_unchanged(tmp_path):
    model = tiny("llama").requires_grad_(False)
    before = snapshot(model)
    save_sound(tmp_path, "llama", rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 32}, use_rslora=True)
    norms = inspect_adapter(tmp_path, model).norms
    assert snapshot(model) == before
    load_adapter(model, tmp_path)
    for norm, layer in zip(norms, lora_layers(model), strict=True):
        assert norm.update == pytest.approx(layer.delta_weight().norm().item(), rel=1e-5)
        assert norm.weight == pytest.approx(out_by_in(layer).norm().item(), rel=1e-5)
        assert norm.rank == layer.rank
        assert norm.scaling == pytest.approx(layer.scaling)


def rename(old: str, new: str) -> Edit:
    return edit_tensors(lambda tensors: {key.replace(old, new, 1): value for key, value in tensors.items()})


def scale_b(factor: float, dtype: torch.dtype = torch.float32) -> Edit:
    return edit_tensors(lambda t: {k: (v * factor if "lora_B" in k else v).to(dtype) for k, v in t.items()})


def replace_by_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / OLD_WEIGHTS).write_bytes(pickle.dumps({}).ljust(44_300, b"\0"))


EXTRA = {"base_model.model.roberta.pooler.dense.weight": torch.ones(2)}
FAULTY = {  # other faults are tested in tests/course/checks/test_debugging.py
    "a pickle": (replace_by_pickle, faults.PICKLE),
    "keys of a model in memory": (rename(".weight", ".default.weight"), faults.RENAMED),
    "no prefix": (rename("base_model.model.", ""), faults.RENAMED),
    "kohya's names": (rename("lora_A", "lora_down"), faults.RENAMED),
    "an extra model.": (rename("model.roberta", "model.model.roberta"), faults.RENAMED),
    "an extra tensor": (edit_tensors(lambda tensors: tensors | EXTRA), faults.TOO_MANY),
    "integers": (edit_tensors(lambda t: {k: v.int() for k, v in t.items()}), faults.WRONG_DTYPE),
    "targets of another model": (edit_config(target_modules=["q_proj"]), faults.WRONG_BASE),
    "B without A": (edit_tensors(lambda t: {k: v for k, v in t.items() if "lora_A" not in k}), faults.MISSING),
    "a rank that is none": (edit_config(r=True), faults.SETTINGS),
    "tiny numbers in fp16": (scale_b(1e-6, torch.float16), faults.ROUNDED),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return save_sound(tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize(("edit", "fault"), FAULTY.values(), ids=FAULTY)
def test_fault_is_named(edit, fault, sound, tmp_path):
    folder = shutil.copytree(sound, tmp_path / "adapter")
    edit(folder)
    (problem,) = json.loads(json.dumps(inspect_adapter(folder, tiny("roberta")).to_json(), allow_nan=False))["problems"]
    assert list(problem) == ["name", "where", "why", "remedy"]
    assert problem["name"] == fault
    assert all(problem.values())
    assert fault not in (faults.MISSING, faults.SETTINGS) or inspect_adapter(folder).problems[0].name == fault


def test_update_lost_in_a_bf16_base_and_a_damaged_header_of_ours_are_named(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "peft")
    scale_b(1e-4)(tmp_path / "peft")
    save_adapter(with_adapter("roberta", LoRA(rank=4, alpha=8)), tmp_path / "ours")
    replace_header('{"method": 5}')(tmp_path / "ours")
    for folder, model, names in (
        ("peft", tiny("roberta").bfloat16(), [faults.ROUNDED]),
        ("peft", tiny("roberta"), []),
        ("ours", tiny("roberta"), [faults.SETTINGS]),
    ):
        assert [problem.name for problem in inspect_adapter(tmp_path / folder, model).problems] == names
    with pytest.raises(NotFound, match="there is no folder"):
        inspect_adapter(tmp_path / "nowhere")
