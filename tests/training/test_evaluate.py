import threading
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from lora_lab import LoRA, Probe, Recipe, Store, evaluate_adapter, sweep, train
from lora_lab.errors import Failed
from lora_lab.metrics import goodness
from lora_lab.training.batches import Row, collate
from lora_lab.training.evaluate import classification_metrics, evaluate, loss_of, regression_metrics
from lora_lab.training.member import features, label_losses, solve
from tests.conftest import assert_raises, randomise, tiny
from tests.training.conftest import rows

VOCABULARY = 96


class Lengths(nn.Module):
    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(logits=attention_mask.sum(1, keepdim=True).float())


def test_perplexity_is_a_mean_over_tokens():
    model, data = tiny("llama"), [*rows(9, labels=None), Row([5], None, 9)]  # the last one predicts no token
    randomise(model)
    losses = []
    with torch.no_grad():
        for row in data:  # one at a time, without padding
            logits = model(input_ids=torch.tensor([row.tokens])).logits[0]
            losses.append(F.cross_entropy(logits[:-1], torch.tensor(row.tokens)[1:], reduction="none"))
    score = evaluate(model, data, pad=0)
    mean = torch.cat(losses).mean()
    assert score.metrics["loss"] == pytest.approx(mean.item(), rel=1e-5)
    assert score.metrics["perplexity"] == pytest.approx(mean.exp().item(), rel=1e-5)
    assert {type(value) for value in score.metrics.values()} == {float}  # not NumPy's float64
    np.testing.assert_allclose(score.by_row, [x.mean().item() if len(x) else 0 for x in losses], rtol=1e-5)
    assert score.predictions is score.by_row


@pytest.mark.parametrize(("kind", "labels"), [("bert", 3), ("llama", None)])
def test_rows_may_be_scored_in_any_order_and_more_than_once(kind, labels):
    model, data = tiny(kind), rows(9, labels=labels)
    randomise(model)
    first, mixed = evaluate(model, data, pad=0), evaluate(model, [*data[::-1], *data], pad=0)
    assert mixed.metrics == pytest.approx(first.metrics, rel=1e-5)
    np.testing.assert_allclose(mixed.by_row, [*first.by_row[::-1], *first.by_row], rtol=1e-4, atol=1e-6)


def test_label_smoothing_matches_torch():
    """Only the answer's tokens count. The loss against a uniform distribution over the vocabulary has weight 0.1."""
    batch = collate([Row([5, 6, 7], None, 0, 1), Row([5, 6, 7, 8, 9], None, 1, 2)], pad=0)
    logits = torch.randn(*batch.input_ids.shape, VOCABULARY)
    actual = loss_of(logits, batch.labels, 0.1)
    for i, answer in ((0, slice(1, 3)), (1, slice(2, 5))):
        predicted = logits[i, answer.start - 1 : answer.stop - 1]
        expected = F.cross_entropy(predicted, batch.input_ids[i, answer], label_smoothing=0.1)
        torch.testing.assert_close(actual[i], expected)
    labels = torch.tensor([1, 2])
    expected = F.cross_entropy(logits[:, 0], labels, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(loss_of(logits[:, 0], labels, 0.1), expected)


def test_members_loss_is_a_mean_over_rows_or_tokens():
    two_rows = [Row([5, 6], None, 0), Row([5, 6, 7, 8, 9], None, 1)]  # 1 and 4 learned tokens
    batch = collate([*two_rows, *two_rows], pad=0)
    logits = torch.randn(*batch.input_ids.shape, VOCABULARY)
    by_row = loss_of(logits, batch.labels).view(2, 2)
    for token_mean, expected in ((False, by_row.mean(1)), (True, (by_row * torch.tensor([1.0, 4.0])).sum(1) / 5)):
        members = [SimpleNamespace(recipe=Recipe("m", "t", token_mean=token_mean))] * 2
        torch.testing.assert_close(label_losses(logits, batch.labels, members), expected)


def test_regression_has_squared_error_and_correlation():
    data = [Row([5, 6], 1.5, 0), Row([5, 6, 7], 0.0, 1), Row([5], 4.0, 2)]
    losses = loss_of(torch.tensor([[1.0], [2.0], [4.0]]), collate(data, pad=0).labels)
    torch.testing.assert_close(losses, torch.tensor([0.25, 4.0, 0.0]))
    score = evaluate(Lengths(), data, pad=0)
    np.testing.assert_array_equal(score.predictions, [2, 3, 1])
    assert score.metrics["spearman"] == pytest.approx(-1)
    assert score.metrics["loss"] == pytest.approx((0.25 + 9 + 9) / 3)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(2, 4))
