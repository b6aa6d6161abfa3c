"""What can be wrong with an adapter: each fault's name, and what to do about it. Each has happened to somebody.

`inspection` finds them; `safe_file` and `adapters` say which one made them refuse a file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from lora_lab.errors import BadValue, LabError, NotFound

EMPTY = "empty file"
TRUNCATED = "truncated file"
PICKLE = "a pickle"
DAMAGED = "damaged file"
OUTSIDE = "file outside its folder"
SETTINGS = "damaged settings"
NOT_FINITE = "NaN values"
WRONG_DTYPE = "not floating-point"
RENAMED = "keys renamed"
MISSING = "tensors missing"
TOO_MANY = "extra tensors"
WRONG_BASE = "wrong base"
ZERO_B = "B is all zero"
SOME_ZERO = "B is zero in some layers"
CUT = "gradient was cut"
UNUSED = "layer never used"
LOW_ALPHA = "default alpha at high rank"
ROUNDED = "dtype loss"
NO_EFFECT = "no effect on this base"

REMEDIES = {
    EMPTY: "train again, and save with save_adapter or PEFT's save_pretrained without overriding state_dict; look at "
    "the file's size before the machine is given back",
    TRUNCATED: "copy the file again and compare the sizes, or take the checkpoint before it",
    PICKLE: "ask its maker for a safetensors file; never load a stranger's pickle",
    DAMAGED: "copy the file again, or save it anew with safetensors",
    OUTSIDE: "copy the real file into the folder",
    SETTINGS: "take adapter_config.json from the same run as the weights",
    NOT_FINITE: "take a checkpoint from before the loss became NaN, and train with a lower rate or in bf16",
    WRONG_DTYPE: "save the adapter in fp32 or bf16",
    RENAMED: "rename the keys to base_model.model.<module>.lora_A.weight: unwrap the model before it is saved",
    MISSING: "save again from the whole model; in sharded training gather the parts first",
    TOO_MANY: "save it again without what is no adapter of this base: in PEFT with save_embedding_layers=False, and "
    "with target_modules that name every adapted layer",
    WRONG_BASE: "load the very base that it was trained on",
    ZERO_B: "the adapter was saved untrained: save after training, from the model that trained",
    SOME_ZERO: "inspect it with --base to see whether the model uses these layers",
    CUT: "with gradient checkpointing use use_reentrant=False, or model.enable_input_require_grads(); and check after "
    "the first backward pass that B has a gradient",
    UNUSED: "leave the layer out of the targets: it costs memory and never learns",
    LOW_ALPHA: "ask whether this scale is meant: alpha / rank goes down as the rank goes up; then tune the rate again",
    ROUNDED: "keep the adapter, and the weight it is merged into, in fp32",
    NO_EFFECT: "see whether B is zero, and whether the base is the right one",
}


class Refused(BadValue):
    """A file that is not loaded, and the name of the fault."""

    def __init__(self, sentence: str, fault: str) -> None:
        super().__init__(sentence)
        self.fault = fault


@dataclass(frozen=True)
class Problem:
    """A fault that was found: where, and how it shows."""

    name: str
    where: str
    why: str

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return REMEDIES[self.name]

    def to_json(self) -> dict[str, str]:
        """Plain values, the remedy among them."""
        return asdict(self) | {"remedy": self.remedy}

    def __str__(self) -> str:
        return f"{self.name} ({self.where}): {self.why}. {self.remedy[0].upper()}{self.remedy[1:]}."


@dataclass(frozen=True)
class Norm:
    """The update of one module: its rank and scaling, ||scaling B A||_F, and ||W||_F of the base's weight."""

    module: str
    rank: int
    scaling: float
    update: float
    weight: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, the ratio among them."""
        ratio = self.update / self.weight if self.weight else None
        return {**self.__dict__, "ratio": ratio}


@dataclass
class Inspection:
    """All that was found; None where it cannot be known, as nothing of a truncated file can."""

    adapter: str
    format: str | None = None
    kind: str | None = None
    dtype: str | None = None
    bytes: int | None = None
    rank: int | None = None
    alpha: float | None = None
    scaling: float | None = None
    targets: list[str] | str | None = None
    parameters: int | None = None
    head: int | None = None
    norms: list[Norm] = field(default_factory=list)
    does_something: bool | None = None
    difference: float | None = None
    problems: list[Problem] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As `lora-lab inspect --json` prints it."""
        lists = {name: [one.to_json() for one in getattr(self, name)] for name in ("norms", "problems")}
        return {**self.__dict__, **lists}


def problem_of(error: LabError, where: str) -> Problem:
    """A refusal as a problem."""
    fault = error.fault if isinstance(error, Refused) else SETTINGS
    if isinstance(error, NotFound):
        fault = WRONG_BASE if "match" in str(error) else MISSING
    return Problem(fault, where, str(error))


def few(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
