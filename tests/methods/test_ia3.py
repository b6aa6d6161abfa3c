"""IA3 as PEFT has it: the same answers, the same numbers, and each reads the other's files."""

from __future__ import annotations

import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file

from lora_lab import IA3, load_adapter, params, save_adapter
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods.io import WEIGHTS
from tests.conftest import logits, randomise, snapshot, tiny
from tests.methods.test_peft_parity import CLOSE, load_peft

# The targets that PEFT takes by default, and those of ours that mean the same.
ENCODER = IA3(targets=("key", "value", "output.dense"), feedforward=("output.dense",))
DEFAULTS = {"bert": ENCODER, "gpt2": IA3(targets=("c_attn", "mlp.c_proj"), feedforward=("mlp.c_proj",)), "llama": IA3()}


def peft_ia3(kind: str) -> peft.PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fan_in_fan_out, which PEFT corrects itself
        task = "SEQ_CLS" if DEFAULTS[kind] is ENCODER else "CAUSAL_LM"
        model = peft.get_peft_model(tiny(kind), peft.IA3Config(task_type=task)).eval()
    randomise(model)
    return model


@pytest.mark.parametrize("kind", DEFAULTS)
def test_pefts_own_choice_of_layers_answers_the_same_here(kind, tmp_path):
    theirs, ours = peft_ia3(kind), tiny(kind)
    theirs.save_pretrained(tmp_path)
    report = load_adapter(ours, tmp_path)
    torch.testing.assert_close(logits(ours), logits(theirs), **CLOSE)
    assert report.adapter_parameters == DEFAULTS[kind].attach(tiny(kind)).adapter_parameters
    assert report.trainable == sum(p.numel() for p in theirs.parameters() if p.requires_grad)


@pytest.mark.parametrize(("kind", "method"), [("bert", ENCODER), ("gpt2", IA3()), ("llama", IA3())])
def test_peft_reads_our_file(kind, method, tmp_path):
    ours = tiny(kind)
    report = method.attach(ours)
    randomise(ours)
    torch.testing.assert_close(logits(load_peft(tiny(kind), save_adapter(ours, tmp_path))), logits(ours), **CLOSE)
    if kind == "gpt2":  # factors of k and v leave q alone in a fused layer
        factors = load_file(tmp_path / WEIGHTS)["base_model.model.transformer.h.0.attn.c_attn.ia3_l"]
        assert factors.shape == (96, 1)
        assert (factors[:32] == 1).all()
        assert (factors[32:] != 1).all()
        assert report.adapter_parameters == 2 * (32 + 32 + 128)


@pytest.mark.parametrize(
    ("kind", "method", "words"),
    [
        ("bert", IA3(targets=("embed",), feedforward=()), "an embedding"),
        ("bert", IA3(targets=("gate",), feedforward=()), "'gate'"),
        ("phi3", IA3(targets="k,up", feedforward="up"), r"\[up\] shares its input .* up out of feedforward"),
    ],
)
def test_a_target_that_cannot_be_is_refused_and_not_counted(kind, method, words):
    model, before = tiny(kind), snapshot(tiny(kind))
    for way in (lambda: params(model, method), lambda: method.attach(model)):
        with pytest.raises((BadValue, NotFound), match=words):
            way()
    assert snapshot(model) == before
