"""The conditions of one training step: everything its memory depends on besides the model and the method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lora_lab.errors import BadValue
from lora_lab.methods.base import one_of, whole
from lora_lab.methods.targets import QUANTISED_BITS

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
OPTIMIZERS = ("adamw", "adamw-foreach", "adamw-fused", "adamw-8bit", "sgd")
SHARDED = {  # which categories each kind of sharding divides
    "zero1": ("optimizer",),
    "zero2": ("optimizer", "gradients"),
    "zero3": ("optimizer", "gradients", "weights"),
    "fsdp": ("optimizer", "gradients", "weights"),
}
KNOWN = {
    "dtype": tuple(BYTES),
    "adapter_dtype": ("auto", *BYTES),
    "optimizer": OPTIMIZERS,
    "quantised": ("none", *QUANTISED_BITS),
    "device": ("cuda", "cpu", "mps"),
}


@dataclass(frozen=True)
class Setup:
    """One training step: forward, loss, backward, optimizer step.

    batch, seq      rows, and tokens a row with padding: the longest batch makes the peak
    dtype           of the base's weights and of the activations: fp32, bf16, fp16
    adapter_dtype   of what trains beside a frozen base. auto: fp32, multiplied in the base's dtype, as this lab trains;
                    bf16: all in bf16; fp32: multiplied in fp32 too, as PEFT does, which copies each adapted input
    optimizer       adamw (parameter by parameter), adamw-foreach (PyTorch's default on a GPU), adamw-fused,
                    adamw-8bit (bitsandbytes), sgd (without momentum)
    checkpointing   keep only each block's input, and run the block again in backward
    dropout         the model's own dropout probability; 0 switches it off
    quantised       the frozen linear layers: none, nf4 (with double quantization), nf4-single (without), int8, int4,
                    nf3, nf2 (with)
    padded          rows of unequal length: attention gets a mask, which changes its kernel
    outputs_kept    the loop still holds the model's outputs (logits, keys and values) during backward and step, as
                    `outputs = model(...)` with `use_cache` does; without it only the loss is held
    device          whose kernels: cuda (flash or memory-efficient attention, 1-byte dropout masks) or cpu; a step on
                    mps can only be measured
    shard           "" or kind:n, such as fsdp:8: weights, gradients and optimizer divided over n devices
    master_weights  the optimizer keeps an fp32 copy of every half-precision weight that trains, and steps that
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
            whole(name, getattr(self, name))
        for name, known in KNOWN.items():
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
        one_of("the kind of shard", kind, tuple(SHARDED))
        if not (n.isascii() and n.isdecimal()) or int(n) < 1:  # ² is a digit, and no number
            raise BadValue(f"shard is kind:devices, such as fsdp:8, not {self.shard!r}")
        return int(n)


def optimizer_states(numbers: int, width: int, setup: Setup) -> list[int]:
    """Bytes of each tensor that the optimizer keeps for a weight of so many numbers, `width` bytes each.

    AdamW keeps two moments and a counter; bitsandbytes' AdamW one byte a moment and an fp32 scale per 256 numbers,
    but fp32 moments for fewer than 4,096 numbers; master weights add an fp32 copy.
    """
    copy = [4 * numbers] if setup.master_weights and width < 4 else []
    width = 4 if copy else width
    if setup.optimizer == "sgd":
        return copy
    if setup.optimizer == "adamw-8bit":
        return copy + (2 * [4 * numbers] if numbers < 4096 else 2 * [numbers, 4 * -(-numbers // 256)])
    return [*copy, width * numbers, width * numbers, 4]


def optimizer_temporaries(weights: Sequence[tuple[int, int, int]], setup: Setup) -> list[int]:
    """Bytes of the tensors that are alive at once, at most, while all weights are stepped.

    weights   (numbers, bytes per number, how many of these) in the model's order
    PyTorch's AdamW makes two temporaries parameter by parameter while it still holds one of the parameter before, one
    of each with foreach, a dtype at a time, and none when fused. Master weights widen all gradients before the step.
    """
    widened = [4 * n for n, width, count in weights for _ in range(count) if setup.master_weights and width < 4]
    if setup.master_weights:
        weights = [(n, 4, count) for n, _, count in weights]
    if setup.optimizer == "adamw":
        each = [n * width for n, width, _ in weights]
        return widened + max(([before, own, own] for before, own in zip([0, *each], each, strict=False)), key=sum)
    if setup.optimizer == "adamw-foreach":
        widths = {width for _, width, _ in weights}
        groups = [[n * width for n, width, count in weights for _ in range(count) if width == own] for own in widths]
        return widened + max(groups, key=sum)
    return widened


def optimizer_bytes(trained: Sequence[Sequence[int]], rank: int, setup: Setup) -> tuple[int, int]:
    """Bytes of the optimizer's states and of its temporaries in a step; `trained` as in `Fit`."""
    weights = [(number + slope * rank, width, count) for number, slope, width, count in trained]
    states = sum(count * sum(optimizer_states(number, width, setup)) for number, width, count in weights)
    return states, sum(optimizer_temporaries(weights, setup))
