"""What a method is, and the report of what it put into a model. No torch: methods are made, hashed and listed without.

Most methods are a `LayerMethod`, see `layer_method.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from lora_lab.errors import BadValue
from lora_lab.methods.options import make_plain
from lora_lab.methods.targets import Site

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Placement:
    """LoRA at one site: its rank and the factor that its update is multiplied by."""

    site: Site
    rank: int
    scaling: float
    frozen: int = 0  # numbers of A and B that do not train
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
        return self.base_parameters + frozen + (0 if self.method.trains_base else self.adapter_parameters)

    def __str__(self) -> str:
        how = "as it is" if self.method.trains_base else ""
        others = [(*part, "part", how) for part in self.parts] + [(*head, "head", "as a whole") for head in self.heads]
        width = max(len(name) for name in ["module", *(p.site.name for p in self.placements), *(o[0] for o in others)])
        lines = [f"{'module':{width}}  role        in    out  rank   trains"]
        for p in self.placements:
            shape = f"{p.site.in_features:6} {p.site.out_features:6}"
            lines.append(f"{p.site.name:{width}}  {p.site.role:5} {shape}  {p.rank:4} {p.parameters:8,}")
        lines += [f"{name:{width}}  {role}  {how:>19} {count:8,}" for name, count, role, how in others]
        share = self.trainable / self.total
        return "\n".join([*lines, f"{self.trainable:,} of {self.total:,} parameters train ({share:.2%})"])


class Method:
    """What is trained: a frozen dataclass.

    name           on the command line and in files
    packs          whether runs of it can train side by side on one frozen base
    lanes_differ   settings in which such runs may differ
    trains_base    whether the base's own weights train
    unmergeable    why its update cannot be written into the base's weights; "" if it can
    peft_type      PEFT's word for it, and then `to_peft`, `from_peft` and `fill` exchange files with PEFT. The files of
                   other methods hold every number that trains, by its path
    decisive       fields of PEFT's config that must say what our own header of the file says
    retired        options that existed once, at their defaults: recipes made with them keep their hashes
    """

    name: ClassVar[str]
    packs: ClassVar[bool] = False
    lanes_differ: ClassVar[tuple[str, ...]] = ()
    trains_base: ClassVar[bool] = False
    unmergeable: ClassVar[str] = "computes what no weight of the base could"
    peft_type: ClassVar[str] = ""
    decisive: ClassVar[tuple[str, ...]] = ("peft_type",)
    retired: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        """A subclass that checks its options calls this first: `LoRA(rank=np.int64(8))` is `LoRA(rank=8)`."""
        make_plain(self)

    def attach(self, model: nn.Module) -> Report:
        """Freeze the model, add what trains, give a task head a copy that trains, and report it.

        Raises: BadValue, NotFound where the method does not fit the model, or it carries an adapter already. The model
        is then as it was.
        """
        raise BadValue(f"{self.name} cannot be attached: its class has no attach")

    def attach_empty(self, model: nn.Module) -> Report:
        """As `attach`, of what will be filled from a file."""
        return self.attach(model)

    def to_peft(self, model: nn.Module, report: Report) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the file holds, by key, of a model that carries the method, and adapter_config.json."""
        raise NotImplementedError

    @classmethod
    def check_peft(cls, config: Mapping[str, Any]) -> None:
        """Raises BadValue for a config of PEFT's with an option that we do not compute."""
        return

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> Method:
        """The method that a config of PEFT's describes. Raises: BadValue, NotFound for what does not fit."""
        raise NotImplementedError

    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        """Put the file's numbers into a model to which the method is attached. Raises: BadValue for a wrong base."""
        raise NotImplementedError

    def ignored(self, report: Report) -> set[str]:
        """Keys that PEFT may write besides: copies of frozen weights."""
        return set()

    def settings(self) -> dict[str, Any]:
        """{"name": ..., ...}: plain values that JSON can hold, which `method_from` reads back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {"name": self.name, **values, **self.retired}


REGISTRY: dict[str, type[Method]] = {}

M = TypeVar("M", bound=Method)


def register(method: type[M]) -> type[M]:
    """Make a method known by its name: to the command line, to recipes, to files. A class decorator."""
    REGISTRY[method.name] = method
    return method
