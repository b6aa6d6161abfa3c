import threading
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from lora_lab import LoRA, Recipe, Store, evaluate_adapter, train
from lora_lab.errors import LabWarning
from lora_lab.methods.attach import quantized_layers
from lora_lab.training import checkpoint
from lora_lab.training.pack import Pack, key
from tests.conftest import PLAIN, assert_raises, mapped


def assert_same_run(packed, alone) -> None:
    np.testing.assert_allclose(packed.history["loss"], alone.history["loss"], rtol=1e-4)
    for name in ("status", "adapter_parameters"):
        assert getattr(packed, name) == getattr(alone, name)
    assert packed.history["lr"] == alone.history["lr"]
    assert packed.metrics["accuracy"] == alone.metrics["accuracy"]
    assert packed.metrics["loss"] == pytest.approx(alone.metrics["loss"], rel=1e-4)
    assert (packed.predictions == alone.predictions).all()
    validations = [[(v["step"], v["accuracy"]) for v in run.history["validation"]] for run in (packed, alone)]
    assert validations[0] == validations[1]


@pytest.fixture
def three_threads():
    """Let a pack without dropout train in three parts."""
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def test_seeds_share_one_quantized_base(recipe, tmp_path):
    recipes = [recipe(dtype="nf4+fp32", seed=seed, method=LoRA(rank=2)) for seed in (0, 1)]
    alone = train(recipes[0], store=tmp_path)
    assert (alone.environment["quantized"], alone.environment["dtype"]) == ("nf4", "fp32")
    pack = Pack(recipes)
    models = pack.base, pack.model, *(member.model for member in pack.members)
    stored = {layer.packed.data_ptr() for model in models for layer in quantized_layers(model)}
    assert len(stored) == len(quantized_layers(pack.base)) == 12
    assert pack.run()[0].metrics["loss"] == pytest.approx(alone.metrics["loss"], rel=1e-4)
    assert evaluate_adapter(alone.adapter, device="cpu", attention="eager") == pytest.approx(alone.metrics)


def test_members_may_differ_in_subset_method_clip_and_decay(recipe, three_threads):
    recipes = [
        recipe(steps=8, lr=1e-2, examples=12, subset=subset, seed=seed, method=method, clip=clip, weight_decay=decay)
        for subset, seed, method, clip, decay in (
            (0, 0, LoRA(1, 16), 1.0, 0.0),
            (0, 1, LoRA(16, 32, "all-linear"), 0.03, 0.0),
            (1, 1, LoRA(5, 8, "k,o", rslora=True), 0.0, 5.0),
        )
    ]
    pack = Pack(recipes)
    assert len(pack.model.members) == 3
    assert [len(rows) for rows in pack.draws.values()] == [12, 12]
    assert pack.draws[0] != pack.draws[1]
    for recipe_alone, packed in zip(recipes, pack.run(), strict=True):
        assert_same_run(packed, train(recipe_alone, store=None))


def test_members_that_end_early_do_not_affect_others(recipe, three_threads):
    recipes = [
        recipe(steps=8, validations=4, lr=lr, patience=patience, seed=seed)
        for lr, patience, seed in ((1e-2, 0, 0), (1e30, 0, 1), (1e-9, 2, 2), (5e-3, 0, 3))
    ]
    runs = {run.recipe.seed: run for run in Pack(recipes).run()}
    assert [runs[seed].status for seed in range(4)] == ["done", "failed", "early", "done"]
    assert "lower the rate" in runs[1].error
    assert len(runs[2].history["step"]) < 8
    for seed in (2, 3):
        assert_same_run(runs[seed], train(recipes[seed], store=None))


