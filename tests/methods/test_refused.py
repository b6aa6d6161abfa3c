import math
from collections.abc import Callable
from functools import partial

import peft
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import lora_lab as lab
from lora_lab import LoRA
from lora_lab.errors import BadValue, LabError, NotFound
from lora_lab.methods import method_from
from lora_lab.methods.attach import report_of
from lora_lab.methods.base import Method
from lora_lab.methods.merge import detach, merge, unmerge
from lora_lab.methods.quant import quantize_model
from lora_lab.methods.targets import Site, choose, match, roles_of, sites_of_layer
from tests.accounting.conftest import real_model, small_config
from tests.conftest import raises_unchanged, tiny
from tests.methods.conftest import make_model


def test_invalid_value_is_refused():
    for function, message in (
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
        (lambda: lab.LoRA().attach("minilm"), r"'minilm' is a str, not a model: .*load_model\(name\)"),
        (lambda: lab.load_adapter("minilm", "folder"), r"'minilm' is a str, not a model: .*load_model\(name\)"),
        *((partial(lab.Probe, l2=l2), "l2") for l2 in (0, float("nan"), "1", True)),
    ):
        with pytest.raises(LabError, match=message) as caught:
            function()
        assert "\n" not in str(caught.value)


def quantized() -> nn.Module:
    model = tiny("bert")
    quantize_model(model)
    return model


def torch_encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1, enable_nested_tensor=False)


def vision() -> nn.Module:
    size = {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 4, "patch_size": 2}
    return make_model("ViTModel", size, hidden_size=8, intermediate_size=8)


def of_bitsandbytes() -> nn.Module:
    model, linear = tiny("llama"), type("Linear4bit", (nn.Linear,), {})  # the name of bitsandbytes' class
    for module in model.model.modules():
        if type(module) is nn.Linear:
            module.__class__ = linear
    return model


