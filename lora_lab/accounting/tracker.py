"""Which bytes are live, and what they are for: exact, on real tensors and on fake ones that hold nothing.

Every tensor lives in a storage, and several tensors may share one. The tracker is told of every operation, follows the
storages that come out of it, and hears through a weak reference when each is freed. Sums over what lives are therefore
what an allocator would have handed out, without rounding, caching or fragmentation.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ACTIVATIONS, TEMPORARIES, LOGITS = "activations", "temporaries", "logits"
WEIGHTS, GRADIENTS, OPTIMIZER = "weights", "gradients", "optimizer"


class Tracker(TorchDispatchMode):
    """Inside the block, `live` is the bytes alive now, `peak` the most there were, `at_peak` their categories then.

    What is born belongs to the phase it is born in ("forward": activations, else temporaries), unless it has the
    vocabulary as its last size (logits) or is claimed by `claim` (weights, gradients, optimizer states).
    """

    def __init__(self, vocabulary: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.vocabulary, self.phase = vocabulary, "build"
        self.live = self.peak = 0
        self.by_category: Counter[str] = Counter()
        self.at_peak: dict[str, int] = {}
        self.phase_peaks: dict[str, int] = {}
        self.peak_phase = self.phase
        self._known: dict[int, tuple[int, str, Any]] = {}  # storage -> bytes, category, weak reference

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        self._note_peak()
        return out

    def enter(self, phase: str) -> None:
        """What follows belongs to this phase."""
        self.phase = phase

    def claim(self, tensors: Iterable[Tensor], category: str) -> None:
        """Say what tensors are for, whenever they were made; those made before the tracker began count from now on."""
        for tensor in tensors:
            self._move(tensor, category)
        self._note_peak()

    def claim_model(self, model: nn.Module) -> None:
        """Claim a model's parameters and buffers as weights, and each gradient as soon as it is there."""
        self.claim([*model.parameters(), *model.buffers()], WEIGHTS)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._claim_gradient)

    def forget_peak(self) -> None:
        """Begin anew: the peak is what lives now."""
        self.peak, self.at_peak, self.phase_peaks, self.peak_phase = 0, {}, {}, self.phase
        self._note_peak()

    def _claim_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self._move(parameter.grad, GRADIENTS)

    def _category(self, tensor: Tensor) -> str:
        if self.vocabulary and tensor.dim() > 1 and tensor.shape[-1] == self.vocabulary:
            return LOGITS
        return ACTIVATIONS if self.phase == "forward" else TEMPORARIES

    def _add(self, tensor: Tensor, category: str | None = None) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or size == 0:
            return
        category = category or self._category(tensor)
        self._known[key] = (size, category, weakref.ref(storage, lambda _: self._free(key)))
        self._count(category, size)

    def _free(self, key: int) -> None:
        size, category, _ = self._known.pop(key)
        self._count(category, -size)

    def _move(self, tensor: Tensor, category: str) -> None:
        key = tensor.untyped_storage()._cdata
        if key not in self._known:
            self._add(tensor, category)
            return
        size, old, reference = self._known[key]
        self._known[key] = (size, category, reference)
        self.by_category[old] -= size
        self.by_category[category] += size

    def _count(self, category: str, size: int) -> None:
        self.live += size
        self.by_category[category] += size

    def _note_peak(self) -> None:
        self.phase_peaks[self.phase] = max(self.phase_peaks.get(self.phase, 0), self.live)
        if self.live > self.peak:
            self.peak, self.peak_phase, self.at_peak = self.live, self.phase, dict(+self.by_category)
