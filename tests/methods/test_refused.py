"""What cannot be is refused in one sentence, before anything is touched: values of options, and models for methods.

LoRA's own options are in test_targets.py, what cannot be merged in test_merge.py, what cannot be loaded in test_io.py.
"""

from collections.abc import Callable
from functools import partial

import pytest
import transformers
from torch import nn

from lora_lab import (
    IA3,
    BitFit,
    Bottleneck,
    HeadOnly,
    LoRA,
    LoRAXS,
    PrefixTuning,
    Probe,
    PromptTuning,
    PTuning,
    TinyLoRA,
    VeRA,
    params,
)
from lora_lab.errors import LabError
from lora_lab.methods import method_from
from lora_lab.methods.attach import report_of
from lora_lab.methods.base import Method
from lora_lab.methods.merge import detach, merge, unmerge
from lora_lab.methods.quant import quantize_model
from tests.accounting.conftest import real_model, small_config
from tests.conftest import BERT, tiny
from tests.methods.conftest import refused

VALUES: list[tuple[Callable[[], object], str]] = [
    (lambda: PromptTuning(init="zeros"), "init must be one of vocabulary, random"),
    (lambda: Bottleneck(placement="h"), "placement must be one of houlsby"),
    (lambda: IA3(targets=("k",)), "feedforward names 'down'"),
    (lambda: params("t5-base", PrefixTuning()), "does not support encoder-decoder"),
    (lambda: params("deepseek-v3", PrefixTuning()), "use prompt tuning"),
    (lambda: params(tiny("phi3"), IA3(targets="k,up", feedforward="up")), r"\[up\] shares its input"),
    (lambda: params("gpt2", Probe()), "num_labels"),
    (lambda: method_from({"name": "bitfit", "rank": 3}), "bitfit has no option 'rank'; it has none"),
    (lambda: method_from({"name": "lora", "rnak": 8}), "lora has no option 'rnak'; nearest: rank"),
    (lambda: method_from({"name": "lroa"}), "unknown method 'lroa'; known: .*lora"),
    (lambda: method_from({"name": ""}), "unknown method ''; known: .*lora"),
    (lambda: VeRA(d_initial=0), "d_initial must be a number other than 0"),
    (lambda: VeRA(save_projection=1), "save_projection must be True or False"),
    (lambda: TinyLoRA(weight_tying=1.5), "weight_tying must be from 0 to 1"),
    (lambda: LoRAXS(alpha=0), "alpha must be a number greater than 0"),
    (lambda: VeRA.from_peft({"bias": "all"}, tiny("bert")), "bias='all', which lora_lab does not support"),
    *((partial(Probe, l2=l2), "l2") for l2 in (0, float("nan"), "1", True)),
]


@pytest.mark.parametrize(("make", "words"), VALUES)
def test_an_impossible_value_is_one_sentence(make, words):
    with pytest.raises(LabError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def made(name: str, size: dict = BERT, **more) -> nn.Module:
    """A random model of a class of transformers."""
    cls = getattr(transformers, name)
    return cls(cls.config_class(**{**size, **more})).eval()


def torchs() -> nn.Module:
    """An encoder of torch's own layers."""
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1, enable_nested_tensor=False)


def quantized() -> nn.Module:
    model = tiny("bert")
    quantize_model(model)
    return model


