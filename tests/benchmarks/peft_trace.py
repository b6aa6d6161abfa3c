"""A step of PEFT's own layers followed storage by storage, over a model without numbers.

The model lies on the meta device: shapes, and the same operations. The lab's tracker, GPU kernels and training step are
used as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import peft
import torch
from torch import Tensor, nn
from transformers import masking_utils

from lora_lab.accounting import trace
from lora_lab.accounting.allocator import reserved
from lora_lab.accounting.memory import Estimate, of_tracker
from lora_lab.accounting.models import config_of
from lora_lab.accounting.setup import Setup


class Attached:
    """The method is on the model already."""

    def attach(self, model: nn.Module) -> None:
        """Nothing to do."""


def peft_model(name: str, config: Mapping[str, Any], setup: Setup) -> nn.Module:
    """A model of the zoo with PEFT's layers on it, on the meta device; without a configuration everything trains."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = trace.build(config_of(name), setup)
        if not config:
            return base
        fields = {key: value for key, value in config.items() if key != "peft_type"}
        kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(config["peft_type"])]
        return peft.get_peft_model(base, kind(task_type="CAUSAL_LM", **fields)).to("meta")


def trainable(model: nn.Module) -> int:
    """Numbers that train."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def follow(model: nn.Module, setup: Setup) -> Estimate:
    """The peak of the second of two steps, and what the allocator takes for both."""
    setup = replace(setup, adapter_dtype="auto")  # PEFT has set it already
    with trace.no_data(setup), _masks(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tracker = trace.follow(model, Attached(), setup)
    return replace(of_tracker(tracker, "traced", {}, setup), reserved=reserved(tracker.events))


@contextmanager
def _masks() -> Iterator[None]:
    """Masks as rows of unequal length have them, which transformers would find out from their values."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(trace, "_mask", _rows))  # PEFT puts its virtual tokens before these
        stack.enter_context(mock.patch.object(masking_utils, "_ignore_causal_mask_sdpa", _never))
        yield


def _rows(setup: Setup, model: nn.Module) -> Tensor:
    return torch.ones(setup.batch, setup.seq, dtype=torch.long, device="meta")


def _never(*args: Any, **options: Any) -> bool:
    return False
