"""Tests of losses and metrics against plain computation."""

import math
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torch import nn
from torch.nn import functional as F

from lora_lab import LoRA, Recipe
from lora_lab.metrics import better
from lora_lab.training.batches import Row, collate
from lora_lab.training.evaluate import classification_metrics, evaluate, loss_of, regression_metrics
from lora_lab.training.loop import label_losses
from tests.conftest import randomise, tiny
from tests.training.conftest import rows

VOCABULARY = 96


class Model(nn.Module):
    """Returns logits computed from the attention mask."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(logits=self.logits(attention_mask))


def test_perplexity_is_a_mean_over_tokens():
    model, data = tiny("llama"), rows(9, labels=None)
    randomise(model)
    losses = []
    with torch.no_grad():
        for row in data:  # one at a time, without padding
            logits = model(input_ids=torch.tensor([row.tokens])).logits[0]
            losses.append(F.cross_entropy(logits[:-1], torch.tensor(row.tokens[1:]), reduction="none"))
    score = evaluate(model, data, pad=0)
    mean = torch.cat(losses).mean()
    assert score.metrics["loss"] == pytest.approx(mean.item(), rel=1e-5)
    assert score.metrics["perplexity"] == pytest.approx(mean.exp().item(), rel=1e-5)
    np.testing.assert_allclose(score.by_row, [x.mean().item() for x in losses], rtol=1e-5)
    assert score.predictions is score.by_row


def test_row_without_predicted_tokens_has_no_weight():
    uniform = Model(lambda mask: torch.zeros(*mask.shape, VOCABULARY))
    score = evaluate(uniform, [Row([5], None, 0), Row([5, 6, 7], None, 1)], pad=0)
    np.testing.assert_allclose(score.by_row, [0, math.log(VOCABULARY)], rtol=1e-6)
    assert score.metrics["loss"] == pytest.approx(math.log(VOCABULARY), rel=1e-6)


def test_label_smoothing_matches_torch():
    """Only the answer counts, in which the mean loss over all tokens has weight 0.1."""
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
    score = evaluate(Model(lambda mask: mask.sum(1, keepdim=True).float()), data, pad=0)
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


def test_better_compares_the_main_metric():
    assert better({"accuracy": 0.8, "loss": 9}, {"accuracy": 0.7, "loss": 1})
    assert not better({"accuracy": 0.8}, {"accuracy": 0.8})
    assert better({"perplexity": 10}, {"perplexity": 11})
    assert not better({"perplexity": math.nan}, {"perplexity": 11})
    assert better({"matthews": 0.2, "accuracy": 0.6}, {"matthews": 0.0, "accuracy": 0.7})  # CoLA's metric comes first


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
