"""Names of the faults that adapters can have, and their remedies. Users have reported every one of these faults.

Reading a file raises `Refused` with one of these names; `inspect` reports every fault as a `Problem`.
"""

from __future__ import annotations

from dataclasses import dataclass

from lora_lab.errors import BadValue

EMPTY = "empty file"
TRUNCATED = "truncated file"
PICKLE = "a pickle"
DAMAGED = "damaged file"
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
    EMPTY: "train again and save with save_adapter, or with PEFT's save_pretrained without passing a state_dict; check "
    "the size of the file before you release the machine",
    TRUNCATED: "copy the file again and compare the sizes, or use the previous checkpoint",
    PICKLE: "ask the author for a safetensors file; do not load a pickle from a source that you do not trust",
    DAMAGED: "copy the file again, or save it again with safetensors",
    SETTINGS: "use the adapter_config.json of the run that wrote the weights",
    NOT_FINITE: "use a checkpoint from before the loss became NaN, and train with a lower learning rate or in bf16",
    WRONG_DTYPE: "save the adapter in fp32 or bf16",
    RENAMED: "rename the keys to base_model.model.<module>.lora_A.weight, and unwrap the model before saving",
    MISSING: "save the whole adapter again; in sharded training, gather the shards first",
    TOO_MANY: "save only the adapter for this base: in PEFT, pass save_embedding_layers=False and name every adapted "
    "layer in target_modules",
    WRONG_BASE: "load the base model that the adapter was trained on",
    ZERO_B: "the adapter was saved before it was trained: save the model again after training",
    SOME_ZERO: "run inspect with --base to find out whether the model uses these layers",
    CUT: "with gradient checkpointing, pass use_reentrant=False or call model.enable_input_require_grads(); after the "
    "first backward pass, check that B has a gradient",
    UNUSED: "remove the layer from the targets: its adapter takes memory and cannot learn",
    LOW_ALPHA: "check that you want this scale: alpha / rank shrinks as the rank grows; if you change alpha, tune the "
    "learning rate again",
    ROUNDED: "keep the adapter, and the weights that it is merged into, in fp32",
    NO_EFFECT: "check that B is not zero and that this is the right base",
}


class Refused(BadValue):
    """An unusable adapter file. `fault` is the name of the fault."""

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
