import pytest
import torch
from torch import nn

from lora_course import checks
from lora_course.checks.reading import SIGNS, disguise, stored
from lora_lab.layers import LoRALinear

RIGHT = [("chance", (1 / 384, 64 / 384, 64)), ("chance", (0.0026, 0.167, 64)), ("stranger", ("A and B", 0))]
WRONG = [
    ("chance", (0, 64 / 384, 64), "at right angles"),
    ("chance", (384**-0.5, 64 / 384, 64), "one and one: that's the typical size of the cosine"),
    ("chance", (1 / 384, 8 / 384, 64), "8 and 64: that's for one direction among 8"),
    ("chance", (1 / 384, 8 * 64 / 384, 64), "divides it by the smaller"),
    ("chance", (1 / 384, 1 / 384, 64), "64 times that"),
    ("stranger", ("C", 0), "answer with one of A, A and B, B, nothing"),
]


@pytest.mark.parametrize("number", range(4))
def test_stranger_is_the_stored_adapter_with_other_signs(number: int):
    name, (a, b) = list(SIGNS.items())[number]
    layer, tensors = LoRALinear(nn.Linear(384, 384), 1, 16.0), stored()
    disguise(layer, number)
    assert torch.equal(layer.lora_A, a * tensors["lora_A"])
    assert torch.equal(layer.lora_B, b * tensors["lora_B"])
    for answer, signs in SIGNS.items():
        verdict = checks.check_stranger(answer, number)
        assert verdict.passed is (answer == name)
        assert verdict.passed or ("about A" in verdict.words) is (signs[0] != a)
