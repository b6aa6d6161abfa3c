"""Decoders of today: Llama and its kin, fused Phi, Gemma's four norms, and mixtures of experts.

A layer is attention, a feed-forward part and norms; a family is a choice of those. Experts are listed one by one
(gate, up, down: layers x experts of each), although transformers 5 keeps those of a layer in one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from lora_lab.accounting.architectures import Architecture, Module
from lora_lab.accounting.config import Config
from lora_lab.accounting.parts import embedding, norm, stack
from lora_lab.errors import BadValue


@dataclass(frozen=True)
class Family:
    """What sets a family apart from Llama.

    Defaults are those of its config class in transformers: kv_heads and head_dim None mean as many as heads, and
    hidden / heads.
    """

    kv_heads: int | None = None
    head_dim: int | None = None
    tied: bool = False
    qkv_bias: bool | None = None  # None: as attention_bias says
    attention_bias: bool = False  # the default of that field
    mlp_bias: bool = False  # whether that field is read at all
    qk_norm: bool = False
    fused: bool = False
    sinks: bool = False
    latent: bool = False  # attention through a latent, as DeepSeek's
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    activation: tuple[str, str] = ("hidden_act", "silu")
    mixture: Callable[[Config, Architecture], Mixture] | None = None


@dataclass(frozen=True)
class Mixture:
    """Which layers have experts, how many, how wide, how many a token visits, and what stands beside them."""

    numbers: tuple[int, ...]
    experts: int
    per_token: int
    width: int
    router: str = "gate"
    bias: bool = False
    shared: int = 0  # width of the expert that every token visits


def decoder(config: Config, classify: bool, family: Family) -> Architecture:
    """A decoder of this family; with `classify` without the language model's head."""
    shape = _dimensions(config, family)
    mixture = family.mixture(config, shape) if family.mixture else None
    attention = _latent_attention(config, shape) if family.latent else _attention(config, shape, family)
    parts = [*attention, *_feed_forward(config, shape, family, mixture), *(norm(n, shape.hidden) for n in family.norms)]
    head = Module("lm_head", "head", "linear", shape.hidden, shape.vocabulary, tied=shape.tied)
    modules = (
        embedding("model.embed_tokens", shape.vocabulary, shape.hidden),
        *stack("model.layers", range(shape.layers), parts),
        norm("model.norm", shape.hidden),
        *(() if classify else (head,)),
    )
    if mixture:
        shape = replace(shape, experts=mixture.experts, experts_per_token=mixture.per_token)
    return replace(shape, modules=modules)


