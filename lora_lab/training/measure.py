"""Measure the memory of a real training step.

Memory depends only on the weights' shapes, so the model is built from its config with random weights. On CPU and MPS,
the storages of tensors are tracked. On CUDA, the allocator reports what it gave to tensors ("allocated") and what it
took from the driver ("reserved").
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lora_lab.accounting.memory import Estimate, of_moments
from lora_lab.accounting.models import config_of
from lora_lab.accounting.setup import Moment, Setup
from lora_lab.accounting.trace import build, follow, forward_backward, prepare
from lora_lab.errors import BadValue
from lora_lab.training.device import available_devices


def measure(model: Any, method: Any, **setup: Any) -> Estimate:
    """Measure the peak memory of a real training step on this machine. `device` is cpu, cuda or mps.

    peak       The peak bytes of live tensors. On CUDA, sizes are rounded up to multiples of 512 bytes ("allocated").
    reserved   The peak bytes that CUDA's allocator took from the driver; on MPS, the bytes at the end; on a CPU, None.
    Quantized models use this lab's own layers.
    Raises: BadValue for a sharded step, an 8-bit optimizer, master weights, or a missing GPU; see also `memory`.
    """
    conditions = Setup(**{"device": "cpu", **setup})
    if conditions.shard or conditions.optimizer == "adamw-8bit" or conditions.master_weights:
        raise BadValue("only steps on one device with PyTorch's own optimizers can be measured")
    if conditions.device not in available_devices():
        raise BadValue(f"this machine has no {conditions.device} device: use device='cpu', or trace the step for cuda")
    network = build(config_of(model), conditions).to(conditions.device)
    if conditions.device != "cuda":
        tracker = follow(network, method, conditions, partial(optimizer_of, name=conditions.optimizer))
        reserved = torch.mps.driver_allocated_memory() if conditions.device == "mps" else None
        return of_moments(tracker.moments, "measured", flops=tracker.flops, reserved=reserved)
    prepare(network, method, conditions)
    optimizer = optimizer_of([p for p in network.parameters() if p.requires_grad], conditions.optimizer)
    for _ in range(2):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        outputs = forward_backward(network, conditions)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        del outputs
    torch.cuda.synchronize()
    label = "allocated", "torch.cuda.max_memory_allocated over the second step"
    moment = Moment("", "", {label: torch.cuda.max_memory_allocated()})
    return of_moments([moment], "measured", reserved=torch.cuda.max_memory_reserved())


def optimizer_of(trained: Sequence[Tensor], name: str) -> torch.optim.Optimizer:
    """Return the PyTorch optimizer that has this name in a memory setup."""
    if name == "sgd":
        return torch.optim.SGD(trained, lr=1e-4, foreach=False)
    return torch.optim.AdamW(trained, lr=1e-4, foreach=name == "adamw-foreach", fused=name == "adamw-fused" or None)
