"""Where an adapter can sit: the layers of a model by name, shape and *role*, and how targets choose among them.

A role says what a layer does, whatever its maker called it, so that `targets=("q", "v")` means the same on BERT
("query", "value"), on Llama ("q_proj", "v_proj") and on GPT-2, where q, k and v are three slices of one "c_attn".

    target       matches
    q, v, ...    every layer, or slice of a fused layer, with that role
    all-linear   every whole linear layer but the head, the pooler and the embeddings
    query        every layer whose path is, or ends in, that name
    *.0.*.query  every layer whose path fits the pattern

No torch here: a site is a name and a few integers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lora_lab.errors import BadValue, NotFound, nearest

ROLES = ("q", "k", "v", "o", "gate", "up", "down", "embed")
ALL_LINEAR = "all-linear"
# What transformers calls the part of a task's model that no checkpoint brings: it starts random, so it trains.
HEADS = ("pre_classifier", "classifier", "score", "classification_head", "qa_outputs")
_NOT_IN_ALL_LINEAR = ("head", "pooler", "embed")

# The end of a module's path -> its role(s); several roles mean one fused layer, in that order along its outputs.
# The first match counts, so longer endings stand before shorter ones.
_ROLE_OF_ENDING: tuple[tuple[str, str], ...] = (
    (r"(self\.query|query_proj|q_proj|q_lin|SelfAttention\.q|EncDecAttention\.q)", "q"),
    (r"(self\.key|key_proj|k_proj|k_lin|SelfAttention\.k|EncDecAttention\.k)", "k"),
    (r"(self\.value|value_proj|v_proj|v_lin|SelfAttention\.v|EncDecAttention\.v)", "v"),
    (
        r"(attention\.output\.dense|(self_)?attention\.dense|self_attn\.dense|attn\.c_proj|o_proj|out_lin|"
        r"(self_|encoder_)?attn\.out_proj|(SelfAttention|EncDecAttention)\.o)",
        "o",
    ),
    (r"(attn\.c_attn|qkv_proj|query_key_value)", "q k v"),
    (r"gate_up_proj", "gate up"),
    (r"(gate_proj|wi_0)", "gate"),
    (r"(intermediate\.dense|mlp\.c_fc|up_proj|ffn\.lin1|fc1|dense_h_to_4h|wi_1|wi)", "up"),
    (r"(output\.dense|mlp\.c_proj|down_proj|ffn\.lin2|fc2|dense_4h_to_h|wo)", "down"),
    (r"(word_embeddings|embed_tokens|wte)", "embed"),
    (
        r"(position_embeddings|token_type_embeddings|embed_positions|wpe|relative_attention_bias|rel_embeddings)",
        "position",
    ),
    (r"(pooler\.dense)", "pooler"),
    (r"(classifier(\.\w+)?|pre_classifier|score|lm_head(\.decoder)?|predictions\.decoder|qa_outputs)", "head"),
)

# The model_types whose fused layers were read and are plain concatenations in the order above. Others interleave them
# by head (GPTBigCode, MiniMax) or order them otherwise (CodeGen), and no width tells.
PLAIN_FUSED = ("gpt2", "openai-gpt", "imagegpt", "phi3", "glm", "glm4")


@dataclass(frozen=True)
class Site:
    """One place for an adapter: a layer, or the rows of a fused layer's output that have one role.

    Units: features are counted in numbers; `out_slice` is the half-open range of outputs, None for the whole layer.
    """

    module: str
    role: str
    in_features: int
    out_features: int
    kind: str = "linear"
    out_slice: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The module's path, with the role where it is a slice: "h.0.attn.c_attn[q]"."""
        return f"{self.module}[{self.role}]" if self.out_slice else self.module

    @property
    def max_rank(self) -> int:
        """Above this rank B A can express no more than it already does: min(in, out)."""
        return min(self.in_features, self.out_features)

    def lora_parameters(self, rank: int) -> int:
        """Numbers in A and B together: rank (in + out). Source: Hu et al. 2021, section 5.1."""
        return rank * (self.in_features + self.out_features)


def roles_of(module: str) -> tuple[str, ...]:
    """The role of a module by the end of its path; () where the name tells nothing, several for a fused layer."""
    for ending, roles in _ROLE_OF_ENDING:
        if re.search(rf"(^|\.){ending}$", module):
            return tuple(roles.split())
    return ()


def sites_of_layer(
    module: str, in_features: int, out_features: int, kind: str, widths: Mapping[str, int]
) -> list[Site]:
    """The whole layer as one site and, where it is a fused one, a site for each of its slices.

    `widths` gives the outputs of each role in this model (q: heads x head size, ...), {} for a model whose fused
    layers are no plain concatenations (`PLAIN_FUSED` lists those that are). Where they do not add up to the layer's
    outputs it gets no slices rather than wrong ones.
    """
    roles = roles_of(module) if kind == "linear" else roles_of(module) or ("embed",)
    whole = Site(module, "+".join(roles) or "other", in_features, out_features, kind)
    if len(roles) < 2 or sum(widths.get(role, 0) for role in roles) != out_features:
        return [whole]
    slices, start = [], 0
    for role in roles:
        stop = start + widths[role]
        slices.append(Site(module, role, in_features, widths[role], kind, (start, stop)))
        start = stop
    return [whole, *slices]


def choose(targets: Sequence[str], sites: Sequence[Site]) -> list[Site]:
    """The sites that the targets name, in the model's order, each once.

    Raises: NotFound when a target matches nothing, naming the nearest that would; BadValue when two targets
    adapt the same weights twice (a fused layer and one of its slices).
    """
    if not targets:
        raise BadValue("targets is empty: name at least one, for example q,v")
    chosen = {site for target in targets for site in match(target, sites)}
    in_order = [site for site in sites if site in chosen]
    whole = {site.module for site in in_order if site.out_slice is None}
    for site in in_order:
        if site.out_slice and site.module in whole:
            raise BadValue(f"targets overlap: {site.module} is adapted as a whole and again as {site.role}; name one")
    return in_order


def match(target: str, sites: Sequence[Site], *, slices: bool = False) -> list[Site]:
    """The sites that one target names; with `slices` the path of a fused layer names the slices of it as well.

    Raises: NotFound with the nearest names when there are none.
    """
    found = [site for site in sites if _fits(target, site) or (slices and _fits_path(target, site))]
    if not found:
        fused = [site.module.rpartition(".")[2] for site in sites if target in site.role.split("+")]
        why = f"; it lies within {fused[0]}, whose order is not known here, so name '{fused[0]}'" if fused else ""
        near = f"nearest: {nearest(target, _names(sites))}" if sites else "it has no linear layer and no embedding"
        why = why or f"; {near}"
        raise NotFound(f"target '{target}' matches no layer of this model{why}")
    return found


def _fits(target: str, site: Site) -> bool:
    if target == ALL_LINEAR:
        return site.out_slice is None and site.kind == "linear" and site.role not in _NOT_IN_ALL_LINEAR
    if target in ROLES:
        return site.role == target
    if site.out_slice:  # a slice has no path of its own: names and patterns mean the whole layer
        return target == site.name
    return _fits_path(target, site)


def _fits_path(target: str, site: Site) -> bool:
    return fnmatchcase(site.module, target) or f".{site.module}".endswith(f".{target}")


def _names(sites: Iterable[Site]) -> list[str]:
    """What a user may have meant: the roles present, and the last parts of the paths."""
    sites = list(sites)
    return [ALL_LINEAR, *(s.role for s in sites if s.role in ROLES), *(s.module.rsplit(".", 1)[-1] for s in sites)]