def test_packed_language_models_equal_runs_alone(tiny_causal, tmp_path):
    text = tmp_path / "own.jsonl"  # each answer ends in the token that also pads
    text.write_text("\n".join(f'{{"prompt": "{n}?", "response": "{"the same old story " * 3}"}}' for n in range(30)))
    settings = {"max_length": 96, "lr": 2e-2, "steps": 6, "batch": 4, "validations": 2, **PLAIN}
    methods = LoRA(8, targets=("all-linear", "lm_head")), LoRA(1, targets="q,embed")
    recipes = [Recipe(tiny_causal, str(text), method, seed=n, **settings) for n, method in enumerate(methods)]
    for recipe, packed in zip(recipes, Pack(recipes).run(), strict=True):
        alone = train(recipe, store=tmp_path / "runs")
        np.testing.assert_allclose(packed.history["loss"], alone.history["loss"], rtol=1e-4)
        assert packed.metrics["perplexity"] == pytest.approx(alone.metrics["perplexity"], rel=1e-4)
        assert alone.metrics["perplexity"] < alone.history["validation"][0]["perplexity"]
        assert (alone.head_parameters, Store(tmp_path / "runs").find(recipe)) == (0, alone)
        if recipe.method.rank == 8:
            assert alone.metrics["perplexity"] < 0.5 * 257  # half the perplexity of a uniform guess


def test_incompatible_recipes_are_refused(recipe):
    assert key(recipe()) == key(recipe(seed=5, lr=1e-4, method=LoRA(3, targets="k"), clip=0, patience=2))
    for changes in ({"steps": 9}, {"dropout": True}, {"batch": 3}, {"examples": 12}):
        assert_raises("may differ only in", Pack, [recipe(), recipe(**changes)])


@pytest.mark.parametrize(("count", "dropout", "ratio"), [(1, 0.2, 4), (3, 0.0, 1)])
def test_interrupted_pack_resumes_exactly(recipe, tmp_path, monkeypatch, three_threads, count, dropout, ratio):
    recipes = [
        recipe(steps=8, seed=k, lr=1e-2 / (k + 1), method=LoRA(2 + k, dropout=dropout, lr_ratio=ratio))
        for k in range(count)
    ]
    expected = {run.recipe: run for run in Pack(recipes).run()}
    interrupted, stop, file = Pack(recipes), threading.Event(), tmp_path / "pack.safetensors"

    def write_and_stop(pack: Pack) -> None:  # called after the first validation, at step 4
        checkpoint.write(pack, file)
        stop.set()

    interrupted.on_checkpoint, interrupted.scores_stopped = write_and_stop, False
    assert (interrupted.run(stop=stop), interrupted.step) == ([], 4)
    resumed = Pack(recipes[::-1])
    with monkeypatch.context() as on_a_gpu:  # its generator's state takes 16 bytes, and a CPU can't use it
        on_a_gpu.setattr(interrupted, "random", torch.zeros(16, dtype=torch.uint8))
        checkpoint.write(interrupted, tmp_path / "gpu.safetensors")
    moved = Pack(recipes)
    checkpoint.restore(moved, tmp_path / "gpu.safetensors")
    assert {run.recipe for run in moved.run()} == {*recipes}
    checkpoint.restore(resumed, file)
    assert not mapped(file)
    for run in resumed.run():
        assert run.history == expected[run.recipe].history
        assert run.metrics == expected[run.recipe].metrics


@pytest.mark.parametrize("left", [1, 2])
def test_pack_with_dropout_resumes_without_a_member_that_left(recipe, tmp_path, left):
    recipes = [recipe(steps=8, seed=k, method=LoRA(2 + k, dropout=0.3), validations=1) for k in range(left + 1)]

    def end_first(members, step: int) -> None:
        if step == 3 and members[0].recipe == recipes[0]:
            members[0].end("behind")

    def kill(progress) -> None:
        if killed and progress.step == 6:
            raise KeyboardInterrupt

    def pack_of(recipes) -> Pack:
        pack = Pack(recipes, callbacks=lambda r: [kill])
        pack.judge, pack.on_checkpoint = end_first, lambda pack: checkpoint.write(pack, tmp_path / "pack.safetensors")
        return pack

    killed = False
    expected = {run.recipe: run for run in pack_of(recipes).run()}
    killed = True
    with pytest.raises(KeyboardInterrupt):
        pack_of(recipes).run()
    killed, resumed = False, pack_of(recipes[1:])
    checkpoint.restore(resumed, tmp_path / "pack.safetensors")
    assert resumed.step == 3
    for run in resumed.run():
        assert (run.history, run.metrics) == (expected[run.recipe].history, expected[run.recipe].metrics)


