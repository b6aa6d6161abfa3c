"""The base class for fine-tuning methods, and their reports. For methods that adapt layers, see `layer_method.py`.

Methods can be created, hashed and listed without importing torch. The files that define methods import torch through
`lazy.py` and get the modules that need torch from this module. Torch and these modules are imported on first use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from inspect import formatannotation
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from lora_lab.errors import BadValue, printable
from lora_lab.lazy import Lazy, Tensor, nn
from lora_lab.methods.targets import PREFIX, ROLES, Site

if TYPE_CHECKING:
    from lora_lab import adapter_layer as adapter_layer
    from lora_lab.methods import attach as attach
    from lora_lab.methods import lora_layers as lora_layers
    from lora_lab.methods import peft as peft
else:
    adapter_layer = Lazy("lora_lab.adapter_layer")
    attach, lora_layers, peft = (Lazy(f"lora_lab.methods.{name}") for name in ("attach", "lora_layers", "peft"))

OURS = "LORA_LAB"  # peft_type of methods that PEFT does not have
Condition = tuple[str, Callable[[float], bool]]
POSITIVE: Condition = ("greater than 0 and at most 1e30", lambda value: 0 < value <= 1e30)  # fp32's maximum is 3.4e38


@dataclass(frozen=True)
class Placement:
    """LoRA at one site: the rank, the scaling and the number of trainable parameters."""

    site: Site
    rank: int
    scaling: float
    parameters: int


@dataclass(frozen=True)
class Report:
    """A report on what a method added to a model. Each `count` is a number of trainable parameters.

    placements         The sites where LoRA was added.
    heads, parts       A (path, count) pair for each task head, and for each other trainable part without a rank.
    total              The total number of parameters, including adapters. A head and its trainable copy count once.
    base_fingerprint   The fingerprint of the frozen weights before any merge.
    """

    method: Method
    placements: tuple[Placement, ...]
    heads: tuple[tuple[str, int], ...]
    total: int
    base_fingerprint: str = ""
    parts: tuple[tuple[str, int], ...] = ()

    @property
    def adapter_parameters(self) -> int:
        """The number of trainable parameters outside the heads."""
        return sum(p.parameters for p in self.placements) + sum(count for _, count in self.parts)

    @property
    def head_parameters(self) -> int:
        """The number of trainable parameters in the heads, which every method trains."""
        return sum(count for _, count in self.heads)

    @property
    def trainable(self) -> int:
        """The total number of trainable parameters, in adapters and heads."""
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
        last = f"{self.trainable:,} of {self.total:,} parameters are trained ({self.trainable / self.total:.2%})"
        return printable("\n".join([*lines, last]), "\n")


class Method:
    """The base class for fine-tuning methods. Each method is a frozen dataclass.

    name          The method's name on the command line and in files.
    allowed       The minimum of each integer option, and the choices for each option that has fixed choices.
    numbers       For each option that is a number, the condition on its value, in words and as a function.
    added_tokens  The number of tokens that the method puts in front of every row.
    can_pack      Whether several runs can train in one pack, on one frozen base model.
    may_differ    The settings that may differ between the runs of a pack.
    trains_base   Whether the method trains the base model's own weights.
    unmergeable   Why the update can't be merged into the base model's weights, or "" if it can be merged.
    peft_type     PEFT's name for the method, if `to_peft`, `from_peft` and `fill` write and read PEFT's files.
                  If `peft_type` is empty, files hold every trainable parameter under the parameter's path.
    head_prefix   The prefix that the keys of heads have in files.
    retired       Options of earlier versions, with their defaults, listed so that the hashes of recipes stay the same.
    """

    name: ClassVar[str]
    allowed: ClassVar[Mapping[str, int | tuple[str, ...]]] = {}
    numbers: ClassVar[Mapping[str, Condition]] = {}
    added_tokens: ClassVar[int] = 0
    can_pack: ClassVar[bool] = False
    may_differ: ClassVar[tuple[str, ...]] = ()
    trains_base: ClassVar[bool] = False
    unmergeable: ClassVar[str] = "computes something that no weight can represent"
    peft_type: ClassVar[str] = ""
    head_prefix: ClassVar[str] = PREFIX
    retired: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        """Convert settings to plain Python values and check them. Subclasses that add checks call this method first."""
        make_plain(self)
        for option in fields(self):  # type: ignore[arg-type]
            value = getattr(self, option.name)
            if option.type == "tuple[str, ...]":
                object.__setattr__(self, option.name, words(value or ()))
            elif option.type == "bool" and not isinstance(value, bool):
                raise BadValue(f"{option.name} must be True or False, not {value!r}")
        for name, values in self.allowed.items():
            if (value := getattr(self, name)) is not None or getattr(type(self), name) is not None:
                whole(name, value, values) if isinstance(values, int) else one_of(name, value, values)
        for name, condition in self.numbers.items():
            number(name, getattr(self, name), condition)

    def positions(self, causal: bool) -> int:
        """Return the number of positions that the method takes away from the text. `causal` is False for an encoder."""
        return self.added_tokens

    def insert(self, model: nn.Module, to_fill: bool) -> Sequence[Placement] | None:
        """Add parameters to a frozen model. LoRA returns its placements. For `to_fill`, see `attach`.

        Raises: BadValue or NotFound if the method does not fit the model.
        """
        return None

    def attach(self, model: nn.Module, *, to_fill: bool = False) -> Report:
        """Freeze the model unless the method trains it, add parameters, and replace task heads with trainable copies.

        to_fill   True if the values will be loaded from a file, so expensive initial values aren't needed.
        Raises: BadValue or NotFound if the method does not fit the model, if nothing would be trained, or if the model
        already has an adapter. An error leaves the model unchanged.
        """
        attach.refuse_adapted(model)
        fingerprint = attach.fingerprint(model)
        with attach.restore_on_error(model):
            model.requires_grad_(self.trains_base)
            placements = tuple(self.insert(model, to_fill) or ())
            if not (to_fill or attach.heads_of(model) or any(p.requires_grad for p in model.parameters())):
                raise BadValue(f"{self.name} has nothing to train in this model; use lora")
            if not self.trains_base:
                attach.train_heads(model)
            offloaded = (name for name, p in model.named_parameters() if p.requires_grad and p.is_meta)
            if attach.is_offloaded(model) and (name := next(offloaded, "")):
                path = attach.plain_path(name.rpartition(".")[0])
                raise BadValue(f"{path} is offloaded, so no adapter can train there: load it, or choose other targets")
        heads, parts = Counter[str](), Counter[str]()
        quantized = sum(layer.numbers for layer in attach.quantized_layers(model))  # weights, not bytes
        for name, p in [(name, p) for name, head in attach.heads_of(model) for p in head.parameters()]:
            heads[name] += p.numel() if p.requires_grad else 0
        total = quantized + sum(p.numel() for p in model.parameters()) - (0 if self.trains_base else heads.total())
        for path, _, p in () if placements else attach.parameters_of_parts(model):
            parts["every weight" if self.trains_base else attach.plain_path(path)] += p.numel()
        report = Report(self, placements, tuple((+heads).items()), total, fingerprint, tuple(parts.items()))
        model.lora_lab_report = report  # type: ignore[assignment]
        return report

    def to_peft(self, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return {key: tensor} for a file (without heads), and the method's own fields in `adapter_config.json`."""
        heads = tuple(f"{path}.trained." for path, part in attach.adapter_layers(model) if part.head)
        own = attach.adapter_parameters(model)
        named = ((name, p) for name, p in model.named_parameters() if not name.startswith(heads))
        saved: dict[str, Tensor] = {PREFIX + name: p for name, p in named if self.trains_base or id(p) in own}
        for name, buffer in model.named_buffers() if self.trains_base else ():
            if name.endswith((".running_mean", ".running_var", ".num_batches_tracked")):  # training changes these, too
                saved[PREFIX + name] = buffer
        return saved, {"peft_type": OURS, "method": self.settings()}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> Method:
        """Create a method from a PEFT config. Raises: BadValue or NotFound if the config does not fit the model."""
        raise NotImplementedError

    def fill(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors of an adapter file, except heads, into a model to which this method is attached."""
        for key, tensor in self.to_peft(model)[0].items():
            tensor.data.copy_(tensors[key])

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON-compatible values, from which `method_from` can create the method again."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {"name": self.name, **values, **self.retired}


REGISTRY: dict[str, type[Method]] = {}

M = TypeVar("M", bound=Method)


def register(method: type[M]) -> type[M]:
    """Register a method for the command line, recipes and files. This function is a class decorator."""
    for option in fields(method):  # type: ignore[arg-type]
        if not isinstance(option.type, str):  # the method's file doesn't import annotations from __future__
            option.type = formatannotation(option.type)  # type: ignore[assignment]
    REGISTRY[method.name] = method
    return method


# ---- options


def plain(value: Any) -> Any:
    """Convert NumPy values, paths and iterators to Python values, even inside lists, tuples and mappings."""
    if hasattr(value, "tolist"):
        return value.tolist()
    value = str(value) if isinstance(value, PurePath) else list(value) if isinstance(value, Iterator) else value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def make_plain(options: Any) -> None:
    """Apply `plain` in place to each field of a dataclass, even if the dataclass is frozen."""
    for field in fields(options):
        object.__setattr__(options, field.name, plain(getattr(options, field.name)))


def whole(name: str, value: object, minimum: int = 1, maximum: int = 10**9) -> int:
    """Check that a value is an integer from `minimum` to `maximum`. Raises: BadValue."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise BadValue(f"{name} must be an integer of at least {minimum}, not {value!r}")
    if value > maximum:
        raise BadValue(f"{name} must be at most {maximum:,}, not {value!r}")
    return value


def check_method(value: object) -> None:
    """Check that a value is a method. Raises: BadValue."""
    if not isinstance(value, Method):
        raise BadValue(f"method must be a method such as LoRA(rank=8), not {value!r}")


def one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Check that a value is one of the choices. Raises: BadValue."""
    if value not in choices:
        raise BadValue(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")


def number(name: str, value: object, condition: Condition) -> None:
    """Check that a value is a number that satisfies the condition. Raises: BadValue."""
    if not (is_number(value) and condition[1](value)):  # type: ignore[arg-type]
        raise BadValue(f"{name} must be a number {condition[0]}, not {value!r}")


def is_number(value: object) -> bool:
    """Return whether a value is an int or a float, but not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def words(value: Any) -> tuple[str, ...]:
    """Convert targets such as "v,q" or ("q", "v") to a tuple with roles first, in a fixed order. Raises: BadValue."""
    try:
        items = value.split(",") if isinstance(value, str) else sorted(value) if isinstance(value, Set) else value
        names = dict.fromkeys(word.strip() for word in items if word.strip())
        return tuple(sorted(names, key=lambda name: ROLES.index(name) if name in ROLES else len(ROLES)))
    except (TypeError, AttributeError):
        raise BadValue(f"targets must be roles, names or patterns, such as 'q,v', not {value!r}") from None
