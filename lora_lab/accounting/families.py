"""Which modules a config means: one builder a family, and the encoders, GPT-2 and T5. Decoders: decoders.py.

The defaults are those of transformers' own config classes, for fields that a config.json leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lora_lab.accounting import decoders
from lora_lab.accounting.architectures import Architecture, Module, head_modules
from lora_lab.accounting.config import Config
from lora_lab.accounting.parts import embedding, norm, stack
from lora_lab.errors import BadValue, nearest

Builder = Callable[[Config, bool], Architecture]


def build(fields: Mapping[str, Any], name: str, num_labels: int | None) -> Architecture:
    """The architecture of a config; see `Architecture.from_config`."""
    family = fields.get("model_type")
    if not isinstance(family, str):
        raise BadValue(f"the config of {name or 'this model'} lacks 'model_type', which says how to read the rest")
    if family not in FAMILIES:
        raise BadValue(f"unknown model_type '{family}'; nearest that can be counted: {nearest(family, FAMILIES)}")
    config = Config(fields, name or family)
    architecture = FAMILIES[family](config, num_labels is not None)
    if num_labels is None:
        return architecture
    return replace(architecture, modules=architecture.modules + head_modules(architecture, num_labels))


def bert(config: Config, classify: bool) -> Architecture:
    """BERT; with `classify` as transformers nests it under the task's head: bert.encoder.layer.*"""
    prefix = "bert." if classify else ""
    shape = _encoder(config, token_types=2)
    d, embed = shape.hidden, f"{prefix}embeddings"
    modules = (
        embedding(f"{embed}.word_embeddings", shape.vocabulary, d),
        embedding(f"{embed}.position_embeddings", shape.positions, d),
        embedding(f"{embed}.token_type_embeddings", shape.token_types, d),
        norm(f"{embed}.LayerNorm", d, bias=True),
        *_encoder_layers(shape, f"{prefix}encoder.layer", "query", "key", "value"),
        Module(f"{prefix}pooler.dense", "pooler", "linear", d, d, bias=True),
    )
    return replace(shape, modules=modules)


def roberta(config: Config, classify: bool) -> Architecture:
    """RoBERTa: BERT with its embeddings in another order, and for a task no pooler."""
    shape = bert(config, classify)
    words, positions, types, layer_norm, *rest = shape.modules
    modules = [words, types, layer_norm, positions, *rest]
    if classify:
        modules = [replace(m, name=m.name.replace("bert.", "roberta.", 1)) for m in modules if m.role != "pooler"]
    return replace(shape, modules=tuple(modules))


def deberta_v2(config: Config, classify: bool) -> Architecture:
    """DeBERTa-v2 and v3: relative positions, and for a task a pooler of its own."""
    shape = _encoder(config, token_types=0)
    d, prefix = shape.hidden, "deberta." if classify else ""
    if config.number("embedding_size", d) != d:
        raise BadValue(f"'embedding_size' of {config.name} differs from its hidden size, which cannot be counted")
    embed, encoder = f"{prefix}embeddings", f"{prefix}encoder"
    modules = [embedding(f"{embed}.word_embeddings", shape.vocabulary, d)]
    if config.flag("position_biased_input", True):
        modules.append(embedding(f"{embed}.position_embeddings", shape.positions, d))
    if shape.token_types:
        modules.append(embedding(f"{embed}.token_type_embeddings", shape.token_types, d))
    modules.append(norm(f"{embed}.LayerNorm", d, bias=True))
    modules += _encoder_layers(shape, f"{encoder}.layer", "query_proj", "key_proj", "value_proj", _relative(config, d))
    modules += _deberta_extras(config, shape, encoder)
    if classify:
        pooled = config.number("pooler_hidden_size", d)
        modules.append(Module("pooler.dense", "pooler", "linear", pooled, pooled, bias=True))
    return replace(shape, modules=tuple(modules))


