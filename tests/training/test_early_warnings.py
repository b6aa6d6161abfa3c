"""Tests of the warnings of the first step: unusual learning rates and missing gradients."""

import warnings

import pytest
import torch
import transformers

from lora_course.experiments.broken import checkpointing
from lora_lab import FullFineTuning, LoRA, PromptTuning, Recipe, Store
from lora_lab.errors import LabWarning
from lora_lab.experiments.tuning import AXES
from lora_lab.training.early_warnings import USUAL, USUAL_FEW, gradient_warning, rate_warning
from lora_lab.training.train import train
from tests.conftest import BERT, logits, lora_layers, tiny


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("roberta", LoRA(rank=2, freeze_a=True)),
        ("llama", LoRA(rank=2, targets=("embed", "all-linear"))),
        ("llama", PromptTuning(tokens=3)),
    ],
)
def test_no_warning_if_gradients_flow(kind, method):
    """B is 0 at first, so A's gradient is 0, which is no reason to warn."""
    model = tiny(kind)
    method.attach(model)
    logits(model).square().mean().backward()
    assert gradient_warning(model) is None


@pytest.mark.filterwarnings("ignore")
def test_checkpointing_that_blocks_gradients_is_named():
    model = tiny("roberta").train()
    LoRA(rank=2).attach(model)
    checkpointing(model, reentrant=True)
    logits(model).square().mean().backward()
    message = gradient_warning(model)
    assert "no gradient reached 4 adapters" in message
    assert "use_reentrant=False" in message
    assert all(layer.lora_B.grad is None for layer in lora_layers(model))


def test_unused_layer_is_named():
    model = transformers.BertModel(transformers.BertConfig(**BERT))
    LoRA(rank=2, targets=("q", "pooler.dense")).attach(model)
    model(input_ids=torch.ones(1, 4, dtype=torch.long)).last_hidden_state.square().sum().backward()
    message = gradient_warning(model)
    assert "no gradient reached 1 adapter (pooler.dense)" in message
    assert "leave these layers out" in message


def test_unusual_rate_is_named():
    for method, lr, expected in ((LoRA(), 0.5, "above"), (LoRA(), 1e-7, "below"), (FullFineTuning(), 2e-2, "above")):
        assert f"far {expected}" in rate_warning(Recipe("minilm", "rt", method, lr=lr))
    for name, axis in AXES.items():  # tuning tries usual rates only
        if axis.name == "lr":
            low, high = USUAL.get(name, USUAL_FEW)
            assert low <= axis.grid(4)[0]
            assert axis.grid(4)[-1] <= high


def test_warnings_are_raised_and_recorded(recipe, tmp_path):
    with pytest.warns(LabWarning, match="far above"):
        run = train(recipe(lr=0.5, steps=2), store=tmp_path)
    assert len(run.warnings) == 1
    assert "far above" in run.warnings[0]
    assert Store(tmp_path).runs()[0].warnings == run.warnings
    with warnings.catch_warnings():
        warnings.simplefilter("error", LabWarning)
        assert train(recipe(lr=2e-3, steps=2), store=None).warnings == []
