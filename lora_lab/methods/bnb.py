"""bitsandbytes as the fast path, where it is installed: its kernel turns NF4 back in one go, on CPU and on CUDA.

Codes and scales are laid out as bitsandbytes lays them out, so its kernels read ours, and give the same bits.
"""

from __future__ import annotations

import logging
import sys
import warnings
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from lora_lab.methods.formats import BLOCK
from lora_lab.methods.quantize import Quantized


@lru_cache(maxsize=1)
def module() -> ModuleType | None:
    """bitsandbytes, or None where it is not installed or does not start.

    While it starts it may ask a hub for kernels, if the package `kernels` is there: nothing is fetched here, so that
    package is hidden from it.
    """
    logger = logging.getLogger("bitsandbytes")
    level, hidden = logger.level, sys.modules.get("kernels")
    try:
        sys.modules["kernels"] = None  # type: ignore[assignment]
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import bitsandbytes
    except Exception:  # a library that is missing or for another CUDA: there is our own way
        return None
    finally:
        logger.setLevel(level)
        sys.modules.pop("kernels")
        if isinstance(hidden, ModuleType):
            sys.modules["kernels"] = hidden
    return bitsandbytes


def can_dequantize(held: Quantized) -> bool:
    """Whether its kernel takes this weight: NF4, whole blocks, on CPU or CUDA."""
    where = held.packed.device.type in ("cpu", "cuda") and held.shape[-1] % BLOCK == 0
    return where and held.format.name.startswith("nf4") and module() is not None


def dequantized(held: Quantized, dtype: torch.dtype) -> Tensor:
    """What `held.dequantized(dtype)` gives."""
    kernel = torch.ops.bitsandbytes.dequantize_4bit.default
    return kernel(held.packed[:, None], held.block_scales(), BLOCK, "nf4", held.shape, dtype)
