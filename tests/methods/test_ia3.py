"""IA3 as PEFT has it: the same answers, the same numbers, and each reads the other's files."""

from __future__ import annotations

import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file

from lora_lab import IA3, load_adapter, params, save_adapter
from lora_lab.errors import BadValue, LabError, NotFound
from lora_lab.methods.io import WEIGHTS
from tests.conftest import logits, randomise, snapshot, tiny

TASK = {"bert": "SEQ_CLS", "roberta": "SEQ_CLS"}
# The targets that PEFT takes when it is told none, and those of ours that mean the same.
DEFAULTS = {
    "bert": IA3(targets=("key", "value", "output.dense"), feedforward=("output.dense",)),
    "roberta": IA3(targets=("key", "value", "output.dense"), feedforward=("output.dense",)),
    "gpt2": IA3(targets=("c_attn", "mlp.c_proj"), feedforward=("mlp.c_proj",)),
    "llama": IA3(),
}


def peft_ia3(kind: str, **options) -> peft.PeftModel:
    config = peft.IA3Config(task_type=TASK.get(kind, "CAUSAL_LM"), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fan_in_fan_out, which PEFT puts right itself
        model = peft.get_peft_model(tiny(kind), config).eval()
    randomise(model)
    return model


@pytest.mark.parametrize("kind", DEFAULTS)
def test_pefts_own_choice_of_layers_answers_the_same_here(kind, tmp_path):
    theirs, ours = peft_ia3(kind), tiny(kind)
    theirs.save_pretrained(tmp_path)
    report = load_adapter(ours, tmp_path)
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=1e-5, atol=1e-5)
    assert report.adapter_parameters == DEFAULTS[kind].attach(tiny(kind)).adapter_parameters
    assert report.trainable == sum(p.numel() for p in theirs.parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", DEFAULTS)
@pytest.mark.parametrize("which", ["the default", "peft's default"])
def test_peft_reads_our_file(kind, which, tmp_path):
    method = IA3() if which == "the default" else DEFAULTS[kind]
    ours = tiny(kind)
    method.attach(ours)
    randomise(ours)
    save_adapter(ours, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*(missing|unexpected).*keys.*")
        theirs = peft.PeftModel.from_pretrained(tiny(kind), str(tmp_path)).eval()
    torch.testing.assert_close(logits(theirs), logits(ours), rtol=1e-5, atol=1e-5)


def test_factors_of_k_and_v_leave_q_alone_in_a_fused_layer(tmp_path):
    model = tiny("gpt2")
    report = IA3().attach(model)
    randomise(model)
    save_adapter(model, tmp_path)
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
        (
            "phi3",
            IA3(targets="k,up", feedforward="up"),
            r"\[up\] shares its input .* up out of feedforward",
        ),
    ],
)
def test_a_target_that_cannot_be_is_refused_and_not_counted(kind, method, words):
    model, before = tiny(kind), snapshot(tiny(kind))
    with pytest.raises((BadValue, NotFound), match=words):
        params(model, method)
    with pytest.raises((BadValue, NotFound), match=words):
        method.attach(model)
    assert snapshot(model) == before


def test_a_config_without_feedforward_modules_is_refused(tmp_path):
    peft_ia3("llama").save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(file.read_text().replace("feedforward_modules", "feedforward"))
    with pytest.raises(LabError, match="has no 'feedforward_modules'"):
        load_adapter(tiny("llama"), tmp_path)
