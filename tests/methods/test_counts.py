"""Counts from a config alone equal the published ones, those of real models, and the file, to the byte."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from lora_lab import memory
from lora_lab.accounting.params import params
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods import method_from
from lora_lab.methods.attach import heads_of
from lora_lab.methods.bitfit import BitFit
from lora_lab.methods.bottleneck import Bottleneck
from lora_lab.methods.full import FullFineTuning, HeadOnly
from lora_lab.methods.ia3 import IA3
from lora_lab.methods.io import save_adapter
from lora_lab.methods.lora import LoRA
from lora_lab.methods.quant import quantize_model
from lora_lab.methods.soft import PrefixTuning, PromptTuning
from tests.accounting.conftest import CLASSIFIERS, SMALL, described, real_model, small_config
from tests.conftest import BERT, tiny

ALL = ("q", "k", "v", "o")

PUBLISHED = [
    # Hu et al. 2021, tables 2 to 4 and 15. Which of its figures follow is in tests/course/paper/test_recomputed.py.
    ("roberta-base", LoRA(rank=8), 294_912),
    ("deberta-v2-xxlarge", LoRA(rank=16), 4_718_592),
    ("gpt2-medium", LoRA(rank=4), 393_216),
    ("gpt3-175b", LoRA(rank=2, targets=("v",)), 4_718_592),
    ("gpt3-175b", LoRA(rank=1, targets=ALL), 9_437_184),
    ("gpt3-175b", LoRA(rank=64), 301_989_888),
    ("roberta-base", FullFineTuning(), 124_645_632),
    ("deberta-v2-xxlarge", FullFineTuning(), 1_564_549_632),
    ("gpt2-large", FullFineTuning(), 774_030_080),
    ("gpt3-175b", FullFineTuning(), 174_604_259_328),
    ("gpt3-175b", BitFit(), 12_988_416),
    ("gpt3-175b", PromptTuning(tokens=512 + 8), 6_389_760),
    ("gpt2-medium", Bottleneck(size=224, placement="lin"), 11_089_152),
    ("roberta-base", Bottleneck(size=48, placement="pfeiffer"), 894_528),
    ("roberta-base", Bottleneck(size=48, placement="pfeiffer", layers=4), 298_176),
    ("roberta-large", Bottleneck(size=8, placement="houlsby"), 835_968),
    ("gpt3-175b", Bottleneck(size=64), 304_361_472),
    # huggingface/peft, method_comparison/MetaMathQA
    ("llama-3.2-3b", FullFineTuning(), 3_212_749_824),
    ("llama-3.2-3b", LoRA(rank=64), 18_350_080),
    ("llama-3.2-3b", LoRA(rank=10, targets=("gate", "up", "down")), 9_461_760),
    ("llama-3.2-3b", IA3(), 286_720),
    ("llama-3.2-3b", PromptTuning(tokens=200), 614_400),
    ("llama-3.2-3b", PrefixTuning(tokens=200), 11_468_800),
]


@pytest.mark.parametrize(("model", "method", "count"), PUBLISHED)
def test_a_published_count(model, method, count):
    assert params(model, method).trainable == count


@pytest.mark.parametrize("name", ["LlamaModel", "BertForTokenClassification", "BertForMaskedLM"])
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


def test_a_model_quantized_by_another_library_is_counted_from_its_config():
    model = tiny("bert")
    layer = model.bert.encoder.layer[0].attention.self.query
    layer.weight = nn.Parameter(torch.zeros(layer.weight.numel() // 2, 1, dtype=torch.uint8), requires_grad=False)
    assert params(model, LoRA(rank=2)) == params(tiny("bert"), LoRA(rank=2))


@pytest.mark.parametrize(
    ("model", "method", "labels", "trainable", "head"),
    [
        ("roberta-base", BitFit(), 3, 102_144, 592_899),
        ("roberta-large", HeadOnly(), 3, 0, 1_052_675),
        ("deberta-v2-xxlarge", HeadOnly(), 3, 0, 3 * 1536 + 3),
    ],
)
def test_heads_that_the_paper_does_not_count(model, method, labels, trainable, head):
    counted = params(model, method, labels)
    assert (counted.trainable, counted.head) == (trainable, head)
    assert 4 * (trainable + head) < counted.adapter_bytes < 4 * (trainable + head) + 20_000  # and the file's header


TARGETS = [("q", "v"), ("all-linear",), ("o", "down"), ("*.1.*",)]


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("case", SMALL)
def test_lora_counts_what_attaching_reports(case, targets):
    labels = 3 if case in CLASSIFIERS else None
    method = LoRA(rank=2, targets=targets)
    model = real_model(small_config(case), labels)
    architecture = described(small_config(case), labels)
    try:
        report = method.attach(model)
    except NotFound:
        assert case.startswith(("deepseek", "mixtral", "gpt_oss"))  # no q and v of its own; experts that are no layers
        return
    counted = params(architecture, method)
    in_experts = sum(row.trained for row in counted.modules if ".experts." in row.name)
    assert counted.trainable - in_experts == report.adapter_parameters
    assert ["PEFT 0.21 adapts it as a whole" in note for note in counted.notes] == [True] * bool(in_experts)
    assert counted.head == report.head_parameters


def test_every_expert_has_an_adapter_of_its_own():
    counted = params("mixtral-8x7b", LoRA(rank=4, targets=("gate", "up", "down")))
    assert counted.trainable == 32 * 8 * 3 * 4 * (4096 + 14_336)
    narrower = LoRA(rank=4, targets=("gate", "up", "down"), rank_pattern={"*.experts.*.up_proj": 2})
    assert params("mixtral-8x7b", narrower).trainable == 32 * 8 * (4 + 4 + 2) * (4096 + 14_336)


@pytest.mark.parametrize("case", ["bert", "roberta", "gpt2", "qwen2", "llama", "t5"])
def test_bitfit_counts_every_bias_of_the_real_model(case):
    model = real_model(small_config(case), None if case == "t5" else 2)
    heads = [name for name, _ in heads_of(model)]
    named = [(name, p) for name, p in model.named_parameters() if name.split(".")[0] not in heads]
    if biases := [p.numel() for name, p in named if name.endswith("bias")]:
        assert params(model, BitFit()).trainable == sum(biases)
    else:
        with pytest.raises(BadValue, match="no biases"):
            params(model, BitFit())


@pytest.mark.parametrize("labels", [None, 2])
@pytest.mark.parametrize("case", CLASSIFIERS)
def test_full_fine_tuning_trains_all_but_the_head_that_counts_apart(case, labels):
    model = real_model(small_config(case), labels)
    counted = params(model, FullFineTuning())
    assert counted.trainable + counted.head == counted.total == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("case", "labels", "method"),
    [
        ("bert", None, LoRA(rank=3)),
        ("bert", 3, LoRA(rank=3, targets=("all-linear", "embed"), rank_pattern={"q": 12})),
        ("roberta", 2, LoRA(rank=1, targets=("q",), rslora=True, alpha=2.5)),
        ("deberta-v2 relative", 2, LoRA(rank=2)),
        ("gpt2", None, LoRA(rank=3, targets=("q", "v", "o"))),
        ("gpt2", None, LoRA(rank=3, targets=("c_attn",))),
        ("gpt2", 2, LoRA(rank=2, rank_pattern={"q": 5})),
        ("phi3", None, LoRA(rank=3, targets=("q", "gate", "down"))),
        ("llama", None, LoRA(rank=3, targets=("*.1.*", "embed", "lm_head"))),
        ("gemma2", None, LoRA(rank=3, targets=("q", "embed"))),
        ("t5", None, LoRA(rank=2)),
        ("mixtral", None, LoRA(rank=2)),
    ],
)
def test_the_file_to_the_byte(case, labels, method, tmp_path):
    model = real_model(small_config(case), labels, device="cpu")
    report = method.attach(model)
    counted = params(described(small_config(case), num_labels=labels), method)
    assert counted.trainable == report.adapter_parameters
    written = save_adapter(model, tmp_path) / "adapter_model.safetensors"
    assert counted.adapter_bytes == written.stat().st_size


@pytest.mark.parametrize("case", ["bert", "gpt2", "gemma2"])
def test_ia3_counts_one_factor_for_each_number_and_prompts_follow_the_models_width(case):
    a, model = described(small_config(case)), real_model(small_config(case))
    kv = a.kv_heads * a.head_dim
    assert params(model, IA3()).trainable == a.layers * (2 * kv + a.intermediate)
    assert params(model, IA3(targets="k,v", feedforward=())).trainable == a.layers * 2 * kv
    assert params(model, PromptTuning(tokens=7)).trainable == 7 * a.hidden
    assert params(model, PrefixTuning(tokens=3)).trainable == a.layers * 3 * 2 * kv


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PromptTuning(tokens=0), "tokens must be a whole number"),
        (lambda: PromptTuning(init="zeros"), "init must be one of vocabulary, random"),
        (lambda: PrefixTuning(tokens=True), "tokens"),
        (lambda: Bottleneck(size=-1), "size"),
        (lambda: Bottleneck(placement="h"), "placement must be one of houlsby"),
        (lambda: Bottleneck(layers=0), "layers"),
        (lambda: IA3(targets=("k",)), "feedforward names 'down'"),
        (lambda: params("gpt2", Bottleneck(size=769)), "at most 768"),
        (lambda: params("gpt2", Bottleneck(layers=13)), "has 12 layers"),
        (lambda: params("t5-base", PrefixTuning()), "does not support encoder-decoder"),
        (lambda: params("deepseek-v3", PrefixTuning()), "use prompt tuning"),
        (lambda: params("llama-2-7b", BitFit()), "no biases"),
        (lambda: params("smollm2", LoRA(rank=193)), r"rank 193 is above .*v_proj \(576 x 192\) .*at most 192"),
        (lambda: params("gpt2", LoRA(targets=("gate",))), "'gate' matches no layer"),
        (lambda: method_from({"name": "loar"}), "unknown method 'loar'; known: lora"),
        (lambda: method_from({"name": "full", "rank": 3}), "full has no option 'rank'; it has none"),
        (lambda: method_from({"name": "bitfit", "rank": 3}), "bitfit has no option 'rank'; it has none"),
    ],
)
def test_what_cannot_be_is_one_sentence(make, words):
    with pytest.raises((BadValue, NotFound), match=words) as error:
        make()
    assert "\n" not in str(error.value)


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
