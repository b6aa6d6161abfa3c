"""Tests of options and models that methods refuse, before changing the model.

For LoRA's options, see test_targets.py; for merging, test_merge.py; for files, test_io.py.
"""

from collections.abc import Callable
from functools import partial

import peft
import pytest
import transformers
from torch import nn

import lora_lab as lab
from lora_lab.errors import LabError
from lora_lab.methods import method_from
from lora_lab.methods.attach import report_of
from lora_lab.methods.base import Method
from lora_lab.methods.merge import detach, merge, unmerge
from lora_lab.methods.quant import quantize_model
from tests.accounting.conftest import real_model, small_config
from tests.conftest import BERT, tiny
from tests.methods.conftest import raises_unchanged

VALUES: list[tuple[Callable[[], object], str]] = [
    (lambda: lab.PromptTuning(init="zeros"), "init must be one of vocabulary, random"),
    (lambda: lab.Bottleneck(placement="h"), "placement must be one of houlsby"),
    (lambda: lab.IA3(targets=("k",)), "feedforward names 'down'"),
    (lambda: lab.params("t5-base", lab.PrefixTuning()), "does not support encoder-decoder"),
    (lambda: lab.params("deepseek-v3", lab.PrefixTuning()), "use prompt tuning"),
    (lambda: lab.params("gpt2", lab.Probe()), "num_labels"),
    (lambda: method_from({"name": "bitfit", "rank": 3}), "bitfit has no option 'rank'; it has none"),
    (lambda: method_from({"name": "lora", "rnak": 8}), "lora has no option 'rnak'; nearest: rank"),
    (lambda: method_from({"name": "lroa"}), "unknown method 'lroa'; known: .*lora"),
    (lambda: method_from({"name": ""}), "unknown method ''; known: .*lora"),
    (lambda: lab.VeRA(d_initial=0), "d_initial must be a number other than 0"),
    (lambda: lab.VeRA(save_projection=1), "save_projection must be True or False"),
    (lambda: lab.TinyLoRA(weight_tying=1.5), "weight_tying must be from 0 to 1"),
    (lambda: lab.LoRAXS(alpha=0), "alpha must be a number greater than 0"),
    (lambda: lab.VeRA.from_peft({"bias": "all"}, tiny("bert")), "bias='all', which lora_lab does not support"),
    *((partial(lab.Probe, l2=l2), "l2") for l2 in (0, float("nan"), "1", True)),
]


@pytest.mark.parametrize(("function", "match"), VALUES)
def test_invalid_value_is_refused(function, match):
    with pytest.raises(LabError, match=match) as caught:
        function()
    assert "\n" not in str(caught.value)


def make_model(name: str, size: dict = BERT, **options) -> nn.Module:
    """Make a random model of a class of transformers."""
    cls = getattr(transformers, name)
    return cls(cls.config_class(**{**size, **options})).eval()


def quantized() -> nn.Module:
    model = tiny("bert")
    quantize_model(model)
    return model


def torch_encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1, enable_nested_tensor=False)


def vision() -> nn.Module:
    size = {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 4, "patch_size": 2}
    return make_model("ViTModel", size, hidden_size=8, intermediate_size=8)