MAMBA = {"vocab_size": 96, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
HYBRID = {"num_key_value_heads": 2, "head_dim": 8, "layer_types": ["linear_attention"], "num_experts": 2}
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
    (quantized, lab.LoRA(dora=True), "dora and init 'pissa' need the base's unquantized weights"),
    (quantized, lab.LoRA(init="pissa"), "unquantized weights: load the base in fp32 or bf16"),
    ("bert", lab.Bottleneck(size=33), "at most 32"),
    ("bert", lab.Bottleneck(size=4, layers=3), "has 2 layers"),
    (lambda: real_model(small_config("mixtral"), None, device="cpu"), lab.Bottleneck(size=2), "does not fit"),
    ("bert", lab.IA3(targets=("embed",), feedforward=()), "an embedding"),
    ("bert", lab.IA3(targets=("gate",), feedforward=()), "'gate'"),
    ("phi3", lab.IA3(targets="k,up", feedforward="up"), r"\[up\] shares its input .* up out of feedforward"),
    ("bert", lab.LoRAXS(rank=64), "rank 64 is too high for a layer of 32 x 32: use at most 32"),
    ("bert", lab.VeRA(rank=10**8), "6,400,000,000 frozen random numbers exceed the limit"),
    ("bert", lab.TinyLoRA(rank=40, u=80_000), "327,680,000 frozen random numbers exceed the limit"),
    ("bert", lab.VeRA(targets=("embed",)), "an embedding: leave it out"),
    ("gpt2", lab.HeadOnly(), "has nothing to train"),
    ("llama", lab.BitFit(), "has nothing to train"),
    (lambda: make_model("LlamaForSequenceClassification", num_labels=3), lab.BitFit(), "has nothing to train"),
    (quantized, lab.BitFit(), "bitfit cannot train the bias of .*, a QuantizedLinear"),
    (torch_encoder, lab.BitFit(), r"bias of layers.0.self_attn.out_proj: torch never calls this layer"),
    ("gpt2", lab.Probe(), "needs a classifier"),
    (lambda: make_model("LlamaForTokenClassification"), lab.Probe(), "which a LlamaForTokenClassification cannot"),
    (lambda: make_model("BertForMultipleChoice"), lab.Probe(), "which a BertForMultipleChoice cannot"),
    (lambda: make_model("BertForQuestionAnswering"), lab.Probe(), "the probe needs a classifier"),
    (lambda: make_model("MambaForCausalLM", MAMBA), lab.PrefixTuning(), "does not accept keys and values"),
    (lambda: make_model("Qwen3NextForCausalLM", **HYBRID), lab.PrefixTuning(), "some layers .* no keys and values"),
    (lambda: nn.Sequential(nn.Linear(4, 4)), lab.PromptTuning(), "reads tokens, which Sequential does not; use lora"),
    (vision, lab.PrefixTuning(), "reads tokens, which ViTModel does not; use lora"),
    (lambda: nn.Sequential(nn.Conv2d(3, 8, 1)), lab.LoRA(targets="all-linear"), "no linear layer and no embedding"),
    (lambda: nn.Linear(4, 4), lab.LoRA(rank=2, targets="all-linear"), r"nn\.Sequential\(layer\)"),
    (of_bitsandbytes, lab.LoRA(rank=2), r"are of type Linear4bit.*load the model unquantized.*dtype='nf4'"),
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


@pytest.mark.parametrize("function", [merge, unmerge, detach, report_of])
def test_model_without_an_adapter_is_refused(function):
    model = tiny("llama")
    with raises_unchanged(model, "has no adapter; attach one first"):
        function(model)


ROLES = {
    "bert.encoder.layer.0.attention.output.dense": ("o",),
    "bert.encoder.layer.0.output.dense": ("down",),
    "bert.pooler.dense": ("pooler",),
    "distilbert.transformer.layer.0.attention.out_lin": ("o",),
    "model.decoder.layers.0.encoder_attn.out_proj": ("o",),
    "transformer.h.0.attn.c_proj": ("o",),
    "transformer.h.0.mlp.c_proj": ("down",),
    "transformer.h.0.self_attention.query_key_value": ("q", "k", "v"),
    "decoder.block.0.layer.1.EncDecAttention.o": ("o",),
    "decoder.block.0.layer.2.DenseReluDense.wi_0": ("gate",),
    "deberta.encoder.rel_embeddings": ("position",),
    **dict.fromkeys(("cls.predictions.decoder", "lm_loss", "head"), ("head",)),
    **{f"encoder.layer.0.attention.attn.{role}": (role,) for role in "qkvo"},  # MPNet
    "something.unknown": (),
    "bert.myquery": (),
}


def test_roles_follow_from_the_path():
    assert {module: roles_of(module) for module in ROLES} == ROLES


def test_fused_layer_has_a_site_per_slice():
    whole, q, k, v = sites_of_layer("h.0.attn.c_attn", 32, 64, "linear", {"q": 32, "k": 16, "v": 16})
    assert (whole.out_slice, q.out_slice, k.out_slice, v.out_slice) == (None, (0, 32), (32, 48), (48, 64))
    assert [site.role for site in (whole, q, k, v)] == ["q+k+v", "q", "k", "v"]
    assert (q.name, v.out_features) == ("h.0.attn.c_attn[q]", 16)
    for widths in ({}, {"q": 32, "k": 32, "v": 31}):  # an unknown order
        assert [site.out_slice for site in sites_of_layer("h.0.attn.c_attn", 32, 96, "linear", widths)] == [None]


BERT_SITES = [Site("bert.embeddings.word_embeddings", "embed", 96, 32, "embedding")]
for number in range(2):
    for name in ("self.query", "self.key", "self.value", "output.dense"):
        BERT_SITES += sites_of_layer(f"bert.encoder.layer.{number}.attention.{name}", 32, 32, "linear", {})
GPT2_SITES = sites_of_layer("h.0.attn.c_attn", 32, 96, "linear", {"q": 32, "k": 32, "v": 32})
GPT2_SITES += sites_of_layer("h.0.attn.c_proj", 32, 32, "linear", {})


def test_target_is_a_role_a_name_or_a_pattern():
    for target in ("q", "query"):
        assert match(target, BERT_SITES) == [site for site in BERT_SITES if site.role == "q"] != []
    assert match("*.0.attention.self.*", BERT_SITES) == BERT_SITES[1:4]
    assert choose(["value", "v", "q"], BERT_SITES) == [
        site for site in BERT_SITES if site.role in ("q", "v")
    ]  # once, in order


def test_role_means_the_slice_and_name_the_fused_layer():
    assert [site.name for site in match("q", GPT2_SITES)] == ["h.0.attn.c_attn[q]"]
    assert [site.name for site in match("c_attn", GPT2_SITES)] == ["h.0.attn.c_attn"]
    assert [site.out_slice for site in match("h.0.attn.c_attn[v]", GPT2_SITES)] == [(64, 96)]
    assert {site.out_slice for site in match("all-linear", GPT2_SITES)} == {None}
    slices = match("q", GPT2_SITES) + match("v", GPT2_SITES)
    assert match("*.0.attn.c_attn", slices, slices=True) == slices
    with pytest.raises(NotFound):
        match("*.0.attn.c_attn", slices)


SITES = [Site(f"layer.{n}.{name}", name[0], 32, size) for n in (0, 1) for name, size in (("query", 32), ("value", 16))]


def test_invalid_lora_is_refused():
    for options, message in (
        ({"rank": 0}, "rank must be an integer of at least 1, not 0"),
        ({"rank": True}, "rank must be"),
        ({"targets": None}, "targets is empty: name at least one"),
        ({"alpha": 0}, "alpha must be a positive number, not 0"),
        ({"alpha": 1e39}, "above 1e30 it would overflow"),
        ({"alpha_pattern": {"q": -1}}, "alpha must be"),
        ({"dropout": 1}, "dropout must be at least 0 and below 1, not 1"),
        ({"rslora": "no"}, "rslora must be True or False"),
        ({"lr_ratio": math.inf}, "lr_ratio must be a positive number"),
        ({"dora": True, "init": "pissa"}, "leave one of them out"),
        ({"init": "xavier"}, "init must be one of kaiming, gaussian, pissa, not 'xavier'"),
        ({"targets": " , "}, "targets is empty"),
        ({"rank": 17}, r"rank 17 is above what layer\.0\.value \(32 x 16\) can hold: at most 16"),
        ({"rank_pattern": {"layer.1.query": 33}}, "rank 33 is above what layer.1.query"),
        ({"targets": ("q",), "rank_pattern": {"v": 4}}, "target 'v' matches no layer"),
    ):
        with pytest.raises((BadValue, NotFound), match=message):
            LoRA(**options).place(SITES)
    for cls, option in ((lab.PromptTuning, "tokens"), (lab.VeRA, "rank"), (lab.Bottleneck, "size")):
        with pytest.raises(BadValue, match=rf"{option} must be an integer of at least 1, not \d+\.0"):
            cls(**{option: float(getattr(cls, option))})  # equals the default
    gates = [Site(f"layer.{n}.shared_expert_gate", "other", 32, 1) for n in (0, 1)]
    with pytest.raises(BadValue, match='shared_expert_gate": 1'):  # all layers at once
        LoRA(targets="all-linear").place(gates)


@given(rank=st.integers(1, 16), special=st.integers(1, 16), alpha=st.floats(0.1, 64), rslora=st.booleans())
def test_patterns_set_rank_and_alpha(rank, special, alpha, rslora):
    patterns = {"rank_pattern": {"layer.0.query": special, "q": 4}, "alpha_pattern": {"v": 24}}  # the first match wins
    placements = {p.site.module: p for p in LoRA(rank, alpha, rslora=rslora, **patterns).place(SITES)}
    ranks = {"layer.0.query": special, "layer.1.query": 4, "layer.0.value": rank, "layer.1.value": rank}
    assert {name: p.rank for name, p in placements.items()} == ranks
    for name, p in placements.items():
        assert p.scaling == (24 if "value" in name else alpha) / (math.sqrt(p.rank) if rslora else p.rank)
        assert p.parameters == p.rank * (p.site.in_features + p.site.out_features)
