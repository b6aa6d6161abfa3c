"""Tests of parameter counts and file sizes computed from a config or a plain model."""

import pytest
import transformers
from torch import nn

from lora_lab import memory
from lora_lab.accounting.params import params
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods import method_from
from lora_lab.methods.ia3 import IA3
from lora_lab.methods.io import WEIGHTS, save_adapter
from lora_lab.methods.lora import LoRA
from lora_lab.methods.quant import quantize_model
from lora_lab.methods.soft import PrefixTuning, PromptTuning
from tests.accounting.conftest import described, real_model, small_config
from tests.conftest import BERT, tiny


@pytest.mark.parametrize(("method", "count"), [(IA3(), 286_720), (PrefixTuning(tokens=200), 11_468_800)])
def test_published_counts(method, count):
    """From method_comparison/MetaMathQA in huggingface/peft. For LoRA, see tests/accounting and tests/course."""
    assert params("llama-3.2-3b", method).trainable == count


@pytest.mark.parametrize("name", ["LlamaModel", "BertForMaskedLM"])
def test_loaded_model_of_another_class_is_counted(name):
    cls = getattr(transformers, name)
    model = cls(cls.config_class(**BERT))
    counted = params(model, LoRA(rank=2))
    assert counted.total == sum(row.full for row in counted.modules) == sum(p.numel() for p in model.parameters())
    with pytest.raises(BadValue, match=f"the memory of a {name} is unknown"):
        memory(model, LoRA(rank=2))
    assert counted.trainable == LoRA(rank=2).attach(model).adapter_parameters


def test_quantized_or_adapted_model_is_counted_as_the_plain_one():
    model = tiny("bert")
    plain = params(model, LoRA(rank=2))
    quantize_model(model)
    assert params(model, LoRA(rank=2)) == plain
    LoRA(rank=4).attach(model)
    assert params(model, LoRA(rank=2)) == plain


@pytest.mark.parametrize("case", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_experts_are_counted_although_they_cannot_be_attached_to(case):
    method = LoRA(rank=2, targets=("o", "down"))
    counted = params(described(small_config(case)), method)
    in_experts = sum(row.trained for row in counted.modules if ".experts." in row.name)
    model = real_model(small_config(case))
    if case == "mixtral":  # all its layers called down are in experts, which have no linear layers
        with pytest.raises(NotFound):
            method.attach(model)
        method = LoRA(rank=2, targets="o")
    assert counted.trainable - in_experts == method.attach(model).adapter_parameters
    assert ["PEFT 0.21 adapts the whole tensor" in note for note in counted.notes] == [True]


@pytest.mark.parametrize(("pattern", "up_rank"), [({}, 4), ({"*.experts.*.up_proj": 2}, 2)])
def test_each_expert_has_its_own_adapter(pattern, up_rank):
    method = LoRA(rank=4, targets=("gate", "up", "down"), rank_pattern=pattern)
    assert params("mixtral-8x7b", method).trainable == 32 * 8 * (4 + 4 + up_rank) * (4096 + 14_336)


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
def test_count_and_file_size_are_exact(case, labels, method, tmp_path):
    model = real_model(small_config(case), labels, device="cpu")
    report = method.attach(model)
    counted = params(described(small_config(case), num_labels=labels), method)
    assert counted.trainable == report.adapter_parameters
    assert counted.adapter_bytes == (save_adapter(model, tmp_path) / WEIGHTS).stat().st_size


def test_ia3_and_prompts_follow_the_width_of_the_model():
    a, model = described(small_config("gemma2")), real_model(small_config("gemma2"))
    kv = a.kv_heads * a.head_dim  # differs from the model's width
    assert params(model, IA3()).trainable == a.layers * (2 * kv + a.intermediate)
    assert params(model, IA3(targets="k,v", feedforward=())).trainable == a.layers * 2 * kv
    assert params(model, PromptTuning(tokens=7)).trainable == 7 * a.hidden
    assert params(model, PrefixTuning(tokens=3)).trainable == a.layers * 3 * 2 * kv


@pytest.mark.parametrize(
    "function", [params, lambda *args: memory(*args, batch=2, seq=8), lambda *args: memory(*args, trace=True)]
)
def test_model_without_a_config_is_refused(function):
    with pytest.raises(BadValue, match=r"a Sequential has no config .*: attach the method and read its report"):
        function(nn.Sequential(nn.Linear(4, 4)), LoRA(rank=2, targets="all-linear"))


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("full", "top", 2), ("prefix", "form", "activations"), ("bottleneck", "layernorms", 2)],
)
def test_retired_option_is_accepted_only_at_its_default(name, option, value):
    method = method_from({"name": name})
    assert option in method.settings()  # keeps the hashes of older recipes
    assert method_from(method.settings()) == method
    with pytest.raises(BadValue, match=f"no option '{option}'"):
        method_from({**method.settings(), option: value})
