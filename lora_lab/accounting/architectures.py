"""A model's dimensions and every module that bears parameters, from its config alone: no weights, no torch.

    config.json  ->  Architecture
                       model.embed_tokens                  1 x   49152 x  576
                       model.layers.*.self_attn.q_proj    30 x     576 x  576    role q
                       model.layers.*.self_attn.k_proj    30 x     576 x  192    role k
                       ...
                       total 134,515,008

The paths are those of transformers 5, so what is counted here is what attaching meets there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from lora_lab.accounting.sites import ROLES, Site, sites_of_layer
from lora_lab.errors import BadValue

# What a task adds on top of a pretrained model: it starts random and trains whatever the method.
TASK_HEADS = ("classifier", "score")


@dataclass(frozen=True)
class Module:
    """One kind of module, standing `count` times in the model.

    name       transformers' path, * for the layer's number and a second * for the expert's
    role       q k v o gate up down embed head pooler position norm router other; "q+k+v" for a fused layer
    kind       linear, conv1d (GPT-2's transposed linear), embedding, norm or other
    numbers    the layers that hold it; () outside the layers
    site       whether an adapter can be attached: experts, which transformers 5 keeps in one tensor, cannot take one
    tied       its weight is another module's, counted there
    A norm has in_features 1. Units: features and counts in numbers.
    """

    name: str
    role: str
    kind: str
    in_features: int
    out_features: int
    bias: bool = False
    count: int = 1
    numbers: tuple[int, ...] = ()
    site: bool = True
    tied: bool = False

    @property
    def weight(self) -> int:
        """Numbers in one weight: in x out."""
        return self.in_features * self.out_features

    @property
    def parameters(self) -> int:
        """Numbers in one such module that are its own, with its bias."""
        return 0 if self.tied else self.weight + self.biases

    @property
    def biases(self) -> int:
        """Numbers in one such module's bias."""
        return self.out_features if self.bias else 0

    @property
    def key(self) -> str:
        """What it is called within its layer: its role, or the end of its name where it has none."""
        return self.name.rpartition(".")[2] if self.role == "other" else self.role

    @property
    def expert(self) -> bool:
        """Whether it stands once for each expert of a layer."""
        return self.name.count("*") == 2

    @property
    def in_task_head(self) -> bool:
        """Whether it belongs to the head that a task adds."""
        return self.name.split(".")[0] in TASK_HEADS

    @property
    def each(self) -> int:
        """How often it stands in one layer: the number of experts, or 1."""
        return self.count // max(len(self.numbers), 1)


@dataclass(frozen=True)
class Slot:
    """A site, the module that it is one of, and for how many places it stands: the experts of a layer, else 1."""

    site: Site
    module: Module
    times: int


@dataclass(frozen=True)
class Architecture:
    """The dimensions of a model, and its modules in transformers' order.

    Sizes are counted in numbers: `hidden` and `head_dim` per token, `positions` and `vocabulary` in rows (positions
    0: none are stored or none are said), `experts` per layer (0: dense). `task` is encoder, causal or seq2seq.
    """

    name: str
    model_type: str
    task: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int
    tied: bool
    activation: str
    token_types: int = 0
    qk_norm: bool = False
    experts: int = 0
    experts_per_token: int = 0
    modules: tuple[Module, ...] = ()

    @staticmethod
    def from_config(config: Mapping[str, Any], name: str = "", num_labels: int | None = None) -> Architecture:
        """The architecture that a config describes, with transformers' defaults for what it leaves out.

        With `num_labels` it is the model for sequence classification, its head among the modules.
        Raises: BadValue for an unknown model_type, a needed field that is missing, or an impossible value.
        """
        from lora_lab.accounting.families import build  # the families are made of what stands above

        return build(config, name, num_labels)

    @cached_property
    def total(self) -> int:
        """Parameters of the whole model; tied weights count once."""
        return sum(m.parameters * m.count for m in self.modules)

    @property
    def head_parameters(self) -> int:
        """Parameters of the head that a task added; 0 when no num_labels was given."""
        return sum(m.parameters * m.count for m in self.modules if m.in_task_head)

    def head(self, num_labels: int) -> int:
        """Parameters that transformers' head for sequence classification into `num_labels` classes would have.

        Raises: BadValue for fewer than one label and for a family without such a head here.
        """
        return sum(m.parameters for m in head_modules(self, num_labels))

    def sites(self) -> list[Site]:
        """Every place for an adapter, in the model's order: what `methods.attach.sites_of` finds in the real model."""
        return [slot.site for slot in self.slots if slot.module.site]

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The sites and, as kind "expert", the experts of each layer, which can be counted though not attached to."""
        return tuple(
            Slot(site, module, module.each)
            for path, module in self.paths()
            if (module.site and not module.in_task_head and module.kind in _SITE_KINDS) or module.expert
            for site in sites_of_layer(path, module.in_features, module.out_features, _kind(module), self.widths)
        )

    @property
    def roles(self) -> list[str]:
        """The roles that a target may name on this model, in the usual order; embeddings are left to code."""
        there = {slot.site.role for slot in self.slots}
        return [role for role in ROLES if role in there and role != "embed"]

    @property
    def widths(self) -> dict[str, int]:
        """Outputs of each role, which tell the slices of a fused layer apart."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {"q": q, "k": kv, "v": kv, "gate": self.intermediate, "up": self.intermediate}

    def paths(self) -> Iterator[tuple[str, Module]]:
        """Every module's path with its layer's number in place, in the model's order; experts keep their own *."""
        for _, stack in groupby(self.modules, key=lambda m: m.name.partition("*")[0] if m.numbers else m.name):
            together = list(stack)
            for number in sorted({n for m in together for n in m.numbers}):
                yield from ((m.name.replace("*", str(number), 1), m) for m in together if number in m.numbers)
            yield from ((m.name, m) for m in together if not m.numbers)


_SITE_KINDS = {"linear": "linear", "conv1d": "linear", "embedding": "embedding"}


def _kind(module: Module) -> str:
    return "expert" if module.expert else _SITE_KINDS[module.kind]


def task_head(architecture: Architecture, labels: int) -> tuple[Module, ...]:
    """The head of a task: the model's own, of an encoder that has none the one that it would get. Raises: as `head`."""
    own = tuple(module for module in architecture.modules if module.in_task_head)
    return own if own or architecture.task != "encoder" else head_modules(architecture, labels)


def head_modules(architecture: Architecture, num_labels: int) -> tuple[Module, ...]:
    """The head that transformers puts on this model for sequence classification.

    Raises: as `Architecture.head`.
    """
    if isinstance(num_labels, bool) or not isinstance(num_labels, int) or num_labels < 1:
        raise BadValue(f"num_labels must be a whole number of at least 1, not {num_labels!r}")
    hidden = architecture.hidden
    if architecture.task == "seq2seq":
        raise BadValue(f"{architecture.name} has no classification head here; use it without num_labels")
    if architecture.task == "causal":
        return (Module("score", "head", "linear", hidden, num_labels),)
    if architecture.model_type in ("roberta", "xlm-roberta"):
        dense = Module("classifier.dense", "head", "linear", hidden, hidden, bias=True)
        return (dense, Module("classifier.out_proj", "head", "linear", hidden, num_labels, bias=True))
    return (Module("classifier", "head", "linear", hidden, num_labels, bias=True),)