def test_run_that_goes_on_in_another_dtype_says_so(recipe, tmp_path, monkeypatch):
    file, packs = tmp_path / "pack.safetensors", list[Pack]()
    for dtype in ("bf16", "fp32"):
        monkeypatch.setenv("LORA_LAB_DTYPE", dtype)
        packs.append(Pack([recipe(dtype="auto")]))
    checkpoint.write(packs[0], file)
    with pytest.warns(LabWarning, match="another dtype"):
        checkpoint.restore(packs[1], file)
    assert "trained in bf16" in packs[1].run()[0].warnings[0]


def test_slow_checkpoints_are_written_less_often(recipe, monkeypatch):
    written: dict[int, float] = {}  # by step; the clock shows a second per step and a quarter per checkpoint
    pack = Pack([recipe(steps=12, validations=12)])
    clock = SimpleNamespace(perf_counter=lambda: pack.step + sum(written.values()))
    monkeypatch.setattr("lora_lab.training.pack.time", clock)
    pack.on_checkpoint = lambda pack: written.update({pack.step: 0.25})
    pack.started = pack.checkpoint_at = 0.0
    pack.run()
    assert list(written) == [1, 6, 11]  # a twentieth of the time


def test_unusable_checkpoints_are_renamed_with_a_warning(recipe, tmp_path, monkeypatch):
    file = checkpoint.path_of(tmp_path, [recipe()])
    checkpoint.write(Pack([recipe()]), file)
    assert_raises("has no run", checkpoint.restore, Pack([recipe(seed=2)]), file)
    intact = file.read_bytes()
    for content in (intact[:200], intact.replace(b'\\"warmup\\"', b'\\"warmer\\"')):  # damaged, and unknown settings
        file.write_bytes(content)
        with pytest.warns(LabWarning, match=file.name):
            assert checkpoint.unfinished(tmp_path) == []
        assert checkpoint.unfinished(tmp_path) == []  # the warning is not repeated
        assert content in [kept.read_bytes() for kept in file.parent.iterdir()]
    assert len(list(file.parent.iterdir())) == 2
    file.write_bytes(b"damaged")
    monkeypatch.setattr(Path, "rename", Mock(side_effect=FileNotFoundError(2, "another sweep was faster")))
    assert checkpoint.unfinished(tmp_path) == []
    monkeypatch.setattr(Path, "rename", Mock(side_effect=PermissionError(13, "in use")))
    assert_raises("in use", checkpoint.unfinished, tmp_path)


def test_fit_continues_after_a_member_has_failed(recipe):
    pack = Pack([recipe(seed=seed, steps=4, validations=0, lr=lr) for seed, lr in enumerate((1e-3, 1e30))])
    pack.fit()
    assert [(member.recipe.seed, member.status) for member in pack.members] == [(0, "done")]


def test_step_synchronizes_once_for_all_members(recipe, monkeypatch):
    calls = []
    for name in ("item", "tolist", "__bool__", "__float__"):
        method = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, method=method: calls.append(1) or method(self))

    totals, recipes = list[int](), [recipe(seed=seed, steps=4, validations=0) for seed in range(4)]
    Pack(recipes, callbacks=lambda r: [lambda step: totals.append(len(calls))] if r.seed == 0 else ()).fit()
    reads = [after - before for before, after in pairwise(totals)]  # in each step after the first
    assert max(reads) <= 2  # loss and norm, and transformers reads the mask
