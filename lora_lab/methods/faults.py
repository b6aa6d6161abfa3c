"""Names of the faults that users have reported in adapters. The file `remedies.json` says how to fix each fault.

Reading a file raises `Refused` with the name of a fault, and `inspect` reports every fault as a `Problem`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lora_lab.errors import BadValue
from lora_lab.files import read_json

EMPTY = "empty file"
TRUNCATED = "truncated file"
PICKLE = "a pickle"
DAMAGED = "damaged file"
SETTINGS = "damaged settings"
NOT_FINITE = "NaN or infinity"
WRONG_DTYPE = "not floating-point"
RENAMED = "keys renamed"
MISSING = "tensors missing"
TOO_MANY = "extra tensors"
WRONG_BASE = "wrong base"
ZERO_B = "zero update"
SOME_ZERO = "B is zero in some layers"
CUT = "gradient was cut"
UNUSED = "layer never used"
LOW_ALPHA = "default alpha at high rank"
ROUNDED = "update too small"
NO_EFFECT = "no effect on this base"

REMEDIES = read_json(Path(__file__).with_name("remedies.json"))


class Refused(BadValue):
    """The error for an adapter file that cannot be used. The attribute `fault` holds the name of the fault."""

    def __init__(self, message: str, fault: str) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True)
class Problem:
    """A fault, its location, the evidence for it, and how to fix it."""

    name: str
    where: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name} ({self.where}): {self.why}. {self.remedy[0].upper()}{self.remedy[1:]}."
