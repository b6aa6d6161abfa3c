"""Training says in its first step what would show only at its end."""

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


def backward(model):
    logits(model).square().mean().backward()
    return gradient_warning(model)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("roberta", LoRA(rank=2, freeze_a=True)),
        ("llama", LoRA(rank=2, targets=("embed", "all-linear"))),
        ("llama", PromptTuning(tokens=3)),
    ],
)
def test_where_gradients_flow_nothing_is_said_though_b_is_zero(kind, method):
    model = tiny(kind)
    method.attach(model)
    assert backward(model) is None


def test_checkpointing_that_cuts_the_gradient_is_named():
    model = tiny("roberta").train()
    LoRA(rank=2).attach(model)
    checkpointing(model, reentrant=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = backward(model)
    assert "no gradient reached 4 adapters" in said
    assert "use_reentrant=False" in said
    assert all(layer.lora_B.grad is None for layer in lora_layers(model))


def test_a_layer_that_the_model_does_not_use_is_named():
    model = transformers.BertModel(transformers.BertConfig(**BERT))
    LoRA(rank=2, targets=("q", "pooler.dense")).attach(model)
    model(input_ids=torch.ones(1, 4, dtype=torch.long)).last_hidden_state.square().sum().backward()
    said = gradient_warning(model)
    assert "no gradient reached 1 adapter (pooler.dense)" in said
    assert "leave these layers out" in said


def test_a_rate_far_from_the_usual_and_what_tuning_tries():
    for method, lr, said in (
        (LoRA(), 0.5, "far above"),
        (LoRA(), 1e-7, "far below"),
        (FullFineTuning(), 2e-2, "above"),
    ):
        assert said in rate_warning(Recipe("minilm", "rt", method, lr=lr))
    for name, axis in AXES.items():
        if axis.name == "lr":
            low, high = USUAL.get(name, USUAL_FEW)
            assert low <= axis.grid(4)[0]
            assert axis.grid(4)[-1] <= high


def test_a_run_keeps_its_warnings_and_python_hears_them(recipe, tmp_path):
    with pytest.warns(LabWarning, match="far above"):
        run = train(recipe(lr=0.5, steps=2), store=tmp_path)
    assert ["far above" in said for said in run.warnings] == [True]
    (kept,) = Store(tmp_path).runs()
    assert kept.warnings == run.warnings
    with warnings.catch_warnings():
        warnings.simplefilter("error", LabWarning)
        assert train(recipe(lr=2e-3, steps=2), store=None).warnings == []
