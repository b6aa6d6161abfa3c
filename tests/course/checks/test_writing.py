"""The checks of lesson 01: answers for `test_checks`, and what they accept besides."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lora_course import checks
from lora_course.checks.writing import LoRALinear, layer_or_ours


class Model(nn.Module):
    """Two layers that answer sixteen rows, the first one with an update beside it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = LoRALinear(nn.Linear(20, 48), 4, 12), nn.Linear(48, 2)
        nn.init.normal_(self.first.lora_B)

    def forward(self, x):
        return SimpleNamespace(logits=self.second(self.first(x).relu()))


MODEL, TOKENS = Model(), {"x": torch.randn(16, 20)}
LABELS = MODEL(**TOKENS).logits.argmax(-1)


@torch.no_grad()
def merge(layer):
    plain = deepcopy(layer.base_layer)
    plain.weight += layer.scaling * (layer.lora_B @ layer.lora_A)
    return plain


def merged_with(change):
    """A merge that puts something else into the plain layer."""

    def wrong(layer):
        plain = deepcopy(layer.base_layer)
        change(plain, layer, layer.lora_B @ layer.lora_A)
        return plain

    return wrong


def add(weight, update):
    weight.data += update


def changed(change):
    """LoRA that is changed after it was made."""

    class Changed(LoRALinear):
        def __init__(self, base_layer, rank, alpha):
            super().__init__(base_layer, rank, alpha)
            change(self)

    return Changed


LARGE_A = changed(lambda layer: nn.init.normal_(layer.lora_A))


def other_way_round(layer):
    nn.init.zeros_(layer.lora_A)
    nn.init.normal_(layer.lora_B)


def plain(layer):
    a = layer.lora_A.data
    del layer.lora_A
    layer.lora_A = a


def turned(layer):
    layer.lora_A = nn.Parameter(layer.lora_A.data.T)


def rule(answer):
    return type("Rule", (LoRALinear,), {"forward": answer})


def update(layer, x):
    return x @ layer.lora_A.T @ layer.lora_B.T


class Blank(nn.Module):
    def __init__(self, base_layer, rank, alpha):
        super().__init__()
        self.base_layer = base_layer
        self.scaling = self.lora_A = self.lora_B = ...


IN_MODEL = (MODEL, TOKENS, LABELS)
RIGHT = {"lora_linear": (LoRALinear,), "merge": (merge, *IN_MODEL)}
WRONG = [
    ("lora_linear", (changed(lambda layer: nn.init.normal_(layer.lora_B)),), "A zero B does not learn slowly"),
    ("lora_linear", (changed(lambda layer: nn.init.zeros_(layer.lora_A)),), "both zero"),
    ("lora_linear", (changed(other_way_round),), "the other way around"),
    ("lora_linear", (LARGE_A,), "in_features**0.5"),
    ("lora_linear", (changed(lambda layer: layer.base_layer.requires_grad_(True)),), "base_layer.weight would train"),
    ("lora_linear", (changed(plain),), "nn.Parameter"),
    ("lora_linear", (changed(turned),), "A is (4, 48)"),
    ("lora_linear", (lambda base_layer: base_layer,), "stops with TypeError"),
    ("lora_linear", (rule(lambda self, x: update(self, x)),), "exactly what base_layer(x)"),
    ("lora_linear", (rule(lambda self, x: self.base_layer(x)),), "only the frozen part"),
    ("lora_linear", (rule(lambda self, x: self.base_layer(x) + update(self, x)),), "not multiplied"),
    ("lora_linear", (rule(lambda self, x: self.base_layer(x) + 12 * update(self, x)),), "not divided by the rank"),
    ("lora_linear", (rule(lambda self, x: self.base_layer(x) + update(self, x) / 3),), "upside down"),
    ("lora_linear", (rule(lambda self, x: self.base_layer(x).mT),), "comes out"),
    ("lora_linear", (rule(lambda self, x: self.base_layer(x) + x @ self.lora_B.T),), "stops with RuntimeError"),
    ("lora_linear", (rule(lambda self, x: self.base_layer(x) + 0.1 * update(self, x)),), "the outputs differ"),
    ("merge", (lambda layer: layer, *IN_MODEL), "still beside W"),
    ("merge", (lambda layer: layer.base_layer, *IN_MODEL), "W alone"),
    ("merge", (lambda layer: layer.base_layer.weight + layer.lora_B @ layer.lora_A, *IN_MODEL), "not only its matrix"),
    ("merge", (merged_with(lambda plain, layer, ba: add(plain.weight, ba)), *IN_MODEL), "not multiplied"),
    ("merge", (merged_with(lambda plain, layer, ba: add(plain.weight, -3 * ba)), *IN_MODEL), "subtracted"),
    ("merge", (merged_with(lambda plain, layer, ba: plain.weight.data.copy_(3 * ba)), *IN_MODEL), "update alone"),
    ("merge", (merged_with(lambda plain, layer, ba: add(plain.weight, 5 * ba)), *IN_MODEL), "the order of A and B"),
    ("merge", (lambda layer: layer.lora_A @ layer.lora_B + layer.base_layer.weight, *IN_MODEL), "stops with"),
    ("merge", (merge, MODEL, TOKENS, 1 - LABELS), "train again"),
]


def test_a_gaussian_a_is_right_for_every_student(monkeypatch: pytest.MonkeyPatch):
    gaussian = changed(lambda layer: nn.init.normal_(layer.lora_A, std=layer.base_layer.in_features**-0.5))
    for name in ("Ada Lovelace", "Alan Turing", "Grace Hopper", "Emmy Noether"):  # layers of other shapes
        monkeypatch.setenv("LORA_LAB_STUDENT", name)
        assert checks.check_lora_linear(gaussian).passed
        assert checks.check_lora_linear(LARGE_A).passed is False


def test_merging_in_place_is_seen_and_leaves_the_model_alone():
    def in_place(layer):
        layer.base_layer.weight += layer.scaling * (layer.lora_B @ layer.lora_A)
        return layer.base_layer

    before = {name: value.clone() for name, value in MODEL.state_dict().items()}
    assert "a second call would add the update again" in checks.check_merge(in_place, *IN_MODEL).words
    assert all(torch.equal(before[name], value) for name, value in MODEL.state_dict().items())


def test_a_layer_that_is_not_right_yet_is_replaced_and_the_reader_is_told(capsys: pytest.CaptureFixture[str]):
    assert layer_or_ours(LoRALinear) is LoRALinear
    assert not capsys.readouterr().out
    assert checks.check_lora_linear(Blank).passed is None
    assert layer_or_ours(Blank) is LoRALinear
    assert "uses ours" in capsys.readouterr().out
