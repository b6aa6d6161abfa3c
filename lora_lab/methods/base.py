"""The face that every method shows, and the report it gives of what it touched. No torch: only attaching needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from lora_lab.errors import BadValue
from lora_lab.methods.options import make_plain
from lora_lab.methods.targets import Site

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Placement:
    """One adapter at one site: its rank and the factor its update is multiplied by."""

    site: Site
    rank: int
    scaling: float
    frozen: int = 0  # those of A and B that do not train
    more: int = 0  # what trains besides A and B

    @property
    def parameters(self) -> int:
        """Numbers that train here."""
        return self.site.lora_parameters(self.rank) - self.frozen + self.more


@dataclass(frozen=True)
class Report:
    """What attaching did: each adapter, each head that trains as a whole, and how much of the model that is."""

    method: Method
    placements: tuple[Placement, ...]
    heads: tuple[tuple[str, int], ...]  # (module, parameters)
    base_parameters: int  # the model as it came, its head included
    base_fingerprint: str = ""  # of the frozen weights, before anything was merged into them
    parts: tuple[tuple[str, int], ...] = ()  # (where, numbers) of what trains without a rank

    @property
    def adapter_parameters(self) -> int:
        """Numbers that the method trains, without any head."""
        return sum(p.parameters for p in self.placements) + sum(count for _, count in self.parts)

    @property
    def head_parameters(self) -> int:
        """Numbers in the heads that train as a whole."""
        return sum(count for _, count in self.heads)

    @property
    def trainable(self) -> int:
        """Everything that trains: adapters and heads."""
        return self.adapter_parameters + self.head_parameters

    @property
    def total(self) -> int:
        """The model with its adapters; a head counts once."""
        frozen = sum(p.frozen for p in self.placements)
        return self.base_parameters + frozen + (0 if self.method.within else self.adapter_parameters)

    def __str__(self) -> str:
        others = [*((name, "part", count) for name, count in self.parts), *((n, "head", c) for n, c in self.heads)]
        width = max(len(name) for name in [*(p.site.name for p in self.placements), *(o[0] for o in others), "module"])
        lines = [f"{'module':{width}}  role        in    out  rank   trains"]
        for p in self.placements:
            site = p.site
            shape = f"{site.in_features:6} {site.out_features:6}"
            lines.append(f"{site.name:{width}}  {site.role:5} {shape}  {p.rank:4} {p.parameters:8,}")
        how = {"part": "" if not self.method.within else "as it is", "head": "as a whole"}
        lines += [f"{name:{width}}  {role}  {how[role]:>19} {count:8,}" for name, role, count in others]
        share = self.trainable / self.total
        return "\n".join([*lines, f"{self.trainable:,} of {self.total:,} parameters train ({share:.2%})"])


class Method:
    """What is trained: a frozen dataclass, so that it can be made without importing torch.

    It says in `attach` how that is put into a model; the rest follows.

    packs          whether runs of it can train side by side on one frozen base
    lanes_differ   the settings in which such runs may differ
    within         whether the base's own weights train
    retired        options that there once were, at their defaults: recipes made with them keep their hashes
    """

    name: ClassVar[str]
    packs: ClassVar[bool] = False
    lanes_differ: ClassVar[tuple[str, ...]] = ()
    within: ClassVar[bool] = False
    retired: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        """A subclass that checks its options calls this first: `LoRA(rank=np.int64(8))` is `LoRA(rank=8)`."""
        make_plain(self)

    def attach(self, model: nn.Module) -> Report:
        """Freeze the base, add what trains, report it. The model is left as it was when this raises."""
        raise BadValue(f"{self.name} cannot be attached: its class has no attach")

    def settings(self) -> dict[str, Any]:
        """{"name": ..., ...}: plain values that JSON can hold, which `method_from` reads back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {"name": self.name, **values, **self.retired}


REGISTRY: dict[str, type[Method]] = {}  # every method by the name that the command line and the files use

M = TypeVar("M", bound=Method)


def register(method: type[M]) -> type[M]:
    """Make a method known by its name: to the command line, to recipes, to files. A class decorator."""
    REGISTRY[method.name] = method
    return method
