from dataclasses import replace

import peft
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from lora_lab import LoRA, memory, params
from lora_lab.accounting.models import describe, meta_model
from lora_lab.accounting.params import break_even_rank, safetensors_bytes
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods import method_from
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.ia3 import IA3
from lora_lab.methods.io import WEIGHTS, save_adapter
from lora_lab.methods.quant import quantize_model
from lora_lab.methods.soft import PrefixTuning, PromptTuning
from tests.accounting.conftest import SMALL, described, real_model, small_config
from tests.conftest import BERT, tiny


@given(inputs=st.integers(1, 5000), outputs=st.integers(1, 5000))
def test_break_even_rank_trains_as_many_parameters_as_the_layer(inputs, outputs):
    assert break_even_rank(inputs, outputs) * (inputs + outputs) == pytest.approx(inputs * outputs)


def test_fused_layer_is_listed_by_slices_if_a_slice_trains():
    rows = {row.name: row for row in params("gpt2", LoRA(rank=4)).modules}
    q, k = rows["transformer.h.*.attn.c_attn[q]"], rows["transformer.h.*.attn.c_attn[k]"]
    assert (q.trained, k.trained, q.full, q.break_even_rank) == (12 * 4 * 2 * 768, 0, 12 * 769 * 768, 384)
    counted = params("gpt2", LoRA(rank=2, targets=("*.0.attn.c_attn", "transformer.h.1.attn.c_attn[q]")))
    assert sum(row.full for row in counted.modules) == counted.total
    assert counted.trainable == 2 * (4 * 768) + 2 * (2 * 768)


SHAPES = st.lists(st.integers(1, 40), min_size=1, max_size=3)
NAMES = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=30)


@given(tensors=st.dictionaries(NAMES.filter(lambda n: n != "__metadata__"), SHAPES, max_size=6), note=NAMES)
def test_file_size_is_exact(tensors, note):
    file = save({name: torch.zeros(shape) for name, shape in tensors.items()}, {"format": "pt", "note": note})
    assert safetensors_bytes(tensors, {"format": "pt", "note": note}) == len(file)


MIXTRAL = LoRA(rank=4, targets=("gate", "up", "down"))  # each expert has its own adapter


@pytest.mark.parametrize(
    ("model", "method", "count"),
    [
        # From method_comparison/MetaMathQA in huggingface/peft. For LoRA, see test_memory.py and tests/course.
        ("llama-3.2-3b", IA3(), 286_720),
        ("llama-3.2-3b", PrefixTuning(tokens=200), 11_468_800),
        ("mixtral-8x7b", MIXTRAL, 32 * 8 * 12 * (4096 + 14_336)),
        ("mixtral-8x7b", replace(MIXTRAL, rank_pattern={"*.experts.*.up_proj": 2}), 32 * 8 * 10 * (4096 + 14_336)),
    ],
)
def test_published_and_expected_counts(model, method, count):
    assert params(model, method).trainable == count


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
    counted = params(described(small_config(case)), LoRA(rank=1, targets="all-linear"))
    assert ["all-linear leaves out experts and routers" in note for note in counted.notes] == [True]
    assert ["header" in note for note in params(model, FullFineTuning()).notes] == [True]


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
    kv = 2 * 14  # differs from the model's width
    assert params(model, IA3()).trainable == a.layers * (2 * kv + a.intermediate)
    assert params(model, IA3(targets="k,v", feedforward=())).trainable == a.layers * 2 * kv
    assert params(model, PromptTuning(tokens=7)).trainable == 7 * a.hidden
    assert params(model, PrefixTuning(tokens=3)).trainable == a.layers * 3 * 2 * kv


def test_model_without_a_config_is_refused():
    for function, options in ((params, {}), (memory, {"batch": 2, "seq": 8}), (memory, {"trace": True})):
        with pytest.raises(BadValue, match=r"a Sequential has no config .*: attach the method and read its report"):
            function(nn.Sequential(nn.Linear(4, 4)), LoRA(rank=2, targets="all-linear"), **options)


def test_retired_option_is_accepted_only_at_its_default():
    for name, option, value in (("full", "top", 2), ("prefix", "form", "activations"), ("bottleneck", "layernorms", 2)):
        settings = method_from({"name": name}).settings()
        assert option in settings  # keeps the hashes of older recipes
        assert method_from(settings).settings() == settings
        with pytest.raises(BadValue, match=f"no option '{option}'"):
            method_from({**settings, option: value})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SMALL)
def test_count_equals_peft(kind):
    config = small_config(kind)

    def peft_count(targets: list[str] | str, exclude: str | None = None) -> int:
        lora = peft.LoraConfig(r=2, target_modules=targets, exclude_modules=exclude)
        return sum(p.numel() for p in peft.get_peft_model(meta_model(config), lora).parameters() if p.requires_grad)

    sites = [s for s in describe(meta_model(config)).sites if s.kind == "linear" and s.out_slice is None]
    attention = [s for s in sites if s.role not in ("head", "pooler") and "mlp" not in s.module]
    names = list({s.module.rpartition(".")[2] for s in attention})
    assert params(meta_model(config), LoRA(rank=2, targets=names)).trainable == peft_count(names) > 0
    if kind not in ("mixtral", "qwen3_moe", "deepseek_v3"):  # PEFT's all-linear includes experts and routers
        count = params(meta_model(config), LoRA(rank=2, targets="all-linear")).trainable
        assert count == peft_count("all-linear", exclude=r".*pooler\.dense" if "bert" in kind else None)


def test_role_in_a_fused_layer_of_unknown_order_is_refused():
    with pytest.raises(LookupError, match="is a part of query_key_value, whose parts are in an unknown order"):
        params(meta_model(small_config("falcon")), LoRA(rank=2))