VIT = {
    "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "image_size": 4,
    "patch_size": 2,
}  # fmt: skip
MAMBA = {"vocab_size": 96, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
EMBEDDING = r"is for linear layers: leave the embedding model\.embed_tokens out"
READS = "reads tokens, which {} does not; use lora"
MODELS: list[tuple[str | Callable[[], nn.Module], Method, str]] = [
    ("roberta", LoRA(targets=("querry",)), "'querry' matches no layer of this model; nearest: query"),
    ("gpt2", LoRA(targets=("c_attn", "q")), r"overlap: .*c_attn is adapted as a whole and again as q"),
    ("phi3", LoRA(targets=("all-linear", "up")), r"overlap: .*gate_up_proj"),
    ("llama", LoRA(rank=20), r"rank 20 is above .*v_proj .* at most 16; .*rank_pattern=\{\"v\": 16\}"),
    ("llama", LoRA(targets=("q", "embed"), dora=True), EMBEDDING),
    ("llama", LoRA(targets=("q", "embed"), init="pissa"), EMBEDDING),
    ("llama", LoRA(targets=("q", "embed"), freeze_a=True), EMBEDDING),
    ("gpt2", LoRA(dora=True), "dora adapts a fused layer as a whole: use c_attn as a target, not q"),
    (quantized, LoRA(dora=True), "dora and init 'pissa' compute with the base's own weights: load it in fp32 or bf16"),
    (quantized, LoRA(init="pissa"), "load it in fp32 or bf16, unquantized"),
    ("bert", Bottleneck(size=33), "at most 32"),
    ("bert", Bottleneck(size=4, layers=3), "has 2 layers"),
    (lambda: real_model(small_config("mixtral"), None, device="cpu"), Bottleneck(size=2), "does not fit"),
    ("bert", IA3(targets=("embed",), feedforward=()), "an embedding"),
    ("bert", IA3(targets=("gate",), feedforward=()), "'gate'"),
    ("phi3", IA3(targets="k,up", feedforward="up"), r"\[up\] shares its input .* up out of feedforward"),
    ("bert", LoRAXS(rank=64), "rank 64 is too high for a layer of 32 x 32: use at most 32"),
    ("bert", VeRA(rank=10**8), "3,200,000,000 frozen random numbers are more than"),
    ("bert", TinyLoRA(rank=32, u=300_000), "307,200,000 frozen random numbers are more than"),
    ("bert", VeRA(targets=("embed",)), "an embedding: leave it out"),
    ("gpt2", HeadOnly(), "has nothing to train"),
    ("llama", BitFit(), "has nothing to train"),
    (lambda: made("LlamaForSequenceClassification", num_labels=3), BitFit(), "has nothing to train"),
    (quantized, BitFit(), "bitfit cannot train the bias of .*, a QuantizedLinear"),
    (torchs, BitFit(), r"bias of layers.0.self_attn.out_proj: torch never calls its layer"),
    ("gpt2", Probe(), "needs a classifier"),
    (lambda: made("LlamaForTokenClassification"), Probe(), "one class, but a LlamaForTokenClassification cannot"),
    (lambda: made("BertForMultipleChoice"), Probe(), "one class, but a BertForMultipleChoice cannot"),
    (lambda: made("BertForQuestionAnswering"), Probe(), "the probe needs a classifier"),
    (lambda: made("MambaForCausalLM", MAMBA), PrefixTuning(), "does not accept keys and values"),
    *((lambda: nn.Sequential(nn.Linear(4, 4)), one(), READS.format("Sequential")) for one in (PromptTuning, PTuning)),
    *((lambda: made("ViTModel", VIT), one(), READS.format("ViTModel")) for one in (PromptTuning, PrefixTuning)),
]


@pytest.mark.parametrize(("model", "method", "words"), MODELS)
def test_a_model_that_a_method_does_not_fit_is_one_sentence_and_stays_as_it_was(model, method, words):
    model = tiny(model) if isinstance(model, str) else model()
    with refused(model, words, LabError):
        method.attach(model)


class Linear4bit(nn.Linear):
    """As bitsandbytes calls its own."""


def test_linear_layers_of_another_library_are_named():
    model = tiny("llama")
    for module in model.model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear4bit
    with pytest.raises(LabError, match=r"are Linear4bit.*load it unquantized.*dtype='nf4'"):
        LoRA(rank=2).attach(model)
    with pytest.raises(LabError, match="matches no layer of this model; it has no linear layer and no embedding"):
        LoRA(rank=2, targets="all-linear").attach(nn.Sequential(nn.Conv2d(3, 8, 1)))


def test_without_an_adapter_there_is_nothing_to_do():
    model = tiny("llama")
    for call in (merge, unmerge, detach, report_of):
        with refused(model, "has no adapter; attach one first"):
            call(model)
