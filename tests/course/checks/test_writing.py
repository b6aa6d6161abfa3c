from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lora_course import checks
from lora_course.checks.writing import LoRALinear, layer_or_ours


class Model(nn.Sequential):
    def forward(self, x):
        return SimpleNamespace(logits=super().forward(x))


torch.manual_seed(0)
MODEL = Model(LoRALinear(nn.Linear(20, 48), 4, 12), nn.ReLU(), nn.Linear(48, 2))
nn.init.normal_(MODEL[0].lora_B)
TOKENS = {"x": torch.randn(16, 20)}
LABELS = MODEL(**TOKENS).logits.argmax(-1)
IN_MODEL = (MODEL, TOKENS, LABELS)


def merge_to(weight, shift=0):
    """Return a merge to a plain layer with the weight weight(W, BA) and a shifted bias. The scaling is 3."""

    def merge(layer):
        linear = deepcopy(layer.base_layer)
        linear.weight.data = weight(linear.weight.data, layer.lora_B.data @ layer.lora_A.data)
        linear.bias.data += shift
        return linear

    return merge


def lora_with(change):
    """Return a LoRALinear class whose new layers are changed."""

    class Changed(LoRALinear):
        def __init__(self, base_layer, rank, alpha):
            super().__init__(base_layer, rank, alpha)
            change(self)

    return Changed


def forward_with(output):
    """Return a LoRALinear class whose layers return output(W x + b, B A x)."""

    def forward(self, x):
        return output(self.base_layer(x), x @ self.lora_A.T @ self.lora_B.T)

    return type("Changed", (LoRALinear,), {"forward": forward})


def a_is(other):
    """Return a LoRALinear class whose layers have other(A) instead of A."""
    return lora_with(lambda layer: setattr(layer, "lora_A", other(layer._parameters.pop("lora_A"))))


class Unfinished(nn.Module):
    def __init__(self, base_layer, rank, alpha):
        super().__init__()
        self.base_layer = base_layer
        self.scaling = self.lora_A = self.lora_B = ...


SWAPPED = lora_with(lambda layer: (nn.init.zeros_(layer.lora_A), nn.init.normal_(layer.lora_B)))
LARGE_A = lora_with(lambda layer: nn.init.normal_(layer.lora_A))
MERGE = merge_to(lambda W, BA: W + 3 * BA)
RIGHT = [("lora_linear", (LoRALinear,)), ("merge", (MERGE, *IN_MODEL))]
WRONG = [
    ("lora_linear", (lora_with(lambda layer: nn.init.normal_(layer.lora_B)),), "doesn't make learning slow"),
    ("lora_linear", (lora_with(lambda layer: nn.init.zeros_(layer.lora_A)),), "both zero"),
    ("lora_linear", (SWAPPED,), "the other way around"),
    ("lora_linear", (LARGE_A,), "kaiming_uniform_"),
    ("lora_linear", (lora_with(lambda layer: layer.base_layer.requires_grad_(True)),), "base_layer.weight would train"),
    ("lora_linear", (a_is(lambda a: a.data),), "nn.Parameter"),
    ("lora_linear", (a_is(lambda a: nn.Linear(48, 4, bias=False)),), "is a layer, as in PEFT"),
    ("lora_linear", (a_is(lambda a: nn.Parameter(a.data.T)),), "A is (4, 48)"),
    ("lora_linear", (lambda base_layer: base_layer,), "raises TypeError"),
    ("lora_linear", (forward_with(lambda base, update: update),), "exactly what base_layer(x)"),
    ("lora_linear", (forward_with(lambda base, update: base),), "only the frozen part"),
    ("lora_linear", (forward_with(lambda base, update: base + update),), "not multiplied"),
    ("lora_linear", (forward_with(lambda base, update: base + 12 * update),), "not divided by the rank"),
    ("lora_linear", (forward_with(lambda base, update: base + update / 3),), "upside down"),
    ("lora_linear", (forward_with(lambda base, update: base + 6 * update),), "rank-stabilized"),
    ("lora_linear", (forward_with(lambda base, update: base.mT),), "the output must be"),
    ("lora_linear", (forward_with(lambda base, update: base @ update),), "raises RuntimeError"),
    ("lora_linear", (forward_with(lambda base, update: base + 0.1 * update),), "leave out dropout"),
    ("merge", (lambda layer: layer, *IN_MODEL), "still beside W"),
    ("merge", (lambda layer: layer.base_layer, *IN_MODEL), "W alone"),
    ("merge", (lambda layer: layer.base_layer.weight + layer.lora_B @ layer.lora_A, *IN_MODEL), "not only its matrix"),
    ("merge", (merge_to(lambda W, BA: W + BA), *IN_MODEL), "not multiplied"),
    ("merge", (merge_to(lambda W, BA: W - 3 * BA), *IN_MODEL), "you subtract"),
    ("merge", (merge_to(lambda W, BA: 3 * BA), *IN_MODEL), "update alone"),
    ("merge", (merge_to(lambda W, BA: W + 3 * BA, shift=1), *IN_MODEL), "the bias is new"),
    ("merge", (merge_to(lambda W, BA: W + 5 * BA), *IN_MODEL), "the order of A and B"),
    ("merge", (lambda layer: layer.lora_A @ layer.lora_B + layer.base_layer.weight, *IN_MODEL), "raises"),
    ("merge", (MERGE, MODEL, TOKENS, 1 - LABELS), "train again"),
]


@pytest.mark.parametrize("name", ["Ada Lovelace", "Alan Turing", "Grace Hopper", "Emmy Noether"])
def test_gaussian_a_is_right_for_every_layer_shape(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORA_LAB_STUDENT", name)  # the shape depends on the name
    gaussian = lora_with(lambda layer: nn.init.normal_(layer.lora_A, std=layer.base_layer.in_features**-0.5))
    assert checks.check_lora_linear(gaussian).passed
    assert checks.check_lora_linear(LARGE_A).passed is False


def test_in_place_merge_is_refused_and_leaves_the_model_unchanged():
    def in_place(layer):
        layer.base_layer.weight += layer.scaling * (layer.lora_B @ layer.lora_A)
        return layer.base_layer

    before = deepcopy(MODEL.state_dict())
    assert "a second call would add the update twice" in checks.check_merge(in_place, *IN_MODEL).words
    assert all(torch.equal(before[name], value) for name, value in MODEL.state_dict().items())


def test_unfinished_layer_is_replaced_with_a_note(capsys: pytest.CaptureFixture[str]):
    assert layer_or_ours(LoRALinear) is LoRALinear
    assert not capsys.readouterr().out
    assert checks.check_lora_linear(Unfinished).passed is None
    assert layer_or_ours(Unfinished) is LoRALinear
    assert "uses ours" in capsys.readouterr().out