MAMBA = {"vocab_size": 96, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
EMBEDDING = r"is for linear layers: leave the embedding model\.embed_tokens out"
MODELS: list[tuple[str | Callable[[], nn.Module], Method, str]] = [
    ("roberta", lab.LoRA(targets=("querry",)), "'querry' matches no layer of this model; nearest: query"),
    ("gpt2", lab.LoRA(targets=("c_attn", "q")), r"overlap: .*c_attn is adapted as a whole and again as q"),
    ("phi3", lab.LoRA(targets=("all-linear", "up")), r"overlap: .*gate_up_proj"),
    ("llama", lab.LoRA(rank=20), r"rank 20 is above .*v_proj .* at most 16; .*rank_pattern=\{\"v\": 16\}"),
    ("llama", lab.LoRA(targets=("q", "embed"), dora=True), EMBEDDING),
    ("llama", lab.LoRA(targets=("q", "embed"), init="pissa"), EMBEDDING),
    ("llama", lab.LoRA(targets=("q", "embed"), freeze_a=True), EMBEDDING),
    ("gpt2", lab.LoRA(dora=True), "dora adapts a fused layer as a whole: use c_attn as a target, not q"),
    (
        quantized,
        lab.LoRA(dora=True),
        "dora and init 'pissa' need the base's unquantized weights",
    ),
    (quantized, lab.LoRA(init="pissa"), "unquantized weights: load the base in fp32 or bf16"),
    ("bert", lab.Bottleneck(size=33), "at most 32"),
    ("bert", lab.Bottleneck(size=4, layers=3), "has 2 layers"),
    (lambda: real_model(small_config("mixtral"), None, device="cpu"), lab.Bottleneck(size=2), "does not fit"),
    ("bert", lab.IA3(targets=("embed",), feedforward=()), "an embedding"),
    ("bert", lab.IA3(targets=("gate",), feedforward=()), "'gate'"),
    ("phi3", lab.IA3(targets="k,up", feedforward="up"), r"\[up\] shares its input .* up out of feedforward"),
    ("bert", lab.LoRAXS(rank=64), "rank 64 is too high for a layer of 32 x 32: use at most 32"),
    ("bert", lab.VeRA(rank=10**8), "3,200,000,000 frozen random numbers exceed the limit"),
    ("bert", lab.TinyLoRA(rank=32, u=300_000), "307,200,000 frozen random numbers exceed the limit"),
    ("bert", lab.VeRA(targets=("embed",)), "an embedding: leave it out"),
    ("gpt2", lab.HeadOnly(), "has nothing to train"),
    ("llama", lab.BitFit(), "has nothing to train"),
    (lambda: make_model("LlamaForSequenceClassification", num_labels=3), lab.BitFit(), "has nothing to train"),
    (quantized, lab.BitFit(), "bitfit cannot train the bias of .*, a QuantizedLinear"),
    (torch_encoder, lab.BitFit(), r"bias of layers.0.self_attn.out_proj: torch never calls this layer"),
    ("gpt2", lab.Probe(), "needs a classifier"),
    (
        lambda: make_model("LlamaForTokenClassification"),
        lab.Probe(),
        "which a LlamaForTokenClassification cannot",
    ),
    (
        lambda: make_model("BertForMultipleChoice"),
        lab.Probe(),
        "which a BertForMultipleChoice cannot",
    ),
    (lambda: make_model("BertForQuestionAnswering"), lab.Probe(), "the probe needs a classifier"),
    (lambda: make_model("MambaForCausalLM", MAMBA), lab.PrefixTuning(), "does not accept keys and values"),
    (lambda: nn.Sequential(nn.Linear(4, 4)), lab.PromptTuning(), "reads tokens, which Sequential does not; use lora"),
    (vision, lab.PrefixTuning(), "reads tokens, which ViTModel does not; use lora"),
    (lambda: nn.Sequential(nn.Conv2d(3, 8, 1)), lab.LoRA(targets="all-linear"), "no linear layer and no embedding"),
    (
        lambda: peft.get_peft_model(tiny("llama"), peft.LoraConfig(r=2, target_modules=["q_proj"])),
        lab.LoRA(rank=2, targets="all-linear"),
        r"a PEFT adapter.*merge_and_unload",
    ),
]


@pytest.mark.parametrize(("model", "method", "match"), MODELS)
def test_model_that_does_not_fit_a_method_is_refused(model, method, match):
    model = tiny(model) if isinstance(model, str) else model()
    with raises_unchanged(model, match, LabError):
        method.attach(model)


def test_linear_layers_of_another_library_are_refused():
    model, linear = tiny("llama"), type("Linear4bit", (nn.Linear,), {})  # the name of bitsandbytes' class
    for module in model.model.modules():
        if type(module) is nn.Linear:
            module.__class__ = linear
    with raises_unchanged(model, r"are of type Linear4bit.*load the model unquantized.*dtype='nf4'"):
        lab.LoRA(rank=2).attach(model)


@pytest.mark.parametrize("function", [merge, unmerge, detach, report_of])
def test_model_without_an_adapter_is_refused(function):
    model = tiny("llama")
    with raises_unchanged(model, "has no adapter; attach one first"):
        function(model)
