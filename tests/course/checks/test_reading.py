"""Lesson 14: chance is what simulation gives, and a stranger is told by its readings and its answers."""

import numpy as np
import torch
from torch import nn

from lora_course import checks
from lora_course.checks.reading import SIGNS, disguise, stored
from lora_course.experiments.subspace import phi, random_directions
from lora_lab.layers import LoRALinear

RIGHT = {"chance": (1 / 384, 64 / 384, 64), "stranger": ("A and B", 0)}
WRONG = [
    ("chance", (0, 64 / 384, 64), "at right angles"),
    ("chance", (384**-0.5, 64 / 384, 64), "one and one: that's the usual size of the cosine"),
    ("chance", (1 / 384, 8 / 384, 64), "8 and 64: that's what one direction finds among 8"),
    ("chance", (1 / 384, 8 * 64 / 384, 64), "divides it by the smaller"),
    ("chance", (1 / 384, 1 / 384, 64), "64 times as much"),
    ("stranger", ("C", 0), "answer with one of A, A and B, B, nothing"),
]


def test_chance_is_what_random_directions_share():
    drawn = [phi(random_directions(384, 8, n), random_directions(384, 64, 99 + n)) for n in range(30)]
    assert checks.check_chance(1 / 384, float(np.mean(drawn)), 64).passed
    assert checks.check_chance(0.0026, 0.167, 64).passed


def test_a_stranger_has_the_stored_numbers_with_other_signs():
    layer, tensors = LoRALinear(nn.Linear(384, 384), 1, 16.0), stored()
    for number, (name, (a, b)) in enumerate(SIGNS.items()):
        disguise(layer, number)
        assert torch.equal(layer.lora_A, a * tensors["lora_A"])
        assert torch.equal(layer.lora_B, b * tensors["lora_B"])
        verdicts = {given: checks.check_stranger(given, number) for given in SIGNS}
        assert [given for given, verdict in verdicts.items() if verdict.passed] == [name]
        for given in SIGNS.keys() - {name}:
            assert ("about A" in verdicts[given].words) is (SIGNS[given][0] != a)
