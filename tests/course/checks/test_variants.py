"""The checks of lesson 16: answers for `test_checks`, and what makes rsLoRA plain LoRA."""

from __future__ import annotations

import pytest
import torch

from lora_course.checks.variants import AS_PLAIN, EIGHT, LABELS, ahead, flattered
from lora_course.claims.evidence import comparison
from lora_lab import LoRA, load_model
from lora_lab.methods.attach import adapter_layers

RATE, POINTS = flattered("DoRA")
RIGHT = {"as_plain": (AS_PLAIN.right,), "flattered": (RATE.right, POINTS.right, "DoRA")}
UNSOLVED = {"flattered": (..., ..., "DoRA")}
WRONG = [
    ("as_plain", (lambda alpha, rank: alpha / rank**0.5,), "rsLoRA's scaling"),
    ("as_plain", (lambda alpha, rank: alpha,), "sqrt(rank) times less"),
    ("as_plain", (lambda alpha, rank: alpha * rank,), "divides by the root"),
    ("as_plain", (lambda alpha, rank: alpha / rank,), "the other way"),
    ("flattered", (4e-3, POINTS.right, "DoRA"), "another rate flatters it more"),
    ("flattered", (RATE.right, -POINTS.right, "DoRA"), "the sign"),
    ("flattered", (RATE.right, max(ahead("DoRA").values()), "DoRA"), "with one rate for both"),
]


@pytest.mark.parametrize(("alpha", "rank"), [(16, 8), (32, 4)])
def test_rslora_is_plain_lora_with_that_alpha(alpha, rank):
    outputs = []
    for method in (LoRA(rank, alpha, rslora=True), LoRA(rank, AS_PLAIN.right(alpha, rank))):
        torch.manual_seed(0)
        model = load_model("minilm", num_labels=2)
        method.attach(model)
        for _, layer in adapter_layers(model):
            if hasattr(layer, "lora_B"):
                torch.nn.init.normal_(layer.lora_B)
        outputs.append(model(torch.arange(8)[None]).logits)
    assert torch.allclose(*outputs, atol=1e-5)


@pytest.mark.parametrize("variant", LABELS)
def test_the_rate_that_flatters_is_the_best_of_those_that_both_tried(variant):
    shared = ahead(variant)
    assert len(shared) == 6
    assert shared[flattered(variant)[0].right] == max(shared.values())


def test_the_eight_variants_are_in_the_comparison():
    assert set(EIGHT) <= {row["label"] for row in comparison("minilm_rt_variants")["methods"]}
