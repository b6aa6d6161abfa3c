"""FLOPs of matrix products, counted by torch while they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def operations(way: Callable[[], object]) -> int:
    """Multiplications and additions in the matrix products that `way()` runs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def product(_: Any, a: tuple[int, int], b: tuple[int, int], **__: Any) -> int:
        return 2 * a[0] * a[1] * b[1]  # of shapes; LoRA adds in place, which torch's counter does not know

    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: product}) as counter:
        way()
    return int(counter.get_total_flops())