def _relative(config: Config, d: int) -> tuple[Module, ...]:
    """The projections of relative positions, unless they share those of the tokens."""
    if not config.flag("relative_attention", False) or config.flag("share_att_key", False):
        return ()
    kinds = {"c2p": "pos_key_proj", "p2c": "pos_query_proj"}
    wanted = config.words("pos_att_type")
    return tuple(
        Module(f"attention.self.{leaf}", "other", "linear", d, d, bias=True)
        for kind, leaf in kinds.items()
        if kind in wanted
    )


def _deberta_extras(config: Config, shape: Architecture, encoder: str) -> list[Module]:
    """The table of relative positions, its norm, and the convolution beside the first layer."""
    d, modules = shape.hidden, []
    if config.flag("relative_attention", False):
        buckets = config.number("position_buckets", -1, least=-1)
        furthest = config.number("max_relative_positions", -1, least=-1)
        reach = buckets if buckets > 0 else furthest if furthest > 0 else shape.positions
        modules.append(embedding(f"{encoder}.rel_embeddings", 2 * reach, d))
    if "layer_norm" in config.words("norm_rel_ebd"):
        modules.append(norm(f"{encoder}.LayerNorm", d, bias=True))
    if kernel := config.number("conv_kernel_size", 0, least=0):
        inputs = d // config.number("conv_groups", 1) * kernel
        modules.append(Module(f"{encoder}.conv.conv", "other", "other", inputs, d, bias=True))
        modules.append(norm(f"{encoder}.conv.LayerNorm", d, bias=True))
    return modules


def _encoder(config: Config, token_types: int) -> Architecture:
    """The dimensions that encoders have in common, the family's own number of token types; the modules come after."""
    hidden, heads = config.number("hidden_size"), config.number("num_attention_heads")
    return Architecture(
        name=config.name,
        model_type=config.text("model_type", ""),
        task="encoder",
        layers=config.number("num_hidden_layers"),
        hidden=hidden,
        intermediate=config.number("intermediate_size"),
        heads=heads,
        kv_heads=heads,
        head_dim=config.per_head(hidden, heads),
        vocabulary=config.number("vocab_size"),
        positions=config.number("max_position_embeddings", 512),
        tied=config.flag("tie_word_embeddings", True),
        activation=config.text("hidden_act", "gelu"),
        token_types=config.number("type_vocab_size", token_types, least=0),
    )


def _encoder_layers(
    shape: Architecture, path: str, query: str, key: str, value: str, after_value: tuple[Module, ...] = ()
) -> tuple[Module, ...]:
    d, ff = shape.hidden, shape.intermediate
    projections = {query: "q", key: "k", value: "v"}
    parts = (
        *(Module(f"attention.self.{leaf}", role, "linear", d, d, bias=True) for leaf, role in projections.items()),
        *after_value,
        Module("attention.output.dense", "o", "linear", d, d, bias=True),
        norm("attention.output.LayerNorm", d, bias=True),
        Module("intermediate.dense", "up", "linear", d, ff, bias=True),
        Module("output.dense", "down", "linear", ff, d, bias=True),
        norm("output.LayerNorm", d, bias=True),
    )
    return stack(path, range(shape.layers), parts)


def gpt2(config: Config, classify: bool) -> Architecture:
    """GPT-2, and GPT-3 as its paper describes it: the same, larger. n_inner null means 4 x n_embd."""
    if config.flag("add_cross_attention", False):
        raise BadValue(f"{config.name} attends to an encoder beside it, which cannot be counted; try gpt2-medium")
    d, heads, layers = config.number("n_embd"), config.number("n_head"), config.number("n_layer")
    inner, vocabulary = config.number("n_inner", 4 * d), config.number("vocab_size")
    positions, tied = config.number("n_positions", 1024), config.flag("tie_word_embeddings", True)
    parts = (
        norm("ln_1", d, bias=True),
        Module("attn.c_attn", "q+k+v", "conv1d", d, 3 * d, bias=True),
        Module("attn.c_proj", "o", "conv1d", d, d, bias=True),
        norm("ln_2", d, bias=True),
        Module("mlp.c_fc", "up", "conv1d", d, inner, bias=True),
        Module("mlp.c_proj", "down", "conv1d", inner, d, bias=True),
    )
    modules = (
        embedding("transformer.wte", vocabulary, d),
        embedding("transformer.wpe", positions, d),
        *stack("transformer.h", range(layers), parts),
        norm("transformer.ln_f", d, bias=True),
        *(() if classify else (Module("lm_head", "head", "linear", d, vocabulary, tied=tied),)),
    )
    return Architecture(
        config.name, config.text("model_type", ""), "causal", layers, d, inner, heads, heads, config.per_head(d, heads),
        vocabulary, positions, tied, config.text("activation_function", "gelu_new"), modules=modules,
    )  # fmt: skip


