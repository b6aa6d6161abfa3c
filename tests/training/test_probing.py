"""The probe is solved to its end: held to scikit-learn, and run through the door that every method uses."""

import threading

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lora_lab import Probe, Store, evaluate_adapter, load_model, sweep, train
from lora_lab.errors import Failed
from lora_lab.training.probing import features, solve
from tests.training.conftest import rows


def clouds(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clouds of points, each feature on a scale of its own, and which cloud each is from."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 200)
    centres = rng.normal(size=(classes, 6))
    return (centres[labels] + 1.5 * rng.normal(size=(200, 6))) * 10.0 ** np.arange(-3, 3) + 7, labels


@pytest.mark.parametrize(("classes", "l2"), [(2, 0.1), (2, 30.0), (3, 1.0)])
def test_it_says_what_scikit_learn_says(classes, l2):
    z, labels = clouds(classes)
    z[:, 2] = 5.0  # which says nothing
    weight, bias, loss = solve(z, labels, classes, l2)
    strength = (2 if classes == 2 else 1) / l2
    peer = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-8, max_iter=5000)).fit(z, labels)
    said = softmax(z @ weight.T + bias, axis=1)
    assert np.allclose(said, peer.predict_proba(z), atol=1e-3)
    assert loss == pytest.approx(-np.log(said[np.arange(len(z)), labels]).mean(), rel=1e-6)
    assert np.abs(weight[:, 2]).max() < 1e-12


def test_features_that_are_no_numbers_are_named():
    with pytest.raises(Failed, match="not finite"):
        solve(np.full((4, 2), np.nan), np.array([0, 1, 0, 1]), 2, 1.0)


def test_features_are_in_the_rows_order_whatever_the_batches(tiny_encoder):
    model = load_model(tiny_encoder, 3)
    Probe().attach(model)
    some = rows(40)
    together = features(model, some, 0, "cpu")
    for number in (0, 17, 39):
        assert np.allclose(together[number], features(model, some[number : number + 1], 0, "cpu")[0], atol=1e-5)


def test_a_run_like_any_other_whatever_its_rate_steps_seed_and_batch(recipe, tmp_path, opinions, tiny_encoder):
    run = train(recipe(method=Probe(l2=0.1)), store=tmp_path)
    assert run.status == "done"
    assert run.metrics.keys() == {"accuracy", "macro_f1", "loss"}
    assert run.metrics["accuracy"] >= 0.75  # the word that decides shows in the mean of the tokens
    assert (run.adapter_parameters, run.head_parameters) == (0, 2 * 32 + 2)
    assert (run.history["step"], run.history["lr"]) == ([4], [0.0])
    assert run.history["validation"][0]["step"] == 4
    assert run.history["loss"][0] < np.log(2)
    assert len(run.predictions) == 16
    (kept,) = Store(tmp_path).runs()
    assert kept == run
    options = {"dtype": "fp32", "attention": "eager", "device_name": "cpu"}
    assert evaluate_adapter(run.adapter, opinions, model=tiny_encoder, **options) == pytest.approx(run.metrics)
    other = train(recipe(method=Probe(l2=0.1), lr=1.0, steps=9, seed=3, batch=4, validations=1), store=None)
    assert other.metrics == run.metrics
    assert (other.predictions == run.predictions).all()


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
