"""The base class of methods and their reports. Methods can be created, hashed and listed without importing torch.

Most methods adapt single layers; see `layer_method.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from lora_lab.errors import BadValue, printable
from lora_lab.methods.targets import Site

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "base_model.model."  # the prefix of keys in adapter files
OURS = "LORA_LAB"  # peft_type of methods that PEFT does not have


@dataclass(frozen=True)
class Placement:
    """LoRA at one site: its rank, scaling and number of trainable parameters."""

    site: Site
    rank: int
    scaling: float
    parameters: int


@dataclass(frozen=True)
class Report:
    """What a method added to a model. Counts are of trainable parameters.

    placements         where LoRA was added
    heads, parts       (path, count) of each task head, and of every other trainable part that has no rank
    total              parameters of the model including its adapters; a head and its trainable copy count once
    base_fingerprint   fingerprint of the frozen weights, before any merge
    """

    method: Method
    placements: tuple[Placement, ...]
    heads: tuple[tuple[str, int], ...]
    total: int
    base_fingerprint: str = ""
    parts: tuple[tuple[str, int], ...] = ()

    @property
    def adapter_parameters(self) -> int:
        """Trainable parameters outside the heads."""
        return sum(p.parameters for p in self.placements) + sum(count for _, count in self.parts)

    @property
    def head_parameters(self) -> int:
        """Trainable parameters in the heads, which every method trains."""
        return sum(count for _, count in self.heads)

    @property
    def trainable(self) -> int:
        """All trainable parameters: adapters and heads."""
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
        last = f"{self.trainable:,} of {self.total:,} parameters train ({share:.2%})"
        return printable("\n".join([*lines, last]), "\n")


class Method:
    """Base class of fine-tuning methods, which are frozen dataclasses.

    name          name on the command line and in files
    can_pack      whether several runs can train in one pack, on one frozen base
    may_differ    settings that may differ within a pack
    trains_base   whether the base's own weights train
    unmergeable   why the update can't be merged into the base's weights; "" if it can
    peft_type     PEFT's name for the method, if it exchanges files with PEFT through `to_peft`, `from_peft` and `fill`.
                  If "", files hold every trainable parameter under its path
    head_prefix   the prefix of head keys in files
    retired       options removed since earlier versions, with their defaults, so that hashes of recipes don't change
    """

    name: ClassVar[str]
    can_pack: ClassVar[bool] = False
    may_differ: ClassVar[tuple[str, ...]] = ()
    trains_base: ClassVar[bool] = False
    unmergeable: ClassVar[str] = "computes something that no weight can represent"
    peft_type: ClassVar[str] = ""
    head_prefix: ClassVar[str] = PREFIX
    retired: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        """Convert NumPy scalars. Subclasses that validate their options call this first."""
        make_plain(self)

    @property
    def added_tokens(self) -> int:
        """The number of tokens that the method puts before every row."""
        return 0

    def positions(self, causal: bool) -> int:
        """Return by how many tokens the method shortens the longest possible row; `causal` is False for an encoder."""
        return self.added_tokens

    def attach(self, model: nn.Module, *, to_fill: bool = False) -> Report:
        """Freeze the model, add the trainable parameters and replace each task head with a trainable copy.

        to_fill   if True, the values will be loaded from a file, so expensive initial values are not computed
        Raises: BadValue, NotFound if the method does not fit the model, or if the model already has an adapter. An
        error leaves the model unchanged.
        """
        raise NotImplementedError

    def to_peft(self, model: nn.Module, report: Report) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the adapter file's tensors by key and adapter_config.json, without heads and common fields."""
        heads = tuple(f"{head}.trained." for head, _ in report.heads)
        named = ((name, p) for name, p in model.named_parameters() if p.requires_grad and not name.startswith(heads))
        return {PREFIX + name: p for name, p in named}, {"peft_type": OURS, "method": self.settings()}

    @classmethod
    def check_peft(cls, config: Mapping[str, Any]) -> None:
        """Reject a PEFT config with unsupported options. Raises: BadValue."""

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> Method:
        """Create a method from a PEFT config. Raises: BadValue, NotFound if it does not fit the model."""
        raise NotImplementedError

    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        """Copy a file's tensors, except heads, into a model with this method attached.

        Raises: BadValue if the base is wrong.
        """
        for key, tensor in self.to_peft(model, report)[0].items():
            tensor.data.copy_(tensors[key])

    def ignored(self, report: Report) -> set[str]:
        """Return keys of frozen weights that PEFT may copy into a file."""
        return set()

    def settings(self) -> dict[str, Any]:
        """Return JSON-compatible settings, {"name": ..., ...}, for `method_from`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {"name": self.name, **values, **self.retired}


REGISTRY: dict[str, type[Method]] = {}

M = TypeVar("M", bound=Method)


def register(method: type[M]) -> type[M]:
    """Class decorator that makes a method available to the command line, recipes and files."""
    REGISTRY[method.name] = method
    return method


# ---- options


def plain(value: Any) -> Any:
    """Convert NumPy values to Python values, including inside lists, tuples and mappings."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def make_plain(options: Any) -> None:
    """Apply `plain` in place to each field of a dataclass, which may be frozen."""
    for field in fields(options):
        object.__setattr__(options, field.name, plain(getattr(options, field.name)))


def whole(name: str, value: object, minimum: int = 1) -> int:
    """Check that a value is an integer from `minimum` to 10^9. Raises: BadValue."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise BadValue(f"{name} must be an integer of at least {minimum}, not {value!r}")
    if value > 10**9:
        raise BadValue(f"{name} must be at most {10**9:,}, not {value!r}")
    return value


def check_method(value: object) -> None:
    """Check that a value is a method. Raises: BadValue."""
    if not isinstance(value, Method):
        raise BadValue(f"method must be one such as LoRA(rank=8), not {value!r}")


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Check that a value is one of the choices. Raises: BadValue."""
    if value not in choices:
        raise BadValue(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def is_number(value: object) -> bool:
    """Return whether a value is an int or a float, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def words(value: Any) -> tuple[str, ...]:
    """Convert targets such as "k,v" or ("k", "v") to a tuple. Raises: BadValue."""
    try:
        items = value.split(",") if isinstance(value, str) else value
        return tuple(word.strip() for word in items if word.strip())
    except (TypeError, AttributeError):
        raise BadValue(f"targets are roles, names or patterns, such as 'q,v', not {value!r}") from None
