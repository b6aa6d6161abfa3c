"""Models in torch's wrappers, of torch's own encoder layers, a single layer, and what is no model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lora_lab import BitFit, LoRA, disabled, load_adapter, merge, save_adapter
from lora_lab.errors import BadValue
from tests.conftest import logits, tiny
from tests.methods.conftest import refused, with_adapter


def encoder() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, 1).eval()


X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))


def test_torchs_encoder_layer_in_eval_does_not_pass_by_the_adapter():
    model = encoder()
    with torch.no_grad():
        base = model(X)
        adapted = with_adapter(model, LoRA(rank=2, targets="all-linear"))(X)
        torch.testing.assert_close(adapted, model.train()(X))  # where torch calls its layers one by one
        with disabled(model.eval()):
            torch.testing.assert_close(model(X), base)
        merge(model)
        torch.testing.assert_close(model(X), adapted, rtol=1e-4, atol=1e-4)


def test_bitfit_names_the_bias_that_torch_reads_past_it():
    model = encoder()
    with refused(model, r"bias of layers.0.self_attn.out_proj: torch never calls its layer"):
        BitFit().attach(model)


@pytest.mark.parametrize("wrap", [lambda m: torch.compile(m, backend="eager"), nn.DataParallel])
def test_inside_a_wrapper_nothing_is_attached_and_the_model_itself_is_saved(wrap, tmp_path):
    model, fresh = tiny("roberta"), tiny("roberta")
    wrapped = wrap(model)
    with refused(model, r"pass the inner model, model\.(_orig_mod|module)"):
        LoRA(rank=2).attach(wrapped)
    with_adapter(model, LoRA(rank=2))
    load_adapter(fresh, save_adapter(wrapped, tmp_path))
    assert torch.equal(logits(fresh), logits(model))


def test_a_single_layer_and_what_is_no_model_are_refused(tmp_path):
    layer = nn.Linear(4, 4)
    with pytest.raises(BadValue, match=r"nn\.Sequential\(layer\)"):
        LoRA(rank=2, targets="all-linear").attach(layer)
    assert layer.weight.requires_grad
    LoRA(rank=2, targets="all-linear").attach(nn.Sequential(layer))
    for wrong in (lambda: LoRA().attach("minilm"), lambda: load_adapter("minilm", tmp_path)):
        with pytest.raises(BadValue, match=r"'minilm' is a str, not a model: .*load_model\(name\)"):
            wrong()
