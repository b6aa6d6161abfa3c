"""LoRA as a method: which layers, what rank, what scaling, and its files. The mathematics is in `lora_lab/layers.py`.

Hu et al. 2021, arXiv:2106.09685; rsLoRA: Kalajdzievski 2023, 2312.03732; LoRA+: Hayou et al. 2024, 2402.12354; LoRA-FA:
Zhang et al. 2023, 2308.03303; DoRA: Liu et al. 2024, 2402.09353; PiSSA: Meng et al. 2024, 2404.02948.

Files in PEFT's layout, beside the heads:

    base_model.model.<path>.lora_A.weight           (rank, in)
    base_model.model.<path>.lora_B.weight           (out, rank)
    base_model.model.<path>.lora_embedding_A        (rank, vocabulary), and lora_embedding_B (d, rank)
    base_model.model.<path>.lora_magnitude_vector   (out,), of DoRA

PEFT knows no slices of a fused layer: q and v of one c_attn are one adapter of rank r_q + r_v there, whose B is zero in
the rows of k, so the file holds more numbers than train. PiSSA's file is a LoRA of rank 2r on the original base.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.methods.base import Method, Placement, Report, is_number, one_of, register, whole, words
from lora_lab.methods.targets import ROLES, Site, choose, match

if TYPE_CHECKING:
    from torch import Tensor, nn

Pattern = tuple[tuple[str, float], ...]
# Left out of settings at their defaults, so that recipes from before they existed keep their hashes.
LATER = ("dora", "lr_ratio", "freeze_a")
# Options of PEFT that change what an adapter computes and that we do not have, and starts that change the base weight.
_NOT_COMPUTED = (
    "lora_bias", "trainable_token_indices", "target_parameters", "layer_replication", "alora_invocation_tokens",
    "use_qalora", "use_bdlora", "arrow_config", "megatron_config", "kasa_config", "monteclora_config", "velora_config",
)  # fmt: skip
_SPECIAL_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")


@register
@dataclass(frozen=True)
class LoRA(Method):
    """W + scaling * B A on the chosen layers, everything else frozen.

    rank            rows of A and columns of B; from 1 to min(in, out) of each layer
    alpha           scaling = alpha / rank, or alpha / sqrt(rank) with rslora=True
    targets         roles ("q", "v"), "all-linear", names ("query") or patterns ("*.0.*.query")
    dropout         on the adapter's input, while training
    init            of A: "kaiming" or "gaussian", with B zero; or "pissa": A and B start as the largest part of W,
                    which is subtracted from the frozen weight
    rank_pattern    {target: rank} for layers that differ; the first match counts
    alpha_pattern   {target: alpha} likewise
    dora            DoRA: the norm of each row of the weight is learned separately from its direction
    lr_ratio        LoRA+: B's learning rate is lr_ratio times that of A and of the head
    freeze_a        LoRA-FA: A stays as it was drawn, only B trains
    Raises: BadValue for an impossible value.
    """

    name: ClassVar[str] = "lora"
    unmergeable: ClassVar[str] = ""
    peft_type: ClassVar[str] = "LORA"
    decisive: ClassVar[tuple[str, ...]] = (
        "peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "target_modules", "rank_pattern", "alpha_pattern",
    )  # fmt: skip
    may_differ: ClassVar[tuple[str, ...]] = (
        "rank", "alpha", "targets", "dropout", "rslora", "init", "rank_pattern", "alpha_pattern",
    )  # fmt: skip

    rank: int = 8
    alpha: float = 16
    targets: tuple[str, ...] = ("q", "v")
    dropout: float = 0.0
    rslora: bool = False
    init: str = "kaiming"
    rank_pattern: Pattern | Mapping[str, int] = ()
    alpha_pattern: Pattern | Mapping[str, float] = ()
    dora: bool = False
    lr_ratio: float = 1.0
    freeze_a: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "targets", words(self.targets))
        for name in ("rank_pattern", "alpha_pattern"):
            object.__setattr__(self, name, _pairs(getattr(self, name)))
        for rank in (self.rank, *dict(self.rank_pattern).values()):
            whole("rank", rank)
        for alpha in (self.alpha, *dict(self.alpha_pattern).values()):
            if not (is_number(alpha) and 0 < alpha <= 1e30):  # fp32 ends at 3.4e38
                said = f"alpha must be a number above 0, not {alpha!r}"
                raise BadValue(f"{said}: it scales the update by alpha / rank, and above 1e30 it would overflow")
        if not (is_number(self.dropout) and 0 <= self.dropout < 1):
            raise BadValue(f"dropout must be at least 0 and below 1, not {self.dropout!r}")
        one_of("init", self.init, ("kaiming", "gaussian", "pissa"))
        if not (is_number(self.lr_ratio) and 0 < self.lr_ratio < math.inf):
            raise BadValue(f"lr_ratio must be a number above 0, not {self.lr_ratio!r}: B's rate is lr_ratio times A's")
        for name in ("rslora", "dora", "freeze_a"):
            if not isinstance(getattr(self, name), bool):
                raise BadValue(f"{name} must be True or False, not {getattr(self, name)!r}")
        if self.dora and self.init == "pissa":
            raise BadValue("dora and init 'pissa' each change how training starts from W: leave one of them out")

    @property
    def can_pack(self) -> bool:  # type: ignore[override]  # a fact of the class in other methods
        """Whether several runs can train side by side: plain LoRA can, the variants train alone."""
        return not self.variants

    @property
    def variants(self) -> tuple[str, ...]:
        """The options that make it another method than plain LoRA, in words."""
        ratio = f"lr_ratio {self.lr_ratio:g}" if self.lr_ratio != 1 else ""
        named = {"dora": self.dora, "pissa": self.init == "pissa", "freeze_a": self.freeze_a, ratio: bool(ratio)}
        return tuple(name for name, used in named.items() if used)

    def settings(self) -> dict[str, Any]:
        """{"name": "lora", "rank": 8, ...}: plain values for JSON."""
        values = super().settings()
        values |= {"rank_pattern": dict(self.rank_pattern), "alpha_pattern": dict(self.alpha_pattern)}
        for field in fields(self):
            if field.name in LATER and values[field.name] == field.default:
                del values[field.name]
        return values

    def scaling(self, alpha: float, rank: int) -> float:
        """alpha / rank, or with rslora alpha / sqrt(rank)."""
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank

    def file_rank(self, rank: int) -> int:
        """The rank in the file of an adapter of this rank: 2r for PiSSA, which is stored with its start."""
        return 2 * rank if self.init == "pissa" else rank

    # ---- where it goes

    def place(self, sites: Sequence[Site], *, to_fill: bool = False) -> tuple[Placement, ...]:
        """The chosen sites among a model's, with the rank and scaling of each.

        to_fill   the values will come from a file, which may have a higher rank than the layer needs
        Raises: NotFound for a target or pattern that matches nothing; BadValue for a rank above a layer's size.
        """
        chosen, placements = choose(self.targets, sites), list[Placement]()
        ranks = _by_site(self.rank_pattern, chosen, self.rank)
        alphas = _by_site(self.alpha_pattern, chosen, self.alpha)
        for site in chosen:
            rank = int(ranks[site])
            if rank > site.max_rank and not (to_fill and self.init != "pissa"):
                shape = f"{site.in_features} x {site.out_features}"
                here = site.role if site.role in ROLES else site.name
                said = f"rank {rank} is above what {site.name} ({shape}) can hold: at most {site.max_rank}"
                raise BadValue(f'{said}; give it less than the others with rank_pattern={{"{here}": {site.max_rank}}}')
            linear_only = [name for name in self.variants if name in ("dora", "pissa", "freeze_a")]
            if site.kind == "embedding" and linear_only:
                said = f"{linear_only[0]} is for linear layers"
                raise BadValue(f"{said}: leave the embedding {site.name} out of the targets")
            if site.out_slice is not None and self.dora:
                leaf = site.module.split(".")[-1]
                raise BadValue(f"dora takes a fused layer as a whole: name {leaf} among the targets, not {site.role}")
            trained = rank * (site.out_features + (0 if self.freeze_a else site.in_features))
            trained += site.out_features if self.dora else 0
            placements.append(Placement(site, rank, self.scaling(alphas[site], rank), trained))
        return tuple(placements)

    def attach(self, model: nn.Module, *, to_fill: bool = False) -> Report:
        from lora_lab.methods.attach import attach, sites_of, wrap  # imports torch
        from lora_lab.methods.lora_layers import lora_layer

        def put_in() -> tuple[Placement, ...]:
            placements = self.place(sites_of(model), to_fill=to_fill)
            for placement in placements:
                around = partial(lora_layer, method=self, placement=placement, to_fill=to_fill)
                wrap(model, placement.site.module, around)
            return placements

        return attach(model, self, put_in)

    def attach_empty(self, model: nn.Module) -> Report:
        return self.attach(model, to_fill=True)

    # ---- files

    def to_peft(self, model: nn.Module, report: Report) -> tuple[dict[str, Tensor], dict[str, Any]]:
        from lora_lab.adapter_layer import innermost, is_conv1d
        from lora_lab.methods import lora_layers, peft

        tensors: dict[str, Tensor] = {}
        ranks, alphas = dict[str, int](), dict[str, float]()
        for path, layers in peft.by_module(model, lora_layers.LoRALayer).items():
            tensors |= {f"{peft.PREFIX}{path}.{name}": t for name, t in lora_layers.file_tensors(layers).items()}
            ranks[path] = rank = sum(self.file_rank(layer.rank) for layer in layers)
            alpha: float = layers[0].scaling * (rank**0.5 if self.rslora else rank)
            integer = math.isclose(alpha, round(alpha), rel_tol=1e-9)  # PEFT writes whole alphas as integers
            alphas[path] = round(alpha) if integer else alpha
        rank = Counter(ranks.values()).most_common(1)[0][0]
        alpha = Counter(alphas.values()).most_common(1)[0][0]
        return tensors | peft.head_tensors(model), {
            "peft_type": "LORA",
            "r": rank,
            "lora_alpha": alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rslora,
            "target_modules": peft.shortest_names(ranks, peft.layer_names(model)),
            "rank_pattern": {m: r for m, r in ranks.items() if r != rank},
            "alpha_pattern": {m: a for m, a in alphas.items() if a != alpha},
            "fan_in_fan_out": any(is_conv1d(innermost(model.get_submodule(path))) for path in ranks),
            "bias": "none",
            "init_lora_weights": self.init if self.init == "gaussian" else True,  # PiSSA's file holds its start
            **({"use_dora": True} if self.dora else {}),
            **peft.common_config(model, report),
        }

    @classmethod
    def check_peft(cls, config: Mapping[str, Any]) -> None:
        odd = [option for option in _NOT_COMPUTED if config.get(option)]
        odd += ["bias"] if config.get("bias") not in ("none", None) else []
        for option in odd:
            raise BadValue(f"the adapter was trained with {option}={config[option]!r}, which lora_lab does not compute")
        init = str(config.get("init_lora_weights", True))
        if init.lower().startswith(_SPECIAL_INITS):
            said = f"the adapter was trained with init_lora_weights={init!r}"
            raise BadValue(f"{said}, which changes the base weight too")

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> LoRA:
        from lora_lab.methods import peft
        from lora_lab.methods.attach import sites_of

        sites = sites_of(model)
        modules, rank, alpha = peft.matched(config, sites), *(peft.required(config, k) for k in ("r", "lora_alpha"))
        ranks = peft.values_by_pattern(config.get("rank_pattern"), modules, rank)
        alphas = peft.values_by_pattern(config.get("alpha_pattern"), modules, alpha)
        method = cls(
            rank=rank,
            alpha=alpha,
            targets=tuple(peft.shortest_names(modules, (s.module for s in sites), taken=ROLES)),
            dropout=config.get("lora_dropout") or 0.0,
            rslora=bool(config.get("use_rslora")),
            dora=bool(config.get("use_dora")),
            rank_pattern={m: r for m, r in ranks.items() if r != rank},
            alpha_pattern={m: a for m, a in alphas.items() if a != alpha},
        )
        answers: Any = getattr(model, "get_output_embeddings", lambda: None)()
        tied = answers is not None and answers.weight is model.get_input_embeddings().weight  # type: ignore[operator]
        if config.get("ensure_weight_tying") and tied and any(_copied(method.place(sites, to_fill=True))):
            said = "the adapter was trained with ensure_weight_tying=True beside tied embeddings, which"
            raise BadValue(f"{said} lora_lab does not compute: merge it in PEFT first")
        return method

    def ignored(self, report: Report) -> set[str]:
        return {key for _, _, key in _copied(report.placements)}

    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        from lora_lab.adapter_layer import innermost
        from lora_lab.methods import lora_layers, peft

        for path, name, key in _copied(report.placements):
            if key in tensors:
                own, copy = getattr(innermost(model.get_submodule(path)), name, None), tensors[key]
                if own is None or copy.shape != own.shape or not copy.to(own).equal(own):
                    raise BadValue(f"the adapter brings its own {path}, which differs from this base model's")
        for path, layers in peft.by_module(model, lora_layers.LoRALayer).items():
            lora_layers.fill_layers(layers, tensors, f"{peft.PREFIX}{path}.")
        peft.fill_heads(model, tensors)


def _copied(placements: Sequence[Placement]) -> Iterator[tuple[str, str, str]]:
    """Path, name and key of the frozen tensors that PEFT copies into a file, in case the vocabulary has grown."""
    for path in [p.site.module for p in placements if p.site.kind == "embedding" or p.site.role == "head"]:
        for name in ("weight", "bias"):
            yield from ((path, name, f"base_model.model.{path}.{between}{name}") for between in ("base_layer.", ""))


def _by_site(pattern: Pattern | Mapping[str, float], chosen: Sequence[Site], default: float) -> dict[Site, float]:
    value = dict.fromkeys(chosen, default)
    for target, special in reversed(_pairs(pattern)):  # the first match is written last, so it counts
        value.update(dict.fromkeys(match(target, chosen, slices=True), special))
    return value


def _pairs(pattern: Pattern | Mapping[str, float]) -> Pattern:
    try:
        return tuple(pattern.items()) if isinstance(pattern, Mapping) else tuple((str(t), v) for t, v in pattern)
    except (TypeError, ValueError):
        raise BadValue(f"a pattern gives targets their numbers, such as {{'q': 4}}, not {pattern!r}") from None
