"""Tests of params: the break-even rank, the table of modules, and the size of a file."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from lora_lab.accounting.params import break_even_rank, params, safetensors_bytes
from lora_lab.errors import BadValue
from lora_lab.methods.lora import LoRA

SIZES = st.integers(1, 5000)


@given(inputs=SIZES, outputs=SIZES)
def test_break_even_rank_trains_as_many_parameters_as_the_layer(inputs, outputs):
    rank = break_even_rank(inputs, outputs)
    assert rank * (inputs + outputs) == pytest.approx(inputs * outputs)
    with pytest.raises(BadValue, match="at least one input"):
        break_even_rank(inputs, -outputs)


def test_fused_layer_is_listed_by_slices_if_a_slice_trains():
    rows = {row.name: row for row in params("gpt2", LoRA(rank=4)).modules}
    q, k = rows["transformer.h.*.attn.c_attn[q]"], rows["transformer.h.*.attn.c_attn[k]"]
    assert (q.trained, k.trained, q.full, q.break_even_rank) == (12 * 4 * 2 * 768, 0, 12 * 769 * 768, 384)
    whole = {row.name: row for row in params("gpt2", LoRA(rank=4, targets=("c_attn",))).modules}
    assert whole["transformer.h.*.attn.c_attn"].trained == 12 * 4 * (768 + 3 * 768)


def test_whole_and_sliced_layers_sum_to_the_model():
    counted = params("gpt2", LoRA(rank=2, targets=("*.0.attn.c_attn", "transformer.h.1.attn.c_attn[q]")))
    assert sum(row.full for row in counted.modules) == counted.total
    assert counted.trainable == 2 * (4 * 768) + 2 * (2 * 768)


SHAPES = st.lists(st.integers(1, 40), min_size=1, max_size=3)
NAMES = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=30)


@given(tensors=st.dictionaries(NAMES.filter(lambda n: n != "__metadata__"), SHAPES, max_size=6), note=NAMES)
def test_file_size_is_exact(tensors, note):
    file = save({name: torch.zeros(shape) for name, shape in tensors.items()}, {"format": "pt", "note": note})
    assert safetensors_bytes(tensors, {"format": "pt", "note": note}) == len(file)
