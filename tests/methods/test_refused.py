import math
from collections import Counter

import accelerate
import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

import lora_lab as lab
from lora_lab import BadValue, LabError, LoRA, NotFound, detach, disabled, merge, unmerge
from lora_lab.methods import method_from
from lora_lab.methods.attach import is_adapted, report_of
from lora_lab.methods.merge import at_strength
from lora_lab.methods.quant import quantize_model
from lora_lab.methods.targets import Site, roles_of
from tests.accounting.conftest import real_model, small_config
from tests.conftest import assert_raises, logits, make_model, tiny, with_adapter

INVALID = {
    lab.LoRA: {
        "rank": (0, True), "alpha": (0, 1e39), "dropout": (1,), "rslora": ("no",), "lr_ratio": (math.inf,),
        "init": ("xavier",),
    },
    lab.PromptTuning: {"tokens": (20.0,), "init": ("zeros",)},  # a float that equals the default
    lab.Bottleneck: {"size": (16.0,), "placement": ("h",)},
    lab.VeRA: {"rank": (256.0,), "d_initial": (0,), "save_projection": (1,)},
    lab.TinyLoRA: {"weight_tying": (1.5,)},
    lab.LoRAXS: {"alpha": (0,)},
    lab.Probe: {"l2": (0, math.nan, "1", True)},
}  # fmt: skip


def test_invalid_option_is_named():
    for method, options in INVALID.items():
        for name, values in options.items():
            for value in values:
                assert_raises(f"^{name} must be", method, **{name: value})


def test_invalid_value_is_refused():
    name_of_a_model = r"'minilm' is a str, not a model: .*load_model\(name\)"
    assert_raises("feedforward contains 'down'", lab.IA3, targets=("k",))
    assert_raises("does not support encoder-decoder", lab.params, "t5-base", lab.PrefixTuning())
    assert_raises("use prompt tuning", lab.params, "deepseek-v3", lab.PrefixTuning())
    assert_raises("num_labels", lab.params, "gpt2", lab.Probe())
    assert_raises("this Sequential cannot be copied", lab.params, pruned(), lab.LoRA(targets="all-linear"))
    order = "a part of query_key_value, .* in an unknown order"
    assert_raises(order, lab.params, small_config("falcon"), lab.LoRA(), error=NotFound)
    assert_raises("bitfit has no option 'rank'; it has no options", method_from, {"name": "bitfit", "rank": 3})
    assert_raises("lora has no option 'rnak'; nearest: rank", method_from, {"name": "lora", "rnak": 8})
    assert_raises("unknown method 'lroa'; known: .*lora", method_from, {"name": "lroa"})
    assert_raises(name_of_a_model, lab.LoRA().attach, "minilm")
    assert_raises("not None", lab.load_adapter, tiny("bert"), None)
    assert_raises("not 5", lab.save_adapter, with_adapter(tiny("bert"), lab.LoRA(rank=2)), 5)
    assert_raises("not 5", lab.evaluate_adapter, 5)
    assert_raises(name_of_a_model, lab.load_adapter, "minilm", "folder")


def quantized() -> nn.Module:
    model = tiny("bert")
    quantize_model(model)
    return model


def heterogeneous() -> nn.Module:
    model, ambiguous = tiny("llama"), property(lambda config: 1 / 0)  # transformers raises too
    fields = {"is_heterogeneous": True, "kv_lora_rank": ambiguous, "num_attention_heads": ambiguous}
    model.config.__class__ = type("LayersDiffer", (type(model.config),), fields)
    return model


def test_prompt_fits_a_model_whose_layers_differ(tmp_path):
    folder = lab.save_adapter(with_adapter(heterogeneous(), lab.PromptTuning(tokens=3)), tmp_path)
    assert lab.load_adapter(heterogeneous(), folder).adapter_parameters == 3 * 32


def of_bitsandbytes() -> nn.Module:
    model, linear = tiny("llama"), type("Linear4bit", (nn.Linear,), {})  # the name of bitsandbytes' class
    for module in model.model.modules():
        if type(module) is nn.Linear:
            module.__class__ = linear
    return model


def pruned() -> nn.Module:
    return nn.Sequential(prune.identity(nn.Linear(4, 4), "weight"))


