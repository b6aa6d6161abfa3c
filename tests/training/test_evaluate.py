"""Metrics against plain computation."""

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


class Uniform(nn.Module):
    """A language model that knows nothing: every token is as likely as any other."""

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, VOCABULARY))


def test_perplexity_is_over_all_tokens_not_the_mean_of_rows():
    model, data = tiny("llama"), rows(9, labels=None)
    randomise(model)
    losses = []
    with torch.no_grad():
        for row in data:  # one at a time, without padding
            logits = model(input_ids=torch.tensor([row.tokens])).logits[0]
            losses.append(F.cross_entropy(logits[:-1], torch.tensor(row.tokens[1:]), reduction="none"))
    score = evaluate(model, data, pad=0)
    assert score.metrics["loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    assert score.metrics["perplexity"] == pytest.approx(torch.cat(losses).mean().exp().item(), rel=1e-5)
    np.testing.assert_allclose(score.by_row, [x.mean().item() for x in losses], rtol=1e-5)
    assert score.predictions is score.by_row


def test_a_row_that_predicts_no_token_weighs_nothing_and_is_no_nan():
    score = evaluate(Uniform(), [Row([5], None, 0), Row([5, 6, 7], None, 1)], pad=0)
    np.testing.assert_allclose(score.by_row, [0, math.log(VOCABULARY)], rtol=1e-6)
    assert score.metrics["loss"] == pytest.approx(math.log(VOCABULARY), rel=1e-6)


def test_smoothing_is_torchs_on_answers_and_on_classes():
    """(1 - s) of the loss, and s of the mean loss over all tokens, as in Hu et al.'s own GPT-2."""
    batch = collate([Row([5, 6, 7], None, 0, 1), Row([5, 6, 7, 8, 9], None, 1, 2)], pad=0)
    logits = torch.randn(*batch.input_ids.shape, VOCABULARY)
    log_p = logits.log_softmax(-1)
    for i, places in ((0, (0, 1)), (1, (1, 2, 3))):
        told = [-log_p[i, place, batch.input_ids[i, place + 1]] for place in places]
        alike = [-log_p[i, place].mean() for place in places]
        expected = 0.9 * torch.stack(told).mean() + 0.1 * torch.stack(alike).mean()
        torch.testing.assert_close(loss_of(logits, batch.labels, 0.1)[i], expected)
    labels = torch.tensor([1, 2])
    found = loss_of(logits[:, 0], labels, 0.1)
    torch.testing.assert_close(found, F.cross_entropy(logits[:, 0], labels, reduction="none", label_smoothing=0.1))


def test_a_member_weighs_its_tokens_or_its_rows():
    """Two members of two rows, of 1 and 4 learned tokens in each: the mean over tokens is not that over rows."""
    some = [Row([5, 6], None, 0), Row([5, 6, 7, 8, 9], None, 1)]
    batch = collate([*some, *some], pad=0)
    logits = torch.randn(*batch.input_ids.shape, VOCABULARY)
    each = loss_of(logits, batch.labels)
    by_rows = label_losses(logits, batch.labels, [SimpleNamespace(recipe=Recipe("m", "t"))] * 2)
    torch.testing.assert_close(by_rows, each.view(2, 2).mean(1))
    by_tokens = label_losses(logits, batch.labels, [SimpleNamespace(recipe=Recipe("m", "t", token_mean=True))] * 2)
    torch.testing.assert_close(by_tokens, (each.view(2, 2) * torch.tensor([1.0, 4.0])).sum(1) / 5)


def test_a_number_is_learnt_by_its_squared_error_and_judged_by_correlation():
    data = [Row([5, 6], 1.5, 0), Row([5, 6, 7], 0.0, 1), Row([5], 4.0, 2)]
    batch = collate(data, pad=0)
    torch.testing.assert_close(
        loss_of(torch.tensor([[1.0], [2.0], [4.0]]), batch.labels), torch.tensor([0.25, 4.0, 0.0])
    )

    class Length(nn.Module):
        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(logits=attention_mask.sum(1, keepdim=True).float())

    score = evaluate(Length(), data, pad=0)
    np.testing.assert_array_equal(score.predictions, [2, 3, 1])
    assert score.metrics["spearman"] == pytest.approx(-1)
    assert score.metrics["loss"] == pytest.approx((0.25 + 9 + 9) / 3)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(2, 4))
def test_classification_metrics_are_those_of_scikit_learn_and_torch(seed, n, classes):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(n, classes)) * 5, rng.integers(0, classes, n)
    predicted = logits.argmax(1)
    metrics = classification_metrics(logits, labels, ("accuracy", "f1", "matthews", "pearson"))
    assert metrics.keys() == {"accuracy", "macro_f1", "loss", "f1", "matthews"}
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert metrics["f1"] == pytest.approx(f1_score(labels == 1, predicted == 1, zero_division=0.0))
    assert metrics["matthews"] == pytest.approx(matthews_corrcoef(labels, predicted))
    assert metrics["loss"] == pytest.approx(F.cross_entropy(torch.tensor(logits), torch.tensor(labels)).item())


@example([(1, 1)] * 3)  # the mean of 0.1, 0.1 and 0.1 is not quite 0.1
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=40))
def test_correlations_are_scipys_and_a_constant_prediction_is_worth_nothing(rows):
    predicted, true = np.array(rows).T / 10
    found = regression_metrics(predicted, true)
    assert found["loss"] == pytest.approx(float(((predicted - true) ** 2).mean()))
    constant = len(set(predicted)) == 1 or len(set(true)) == 1
    for name, peer in (("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)):
        assert found[name] == pytest.approx(0 if constant else peer(predicted, true)[0], abs=1e-9)


def test_better_means_more_accurate_or_less_perplexed():
    assert better({"accuracy": 0.8, "loss": 9}, {"accuracy": 0.7, "loss": 1})
    assert not better({"accuracy": 0.8}, {"accuracy": 0.8})
    assert better({"perplexity": 10}, {"perplexity": 11})
    assert not better({"perplexity": math.nan}, {"perplexity": 11})
    assert better({"matthews": 0.2, "accuracy": 0.6}, {"matthews": 0.0, "accuracy": 0.7})  # CoLA's own comes first


def test_scoring_is_in_eval_mode_and_leaves_every_module_in_its_own():
    model = tiny("roberta")
    LoRA(rank=2, dropout=0.5).attach(model)
    randomise(model)
    expected = evaluate(model, rows(5), pad=1).metrics
    model.roberta.encoder.layer[1].train()
    before = {name: module.training for name, module in model.named_modules()}
    assert evaluate(model, rows(5), pad=1).metrics == expected
    assert {name: module.training for name, module in model.named_modules()} == before
    model.classifier.register_forward_pre_hook(Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):  # as of a cell
        evaluate(model, rows(5), pad=1)
    assert {name: module.training for name, module in model.named_modules()} == before