def test_classification_metrics_match_scikit_learn(seed, n, classes):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(n, classes)) * 5, rng.integers(0, classes, n)
    predicted = logits.argmax(1)
    metrics = classification_metrics(logits, labels, ("accuracy", "f1", "matthews", "pearson"))
    f1 = f1_score(labels == 1, predicted == 1, zero_division=0.0)
    expected = {"f1": f1, "macro_f1": f1_score(labels, predicted, average="macro")}
    expected |= {"accuracy": accuracy_score(labels, predicted), "matthews": matthews_corrcoef(labels, predicted)}
    expected["loss"] = F.cross_entropy(torch.tensor(logits), torch.tensor(labels)).item()
    assert metrics == pytest.approx(expected)


@example([(1, 1)] * 3)  # the mean of 0.1, 0.1 and 0.1 is not exactly 0.1
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=40))
def test_correlations_match_scipy_and_are_0_for_a_constant(rows):
    predicted, true = np.array(rows).T / 10
    metrics = regression_metrics(predicted, true)
    assert metrics["loss"] == pytest.approx(float(((predicted - true) ** 2).mean()))
    constant = len(set(predicted)) == 1 or len(set(true)) == 1
    for name, reference in (("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)):
        assert metrics[name] == pytest.approx(0 if constant else reference(predicted, true)[0], abs=1e-9)


def test_goodness_follows_the_main_metric():
    assert goodness({"accuracy": 0.8, "loss": 9}) > goodness({"accuracy": 0.7, "loss": 1})
    assert goodness({"perplexity": 10}) > goodness({"perplexity": 11})
    assert goodness({"matthews": 0.2, "accuracy": 0.6}) > goodness({"matthews": 0.0, "accuracy": 0.7})  # CoLA's metric


def test_evaluate_restores_the_mode_of_each_module():
    model = tiny("roberta")
    LoRA(rank=2, dropout=0.5).attach(model)
    randomise(model)
    expected = evaluate(model, rows(5), pad=1).metrics
    model.roberta.encoder.layer[1].train()
    before = {name: module.training for name, module in model.named_modules()}
    assert evaluate(model, rows(5), pad=1).metrics == expected
    assert {name: module.training for name, module in model.named_modules()} == before
    model.classifier.register_forward_pre_hook(Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, rows(5), pad=1)
    assert {name: module.training for name, module in model.named_modules()} == before


@pytest.mark.parametrize(("classes", "l2"), [(2, 0.1), (3, 30.0)])
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
    options = {"dtype": "fp32", "attention": "eager", "device": "cpu"}
    assert evaluate_adapter(run.adapter, opinions, model=tiny_encoder, **options) == pytest.approx(run.metrics)
    other = train(recipe(method=Probe(l2=0.1), lr=1.0, steps=9, seed=3, batch=4, validations=1), store=None)
    assert other.metrics == run.metrics
    assert (other.predictions == run.predictions).all()


def test_features_are_reused_for_the_same_texts(recipe, tmp_path, monkeypatch):
    computed = []

    def counting_features(model, rows, *args, **options):
        computed.append(len(rows))
        return features(model, rows, *args, **options)

    monkeypatch.setattr("lora_lab.training.member._kept", None)
    monkeypatch.setattr("lora_lab.training.member.features", counting_features)
    sweep([recipe(method=Probe(l2=l2), seed=s) for l2, s in ((0.1, 0), (10.0, 0), (0.1, 1))], tmp_path)
    for dtype in ("fp32", "nf4+fp32"):  # a quantized base has other features
        train(recipe(method=Probe(), examples=24, dtype=dtype), store=None)
    assert computed == [56, 24, 24]


def test_stopped_probe_is_untrained_and_nonfinite_features_are_refused(recipe):
    stop = threading.Event()
    stop.set()
    run = train(recipe(method=Probe()), store=None, stop=stop)
    assert run.status == "stopped"
    assert run.metrics["loss"] == pytest.approx(np.log(2))
    assert_raises("not finite", solve, np.full((4, 2), np.nan), np.array([0, 1, 0, 1]), 2, 1.0, error=Failed)
