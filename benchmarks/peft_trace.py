"""Trace the loop of PEFT's MetaMathQA suite with PEFT's own layers, on a model without weights.

The model is on the meta device: the operations and shapes are real, but there are no values. The tracker, the GPU
kernels and the allocator are the lab's.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple
from unittest import mock

import peft
import torch
from torch import Tensor, nn
from transformers import masking_utils

from benchmarks.metamath import CONDITIONS, HISTORY, Run, model, runs
from lora_lab.accounting import trace
from lora_lab.accounting.allocator import EMPTY_CACHE, reserved
from lora_lab.accounting.kernels import stand_ins
from lora_lab.accounting.models import config_of
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.tracker import Tracker


class Followed(NamedTuple):
    """Peak allocated bytes of the last step, and peak reserved bytes of all steps."""

    allocated: int
    reserved: int


def followed(run: Run) -> Followed:
    """Trace the loop for a run, once for all runs that differ only in their learning rate."""
    return _followed(next(other.name for other in runs().values() if other.config == run.config))


@cache
def _followed(name: str) -> Followed:
    """Trace one step per length of HISTORY; 0 empties the allocator's cache.

    Gradients are freed when the next step begins, and outputs live until the next ones replace them.
    """
    setup = Setup(**CONDITIONS)
    adapted = peft_model(runs()[name].config, setup)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == runs()[name].trainable, f"{name}: not the model that was measured"
    base = sum(p.nbytes for p in adapted.parameters() if p.dtype == torch.bfloat16)
    optimizer = torch.optim.AdamW(trained, foreach=True)
    adapted.train()
    masks = mock.patch.object(trace, "_mask", _mask)  # PEFT adds virtual tokens in front of the text
    # transformers looks at the mask's values to see whether rows have different lengths
    unequal = mock.patch.object(masking_utils, "_ignore_causal_mask_sdpa", return_value=False)
    with stand_ins(cuda=True), masks, unequal, warnings.catch_warnings(), Tracker() as tracker:
        warnings.simplefilter("ignore")
        tracker.events += [(-2, base), (-2, 0)]  # transformers reserves memory for the base's weights in one piece
        names = [*dict(adapted.named_parameters()), *dict(adapted.named_buffers())]
        tracker.claim_model(adapted, dict.fromkeys(names, ""))
        for seq in HISTORY:
            if not seq:
                tracker.events.append(EMPTY_CACHE)
                continue
            tracker.restart()
            optimizer.zero_grad()
            outputs = trace.forward_backward(adapted, replace(setup, seq=seq))  # noqa: F841  # stays alive
            optimizer.step()
    return Followed(max(sum(moment.bytes.values()) for moment in tracker.moments), reserved(tracker.events))


def peft_model(config: Mapping[str, Any], setup: Setup) -> nn.Module:
    """Return the model with PEFT's layers on the meta device; without a configuration, all parameters are trained."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = trace.build(config_of(model()), setup)
        if not config:
            return base
        fields = {key: value for key, value in config.items() if key != "peft_type"}
        kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(config["peft_type"])]
        return peft.get_peft_model(base, kind(task_type="CAUSAL_LM", **fields)).to("meta")


def _mask(setup: Setup, model: nn.Module) -> Tensor:
    return torch.ones(setup.batch, setup.seq, dtype=torch.long, device="meta")
