"""Counts from a config alone equal the published ones, those of real models, and the file, to the byte."""

import pytest
import transformers
from torch import nn

from lora_lab import memory
from lora_lab.accounting.params import params
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods import method_from
from lora_lab.methods.ia3 import IA3
from lora_lab.methods.io import save_adapter
from lora_lab.methods.lora import LoRA
from lora_lab.methods.quant import quantize_model
from lora_lab.methods.soft import PrefixTuning, PromptTuning
from tests.accounting.conftest import described, real_model, small_config
from tests.conftest import BERT, tiny


@pytest.mark.parametrize(("method", "count"), [(IA3(), 286_720), (PrefixTuning(tokens=200), 11_468_800)])
def test_a_published_count(method, count):
    """huggingface/peft, method_comparison/MetaMathQA; LoRA's are in tests/accounting, Hu et al.'s in tests/course."""
    assert params("llama-3.2-3b", method).trainable == count


@pytest.mark.parametrize("name", ["LlamaModel", "BertForMaskedLM"])
def test_a_loaded_model_of_another_class_is_counted_as_it_is(name):
    made = getattr(transformers, name)
    model = made(made.config_class(**BERT))
    real = sum(p.numel() for p in model.parameters())
    counted = params(model, LoRA(rank=2))
    assert counted.total == sum(row.full for row in counted.modules) == real
    assert counted.trainable == LoRA(rank=2).attach(model).adapter_parameters
    with pytest.raises(BadValue, match=f"the memory of a {name} is unknown"):
        memory(made(made.config_class(**BERT)), LoRA(rank=2))


def test_a_loaded_model_is_counted_plain_quantised_and_adapted():
    model = tiny("bert")
    counts = [params(model, LoRA(rank=2))]
    quantize_model(model)
    counts.append(params(model, LoRA(rank=2)))
    LoRA(rank=4).attach(model)
    counts.append(params(model, LoRA(rank=2)))
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("case", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_experts_are_counted_that_no_adapter_is_attached_to(case):
    method = LoRA(rank=2, targets=("o", "down"))
    counted = params(described(small_config(case)), method)
    in_experts = sum(row.trained for row in counted.modules if ".experts." in row.name)
    try:
        attached = method.attach(real_model(small_config(case))).adapter_parameters
    except NotFound:  # every down is an expert's, and those are no layers
        assert case == "mixtral"
        attached = LoRA(rank=2, targets="o").attach(real_model(small_config(case))).adapter_parameters
    assert counted.trainable - in_experts == attached
    assert ["PEFT 0.21 adapts it as a whole" in note for note in counted.notes] == [True]


def test_every_expert_has_an_adapter_of_its_own():
    counted = params("mixtral-8x7b", LoRA(rank=4, targets=("gate", "up", "down")))
    assert counted.trainable == 32 * 8 * 3 * 4 * (4096 + 14_336)
    narrower = LoRA(rank=4, targets=("gate", "up", "down"), rank_pattern={"*.experts.*.up_proj": 2})
    assert params("mixtral-8x7b", narrower).trainable == 32 * 8 * (4 + 4 + 2) * (4096 + 14_336)


@pytest.mark.parametrize(
    ("case", "labels", "method"),
    [
        ("bert", 3, LoRA(rank=3, targets=("all-linear", "embed"), rank_pattern={"q": 12})),
        ("gpt2", None, LoRA(rank=3, targets=("c_attn",), dora=True)),
        ("gpt2", 2, LoRA(rank=2, rank_pattern={"q": 5})),
        ("phi3", None, LoRA(rank=3, targets=("q", "gate", "down"), init="pissa", freeze_a=True)),
        ("t5", None, LoRA(rank=2)),
        ("mixtral", None, LoRA(rank=2)),
    ],
)
def test_the_file_to_the_byte(case, labels, method, tmp_path):
    model = real_model(small_config(case), labels, device="cpu")
    report = method.attach(model)
    counted = params(described(small_config(case), num_labels=labels), method)
    assert counted.trainable == report.adapter_parameters
    assert counted.adapter_bytes == (save_adapter(model, tmp_path) / "adapter_model.safetensors").stat().st_size


def test_ia3_counts_one_factor_for_each_number_and_prompts_follow_the_models_width():
    a, model = described(small_config("gemma2")), real_model(small_config("gemma2"))  # its heads are wider than it is
    kv = a.kv_heads * a.head_dim
    assert params(model, IA3()).trainable == a.layers * (2 * kv + a.intermediate)
    assert params(model, IA3(targets="k,v", feedforward=())).trainable == a.layers * 2 * kv
    assert params(model, PromptTuning(tokens=7)).trainable == 7 * a.hidden
    assert params(model, PrefixTuning(tokens=3)).trainable == a.layers * 3 * 2 * kv


@pytest.mark.parametrize("ask", [params, lambda *of: memory(*of, batch=2, seq=8), lambda *of: memory(*of, trace=True)])
def test_a_model_of_plain_torch_is_counted_by_attaching(ask):
    with pytest.raises(BadValue, match=r"a Sequential has no config .*: attach the method and read its report"):
        ask(nn.Sequential(nn.Linear(4, 4)), LoRA(rank=2, targets="all-linear"))


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("full", "top", 2), ("prefix", "form", "activations"), ("bottleneck", "layernorms", 2)],
)
def test_an_option_that_is_gone_is_read_at_its_default_alone(name, option, value):
    method = method_from({"name": name})
    assert option in method.settings()  # so that a recipe made with it keeps its hash
    assert method_from(method.settings()) == method
    with pytest.raises(BadValue, match=f"no option '{option}'"):
        method_from({**method.settings(), option: value})
