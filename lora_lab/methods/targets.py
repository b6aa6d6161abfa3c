"""Sites for adapters: a model's layers with their names, shapes and *roles*, and how targets select the sites.

A role says what a layer does, whatever the layer is called. For example, `targets=("q", "v")` means the same for BERT
("query", "value"), Llama ("q_proj", "v_proj") and GPT-2, where q, k and v are three slices of one layer, "c_attn".

    q, v, ...:     selects every layer, or slice of a fused layer, that has this role
    all-linear:    selects every linear layer, including whole fused layers, except the head and the pooler
    query:         selects every layer whose path equals this name or ends in this name
    *.0.*.query:   selects every layer whose path matches this pattern

This module does not import torch: a site holds only names and integers. The last section covers quantized formats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lora_lab.errors import BadValue, NotFound, nearest

PREFIX = "base_model.model."  # the prefix of keys in adapter files
ROLES = ("q", "k", "v", "o", "gate", "up", "down", "embed")
ALL_LINEAR = "all-linear"
CONSTANT = "SinusoidalPositional"  # in class names of position tables that are never trained, as in Marian and Pegasus
# Transformers' names for task heads. Pretrained models have no heads: new ones start at random and are trained.
HEADS = ("pre_classifier", "classifier", "score", "classification_head", "logits_proj", "qa_outputs")

# Suffix of a module's path -> its role. Several roles mean a fused layer whose outputs are in that order. The first
# match wins, so longer suffixes come first.
_ROLE_OF_SUFFIX: tuple[tuple[str, str], ...] = (
    (r"(self\.query|query_proj|q_proj|q_lin|\w*Attention\.q|attn\.q)", "q"),
    (r"(self\.key|key_proj|k_proj|k_lin|\w*Attention\.k|attn\.k)", "k"),
    (r"(self\.value|value_proj|v_proj|v_lin|\w*Attention\.v|attn\.v)", "v"),
    (r"(attention\.output\.dense|(self_)?attention\.dense|self_attn\.dense|attn\.c_proj|o_proj|out_lin)", "o"),
    (r"((self_|encoder_)?attn\.out_proj|(\w*Attention|attn)\.o)", "o"),
    (r"(attn\.c_attn|qkv_proj|query_key_value)", "q k v"),
    (r"gate_up_proj", "gate up"),
    (r"(gate_proj|wi_0)", "gate"),
    (r"(intermediate\.dense|mlp\.c_fc|up_proj|ffn\.lin1|fc1|dense_h_to_4h|wi_1|wi)", "up"),
    (r"(output\.dense|mlp\.c_proj|down_proj|ffn\.lin2|fc2|dense_4h_to_h|wo)", "down"),
    (r"(word_embeddings|embed_tokens|wte)", "embed"),
    # Tables that `embed` leaves out. T5's and BART's `shared` holds the weight of `embed_tokens` but is never called
    (r"(((char_)?position|token_type|rel)_embeddings|embed_positions|positions_embed|wpe)", "position"),
    (r"(relative_attention_bias|shared)", "position"),
    (r"(pooler(\.dense)?)", "pooler"),
    (r"((pre_)?classifier(\.\w+)?|score|(lm_)?head(\.decoder|\.out_proj)?|embed_out|(predictions\.)?decoder)", "head"),
    (r"(lm_loss|qa_outputs|output_projection|vocab_projector|generator_lm_head|pred_layer\.proj)", "head"),
    (r"^(output|proj_out)", "head"),  # in Git and Whisper
)

# The model_types whose fused layers are plain concatenations in the order above. Others interleave the parts by head
# (GPTBigCode, MiniMax) or use another order (CodeGen), which the widths alone don't reveal.
PLAIN_FUSED = ("gpt2", "openai-gpt", "imagegpt", "phi3", "glm", "glm4")


@dataclass(frozen=True)
class Site:
    """A place for an adapter: a layer, or the slice (start, stop) of a fused layer's outputs that has one role."""

    module: str
    role: str
    in_features: int
    out_features: int
    kind: str = "linear"
    out_slice: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The module's path, followed by the role if the site is a slice, such as "h.0.attn.c_attn[q]"."""
        return f"{self.module}[{self.role}]" if self.out_slice else self.module


def roles_of(module: str) -> tuple[str, ...]:
    """Return the roles of a module, inferred from its path: () if they are unknown, and several for a fused layer."""
    found = (roles for suffix, roles in _ROLE_OF_SUFFIX if re.search(rf"(^|\.){suffix}$", module))
    return tuple(next(found, "").split())


