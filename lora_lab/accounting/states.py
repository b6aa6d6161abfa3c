"""What lives through the whole step: weights, the optimizer's states, and at its end all gradients. Bytes."""

from __future__ import annotations

from functools import lru_cache

from lora_lab.accounting.models import Architecture, Module, task_head
from lora_lab.accounting.operations import bytes_per_weight
from lora_lab.accounting.plan import Plan
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.tape import Label

WEIGHTS: Label = ("weights", "base", "numbers · b")
ADAPTERS: Label = ("weights", "what is added to the base", "numbers · bytes each")
MOMENTS: Label = ("optimizer", "AdamW's two moments", "2 · bytes that train")
EIGHT_BIT: Label = ("optimizer", "AdamW's two moments in 8 bits", "numbers · (2 + 8/256)")
GRADIENTS: Label = ("gradients", "all gradients", "bytes that train")
STEP: Label = ("temporaries", "the optimizer's arithmetic", "2 · largest parameter, or with foreach all of them")
SMALL = 4096  # numbers: bitsandbytes keeps the moments of smaller parameters in fp32


class States:
    """Bytes of weights, of what trains and of the optimizer, on one of the devices that they are divided over."""

    def __init__(self, a: Architecture, plan: Plan, setup: Setup, labels: int) -> None:
        self.sharded, self.devices = setup.shard.partition(":")[0], setup.devices
        quantised = _quantised_numbers(a) if setup.quantised != "none" else 0
        head = sum(m.parameters for m in task_head(a, labels))
        total = _total(a, head)
        width = setup.width if plan.everything else setup.own_width  # of what trains but for a head, which is in fp32
        if plan.everything:
            added, self.trained = 0, total * width
        else:
            added = (plan.parameters + plan.kept) * width + head * 4
            self.trained = plan.parameters * width + head * 4
        weights = {
            WEIGHTS: (total - quantised) * setup.width + _buffers(a),
            _quantised_as(setup): round(quantised * bytes_per_weight(setup)),
            ADAPTERS: added,
        }
        self.weights = {label: size // (self.devices if self.all_divided else 1) for label, size in weights.items()}
        moments, states, self.step = MOMENTS, 2 * self.trained, 0
        if setup.optimizer == "sgd":
            states = 0
        elif setup.optimizer == "adamw-8bit":
            numbers = [n for n, _ in _tensors(a, plan, labels, width)]
            moments, states = EIGHT_BIT, round(sum(n * (2 + 8 / 256) if n >= SMALL else n * 8 for n in numbers))
        elif setup.optimizer == "adamw-foreach":
            self.step = self.trained
        elif setup.optimizer == "adamw":
            self.step = _loop(_tensors(a, plan, labels, width, once=True))
        self.optimizer = {moments: states // self.devices}

    @property
    def all_divided(self) -> bool:
        """Whether the weights are divided over the devices too, as zero3 and fsdp do."""
        return self.sharded in ("zero3", "fsdp")

    def steady(self) -> dict[Label, int]:
        """Weights and optimizer, which live from the first moment to the last."""
        return self.weights | self.optimizer

    def spread(self, gradients: int) -> int:
        """Gradients that have been made, as far as this device keeps them: zero1 divides the optimizer alone."""
        return gradients // self.devices if self.all_divided or self.sharded == "zero2" else gradients

    def stepping(self) -> dict[Label, int]:
        """What the optimizer's step adds."""
        return {GRADIENTS: self.spread(self.trained), STEP: self.step // self.devices}


def _quantised_as(setup: Setup) -> Label:
    """In NF4: 4.127 bits a number, or 4.5 without double quantisation."""
    form = setup.quantised.partition("-")[0].upper()
    return "weights", f"base's linear layers in {form}", f"numbers · {8 * bytes_per_weight(setup):.4g} bits"


def _loop(tensors: list[tuple[int, int]]) -> int:
    """Bytes that AdamW's loop needs: a root and a quotient as large as the parameter, and the last one's quotient."""
    sizes = [numbers * width for numbers, width in tensors]
    return max((2 * size + last for last, size in zip([0, *sizes], sizes, strict=False)), default=0)


@lru_cache(maxsize=256)
def _quantised_numbers(a: Architecture) -> int:
    """Numbers in the linear layers inside the layers, which bitsandbytes quantises; embeddings and head stay."""
    kinds = ("linear", "conv1d")
    return sum(m.weight * m.count for m in a.modules if m.numbers and m.kind in kinds and m.role != "router")


def _buffers(a: Architecture) -> int:
    """The tables of position and type numbers that BERT and its kin hold in int64."""
    return 2 * 8 * a.positions if a.task == "encoder" else 0


def _total(a: Architecture, head: int) -> int:
    """Numbers of the model that trains: an encoder with its head, for which RoBERTa gives up its pooler."""
    pooler = sum(m.parameters for m in a.modules if m.role == "pooler") if "roberta" in a.model_type else 0
    return a.total - a.head_parameters - pooler + head


def _copies(m: Module) -> int:
    """How many tensors of this kind the model has: transformers 5 keeps the experts of a layer in one."""
    return len(m.numbers) if m.expert else m.count


def _numbers(m: Module) -> tuple[int, int]:
    """Numbers in the weight and in the bias; of experts those of all, gate and up together."""
    if not m.expert:
        return m.weight, m.biases
    together = m.each * {"gate": 2, "up": 0}.get(m.role, 1)
    return m.weight * together, m.biases * together


def _tensors(a: Architecture, plan: Plan, labels: int, width: int, *, once: bool = False) -> list[tuple[int, int]]:
    """Numbers in each tensor that trains and bytes of one, in the order of the model; with `once` each kind one time.

    A head beside a frozen base trains in fp32 whatever `width` is.
    """
    head = [n for m in task_head(a, labels) for n in (m.weight, m.biases) if n]
    if plan.everything:
        each = (m for m in a.modules if not m.tied and not m.in_task_head)
        found = [n for m in each for _ in range(1 if once else _copies(m)) for n in _numbers(m) if n]
        return [(n, width) for n in [*found, *head]]
    return [(n, width) for n in _own(a, plan, once)] + [(n, 4) for n in head]


def _own(a: Architecture, plan: Plan, once: bool) -> list[int]:
    """Numbers in each tensor that a method trains on a frozen base."""
    if plan.biases:
        each = (m for m in a.modules if m.bias and not m.in_task_head)
        return [m.biases for m in each for _ in range(1 if once else _copies(m))]
    layers = {id(layer): layer for layer in plan.layers}.values() if once else plan.layers
    inside = [n for layer in layers for _, some in layer for x in some for n in x.tensors]
    return inside or list(plan.tensors) or [plan.parameters] * (plan.parameters > 0)
