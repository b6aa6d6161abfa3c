"""The setup of a training step: everything that its memory depends on, besides the model and the method."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lora_lab.errors import BadValue
from lora_lab.methods.base import is_number, make_plain, one_of, whole
from lora_lab.methods.targets import QUANTIZED_BITS

STEP = "the optimizer's step"
PHASES = ("forward", "backward", STEP)
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
OPTIMIZERS = ("adamw", "adamw-foreach", "adamw-fused", "adamw-8bit", "sgd")
SHARDED = {  # the categories that each kind of sharding splits
    "zero1": ("optimizer",),
    "zero2": ("optimizer", "gradients"),
    **dict.fromkeys(("zero3", "fsdp"), ("optimizer", "gradients", "weights")),
}
KNOWN = {
    "dtype": tuple(BYTES),
    "adapter_dtype": ("auto", *BYTES),
    "optimizer": OPTIMIZERS,
    "quantized": ("none", *QUANTIZED_BITS),
    "device": ("cuda", "cpu", "mps"),
    **dict.fromkeys(("checkpointing", "padded", "outputs_kept", "master_weights"), (False, True)),
}

Label = tuple[str, str]  # a storage's category, and the module that allocated it


class Moment(NamedTuple):
    """The live bytes after an operation, by label or category. `path` is the running module."""

    phase: str
    path: str
    bytes: Mapping[Any, int]
    op: str = ""


@dataclass(frozen=True)
class Setup:
    """One training step: forward, loss, backward, optimizer step.

    batch, seq      The number of rows, and the tokens per row including padding. The longest batch sets the peak.
    dtype           The dtype of the base's weights and of the activations: fp32, bf16 or fp16.
    adapter_dtype   The dtype of adapters on a frozen base: auto (stored in fp32 but multiplied in the base's dtype, as
                    in this lab), bf16, or fp32 (also multiplied in fp32, which copies each adapted input, as in PEFT).
    optimizer       adamw (parameter by parameter), adamw-foreach (PyTorch's default on a GPU), adamw-fused,
                    adamw-8bit (bitsandbytes) or sgd (without momentum).
    checkpointing   Whether to save only the input of each block, and to rerun the block in backward.
    dropout         The model's own dropout probability. 0 disables dropout.
    quantized       How frozen linear layers are stored: none, nf4, nf3 or nf2 (with double quantization), nf4-single
                    (without it), int8 or int4.
    padded          Whether rows have unequal lengths. If so, attention gets a mask and uses a different kernel.
    outputs_kept    Whether the loop holds the model's outputs (logits, keys and values) until the step ends.
    device          The device whose kernels run: cuda (flash or memory-efficient attention, 1-byte dropout masks) or
                    cpu. A step on mps can only be measured.
    shard           "" or kind:n, such as fsdp:8, which splits weights, gradients and optimizer states over 8 devices.
    master_weights  Whether the optimizer keeps and updates an fp32 copy of every trainable half-precision weight.
    num_labels      The number of classes in an encoder's head.
    Raises: BadValue for an invalid value.
    """

    batch: int = 1
    seq: int = 512
    dtype: str = "bf16"
    adapter_dtype: str = "auto"
    optimizer: str = "adamw"
    checkpointing: bool = False
    dropout: float = 0.0
    quantized: str = "none"
    padded: bool = False
    outputs_kept: bool = False
    device: str = "cuda"
    shard: str = ""
    master_weights: bool = False
    num_labels: int = 2

    def __post_init__(self) -> None:
        make_plain(self)
        for name in ("batch", "seq", "num_labels"):
            whole(name, getattr(self, name))
        for name, choices in KNOWN.items():
            one_of(name, getattr(self, name), choices)
        if not (is_number(self.dropout) and 0 <= self.dropout < 1):
            raise BadValue(f"dropout must be at least 0 and below 1, not {self.dropout!r}")
        kind, _, n = str(self.shard).partition(":")
        if self.shard != "":
            one_of("the kind of shard", kind, tuple(SHARDED))
            if not re.fullmatch(r"0*[1-9]\d{0,5}", n):
                raise BadValue(f"shard must be kind:devices, such as fsdp:8, not {self.shard!r}")

    @property
    def tokens(self) -> int:
        """The number of tokens in the batch."""
        return self.batch * self.seq

    @property
    def width(self) -> int:
        """The bytes per number in an activation."""
        return BYTES[self.dtype]


def optimizer_states(numbers: int, width: int, setup: Setup) -> list[int]:
    """Return the bytes of each optimizer state for a weight of `numbers` elements of `width` bytes.

    AdamW keeps two moments and a step counter. bitsandbytes' AdamW stores moments in one byte, with an fp32 scale per
    256 elements. The moments of tensors below 4,096 elements stay in fp32. Master weights add an fp32 copy.
    """
    copy = [4 * numbers] if setup.master_weights and width < 4 else []
    width = 4 if copy else width
    if setup.optimizer == "sgd":
        return copy
    if setup.optimizer == "adamw-8bit":
        return copy + 2 * ([4 * numbers] if numbers < 4096 else [numbers, 4 * -(-numbers // 256)])
    return [*copy, width * numbers, width * numbers, 4]


def optimizer_temporaries(weights: Sequence[tuple[int, int, int]], setup: Setup) -> list[int]:
    """Return the bytes of each temporary tensor that is live at the peak of the optimizer's step.

    weights   (elements, bytes per element, count) triples, in the model's order.
    AdamW makes two temporaries per parameter while one from the previous parameter is still live.
    AdamW-foreach makes one per parameter, for one dtype at a time. Fused AdamW makes none. With master weights,
    gradients are first cast to fp32.
    """
    widened = [4 * n for n, width, count in weights for _ in range(count) if setup.master_weights and width < 4]
    weights = [(n, 4 if setup.master_weights else width, count) for n, width, count in weights]
    if setup.optimizer == "adamw":
        sizes = [n * width for n, width, _ in weights]
        return widened + max(([last, n, n] for last, n in zip([0, *sizes], sizes, strict=False)), key=sum)
    if setup.optimizer == "adamw-foreach":
        by_width = defaultdict[int, list[int]](list)
        for n, width, count in weights:
            by_width[width] += count * [n * width]
        return widened + max(by_width.values(), key=sum)
    return widened