def sites_of_layer(path: str, in_features: int, out_features: int, kind: str, widths: Mapping[str, int]) -> list[Site]:
    """Return a site for the whole layer and, for a fused layer, a site for each slice.

    widths   The output width of each role in this model, or {} if its fused layers are not plain concatenations.
             If the widths don't add up to the layer's outputs, no slices are returned.
    """
    roles = roles_of(path) if kind == "linear" else roles_of(path) or ("embed",)
    sites = [Site(path, "+".join(roles) or "other", in_features, out_features, kind)]
    if len(roles) > 1 and sum(widths.get(role, 0) for role in roles) == out_features:
        start = 0
        for role in roles:
            sites.append(Site(path, role, in_features, widths[role], kind, (start, start + widths[role])))
            start += widths[role]
    return sites


def choose(targets: Sequence[str], sites: Sequence[Site]) -> list[Site]:
    """Return the sites that the targets name, without duplicates, in model order.

    Raises: NotFound with the nearest names if a target matches nothing, and BadValue if two targets adapt the same
    weights, such as a fused layer and one of its slices.
    """
    if not targets:
        raise BadValue("no targets are given: name at least one, for example q,v")
    chosen = {site for target in targets for site in match(target, sites)}
    modules = {site.module for site in chosen if site.out_slice is None}
    in_order = [site for site in sites if site in chosen]
    for site in in_order:
        if site.out_slice and site.module in modules:
            raise BadValue(f"targets overlap: {site.module} is adapted as a whole and as {site.role}; remove a target")
    return in_order


def match(target: str, sites: Sequence[Site], *, pattern: str = "") -> list[Site]:
    """Return the sites that one target names. With `pattern`, the target is a key of rank_pattern or alpha_pattern.

    In a pattern, the path of a fused layer also names its slices, and `sites` are only the adapted sites.

    Raises: NotFound with the nearest names if nothing matches.
    """
    matches = [site for site in sites if _matches(target, site, bool(pattern))]
    if not matches and target in ROLES:  # no layer has this role, but a layer of your own model may have this name
        matches = [site for site in sites if not site.out_slice and f".{site.module}".endswith(f".{target}")]
    if matches:
        return matches
    names = [site.module.rpartition(".")[2] for site in sites]
    fused = [name for name, site in zip(names, sites, strict=True) if target in site.role.split("+") != [target]]
    layers = {site.module for site in sites if site.role == target}  # such as BERT's pooler
    roles = {site.role for site in sites if site.role in ROLES}
    known = layers or ({*names, *roles} if pattern else {ALL_LINEAR, *names, *roles}) - {target}
    hint = f"nearest: {nearest(target, known)}" if sites else "the model has no linear layer and no embedding"
    if fused:
        hint = f"{target} is a part of {fused[0]}, whose parts are in an unknown order: use '{fused[0]}' instead"
    if pattern:
        message = f"'{target}' in {pattern} matches none of the adapted layers: add it to the targets, or use another"
        raise NotFound(f"{message}; {hint}")
    raise NotFound(f"target '{target}' matches no layer of this model; {hint}")


def _matches(target: str, site: Site, slices: bool) -> bool:
    path = fnmatchcase(site.module, target) or f".{site.module}".endswith(f".{target}")
    if slices and path:
        return True
    if target == ALL_LINEAR:
        return site.out_slice is None and site.kind == "linear" and site.role not in ("head", "pooler")
    if target in ROLES:
        return site.role == target
    return target == site.name if site.out_slice else path  # names and patterns mean the whole layer


# ---- quantized formats

QUANTIZED_BITS = {"nf4": 4, "nf4-single": 4, "int8": 8, "int4": 4, "nf3": 3, "nf2": 2}
BLOCK, NESTED = 64, 256  # weights per scale; scales per second-level scale
OUTSIDE = ("lm_head", "embed_out", "pooler", *HEADS)  # layers that are not quantized


def bits_per_weight(name: str) -> float:
    """Return the bits per frozen linear weight: the bits of its code, plus 1/64 of the bits of its block's absmax.

    NF4 takes 4 + 32/64 = 4.5 bits, or 4 + 8/64 + 32/(64 x 256) = 4.127 bits with double quantization (QLoRA).
    """
    absmax = 32 / BLOCK if name.endswith("-single") else 8 / BLOCK + 32 / (BLOCK * NESTED)
    return QUANTIZED_BITS[name] + absmax
