"""The probe is solved to its end: held to scikit-learn, and run through the door that every method uses."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lora_lab import LoRA, Probe, Store, evaluate_adapter, load_model, sweep, train
from lora_lab.errors import BadValue, Failed
from lora_lab.methods.pooled_head import pooled_head_of
from lora_lab.training.probing import features, solve
from tests.training.conftest import rows


def clouds(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clouds of points, each feature on a scale of its own, and which cloud each is from."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 200)
    centres = rng.normal(size=(classes, 6))
    return (centres[labels] + 1.5 * rng.normal(size=(200, 6))) * 10.0 ** np.arange(-3, 3) + 7, labels


@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_it_says_what_scikit_learn_says(classes, l2):
    z, labels = clouds(classes)
    weight, bias, loss = solve(z, labels, classes, l2)
    strength = (2 if classes == 2 else 1) / l2
    peer = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-8, max_iter=5000)).fit(z, labels)
    said = softmax(z @ weight.T + bias, axis=1)
    assert np.allclose(said, peer.predict_proba(z), atol=1e-3)
    assert loss == pytest.approx(-np.log(said[np.arange(len(z)), labels]).mean(), rel=1e-6)


def test_a_larger_penalty_makes_smaller_weights_and_a_constant_feature_gets_none():
    z, labels = clouds(2)
    z[:, 2] = 5.0
    large, small = (solve(z, labels, 2, l2)[0] for l2 in (0.01, 10.0))
    assert np.abs(large).sum() > np.abs(small).sum()
    assert np.abs(large[:, 2]).max() < 1e-12


def test_features_that_are_no_numbers_are_named():
    with pytest.raises(Failed, match="not finite"):
        solve(np.full((4, 2), np.nan), np.array([0, 1, 0, 1]), 2, 1.0)


def test_features_are_in_the_rows_order_whatever_the_batches(tiny_encoder):
    model = load_model(tiny_encoder, 3)
    with pytest.raises(BadValue, match="no probe"):
        features(model, rows(3), 0, "cpu")
    Probe().attach(model)
    some = rows(40)
    together = features(model, some, 0, "cpu")
    for number in (0, 17, 39):
        assert np.allclose(together[number], features(model, some[number : number + 1], 0, "cpu")[0], atol=1e-5)


def test_a_run_like_any_other(recipe, tmp_path):
    run = train(recipe(method=Probe(l2=0.1)), store=tmp_path)
    assert run.status == "done"
    assert run.metrics.keys() == {"accuracy", "macro_f1", "loss"}
    assert run.metrics["accuracy"] >= 0.75  # the word that decides shows in the mean of the tokens
    assert (run.adapter_parameters, run.head_parameters) == (0, 2 * 32 + 2)
    assert (run.history["step"], run.history["lr"]) == ([4], [0.0])
    assert run.history["validation"][0]["step"] == 4
    assert run.history["loss"][0] < np.log(2)
    assert run.peak_bytes > 2**20
    assert len(run.predictions) == 16
    (kept,) = Store(tmp_path).runs()
    assert kept == run


def test_neither_rate_nor_steps_nor_seed_nor_batch_change_it(recipe):
    one = train(recipe(method=Probe()), store=None)
    other = train(recipe(method=Probe(), lr=1.0, steps=9, seed=3, batch=4, validations=1), store=None)
    assert one.metrics == other.metrics
    assert (one.predictions == other.predictions).all()


def test_a_causal_model_is_probed_too(recipe, tiny_causal):
    run = train(recipe(model=tiny_causal, method=Probe()), store=None)
    assert run.head_parameters == 2 * 32 + 2
    assert run.history["loss"][0] < np.log(2)


def test_the_kept_probe_scores_as_the_run_did(recipe, tmp_path, opinions, tiny_encoder):
    run = train(recipe(method=Probe()), store=tmp_path)
    options = {"dtype": "fp32", "attention": "eager", "device_name": "cpu"}
    assert evaluate_adapter(run.adapter, opinions, model=tiny_encoder, **options) == pytest.approx(run.metrics)


def test_a_sweep_tunes_the_penalty_beside_other_methods(recipe, tmp_path):
    wanted = [recipe(method=Probe(l2=l2)) for l2 in (0.1, 10.0)] + [recipe(method=LoRA(rank=2))]
    swept = sweep(wanted, tmp_path)
    assert [run.status for run in swept.runs] == ["done"] * 3
    assert len({run.history["loss"][0] for run in swept.runs[:2]}) == 2
    assert sweep(wanted, tmp_path).skipped == 3


def test_texts_are_read_once_for_all_penalties_and_anew_for_other_texts(recipe, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr("lora_lab.training.probing._kept", None)
    monkeypatch.setattr(
        "lora_lab.training.probing.features",
        lambda model, rows, *a, **k: read.append(len(rows)) or features(model, rows, *a, **k),
    )
    sweep([recipe(method=Probe(l2=l2), seed=s) for l2 in (0.1, 10.0) for s in (0, 1)], tmp_path)
    train(recipe(method=Probe(), examples=24), store=None)
    assert read == [56, 24]


def test_a_run_that_is_stopped_is_not_solved(recipe):
    stop = threading.Event()
    stop.set()
    run = train(recipe(method=Probe()), store=None, stop=stop)
    assert run.status == "stopped"
    assert run.metrics["loss"] == pytest.approx(np.log(2))


def test_a_model_whose_states_overflow_fails_with_a_reason(recipe, monkeypatch):
    monkeypatch.setattr("lora_lab.training.probing._kept", None)
    monkeypatch.setattr("lora_lab.training.probing.features", lambda *_, **__: np.full((56, 32), np.inf))
    with pytest.raises(Failed, match="not finite"):
        train(recipe(method=Probe()), store=None)


def test_the_base_does_not_move(recipe, tiny_encoder):
    wanted = recipe(method=Probe())
    from lora_lab.training.train import Bench

    bench = Bench(replace(wanted, seed=1))
    bench.only()
    fresh = dict(load_model(tiny_encoder, 2).base_model.named_parameters())
    for name, weight in bench.model.base_model.named_parameters():
        assert torch.equal(weight, fresh[name])
    assert pooled_head_of(bench.model).trained.weight.abs().max() > 0
