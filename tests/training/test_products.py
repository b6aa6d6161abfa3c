"""Products rounded to bf16: within a block alone, no worse than bf16 rounds, and only where full fine-tuning may."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lora_lab import LoRA, train
from lora_lab.methods.full import FullFineTuning
from lora_lab.training import device
from lora_lab.training.products import products_in


@pytest.fixture
def factors():
    torch.manual_seed(0)
    return torch.randn(64, 256), torch.randn(256, 64)


def test_outside_the_block_products_are_what_they_were_to_the_bit(factors):
    x, w = factors
    before = x @ w
    with products_in("bf16"):
        _ = x @ w
    assert torch.equal(x @ w, before)


def test_an_error_within_leaves_exact_products_behind():
    with pytest.raises(ZeroDivisionError), products_in("bf16"):
        _ = 1 / 0
    assert torch.get_float32_matmul_precision() == "highest"


def test_within_the_block_they_are_off_by_no_more_than_bf16_rounds(factors):
    x, w = factors
    exact = x @ w
    with products_in("bf16"):
        rounded = x @ w
    assert rounded.dtype == torch.float32
    room = x.abs() @ w.abs() * 2.0**-7  # of each term, two factors that are each rounded by at most one in 2^8
    assert ((rounded - exact).abs() <= room).all()


def test_fp32_within_changes_nothing(factors):
    x, w = factors
    before = x @ w
    with products_in("fp32"):
        assert torch.equal(x @ w, before)


def test_only_full_fine_tuning_whose_dtype_is_left_open_may_round(recipe):
    wanted = recipe(method=FullFineTuning(), dtype="auto")
    assert wanted.computed["products"] == "auto"
    assert replace(wanted, dtype="fp32").computed["products"] == "fp32"
    assert replace(wanted, method=LoRA()).computed["products"] == "fp32"


def test_a_run_rounds_while_it_trains_and_is_scored_exactly(recipe, tmp_path, monkeypatch):
    chosen = device.Choice("cpu", "fp32", "eager", products="bf16")
    monkeypatch.setattr(device, "choose", lambda tokens, **_: chosen)
    seen, plain = [], torch.nn.Linear.forward

    def forward(self, x):
        seen.append((torch.is_grad_enabled(), torch.get_float32_matmul_precision()))
        return plain(self, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", forward)
    run = train(recipe(method=FullFineTuning(), dtype="auto", lr=1e-4), store=tmp_path)
    assert set(seen) == {(True, "medium"), (False, "highest")}
    assert run.environment["products"] == "bf16"
