"""What a method is and what it reports. No torch here: methods are created, hashed and listed without it.

Most methods adapt layers one by one: see `layer_method.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from lora_lab.errors import BadValue
from lora_lab.methods.targets import Site

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Placement:
    """LoRA at one site: its rank, its scaling, and how many parameters train there."""

    site: Site
    rank: int
    scaling: float
    parameters: int


@dataclass(frozen=True)
class Report:
    """What a method added to a model. Counts are trained parameters.

    placements         where LoRA sits
    heads, parts       (path, count) of each task head, and of everything else that has no rank
    total              parameters of the model with its adapters; a head counts once
    base_fingerprint   of the frozen weights, before any merge
    """

    method: Method
    placements: tuple[Placement, ...]
    heads: tuple[tuple[str, int], ...]
    total: int
    base_fingerprint: str = ""
    parts: tuple[tuple[str, int], ...] = ()

    @property
    def adapter_parameters(self) -> int:
        """Without the heads."""
        return sum(p.parameters for p in self.placements) + sum(count for _, count in self.parts)

    @property
    def head_parameters(self) -> int:
        """In the heads, which train with every method."""
        return sum(count for _, count in self.heads)

    @property
    def trainable(self) -> int:
        """Adapters and heads."""
        return self.adapter_parameters + self.head_parameters

    def __str__(self) -> str:
        rows: list[tuple[Any, ...]] = [("module", "role", "in", "out", "rank", "trains")]
        for p in self.placements:
            site = p.site
            rows.append((site.name, site.role, site.in_features, site.out_features, p.rank, f"{p.parameters:,}"))
        for role, counts in (("part", self.parts), ("head", self.heads)):
            rows += [(path, role, "", "", "", f"{count:,}") for path, count in counts]
        width = max(len(row[0]) for row in rows)
        lines = [f"{path:{width}}  {role:5} {i:>6} {o:>6}  {r:>4} {trains:>8}" for path, role, i, o, r, trains in rows]
        share = self.trainable / self.total
        return "\n".join([*lines, f"{self.trainable:,} of {self.total:,} parameters train ({share:.2%})"])


class Method:
    """What trains: a frozen dataclass.

    name          on the command line and in files
    packs         whether several runs can train in one pack, on one frozen base
    may_differ    settings that may differ within a pack
    trains_base   whether the base's own weights train
    unmergeable   why its update cannot be written into the base's weights; "" if it can
    peft_type     PEFT's name for it; `to_peft`, `from_peft` and `fill` then exchange files with PEFT. Without one, a
                  file holds every number that trains, by its path
    decisive      fields of PEFT's config that must agree with the header of our own file
    retired       options of earlier versions, with their defaults: recipes made with them keep their hashes
    """

    name: ClassVar[str]
    can_pack: ClassVar[bool] = False
    may_differ: ClassVar[tuple[str, ...]] = ()
    trains_base: ClassVar[bool] = False
    unmergeable: ClassVar[str] = "computes what no weight of the base could"
    peft_type: ClassVar[str] = ""
    decisive: ClassVar[tuple[str, ...]] = ("peft_type",)
    retired: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        """Convert NumPy numbers. A subclass that checks its options calls this first."""
        make_plain(self)

    def attach(self, model: nn.Module) -> Report:
        """Freeze the model, add what trains, and give a task head a copy that trains.

        Raises: BadValue, NotFound if the method does not fit the model, or the model carries an adapter. The model is
        unchanged then.
        """
        raise BadValue(f"{self.name} cannot be attached: its class has no attach")

    def attach_empty(self, model: nn.Module) -> Report:
        """Like `attach`, for an adapter whose values will be loaded from a file."""
        return self.attach(model)

    def to_peft(self, model: nn.Module, report: Report) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors of the adapter file by key, and adapter_config.json."""
        raise NotImplementedError

    @classmethod
    def check_peft(cls, config: Mapping[str, Any]) -> None:
        """Raises: BadValue for a PEFT config with an unsupported option."""

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> Method:
        """Make the method that a PEFT config describes. Raises: BadValue, NotFound if it does not fit the model."""
        raise NotImplementedError

    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        """Copy a file's tensors into a model with this method attached. Raises: BadValue for a wrong base."""
        raise NotImplementedError

    def ignored(self, report: Report) -> set[str]:
        """Return keys that PEFT may add to a file: copies of frozen weights."""
        return set()

    def settings(self) -> dict[str, Any]:
        """Return {"name": ..., ...}: plain values for JSON, which `method_from` reads back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {"name": self.name, **values, **self.retired}


REGISTRY: dict[str, type[Method]] = {}

M = TypeVar("M", bound=Method)


def register(method: type[M]) -> type[M]:
    """Class decorator: make a method known to the command line, recipes and files."""
    REGISTRY[method.name] = method
    return method


# ---- options


def plain(value: Any) -> Any:
    """Convert NumPy numbers to Python's, also inside lists, tuples and mappings."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: plain(own) for name, own in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def make_plain(options: Any) -> None:
    """Apply `plain` to the fields of a dataclass, even a frozen one."""
    for field in fields(options):
        object.__setattr__(options, field.name, plain(getattr(options, field.name)))


def whole(what: str, value: object, least: int = 1) -> int:
    """Check for a whole number from `least` to 10^9. Raises: BadValue."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadValue(f"{what} must be a whole number of at least {least}, not {value!r}")
    if value > 10**9:
        raise BadValue(f"{what} must be at most {10**9:,}, not {value!r}")
    return value


def one_of(what: str, value: object, known: tuple[str, ...]) -> None:
    """Raises: BadValue unless `value` is one of the known words."""
    if value not in known:
        raise BadValue(f"{what} must be one of {', '.join(known)}, not {value!r}")


def is_number(value: object) -> bool:
    """Whether a value is an int or a float, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def words(value: Any) -> tuple[str, ...]:
    """Make a tuple of targets from "k,v" or ("k", "v"). Raises: BadValue."""
    try:
        given = value.split(",") if isinstance(value, str) else value
        return tuple(word.strip() for word in given if word.strip())
    except (TypeError, AttributeError):
        raise BadValue(f"targets are roles, names or patterns, such as 'q,v', not {value!r}") from None
