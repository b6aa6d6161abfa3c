"""Side by side is the same as alone: losses, metrics, predictions, whatever the members differ in, whoever leaves."""

import threading
import time
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from lora_lab import LoRA, Recipe, Store, evaluate_adapter, train
from lora_lab.errors import BadValue, LabWarning
from lora_lab.training import checkpoint
from lora_lab.training.pack import Pack, key
from tests.conftest import PLAIN, mapped


def alike(together, alone) -> None:
    """The same run, but for the seconds and bytes that it took."""
    losses = np.array(together.history["loss"]), np.array(alone.history["loss"])
    assert np.abs(losses[0] / losses[1] - 1).max() < 1e-4
    assert together.status == alone.status
    assert together.history["lr"] == alone.history["lr"]
    assert together.metrics["accuracy"] == alone.metrics["accuracy"]
    assert together.metrics["loss"] == pytest.approx(alone.metrics["loss"], rel=1e-4)
    assert (together.predictions == alone.predictions).all()
    assert together.adapter_parameters == alone.adapter_parameters
    kept = [[(r["step"], r["accuracy"]) for r in run.history["validation"]] for run in (together, alone)]
    assert kept[0] == kept[1]


@pytest.fixture
def three_threads():
    """A pack in three parts, where none of its members drops anything."""
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def test_seeds_train_side_by_side_on_one_quantised_base_and_a_run_says_so(recipe, tmp_path):
    recipes = [recipe(dtype="nf4+fp32", seed=seed, method=LoRA(rank=2)) for seed in (0, 1)]
    alone = train(recipes[0], store=tmp_path)
    assert (alone.environment["quantised"], alone.environment["dtype"]) == ("nf4", "fp32")
    assert Pack(recipes).run()[0].metrics["loss"] == pytest.approx(alone.metrics["loss"], rel=1e-4)
    kept = {"device_name": "cpu", "attention": "eager"}
    assert evaluate_adapter(alone.adapter, recipes[0].task, dtype="nf4+fp32", **kept) == pytest.approx(alone.metrics)


def test_members_on_draws_of_their_own_are_as_they_are_alone(recipe, three_threads):
    recipes = [recipe(steps=6, examples=12, subset=subset, seed=seed) for subset, seed in ((0, 0), (0, 1), (1, 1))]
    pack = Pack(recipes)
    assert len(pack.model.members) == 3
    assert [len(rows) for rows in pack.draws.values()] == [12, 12]
    assert pack.draws[0] != pack.draws[1]
    for one, together in zip(recipes, pack.run(), strict=True):
        alike(together, train(one, store=None))


def test_a_member_that_diverges_or_has_enough_leaves_and_the_others_do_not_notice(recipe, three_threads):
    recipes = [
        recipe(steps=12, validations=6, lr=lr, patience=patience, seed=seed)
        for lr, patience, seed in ((1e-2, 0, 0), (1e30, 0, 1), (1e-9, 2, 2), (5e-3, 0, 3))
    ]
    found = {run.recipe: run for run in Pack(recipes).run()}
    assert [found[r].status for r in recipes] == ["done", "failed", "early", "done"]
    assert "lower the rate" in found[recipes[1]].error
    assert len(found[recipes[2]].history["step"]) < 12
    for index in (2, 3):
        alike(found[recipes[index]], train(recipes[index], store=None))


def test_a_language_model_lowers_its_perplexity_in_a_pack_as_alone(tiny_causal, tmp_path):
    text = tmp_path / "own.txt"
    text.write_text("\n\n".join(f"Line {n}: {'the same old story again and ' * 24}" for n in range(30)))
    settings = {"max_length": 32, "lr": 2e-2, "steps": 6, "batch": 4, "validations": 2, **PLAIN}
    methods = LoRA(8, targets=("all-linear", "lm_head")), LoRA(1, targets="q,v")
    recipes = [Recipe(tiny_causal, str(text), method, seed=n, **settings) for n, method in enumerate(methods)]
    for recipe, together in zip(recipes, Pack(recipes).run(), strict=True):
        alone = train(recipe, store=tmp_path / "runs")
        assert np.allclose(together.history["loss"], alone.history["loss"], rtol=1e-4)
        assert together.metrics["perplexity"] == pytest.approx(alone.metrics["perplexity"], rel=1e-4)
        assert alone.metrics["perplexity"] < alone.history["validation"][0]["perplexity"]
        assert (alone.head_parameters, Store(tmp_path / "runs").find(recipe)) == (0, alone)
        if recipe.method.rank == 8:
            assert alone.metrics["perplexity"] < 0.5 * 257  # knowing nothing


def test_what_cannot_share_a_base_stands_alone(recipe):
    plain = recipe()
    assert key(plain) == key(recipe(seed=5, lr=1e-4, method=LoRA(3, targets="k"), clip=0, patience=2))
    for other in (recipe(steps=9), recipe(dropout=True), recipe(batch=3), recipe(examples=12)):
        assert key(other) != key(plain)
    with pytest.raises(BadValue, match="may differ only in"):
        Pack([plain, recipe(batch=3)])


