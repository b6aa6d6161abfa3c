"""A run on a base of a few bits: recipes, records, packs, saved adapters."""

from __future__ import annotations

import pytest

from lora_lab import LoRA, train
from lora_lab.errors import BadValue
from lora_lab.training import device
from lora_lab.training.pack import Pack
from lora_lab.training.recipe import recipe_from
from lora_lab.training.train import evaluate_adapter


def test_a_run_says_in_what_its_base_was_held(recipe, tmp_path):
    wanted = recipe(dtype="nf4+fp32")
    assert recipe_from(wanted.settings()) == wanted
    run = train(wanted, store=tmp_path)
    assert run.environment["quantised"] == "nf4"
    assert run.environment["dtype"] == "fp32"
    assert run.total == train(recipe(), store=None).total
    kept = {"device_name": "cpu", "attention": "eager"}
    assert evaluate_adapter(run.adapter, wanted.task, dtype="nf4+fp32", **kept) == pytest.approx(run.metrics)


def test_seeds_train_side_by_side_on_one_quantised_base(recipe):
    recipes = [recipe(dtype="nf4+fp32", seed=seed, method=LoRA(rank=2)) for seed in (0, 1)]
    together = Pack(recipes).run()
    alone = [train(one, store=None) for one in recipes]
    for packed, single in zip(together, alone, strict=True):
        assert packed.metrics["loss"] == pytest.approx(single.metrics["loss"], rel=1e-4)


def test_what_is_wrong_with_a_dtype_is_named():
    assert device.choose(32, device="cpu", dtype="nf4+bf16", attention="eager").load_as == "nf4+bf16"
    for dtype in ("nf5", "nf4+nf4", "bf16+nf4"):
        with pytest.raises(BadValue, match="dtype must be"):
            device.choose(32, device="cpu", dtype=dtype, attention="eager")
