"""LoRA as a fine-tuning method: its targets, ranks, scaling and files. The computation is in `lora_lab/layers.py`.

Sources: LoRA, Hu et al. 2021 (arXiv:2106.09685); rsLoRA, Kalajdzievski 2023 (2312.03732); LoRA+, Hayou et al. 2024
(2402.12354); LoRA-FA, Zhang et al. 2023 (2308.03303); DoRA, Liu et al. 2024 (2402.09353); PiSSA, Meng et al. 2024
(2404.02948). Besides heads, a file in PEFT's layout holds these tensors; see also `lora_layers.pieces`:

    base_model.model.<path>.lora_A.weight           (rank, in)
    base_model.model.<path>.lora_B.weight           (out, rank)
    base_model.model.<path>.lora_embedding_A        (rank, vocabulary); lora_embedding_B is (d, rank)
    base_model.model.<path>.lora_magnitude_vector   (out,), for DoRA
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.lazy import Tensor, nn
from lora_lab.methods.base import POSITIVE, Method, Placement, attach, lora_layers, number, peft, register, whole
from lora_lab.methods.targets import PREFIX, ROLES, Site, choose, match

Pattern = tuple[tuple[str, float], ...]
# Settings omit these options if they have their default values, so that older recipes keep their hashes.
LATER = {"dora": False, "lr_ratio": 1.0, "freeze_a": False}


@register
@dataclass(frozen=True)
class LoRA(Method):
    """Train W + scaling * B A on the chosen layers and freeze everything else.

    rank            The number of rows of A and of columns of B, from 1 to min(in, out) of each layer.
    alpha           Sets the scaling to alpha / rank, or to alpha / sqrt(rank) with `rslora=True`.
    targets         Roles ("q", "v"), "all-linear", layer names ("query") or patterns ("*.0.*.query").
    dropout         The probability of dropout on the adapter's input during training.
    init            "kaiming" or "gaussian" for a random A and a zero B.
                    "pissa" sets A and B to the leading singular components of W and subtracts these from the frozen W.
    rank_pattern    A mapping {target: rank} for layers with a different rank. The first match is used.
    alpha_pattern   A mapping {target: alpha} for layers with a different alpha. The first match is used.
    dora            Use DoRA, which learns the norm of each row of the weight separately from the row's direction.
    lr_ratio        Use LoRA+, in which B's learning rate is `lr_ratio` times the learning rate of A and of the head.
    freeze_a        Use LoRA-FA, in which A keeps its random initial values and only B is trained.
    Raises: BadValue for an invalid value.
    """

    name, peft_type, unmergeable = "lora", "LORA", ""
    allowed: ClassVar[Mapping[str, Any]] = {"rank": 1, "init": ("kaiming", "gaussian", "pissa")}
    numbers: ClassVar[Mapping[str, Any]] = {
        "alpha": POSITIVE, "lr_ratio": POSITIVE, "dropout": ("from 0 to below 1", lambda value: 0 <= value < 1),
    }  # fmt: skip
    may_differ = ("rank", "alpha", "targets", "dropout", "rslora", "init", "rank_pattern", "alpha_pattern")

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
        for name in ("rank_pattern", "alpha_pattern"):
            pairs = _pairs(name, getattr(self, name))
            if len(of_target := dict(pairs)) < len(pairs):
                raise BadValue(f"{name} names a target twice: {pairs!r}; keep only one value for this target")
            object.__setattr__(self, name, tuple(sorted(pairs)) if of_target.keys() <= {*ROLES} else pairs)
        for target, rank in dict(self.rank_pattern).items():
            whole(f"the rank of '{target}' in rank_pattern", rank)
        for target, alpha in dict(self.alpha_pattern).items():
            number(f"the alpha of '{target}' in alpha_pattern", alpha, POSITIVE)
        if self.dora and self.init == "pissa":
            raise BadValue("dora and init 'pissa' both change how training starts from W: leave one of them out")

    @property
    def can_pack(self) -> bool:  # type: ignore[override]  # a class variable in other methods
        """Whether several runs can train in one pack. Plain LoRA can train in packs, but its variants cannot."""
        return not self.variants

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of the options that make this method a variant of LoRA."""
        named = {"dora": self.dora, "pissa": self.init == "pissa", "freeze_a": self.freeze_a}
        named[f"lr_ratio {self.lr_ratio:g}"] = self.lr_ratio != 1
        return tuple(name for name, used in named.items() if used)

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON-compatible values, such as {"name": "lora", "rank": 8}."""
        patterns = {"rank_pattern": dict(self.rank_pattern), "alpha_pattern": dict(self.alpha_pattern)}
        return {name: value for name, value in (super().settings() | patterns).items() if value != LATER.get(name)}

    def file_rank(self, rank: int) -> int:
        """Return the rank of the saved adapter, which PiSSA doubles, because the file includes the initial A and B."""
        return 2 * rank if self.init == "pissa" else rank

    def place(self, sites: Sequence[Site], *, to_fill: bool = False) -> tuple[Placement, ...]:
        """Choose the sites to adapt among a model's sites, and return each chosen site with its rank and scaling.

        to_fill   True if the values will be loaded from a file, whose rank may exceed what the layer can use.
        Raises: NotFound if a target or pattern matches nothing, and BadValue if a rank is above a layer's size.
        """
        chosen, placements = choose(self.targets, sites), list[Placement]()
        ranks, alphas = (self._by_site(name, chosen) for name in ("rank", "alpha"))
        for site in chosen:
            rank, most = int(ranks[site]), min(site.in_features, site.out_features)  # a higher rank adds nothing to B A
            if rank > most and not (to_fill and self.init != "pissa"):
                shape = f"{site.in_features} x {site.out_features}"
                target = site.role if site.role in ROLES else site.name.split(".")[-1]  # its name in every block
                message = f"rank {rank} is above what {site.name} ({shape}) can hold: at most {most}"
                raise BadValue(f'{message}; give it a lower rank with rank_pattern={{"{target}": {most}}}')
            linear = [name for name in self.variants if name in ("dora", "pissa", "freeze_a")]
            if site.kind == "embedding" and linear:
                raise BadValue(f"{linear[0]} is for linear layers: leave the embedding {site.name} out of the targets")
            if site.out_slice is not None and self.dora:
                leaf = site.module.split(".")[-1]
                raise BadValue(f"dora adapts a fused layer as a whole: use {leaf} as a target, not {site.role}")
            parameters = rank * (site.out_features + (0 if self.freeze_a else site.in_features))
            parameters += site.out_features if self.dora else 0
            scaling = alphas[site] / (math.sqrt(rank) if self.rslora else rank)
            placements.append(Placement(site, rank, scaling, parameters))
        return tuple(placements)

    def _by_site(self, name: str, chosen: Sequence[Site]) -> dict[Site, float]:
        pattern, values = f"{name}_pattern", dict.fromkeys(chosen, getattr(self, name))
        for target, value in reversed(getattr(self, pattern)):  # the first match is applied last, so it wins
            values.update(dict.fromkeys(match(target, chosen, pattern=pattern), value))
        return values

    def insert(self, model: nn.Module, to_fill: bool) -> tuple[Placement, ...]:
        placements = self.place(attach.sites_of(model), to_fill=to_fill)
        for p in placements:
            options: dict[str, Any] = {"rank": p.rank, "scaling": p.scaling}
            kind: Any = lora_layers.LoRAEmbedding
            if p.site.kind == "linear":
                options |= {"dropout": self.dropout, "init": self.init, "out_slice": p.site.out_slice}
                kind = lora_layers.DoRALinear if self.dora else lora_layers.LoRALinear
            if self.init == "pissa":
                kind, options["decompose"] = lora_layers.PiSSALinear, not to_fill
            adapter = kind(model.get_submodule(p.site.module), **options)
            if self.freeze_a:
                adapter.lora_A.requires_grad_(False)
            attach.wrap(model, p.site.module, adapter)
        return placements

    def to_peft(self, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors: dict[str, Tensor] = {}
        ranks, alphas = dict[str, int](), dict[str, float]()
        for path, layers in lora_layers.lora_layers(model).items():
            tensors |= {f"{PREFIX}{path}.{name}": t for name, t in lora_layers.file_tensors(layers).items()}
            ranks[path] = rank = sum(self.file_rank(layer.rank) for layer in layers)
            alpha: float = layers[0].scaling * (rank**0.5 if self.rslora else rank)
            alphas[path] = round(alpha) if math.isclose(alpha, round(alpha), rel_tol=1e-9) else alpha  # as in PEFT
        rank = Counter(ranks.values()).most_common(1)[0][0]
        alpha = Counter(alphas.values()).most_common(1)[0][0]
        inner = peft.endings(ranks)
        return tensors, {
            "peft_type": "LORA",
            "r": rank,
            "lora_alpha": alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rslora,
            # In PEFT, a path also names each longer path that ends in it, unless the path begins with ^.
            "rank_pattern": {"^" * (m in inner) + m: r for m, r in ranks.items() if r != rank},
            "alpha_pattern": {"^" * (m in inner) + m: a for m, a in alphas.items() if a != alpha},
            "bias": "none",
            "init_lora_weights": self.init if self.init == "gaussian" else True,  # PiSSA's file is plain LoRA
            **({"use_dora": True} if self.dora else {}),
            **peft.layer_config(model, ranks),
        }

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> LoRA:
        sites = attach.sites_of(model)
        modules = peft.matched(config, sites)
        tied = (s.module for s in sites if s.module in modules and (s.kind == "embedding" or s.role == "head"))
        if config.get("ensure_weight_tying") and (name := next(tied, "")):  # the option has no effect on other layers
            message = f"the adapter was trained with ensure_weight_tying=True, which may have tied {name}'s adapter"
            message += " to another: lora_lab cannot tie adapters, so merge the adapter in PEFT first"
            raise peft.Refused(message, "not supported")
        rank, alpha = (peft.required(config, key) for key in ("r", "lora_alpha"))
        ranks = peft.values_by_pattern(config.get("rank_pattern"), modules, rank)
        alphas = peft.values_by_pattern(config.get("alpha_pattern"), modules, alpha)
        inner = peft.endings(modules)
        names = {m: peft.only(m) if m in inner else m for m in modules}
        return cls(
            rank=rank,
            alpha=alpha,
            targets=tuple(peft.shortest_names(modules, (s.module for s in sites), taken=ROLES)),
            dropout=config.get("lora_dropout") or 0.0,
            rslora=bool(config.get("use_rslora")),
            dora=bool(config.get("use_dora")),
            rank_pattern={names[m]: r for m, r in ranks.items() if r != rank},
            alpha_pattern={names[m]: a for m, a in alphas.items() if a != alpha},
        )

    def fill(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        for path, layers in lora_layers.lora_layers(model).items():
            for name, tensor, place, factor in lora_layers.pieces(layers):
                tensor.data.copy_(tensors[f"{PREFIX}{path}.{name}"][place] / factor)


def _pairs(name: str, pattern: Pattern | Mapping[str, float]) -> Pattern:
    try:
        return tuple((str(t), v) for t, v in (pattern.items() if isinstance(pattern, Mapping) else pattern))
    except (TypeError, ValueError):
        raise BadValue(f"{name} must map targets to numbers, such as {{'q': 4}}, not {pattern!r}") from None
