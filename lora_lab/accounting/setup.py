"""Under what conditions a step is taken: everything that memory and time depend on besides the model and the method."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lora_lab.errors import BadValue
from lora_lab.methods.formats import BLOCK, NESTED, QUANTISED_BITS

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
OPTIMIZERS = ("adamw", "adamw-foreach", "adamw-fused", "adamw-8bit", "sgd")
ADAPTERS = ("auto", *BYTES)
QUANTISED = ("none", *QUANTISED_BITS)
DEVICES = ("cuda", "cpu", "mps")
SHARDS = ("zero1", "zero2", "zero3", "fsdp")


@dataclass(frozen=True)
class Setup:
    """One training step: forward, loss, backward, optimizer step.

    batch          rows
    seq            tokens a row, padding included: the longest batch makes the peak
    dtype          of the base's weights and of the activations: fp32, bf16, fp16
    adapter_dtype  of what trains beside a frozen base. auto: fp32, multiplied in the base's dtype, as this lab trains;
                   bf16: all in bf16; fp32: multiplied in fp32 too, as PEFT does, which copies each adapted input
    master_weights the optimizer keeps an fp32 copy of every half-precision weight that trains, and steps that
    optimizer      adamw (parameter by parameter), adamw-foreach (PyTorch's default on a GPU), adamw-fused,
                   adamw-8bit (bitsandbytes), sgd (without momentum)
    checkpointing  keep only each block's input, and run the block again in backward
    dropout        the model's own dropout probability; 0 switches it off
    quantised      the frozen linear layers: none, nf4 (with double quantisation), nf4-single (without), int8, int4,
                   nf3, nf2 (with)
    padded         rows of unequal length: attention gets a mask, which changes its kernel
    outputs_kept   the loop still holds the model's outputs (logits, keys and values) during backward and step, as
                   `outputs = model(...)` with `use_cache` does; without it only the loss is held
    device         whose kernels: cuda (flash or memory-efficient attention, 1-byte dropout masks) or cpu; a step on
                   mps can be measured only
    shard          "" or kind:n, such as fsdp:8: weights, gradients and optimizer divided over n devices
    Raises: BadValue for an impossible value, naming it.
    """

    batch: int = 1
    seq: int = 512
    dtype: str = "bf16"
    adapter_dtype: str = "auto"
    optimizer: str = "adamw"
    checkpointing: bool = False
    dropout: float = 0.0
    quantised: str = "none"
    padded: bool = False
    outputs_kept: bool = False
    device: str = "cuda"
    shard: str = ""
    master_weights: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "seq"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise BadValue(f"{name} must be a whole number of at least 1, not {value!r}")
        for name, known in (
            ("dtype", BYTES),
            ("adapter_dtype", ADAPTERS),
            ("optimizer", OPTIMIZERS),
            ("quantised", QUANTISED),
            ("device", DEVICES),
        ):
            one_of(name, getattr(self, name), known)
        if not 0 <= self.dropout < 1:
            raise BadValue(f"dropout must be at least 0 and below 1, not {self.dropout!r}")
        self.devices  # noqa: B018  # raises for a shard that cannot be read

    @property
    def tokens(self) -> int:
        """Tokens in the batch."""
        return self.batch * self.seq

    @property
    def width(self) -> int:
        """Bytes of one activation."""
        return BYTES[self.dtype]

    @property
    def devices(self) -> int:
        """Over how many devices the states are divided; 1 without sharding."""
        if not self.shard:
            return 1
        kind, _, n = self.shard.partition(":")
        one_of("the kind of shard", kind, SHARDS)
        if not (n.isascii() and n.isdecimal()) or int(n) < 1:  # ² is a digit, and no number
            raise BadValue(f"shard is kind:devices, such as fsdp:8, not {self.shard!r}")
        return int(n)

    def check_modelled(self) -> None:
        """Raises: BadValue for a device whose kernels a trace does not know."""
        if self.device == "mps":
            raise BadValue("what Apple's kernels keep is not modelled: measure a step there, or ask for device cpu")


def one_of(name: str, value: object, known: Collection[str]) -> None:
    """Raises: BadValue naming the values there are."""
    if value not in known:
        raise BadValue(f"{name} must be one of {', '.join(known)}, not {value!r}")


def bits_per_weight(form: str) -> float:
    """Of a frozen linear weight in a quantized form: its code and, a block of 64, an absmax: fp32, or itself 8 bits.

    NF4: 4 + 32/64 = 4.5 bits; with double quantization 4 + 8/64 + 32/(64 x 256) = 4.127. Dettmers et al. 2023.
    """
    absmax = 32 / BLOCK if form.endswith("-single") else 8 / BLOCK + 32 / (BLOCK * NESTED)
    return QUANTISED_BITS[form] + absmax
