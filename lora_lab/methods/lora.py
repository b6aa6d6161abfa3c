"""LoRA as a method: which layers, what rank, what scaling. The mathematics is in `lora_lab/layers.py`.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"; rsLoRA: Kalajdzievski 2023; LoRA+: Hayou
et al. 2024; LoRA-FA: Zhang et al. 2023; DoRA: Liu et al. 2024; PiSSA: Meng et al. 2024.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.methods.base import Method, Placement, Report, register
from lora_lab.methods.options import is_number, one_of, whole, words
from lora_lab.methods.targets import ROLES, Site, choose, match

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lora_lab.methods.lora_layers import LoRALayer

Pattern = tuple[tuple[str, float], ...]
INITS = ("kaiming", "gaussian", "pissa")
# At their defaults they stand in no recipe and no file: a recipe made before there were any keeps its hash.
LATER = ("dora", "lr_ratio", "freeze_a")


@register
@dataclass(frozen=True)
class LoRA(Method):
    """W + scaling * B A on the chosen layers, everything else frozen.

    rank            columns of B and rows of A; at least 1, at most min(in, out) of each layer
    alpha           scaling = alpha / rank, or alpha / sqrt(rank) with rslora=True
    targets         roles ("q", "v"), "all-linear", names ("query") or patterns ("*.0.*.query")
    dropout         on the adapter's input, while training
    init            of A: "kaiming" or "gaussian", B starting at zero; or "pissa": A and B start as the largest part of
                    W, which the frozen weight then lacks. Its file is a LoRA of rank 2r on the original base
    rank_pattern    {target: rank} where some layers differ; the first that fits counts
    alpha_pattern   {target: alpha} likewise
    dora            DoRA: the length of each row of the weight is learned apart from its direction
    lr_ratio        LoRA+: B's learning rate is so many times that of A, of the head and of what else trains
    freeze_a        LoRA-FA: A stays as it was drawn, only B trains
    Raises: BadValue for an impossible value.
    """

    name: ClassVar[str] = "lora"
    unmergeable: ClassVar[str] = ""
    peft_type: ClassVar[str] = "LORA"
    decisive: ClassVar[tuple[str, ...]] = (
        "peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "target_modules", "rank_pattern", "alpha_pattern",
    )  # fmt: skip
    lanes_differ: ClassVar[tuple[str, ...]] = (
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
        set_field = object.__setattr__  # the dataclass is frozen; this only brings the arguments into one form
        set_field(self, "targets", words(self.targets))
        set_field(self, "rank_pattern", _pairs(self.rank_pattern))
        set_field(self, "alpha_pattern", _pairs(self.alpha_pattern))
        for rank in (self.rank, *dict(self.rank_pattern).values()):
            whole("rank", rank)
        for alpha in (self.alpha, *dict(self.alpha_pattern).values()):
            if not (is_number(alpha) and 0 < alpha <= 1e30):  # above 3.4e38 it is no fp32 number
                said = f"alpha must be a number above 0, not {alpha!r}"
                raise BadValue(f"{said}: it scales the update by alpha / rank, and above 1e30 it would overflow")
        if not (is_number(self.dropout) and 0 <= self.dropout < 1):
            raise BadValue(f"dropout must be at least 0 and below 1, not {self.dropout!r}")
        one_of("init", self.init, INITS)
        if not (is_number(self.lr_ratio) and 0 < self.lr_ratio < math.inf):
            raise BadValue(f"lr_ratio must be a number above 0, not {self.lr_ratio!r}: B's rate is lr_ratio times A's")
        for name in ("rslora", "dora", "freeze_a"):
            if not isinstance(getattr(self, name), bool):
                raise BadValue(f"{name} must be True or False, not {getattr(self, name)!r}")
        if self.dora and self.init == "pissa":
            raise BadValue("dora and init 'pissa' each start from W in a way of its own: leave one of them out")

    @property
    def packs(self) -> bool:  # type: ignore[override]  # of the others it is a fact of the class
        """Whether lanes of it share a frozen base: plain LoRA's do, the variants train alone."""
        return not self.variants

    @property
    def variants(self) -> tuple[str, ...]:
        """The options that make it another method than plain LoRA, in words."""
        ratio = f"lr_ratio {self.lr_ratio:g}" if self.lr_ratio != 1 else ""
        named = {"dora": self.dora, "pissa": self.init == "pissa", "freeze_a": self.freeze_a, ratio: bool(ratio)}
        return tuple(name for name, used in named.items() if used)

    def place(self, sites: Sequence[Site], *, trained: bool = False) -> tuple[Placement, ...]:
        """Where the adapters go among a model's sites, with the rank and scaling of each.

        trained     they come from a file, and PEFT trains any rank; more than a layer can hold is waste, yet no mistake
        Raises: NotFound for a target or pattern that matches nothing; BadValue for a rank above a layer's size.
        """
        chosen = choose(self.targets, sites)
        ranks = _by_site(self.rank_pattern, chosen, self.rank)
        alphas = _by_site(self.alpha_pattern, chosen, self.alpha)
        for site in chosen:
            if ranks[site] > site.max_rank and not (trained and self.init != "pissa"):
                shape = f"{site.in_features} x {site.out_features}"
                here = site.role if site.role in ROLES else site.name
                said = f"rank {ranks[site]:g} is above what {site.name} ({shape}) can hold: at most {site.max_rank}"
                raise BadValue(f'{said}; give it less than the others with rank_pattern={{"{here}": {site.max_rank}}}')
            self._check_variants(site)
        return tuple(self._placement(s, int(ranks[s]), alphas[s]) for s in chosen)

    def _placement(self, site: Site, rank: int, alpha: float) -> Placement:
        frozen = rank * site.in_features if self.freeze_a else 0
        return Placement(site, rank, self.scaling(alpha, rank), frozen, more=site.out_features if self.dora else 0)

    def _check_variants(self, site: Site) -> None:
        """Raises BadValue for a site that the variant is not for."""
        linear_only = [name for name in self.variants if name in ("dora", "pissa", "freeze_a")]
        if site.kind == "embedding" and linear_only:
            raise BadValue(f"{linear_only[0]} is for linear layers: leave the embedding {site.name} out of the targets")
        if site.out_slice is not None and self.dora:
            whole = site.module.split(".")[-1]
            raise BadValue(f"dora takes a fused layer as a whole: name {whole} among the targets, not {site.role}")

    def file_rank(self, rank: int) -> int:
        """The rank of what a file holds for an adapter of this rank: PiSSA's is written with its start, as 2r."""
        return 2 * rank if self.init == "pissa" else rank

    def scaling(self, alpha: float, rank: int) -> float:
        """What the update is multiplied by: alpha / rank, or with rslora alpha / sqrt(rank)."""
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank

    def attach(self, model: nn.Module) -> Report:
        return self._attach(model, to_fill=False)

    def attach_empty(self, model: nn.Module) -> Report:
        return self._attach(model, to_fill=True)

    def _attach(self, model: nn.Module, *, to_fill: bool) -> Report:
        from lora_lab.methods.attach import attach, sites_of  # imports torch
        from lora_lab.methods.lora_layers import lora_layer

        placements = self.place(sites_of(model), trained=to_fill)
        options = {name: getattr(self, name) for name in ("dropout", "init", "dora", "freeze_a")}
        around = partial(lora_layer, **options, to_fill=to_fill)
        return attach(model, self, [(p.site.module, partial(around, placement=p)) for p in placements], placements)

    def to_peft(self, model: nn.Module, report: Report) -> tuple[dict[str, Tensor], dict[str, Any]]:
        from lora_lab.methods import lora_files

        return lora_files.to_peft(self, model, report)

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> LoRA:
        from lora_lab.methods import lora_files
        from lora_lab.methods.attach import sites_of

        sites = sites_of(model)
        method = cls(**lora_files.from_peft(config, sites))
        tied = config.get("ensure_weight_tying") and lora_files.is_tied(model)
        if tied and lora_files.copied(method.place(sites, trained=True)):
            said = "the adapter was trained with ensure_weight_tying=True beside tied embeddings, which"
            raise BadValue(f"{said} lora_lab does not compute: merge it in PEFT first")
        return method

    @classmethod
    def check_peft(cls, config: Mapping[str, Any]) -> None:
        from lora_lab.methods import lora_files

        lora_files.check_options(config)

    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        from lora_lab.methods import lora_files

        lora_files.check_copies(model, report, tensors)
        lora_files.fill(model, tensors)

    def ignored(self, report: Report) -> set[str]:
        from lora_lab.methods import lora_files

        return {key for path in lora_files.copied(report.placements) for key in lora_files.copy_keys(path)}

    def settings(self) -> dict[str, Any]:
        """{"name": "lora", "rank": 8, ...}: plain values that JSON can hold."""
        values = super().settings()
        values |= {"rank_pattern": dict(self.rank_pattern), "alpha_pattern": dict(self.alpha_pattern)}
        plain = {f.name: f.default for f in fields(self) if f.name in LATER}
        return {name: value for name, value in values.items() if name not in plain or value != plain[name]}


def lora_layers(model: nn.Module) -> list[LoRALayer]:
    """Every LoRA layer of a model, heads not among them."""
    from lora_lab.methods.attach import adapter_layers  # imports torch
    from lora_lab.methods.lora_layers import LoRALayer

    return [layer for _, layer in adapter_layers(model) if isinstance(layer, LoRALayer)]


def _by_site(pattern: Pattern | Mapping[str, float], chosen: Sequence[Site], default: float) -> dict[Site, float]:
    value = dict.fromkeys(chosen, default)
    for target, special in reversed(_pairs(pattern)):  # the first that fits is written last, so it counts
        value.update(dict.fromkeys(match(target, chosen, slices=True), special))
    return value


def _pairs(pattern: Pattern | Mapping[str, float]) -> Pattern:
    try:
        return tuple(pattern.items()) if isinstance(pattern, Mapping) else tuple((str(t), v) for t, v in pattern)
    except (TypeError, ValueError):
        raise BadValue(f"a pattern says which target has which number, such as {{'q': 4}}, not {pattern!r}") from None
