"""Tests of the probe: the solution equals scikit-learn's, and a run works like any other."""

import threading

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lora_lab import Probe, Store, evaluate_adapter, sweep, train
from lora_lab.errors import Failed
from lora_lab.training.probing import features, solve


@pytest.mark.parametrize(("classes", "l2"), [(2, 0.1), (2, 30.0), (3, 1.0)])
def test_solution_matches_scikit_learn(classes, l2):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 200)
    centers = rng.normal(size=(classes, 6))
    z = (centers[labels] + 1.5 * rng.normal(size=(200, 6))) * 10.0 ** np.arange(-3, 3) + 7  # features of all scales
    z[:, 2] = 5.0  # a constant feature
    weight, bias, loss = solve(z, labels, classes, l2)
    inverse_penalty = (2 if classes == 2 else 1) / l2
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, tol=1e-8, max_iter=5000))
    probabilities = softmax(z @ weight.T + bias, axis=1)
    assert np.allclose(probabilities, expected.fit(z, labels).predict_proba(z), atol=1e-3)
    assert loss == pytest.approx(-np.log(probabilities[np.arange(len(z)), labels]).mean(), rel=1e-6)
    assert np.abs(weight[:, 2]).max() < 1e-12


def test_nonfinite_features_are_refused():
    with pytest.raises(Failed, match="not finite"):
        solve(np.full((4, 2), np.nan), np.array([0, 1, 0, 1]), 2, 1.0)


def test_probe_run_does_not_depend_on_rate_steps_seed_or_batch(recipe, tmp_path, opinions, tiny_encoder):
    run = train(recipe(method=Probe(l2=0.1)), store=tmp_path)
    assert run.status == "done"
    assert run.metrics.keys() == {"accuracy", "macro_f1", "loss"}
    assert run.metrics["accuracy"] >= 0.75
    assert (run.adapter_parameters, run.head_parameters) == (0, 2 * 32 + 2)
    assert (run.history["step"], run.history["lr"]) == ([4], [0.0])
    assert run.history["validation"][0]["step"] == 4
    assert run.history["loss"][0] < np.log(2)
    assert len(run.predictions) == 16
    assert Store(tmp_path).runs() == [run]
    options = {"dtype": "fp32", "attention": "eager", "device_name": "cpu"}
    assert evaluate_adapter(run.adapter, opinions, model=tiny_encoder, **options) == pytest.approx(run.metrics)
    other = train(recipe(method=Probe(l2=0.1), lr=1.0, steps=9, seed=3, batch=4, validations=1), store=None)
    assert other.metrics == run.metrics
    assert (other.predictions == run.predictions).all()


def test_features_are_reused_for_the_same_texts(recipe, tmp_path, monkeypatch):
    computed = []

    def counting_features(model, rows, *args, **options):
        computed.append(len(rows))
        return features(model, rows, *args, **options)

    monkeypatch.setattr("lora_lab.training.probing._kept", None)
    monkeypatch.setattr("lora_lab.training.probing.features", counting_features)
    sweep([recipe(method=Probe(l2=l2), seed=s) for l2, s in ((0.1, 0), (10.0, 0), (0.1, 1))], tmp_path)
    train(recipe(method=Probe(), examples=24), store=None)
    assert computed == [56, 24]


def test_stopped_probe_is_untrained(recipe):
    stop = threading.Event()
    stop.set()
    run = train(recipe(method=Probe()), store=None, stop=stop)
    assert run.status == "stopped"
    assert run.metrics["loss"] == pytest.approx(np.log(2))
