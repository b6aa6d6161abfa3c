"""What the tests of methods share: tiny models with an adapter, and that what is refused changes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from torch import nn

from lora_lab.errors import BadValue, LabError
from lora_lab.methods.base import Method
from tests.conftest import randomise, snapshot, tiny

TARGETS = {
    "bert": ["q,v", "all-linear", "k", "pooler.dense,o", "*.0.*.query"],
    "roberta": ["q,v", "all-linear", "k", "o,up", "*.0.*.query", "word_embeddings,q"],
    "gpt2": ["q,v", "c_attn", "k", "all-linear"],  # slices of one fused layer
    "phi3": ["q,v", "gate,down", "qkv_proj", "all-linear"],
    "llama": ["q,v", "o", "lm_head,q", "embed"],
}


def with_adapter(base: nn.Module | str, method: Method, seed: int = 2) -> nn.Module:
    """A model, or the tiny one of that kind, with the method attached and random numbers in what trains."""
    model = tiny(base) if isinstance(base, str) else base
    method.attach(model)
    randomise(model, seed)
    return model


@contextmanager
def refused(model: nn.Module, says: str, error: type[LabError] = BadValue) -> Iterator[None]:
    """What the block does to the model is refused in one sentence, and leaves it as it was."""
    before = snapshot(model)
    with pytest.raises(error, match=says) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert snapshot(model) == before
