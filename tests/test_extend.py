"""The method in the README, exactly as printed there, from counting to a packed run."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lora_lab import detach, disabled, load_adapter, params, save_adapter
from lora_lab.methods import REGISTRY, method_from
from lora_lab.training.pack import Pack, key
from tests.conftest import logits, randomise, snapshot, tiny

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def written(tmp_path) -> ModuleType:
    """The README's file, imported; its method is forgotten afterwards."""
    section = README.read_text().partition("## Extend")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(code.strip().splitlines()) <= 40
    file = tmp_path / "norm_scale.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("norm_scale", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del REGISTRY["norm-scale"]


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_it_attaches_counts_is_saved_and_goes_away_again(written, kind, tmp_path):
    model, again, frozen = tiny(kind), tiny(kind), tiny(kind).requires_grad_(False)
    report = written.NormScale().attach(model)
    assert torch.equal(logits(model), logits(tiny(kind)))
    assert report.adapter_parameters == params(model, written.NormScale()).trainable == 5 * 32
    randomise(model)
    save_adapter(model, tmp_path / "adapter")
    assert load_adapter(again, tmp_path / "adapter").method == method_from({"name": "norm-scale"})
    assert torch.equal(logits(again), logits(model))
    with disabled(model):
        assert torch.equal(logits(model), logits(frozen))
    assert not torch.equal(logits(model), logits(frozen))
    detach(model)
    assert snapshot(model) == snapshot(frozen)


def test_it_trains_three_steps_in_a_pack_as_it_does_alone(written, recipe):
    recipes = [recipe(method=written.NormScale(), steps=3, validations=1, lr=rate) for rate in (1e-3, 1e-2)]
    assert key(recipes[0]) == key(recipes[1])
    for one, run in zip(recipes, Pack(recipes).run(), strict=True):
        (alone,) = Pack([one]).run()
        assert run.status == "done"
        assert run.adapter_parameters == 5 * 32
        torch.testing.assert_close(run.history["loss"], alone.history["loss"], rtol=1e-5, atol=1e-5)