@pytest.mark.parametrize(("count", "dropout", "ratio"), [(1, 0.2, 1), (1, 0.0, 4), (2, 0.2, 1), (3, 0.0, 1)])
def test_a_pack_that_was_broken_off_goes_on_as_if_it_had_not_been(
    recipe, tmp_path, three_threads, count, dropout, ratio
):
    recipes = [
        recipe(steps=12, validations=4, seed=k, lr=1e-2 / (k + 1), method=LoRA(2 + k, dropout=dropout, lr_ratio=ratio))
        for k in range(count)
    ]
    whole = {run.recipe: run for run in Pack(recipes).run()}
    broken, stop, file = Pack(recipes), threading.Event(), tmp_path / "pack.safetensors"

    def written(pack: Pack) -> None:
        if pack.step == 6:
            checkpoint.write(pack, file)
            stop.set()

    broken.written, broken.scores_stopped = written, False
    assert broken.run(stop=stop) == []
    again = Pack(recipes if dropout else recipes[::-1])  # in another order, too; masks are drawn in the order
    checkpoint.restore(again, file)
    assert not mapped(file)
    for run in again.run():
        assert run.history == whole[run.recipe].history
        assert run.metrics == whole[run.recipe].metrics


def test_checkpoints_that_are_slow_to_write_are_rare(recipe):
    pack, written = Pack([recipe(steps=12, validations=12)]), list[int]()
    pack.written = lambda pack: (written.append(pack.step), time.sleep(0.2))
    pack.run()
    assert len(written) == 1  # the next would come after four seconds


def test_a_checkpoint_that_cannot_be_read_is_kept_and_named_and_one_of_other_runs_refused(recipe, tmp_path):
    pack = Pack([recipe()])
    file = checkpoint.path_of(tmp_path, [recipe()])
    checkpoint.write(pack, file)
    with pytest.raises(BadValue, match="has no run"):
        checkpoint.restore(Pack([recipe(seed=2)]), file)
    whole = file.read_bytes()
    for content in (whole[:200], whole.replace(b'\\"warmup\\"', b'\\"warmer\\"')):  # damaged, of another version
        file.write_bytes(content)
        with pytest.warns(LabWarning, match=file.name):
            assert checkpoint.unfinished(tmp_path) == []
        assert checkpoint.unfinished(tmp_path) == []  # and is spoken of once
        assert content in [kept.read_bytes() for kept in file.parent.iterdir()]
    assert len(list(file.parent.iterdir())) == 2


def test_a_damaged_checkpoint_that_cannot_be_renamed(tmp_path, recipe, monkeypatch):
    file = checkpoint.path_of(tmp_path, [recipe()])
    file.parent.mkdir(parents=True)
    file.write_bytes(b"damaged")
    monkeypatch.setattr(Path, "rename", Mock(side_effect=FileNotFoundError(2, "another sweep was quicker")))
    assert checkpoint.unfinished(tmp_path) == []
    monkeypatch.setattr(Path, "rename", Mock(side_effect=PermissionError(13, "in use")))
    with pytest.raises(BadValue, match="in use"):
        checkpoint.unfinished(tmp_path)


def test_a_step_waits_for_the_device_once_however_many_members_there_are(recipe, monkeypatch):
    waits = []
    for name in ("item", "tolist", "__bool__", "__float__"):
        method = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, method=method: waits.append(1) or method(self))

    def waited(members: int) -> list[int]:
        """Return how often each step but the first read a tensor's values."""
        seen, recipes = list[int](), [recipe(seed=seed, steps=4, validations=0) for seed in range(members)]
        pack = Pack(recipes, callbacks=lambda one: [lambda step: seen.append(len(waits))] if one.seed == 0 else ())
        pack.fit()
        return [after - before for before, after in pairwise(seen)]

    alone, together = waited(1), waited(4)
    assert alone == together
    assert max(together) <= 2  # loss and norm; transformers reads the mask


def test_twenty_steps_on_the_real_model(opinions):
    """The promise, on MiniLM in fp32: mixed ranks, alphas, rates, seeds, targets, clipping and decay."""
    shared = {"steps": 20, "batch": 4, "validations": 2, "max_length": 16, **PLAIN}
    recipes = [
        Recipe("minilm", opinions, LoRA(1, 16), lr=2e-3, seed=0, **shared),
        Recipe("minilm", opinions, LoRA(16, 32, "all-linear"), lr=5e-4, seed=1, clip=0.3, **shared),
        Recipe("minilm", opinions, LoRA(5, 8, "k,o", rslora=True), seed=0, clip=0.0, weight_decay=0.1, **shared),
    ]
    for recipe, together in zip(recipes, Pack(recipes).run(), strict=True):
        alone = train(recipe, store=None)
        alike(together, alone)
        assert np.allclose(together.history["loss"], alone.history["loss"], rtol=1e-5)