def t5(config: Config, classify: bool) -> Architecture:
    """T5 with its encoder and decoder; one table of embeddings serves both, and the head unless it is untied."""
    if classify:
        raise BadValue(f"{config.name} has no classification head here; use it without num_labels")
    d, heads, ff = config.number("d_model"), config.number("num_heads"), config.number("d_ff")
    layers, head_dim = config.number("num_layers"), config.number("d_kv", 64)
    act = config.text("feed_forward_proj", "relu")
    blocks = {"encoder": layers, "decoder": config.number("num_decoder_layers", layers)}
    vocabulary = config.number("vocab_size")
    modules = [embedding("shared", vocabulary, d)]
    for side, count in blocks.items():
        modules.append(replace(embedding(f"{side}.embed_tokens", vocabulary, d), tied=True))
        modules += _t5_blocks(config, side, count, (d, heads, head_dim, ff), gated=act.startswith("gated-"))
        modules.append(norm(f"{side}.final_layer_norm", d))
    # transformers 5 ties T5's head whatever the config says.
    modules.append(Module("lm_head", "head", "linear", d, vocabulary, tied=True))
    act = "gelu_new" if act == "gated-gelu" else act.removeprefix("gated-")
    return Architecture(
        config.name, "t5", "seq2seq", layers, d, ff, heads, heads, head_dim, vocabulary,
        0, True, act, modules=tuple(modules),
    )  # fmt: skip


def _t5_blocks(
    config: Config, side: str, count: int, sizes: tuple[int, int, int, int], *, gated: bool
) -> tuple[Module, ...]:
    d, heads, head_dim, ff = sizes
    buckets = config.number("relative_attention_num_buckets", 32)
    ups = ("wi_0", "wi_1") if gated else ("wi",)
    roles = ("gate", "up") if gated else ("up",)
    attentions = ("SelfAttention",) if side == "encoder" else ("SelfAttention", "EncDecAttention")
    parts: list[Module] = []
    for i, attention in enumerate(attentions):
        inner = heads * head_dim
        parts += [Module(f"layer.{i}.{attention}.{leaf}", leaf, "linear", d, inner) for leaf in "qkv"]
        parts.append(Module(f"layer.{i}.{attention}.o", "o", "linear", inner, d))
        if i == 0:  # only the first block holds the table; the others read it
            table = f"layer.0.{attention}.relative_attention_bias"
            parts.append(replace(embedding(table, buckets, heads), numbers=(0,), count=1))
        parts.append(norm(f"layer.{i}.layer_norm", d))
    last = len(attentions)
    feed = f"layer.{last}.DenseReluDense"
    parts += [Module(f"{feed}.{leaf}", role, "linear", d, ff) for leaf, role in zip(ups, roles, strict=True)]
    parts += [Module(f"{feed}.wo", "down", "linear", ff, d), norm(f"layer.{last}.layer_norm", d)]
    return stack(f"{side}.block", range(count), parts)


FAMILIES: dict[str, Builder] = {
    "bert": bert,
    "roberta": roberta,
    "xlm-roberta": roberta,
    "deberta-v2": deberta_v2,
    "gpt2": gpt2,
    "gpt3": gpt2,
    "t5": t5,
    **decoders.FAMILIES,
}