def _dimensions(config: Config, family: Family) -> Architecture:
    """The dimensions alone; the modules are made from them."""
    hidden, heads = config.number("hidden_size"), config.number("num_attention_heads")
    if family.latent:  # one latent serves every head, which then has its own keys
        head_dim = config.number("qk_nope_head_dim", 128) + config.number("qk_rope_head_dim", 64)
        kv_heads = heads
    else:
        head_dim = config.head_size(hidden, heads, family.head_dim)
        kv_heads = config.key_value_heads(heads, family.kv_heads)
    return Architecture(
        name=config.name,
        model_type=config.text("model_type", ""),
        task="causal",
        layers=config.number("num_hidden_layers"),
        hidden=hidden,
        intermediate=config.number("intermediate_size"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=config.number("vocab_size"),
        positions=config.number("max_position_embeddings", 0, least=0),
        tied=config.flag("tie_word_embeddings", family.tied),
        activation=config.text(*family.activation),
        qk_norm=family.qk_norm,
    )


def _attention(config: Config, shape: Architecture, family: Family) -> list[Module]:
    d, q, kv = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    bias = family.qkv_bias is None and config.flag("attention_bias", family.attention_bias)
    output = Module("self_attn.o_proj", "o", "linear", q, d, bias)
    if family.fused:
        return [output, Module("self_attn.qkv_proj", "q+k+v", "linear", d, q + 2 * kv)]
    widths, qkv_bias = {"q": q, "k": kv, "v": kv}, bias or bool(family.qkv_bias)
    modules = [Module(f"self_attn.{r}_proj", r, "linear", d, width, qkv_bias) for r, width in widths.items()]
    modules.append(output)
    if family.qk_norm:
        modules += [norm(f"self_attn.{r}_norm", shape.head_dim) for r in "qk"]
    if family.sinks:
        modules.append(Module("self_attn.sinks", "other", "other", 1, shape.heads))
    return modules


def _latent_attention(config: Config, shape: Architecture) -> list[Module]:
    """Multi-head latent attention: tokens are squeezed into a small latent, and heads unfold it. DeepSeek-V3."""
    d, heads, bias = shape.hidden, shape.heads, config.flag("attention_bias", False)
    nope, rope = config.number("qk_nope_head_dim", 128), config.number("qk_rope_head_dim", 64)
    latent, value = config.number("kv_lora_rank", 512), config.number("v_head_dim", 128)
    if "q_lora_rank" in config.fields and config.fields["q_lora_rank"] is None:
        queries = [Module("self_attn.q_proj", "q", "linear", d, heads * shape.head_dim)]
    else:
        small = config.number("q_lora_rank", 1536)
        queries = [
            Module("self_attn.q_a_proj", "other", "linear", d, small, bias),
            norm("self_attn.q_a_layernorm", small),
            Module("self_attn.q_b_proj", "other", "linear", small, heads * shape.head_dim),
        ]
    return [
        *queries,
        Module("self_attn.kv_a_proj_with_mqa", "other", "linear", d, latent + rope, bias),
        norm("self_attn.kv_a_layernorm", latent),
        Module("self_attn.kv_b_proj", "other", "linear", latent, heads * (nope + value)),
        Module("self_attn.o_proj", "o", "linear", heads * value, d, bias),
    ]


def _feed_forward(config: Config, shape: Architecture, family: Family, mixture: Mixture | None) -> list[Module]:
    if family.fused:
        d, inner = shape.hidden, shape.intermediate
        fused = Module("mlp.gate_up_proj", "gate+up", "linear", d, 2 * inner)
        return [fused, Module("mlp.down_proj", "down", "linear", inner, d)]
    bias = family.mlp_bias and config.flag("mlp_bias", False)
    dense = tuple(n for n in range(shape.layers) if mixture is None or n not in mixture.numbers)
    modules = _gated("mlp", shape, shape.intermediate, dense, bias) if dense else []
    return modules + (_experts(shape, mixture) if mixture and mixture.numbers else [])


def _gated(path: str, shape: Architecture, width: int, numbers: tuple[int, ...], bias: bool = False) -> list[Module]:
    d = shape.hidden
    return [
        Module(f"{path}.gate_proj", "gate", "linear", d, width, bias, numbers=numbers),
        Module(f"{path}.up_proj", "up", "linear", d, width, bias, numbers=numbers),
        Module(f"{path}.down_proj", "down", "linear", width, d, bias, numbers=numbers),
    ]


def _experts(shape: Architecture, mixture: Mixture) -> list[Module]:
    d, width, numbers, count = shape.hidden, mixture.width, mixture.numbers, mixture.experts
    shapes: Iterable[tuple[str, int, int]] = (("gate", d, width), ("up", d, width), ("down", width, d))
    router = Module(f"mlp.{mixture.router}", "router", "other", d, count, mixture.bias, numbers=numbers, site=False)
    experts = [
        Module(f"mlp.experts.*.{r}_proj", r, "linear", i, o, mixture.bias, count, numbers, site=False)
        for r, i, o in shapes
    ]
    shared = _gated("mlp.shared_experts", shape, mixture.shared, numbers) if mixture.shared else []
    return [router, *experts, *shared]


def _mixtral(config: Config, shape: Architecture) -> Mixture:
    experts = config.number("num_local_experts", 8)
    return Mixture(tuple(range(shape.layers)), experts, _per_token(config, experts, 2), shape.intermediate)


def _gpt_oss(config: Config, shape: Architecture) -> Mixture:
    experts, every = config.number("num_local_experts", 128), tuple(range(shape.layers))
    return Mixture(every, experts, _per_token(config, experts, 4), shape.intermediate, router="router", bias=True)


def _qwen3_moe(config: Config, shape: Architecture) -> Mixture:
    experts = config.number("num_experts", config.number("num_local_experts", 128))
    step, dense = config.number("decoder_sparse_step", 1), config.layer_numbers("mlp_only_layers")
    numbers = tuple(n for n in range(shape.layers) if n not in dense and (n + 1) % step == 0)
    return Mixture(numbers, experts, _per_token(config, experts, 8), config.number("moe_intermediate_size", 768))


def _deepseek_v3(config: Config, shape: Architecture) -> Mixture:
    experts, width = config.number("n_routed_experts", 256), config.number("moe_intermediate_size", 2048)
    numbers = tuple(range(config.number("first_k_dense_replace", 3, least=0), shape.layers))
    shared = width * config.number("n_shared_experts", 1, least=0)
    return Mixture(numbers, experts, _per_token(config, experts, 8), width, shared=shared)


def _per_token(config: Config, experts: int, default: int) -> int:
    chosen = config.number("num_experts_per_tok", default)
    if chosen > experts:
        raise BadValue(f"'num_experts_per_tok' of {config.name} is {chosen}, but a layer has {experts} experts")
    return chosen


_GEMMA_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
_TANH = ("hidden_activation", "gelu_pytorch_tanh")
_GEMMA = {"kv_heads": 4, "head_dim": 256, "tied": True}

_KIN: dict[str, Family] = {
    "llama": Family(mlp_bias=True),
    "mistral": Family(kv_heads=8, qkv_bias=False),
    "qwen2": Family(kv_heads=32, qkv_bias=True),
    "qwen3": Family(kv_heads=32, head_dim=128, qk_norm=True),
    "gemma2": Family(**_GEMMA, norms=_GEMMA_NORMS, activation=_TANH),  # type: ignore[arg-type]
    "gemma3_text": Family(**_GEMMA, norms=_GEMMA_NORMS, activation=_TANH, qk_norm=True),  # type: ignore[arg-type]
    "phi3": Family(qkv_bias=False, fused=True),
    "mixtral": Family(kv_heads=8, qkv_bias=False, mixture=_mixtral),
    "qwen3_moe": Family(kv_heads=4, qk_norm=True, mixture=_qwen3_moe),
    "deepseek_v3": Family(latent=True, mixture=_deepseek_v3),
    "gpt_oss": Family(kv_heads=8, head_dim=64, attention_bias=True, sinks=True, mixture=_gpt_oss),
}


FAMILIES = {name: partial(decoder, family=family) for name, family in _KIN.items()}