MAMBA = {"vocab_size": 96, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
HYBRID = {"num_key_value_heads": 2, "head_dim": 8, "layer_types": ["linear_attention"], "num_experts": 2}
EMBEDDING = r"is for linear layers: leave the embedding model\.embed_tokens out"
MODELS = [
    ("roberta", lab.LoRA(targets=("querry",)), "'querry' matches no layer of this model; nearest: query"),
    ("bert", lab.LoRA(targets="pooler"), r"no layer of this model; nearest: bert\.pooler\.dense$"),
    ("gpt2", lab.LoRA(targets=("c_attn", "q")), r"overlap: .*c_attn is adapted as a whole and as q"),
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
    ("phi3", lab.IA3(targets="k,up", feedforward="up"), r"\[up\] shares its input .* up out of feedforward"),
    ("bert", lab.LoRAXS(rank=64), "rank 64 is too high for a 32 x 32 layer: use at most 32"),
    ("bert", lab.VeRA(rank=10**8), "6,400,000,000 frozen random numbers exceed the limit"),
    ("bert", lab.TinyLoRA(rank=40, u=80_000), "327,680,000 frozen random numbers exceed the limit"),
    ("bert", lab.VeRA(targets=("embed",)), "an embedding: leave it out"),
    ("gpt2", lab.HeadOnly(), "has nothing to train"),
    (lambda: make_model("LlamaForSequenceClassification", num_labels=3), lab.BitFit(), "has nothing to train"),
    (quantized, lab.BitFit(), "bitfit cannot train the bias of .*, a QuantizedLinear"),
    (lambda: nn.Sequential(nn.MultiheadAttention(8, 2)), lab.BitFit(), "bias of 0.out_proj: torch never calls this"),
    ("gpt2", lab.Probe(), "needs a classifier"),
    (lambda: make_model("LlamaForTokenClassification"), lab.Probe(), "which a LlamaForTokenClassification cannot"),
    (lambda: make_model("BertForQuestionAnswering"), lab.Probe(), "the probe needs a classifier"),
    (lambda: make_model("MambaForCausalLM", MAMBA), lab.PrefixTuning(), "cannot generate after a prompt"),
    (lambda: make_model("Gemma4ForCausalLM", num_key_value_heads=2), lab.PromptTuning(), "needs token ids"),
    (lambda: make_model("CanineModel"), lab.PromptTuning(), "needs token ids, not only embeddings, .* use lora"),
    (heterogeneous, lab.PrefixTuning(), "does not accept keys and values of a single shape; use prompt tuning"),
    (lambda: make_model("MegatronBertModel"), lab.PrefixTuning(), "does not accept keys and values"),
    (lambda: make_model("Qwen3NextForCausalLM", **HYBRID), lab.PrefixTuning(), "some layers .* no keys or values"),
    (lambda: nn.Sequential(nn.Linear(4, 4)), lab.PromptTuning(), "inputs_embeds, which Sequential lacks; use lora"),
    (lambda: nn.Sequential(nn.Conv2d(3, 8, 1)), lab.LoRA(targets="all-linear"), "no linear layer and no embedding"),
    (lambda: nn.Sequential(nn.Embedding(4, 4)), lab.LoRA(targets="all-linear"), "nearest: 0, embed"),
    (lambda: nn.Linear(4, 4), lab.LoRA(rank=2, targets="all-linear"), r"nn\.Sequential\(layer\)"),
    (pruned, lab.LoRA(rank=2, targets="all-linear"), "weight of 0 is computed"),
    (of_bitsandbytes, lab.LoRA(rank=2), r"are of type Linear4bit.*load the model unquantized.*dtype='nf4'"),
]


@pytest.mark.parametrize(("model", "method", "match"), MODELS)
def test_model_that_does_not_fit_a_method_is_refused(model, method, match):
    model = tiny(model) if isinstance(model, str) else model()
    assert_raises(match, method.attach, model, error=LabError, unchanged=model)


@pytest.mark.parametrize("function", [merge, unmerge, detach, report_of])
def test_model_without_an_adapter_is_refused(function):
    model = tiny("llama")
    assert_raises("has no adapter; attach one first", function, model, unchanged=model)
    LoRA(rank=2).attach(model)
    outer = nn.Sequential(model)
    assert_raises("the adapter belongs to module 0 of this Sequential", function, outer, unchanged=outer)
    assert_raises("'llama' is a str, not a model", function, "llama")


def test_peft_adapter_is_not_overlooked():
    theirs = peft.get_peft_model(tiny("llama"), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    v = LoRA(targets=("v",))
    for use in (v.attach, lab.merge, lambda m: disabled(m).__enter__(), lambda m: lab.params(m, v)):
        assert_raises("a PEFT adapter.*merge_and_unload", use, theirs, unchanged=theirs)
    with pytest.raises(BadValue, match="has no adapter"), at_strength(tiny("llama"), 0.5):
        pass
    count = lab.params(nn.DataParallel(tiny("llama")), LoRA())
    assert count == lab.params(tiny("llama"), LoRA())


def test_only_offloaded_layers_are_refused(tmp_path):
    lab.save_adapter(with_adapter("bert", LoRA(rank=2)), tmp_path)
    model, wholly = tiny("bert"), tiny("bert")
    accelerate.cpu_offload(model.bert.encoder.layer[1], torch.device("cpu"))
    accelerate.cpu_offload(wholly, torch.device("cpu"))
    for refused in (model, wholly):
        for method in (LoRA(rank=2), lab.BitFit(), lab.FullFineTuning()):
            assert_raises("is offloaded, so no adapter can train there", method.attach, refused)
        assert_raises("is offloaded, so no adapter can train there", lab.load_adapter, refused, tmp_path)
        assert not is_adapted(refused)
    method = LoRA(rank=2, targets="*.0.*.query")
    assert torch.equal(logits(with_adapter(model, method)), logits(with_adapter("bert", method)))


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
    "encoder.block.0.layer.0.LocalSelfAttention.o": ("o",),
    "encoder.block.0.layer.0.TransientGlobalSelfAttention.q": ("q",),
    "decoder.block.0.layer.2.DenseReluDense.wi_0": ("gate",),
    "deberta.encoder.rel_embeddings": ("position",),
    **dict.fromkeys(("cls.predictions.decoder", "lm_loss", "head", "proj_out"), ("head",)),
    **{f"encoder.layer.0.attention.attn.{role}": (role,) for role in "qkvo"},  # MPNet
    "something.unknown": (),
    "bert.myquery": (),
}


def test_roles_follow_from_the_path():
    assert {module: roles_of(module) for module in ROLES} == ROLES


def test_target_is_a_role_a_name_or_a_pattern_and_a_role_means_a_slice():
    for kind, targets, layers in (
        ("bert", "q", {"query": 2}),
        ("bert", "query", {"query": 2}),
        ("bert", "*.0.attention.self.*", {"query": 1, "key": 1, "value": 1}),
        ("bert", "value,v,q", {"query": 2, "value": 2}),  # each once
        ("gpt2", "q", {"c_attn[q]": 2}),
        ("gpt2", "c_attn", {"c_attn": 2}),
        ("gpt2", "transformer.h.0.attn.c_attn[v]", {"c_attn[v]": 1}),
        ("gpt2", "all-linear", {"c_attn": 2, "c_fc": 2, "c_proj": 4}),
    ):
        report = LoRA(rank=1, targets=targets).attach(tiny(kind))
        assert Counter(placement.site.name.rpartition(".")[2] for placement in report.placements) == layers


SITES = [Site(f"layer.{n}.{name}", name[0], 32, size) for n in (0, 1) for name, size in (("query", 32), ("value", 16))]


def test_invalid_lora_is_refused():
    for options, message in (
        ({"rank_pattern": [("q", 4), ("q", 2)]}, "rank_pattern names a target twice"),
        ({"dora": True, "init": "pissa"}, "leave one of them out"),
        ({"alpha_pattern": {"q": -1}}, "the alpha of 'q' in alpha_pattern must be"),
        ({"targets": None}, "no targets are given: name at least one"),
        ({"targets": " , "}, "no targets are given"),
        ({"rank": 17}, r"rank 17 is above what layer\.0\.value \(32 x 16\) can hold: at most 16"),
        ({"rank_pattern": {"layer.1.query": 33}}, "rank 33 is above what layer.1.query"),
        ({"targets": ("q",), "rank_pattern": {"v": 4}}, "'v' in rank_pattern matches none .* nearest: q, query$"),
    ):
        with pytest.raises((BadValue, NotFound), match=message):
            LoRA(**options).place(SITES)
    gates = [Site(f"layer.{n}.shared_expert_gate", "other", 32, 1) for n in (0, 1)]
    assert_raises('shared_expert_gate": 1', LoRA(targets="all-linear").place, gates)  # all layers at once


@given(rank=st.integers(1, 16), special=st.integers(1, 16), alpha=st.floats(0.1, 64), rslora=st.booleans())
def test_patterns_set_rank_and_alpha(rank, special, alpha, rslora):
    patterns = {"rank_pattern": {"layer.0.query": special, "q": 4}, "alpha_pattern": {"v": 24}}  # the first match wins
    placements = {p.site.module: p for p in LoRA(rank, alpha, rslora=rslora, **patterns).place(SITES)}
    ranks = {"layer.0.query": special, "layer.1.query": 4, "layer.0.value": rank, "layer.1.value": rank}
    assert {name: p.rank for name, p in placements.items()} == ranks
    for name, p in placements.items():
        assert p.scaling == (24 if "value" in name else alpha) / (math.sqrt(p.rank) if rslora else p.rank)
        assert p.parameters == p.rank * (p.site.in_features + p.site.out_features)
