"""Track exactly which bytes are live and what they are for, with real tensors or with tensors that have no data.

The tracker sees every operation and follows the storages of its outputs. Several tensors may share a storage. A weak
reference signals when a storage is freed. So the tracker counts the bytes that tensors need, without the allocator's
rounding and caching.
"""

import re
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lora_lab.accounting.setup import Label, Moment

# FLOPs by operation: PyTorch's own counts, plus the in-place product of the lab's LoRA, attention with fewer key heads
# than query heads (torch 2.6 doesn't count it), and attention on a CPU (torch 2.13 doesn't count it).
aten = torch.ops.aten
FLOPS = flop_registry | {aten.addmm_: flop_registry[aten.addmm]}
for device in ("", "_for_cpu"):
    attention = f"_scaled_dot_product_flash_attention{device}"
    FLOPS[getattr(aten, attention)] = lambda q, k, *_, **__: 4 * q.numel() * k.shape[-2]
    FLOPS[getattr(aten, f"{attention}_backward")] = lambda g, q, k, *_, **__: 10 * q.numel() * k.shape[-2]


class Tracker(TorchDispatchMode):
    """Record a moment in `moments` whenever the live bytes change, and count the FLOPs of matrix products in `flops`.

    A storage made in "forward" is an activation, and a storage made later is a temporary, unless its last dimension is
    the vocabulary (logits) or `claim` labels it. The label also names the module, such as "model.layers.*.mlp".
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.vocabulary, self.phase = 0, "build"
        self.moments: list[Moment] = []
        self.flops = 0
        self.events: list[tuple[int, int]] = []  # (storage number, bytes) when allocated, (number, 0) when freed
        self.live: dict[Label, int] = {}
        self._storages: dict[int, tuple[int, Label, int, Any]] = {}  # bytes, label, number, weak reference
        self._paths: list[str] = [""]  # paths of modules whose forward is running, innermost last
        self._path_of: dict[int, str] = {}  # autograd sequence number -> path of the module that made the node
        self._path, self._changed = "", False
        self._layouts: dict[Any, Any] = {}  # layouts of the outputs of operations without data

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = self._run(func, args, kwargs or {})
        node = torch._C._current_autograd_node()
        if node is None or len(self._paths) > 1:  # forward, or rerun by checkpointing
            self._path = self._paths[-1]
            number = torch.autograd._get_sequence_nr() - 1  # type: ignore[attr-defined]
            self._path_of.setdefault(number, self._path)  # an operation without a node uses the previous path
        else:  # backward: use the module whose forward made the running node
            self._path = self._path_of.get(node._sequence_nr(), self._path)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._follow(leaf)
        self._note(str(func))
        if flops_of := FLOPS.get(func._overloadpacket):
            self.flops += flops_of(*args, **(kwargs or {}), out_val=out)
        return out

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call an operation. If the same call came before, without data, only allocate: computing layouts is slow."""
        try:
            key = func, _layout(args), _layout(tuple(kwargs.items()))
            if known := self._layouts.get(key):
                return torch.empty_strided(*known[:2], dtype=known[2], device="meta")
        except TypeError:  # real data, or an argument that cannot be hashed
            return func(*args, **kwargs)
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and out.is_meta and not func._schema.returns[0].alias_info:
            storage = out.untyped_storage()
            if storage._cdata not in self._storages and storage.nbytes() == out.numel() * out.element_size():
                self._layouts[key] = _layout(out)
        return out

    def enter(self, phase: str) -> None:
        """Start a phase and record the memory at its start."""
        self.phase, self._path, self._changed = phase, "", True
        self._note("enter")

    def restart(self) -> None:
        """Discard the moments and FLOPs recorded so far. Live storages stay live."""
        self.moments, self.flops = [], 0

    def claim(self, tensors: Iterable[Tensor], category: str, where: str) -> None:
        """Label tensors. Tensors that were made before the tracker started are counted from this call on."""
        for tensor in tensors:
            self._follow(tensor, (category, where))
        self._note("claim")

    def claim_model(self, model: nn.Module, parts: Mapping[str, str]) -> list[nn.Parameter]:
        """Label parameters and buffers as weights, label gradients once they exist, and track which module is running.

        parts   The part that each parameter and buffer belongs to, such as "base"; see `prepare` in `trace.py`.
        Return the trainable parameters.
        """
        self.vocabulary = getattr(model.config, "vocab_size", 0)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self._follow(tensor, ("weights", parts[name]))
            if tensor.requires_grad:
                label = ("gradients", parts[name])
                tensor.register_post_accumulate_grad_hook(lambda p, label=label: self._follow(p.grad, label))
        for path, module in model.named_modules():
            # Don't use a forward hook: an adapted layer copies an output that a hook might keep.
            shown = f"{path}.adapter" if hasattr(module, "base_layer") else path.replace(".base_layer", "")
            module.forward = self._inside(shown)(module.forward)
        self._note("claim")
        return [p for p in model.parameters() if p.requires_grad]

    @contextmanager
    def _inside(self, path: str) -> Iterator[None]:
        self._paths.append(path)
        try:
            yield
        finally:
            self._paths.pop()

    def _note(self, op: str) -> None:
        if self._changed:
            self.moments.append(Moment(self.phase, self._path, self.live.copy(), op))
            self._changed = False

    def _follow(self, tensor: Any, label: Label | None = None) -> None:
        """Count a storage once, when its first tensor appears. A later label replaces the first label."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        entry = self._storages.get(key)
        if size == 0 or (entry and not label):
            return
        if not label:
            logits = tensor.is_floating_point() and tensor.dim() > 1 and tensor.shape[-1] == self.vocabulary
            made = "activations" if self.phase == "forward" else "temporaries"
            label = "logits" if logits else made, block(self._path)
        if entry:
            _, old, number, reference = entry
            self.live[old] -= size
        else:
            number, reference = len(self.events), weakref.ref(storage, lambda _: self._free(key))
            self.events.append((number, size))
        self._storages[key] = (size, label, number, reference)
        self.live[label] = self.live.get(label, 0) + size
        self._changed = True

    def _free(self, key: int) -> None:
        size, label, number, _ = self._storages.pop(key)
        self.events.append((number, 0))
        self.live[label] -= size
        self._changed = True


def _layout(value: Any) -> Any:
    """Return everything that an operation's outputs depend on: shapes, strides and dtypes, and non-tensor values."""
    if isinstance(value, Tensor):
        if not value.is_meta:
            raise TypeError
        return value.shape, value.stride(), value.dtype
    return tuple(map(_layout, value)) if isinstance(value, (list, tuple)) else (type(value), value)


@cache
def block(path: str) -> str:
    """Return the part of the model that a module belongs to: "model.layers.3.mlp.up_proj" -> "model.layers.*.mlp"."""
    match = re.match(r"(.*?)\.(\d+)(\.[a-zA-Z_]\w*)?", path)
    part = f"{match[1]}.*{match[3] or ''}" if match else path
    return f"{part}.adapter" if path.endswith(".adapter") and not part.endswith(".adapter") else part
