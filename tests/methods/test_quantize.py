"""NF4 from scratch is bitsandbytes' NF4 to the bit, and what is packed comes back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lab.errors import BadValue
from lora_lab.methods import bnb
from lora_lab.methods.quantize import (
    FORMATS,
    codes_of,
    dynamic_levels,
    normal_float,
    pack,
    quantize,
    uniform,
    unpack,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((64, 64), (192, 576), (576, 1536), (384, 384), (2, 64))
FEW = settings(deadline=None, max_examples=25)


@pytest.fixture(scope="module")
def peer(bitsandbytes):
    """bitsandbytes' functions."""
    return bitsandbytes.functional


def weight(shape: tuple[int, int], seed: int, spread: float = 0.02, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread
    return made.to(dtype)


def error(held, original: torch.Tensor) -> float:
    return float((held.dequantized() - original.float()).norm() / original.float().norm())


def test_the_sixteen_levels_are_bitsandbytes_own(peer):
    assert torch.equal(normal_float(4), peer.get_4bit_type("nf4", device="cpu"))
    assert torch.equal(dynamic_levels(), peer.create_dynamic_map())


@FEW
@given(st.sampled_from(SHAPES), st.integers(0, 10**6), st.sampled_from([1e-4, 0.02, 50.0]), st.sampled_from(DTYPES))
def test_codes_scales_and_values_equal_bitsandbytes(peer, shape, seed, spread, dtype):
    original = weight(shape, seed, spread, dtype)
    codes, state = peer.quantize_4bit(original, quant_type="nf4", compress_statistics=True)
    ours = quantize(original)
    assert torch.equal(ours.packed, codes.flatten())
    assert torch.equal(ours.absmax, state.absmax)
    assert torch.equal(ours.scales, state.state2.absmax)
    assert ours.offset == state.offset
    for wanted in DTYPES:
        state.dtype = wanted
        assert torch.equal(ours.dequantized(wanted), peer.dequantize_4bit(codes, state))


def test_single_quantisation_equals_bitsandbytes_too(peer):
    original = weight((192, 576), 0)
    codes, state = peer.quantize_4bit(original, quant_type="nf4", compress_statistics=False)
    ours = quantize(original, "nf4-single")
    assert torch.equal(ours.absmax, state.absmax)
    assert torch.equal(ours.dequantized(), peer.dequantize_4bit(codes, state))


@FEW
@given(st.sampled_from(SHAPES), st.integers(0, 10**6), st.sampled_from(DTYPES))
def test_the_fast_path_gives_the_same_bits(peer, shape, seed, dtype):
    held = quantize(weight(shape, seed))
    assert bnb.can_dequantize(held)
    assert torch.equal(bnb.dequantized(held, dtype), held.dequantized(dtype))


@given(st.sampled_from([2, 3, 4, 8]), st.integers(1, 12), st.integers(0, 10**6))
def test_what_is_packed_comes_back(bits, eights, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(2**bits, (8 * eights,), generator=generator).to(torch.uint8)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == eights * bits
    assert torch.equal(unpack(packed, bits).to(torch.uint8), codes)


def test_the_first_code_lies_in_the_high_half_of_its_byte():
    assert pack(torch.tensor([1, 15, 0, 2, 0, 0, 0, 3], dtype=torch.uint8), 4).tolist() == [0x1F, 0x02, 0x00, 0x03]


@pytest.mark.parametrize(("name", "bits"), [("nf4", 4.127), ("nf4-single", 4.5), ("int8", 8.127), ("nf3", 3.127)])
def test_bits_a_weight(name, bits):
    assert quantize(weight((256, 512), 0), name).bits_per_weight == pytest.approx(bits, abs=0.001)


def test_more_bits_leave_less_error():
    original = weight((256, 512), 0)
    errors = [error(quantize(original, name), original) for name in ("int8", "nf4", "nf3", "nf2")]
    assert errors == sorted(errors)
    assert errors[0] < 0.01 < 0.08 < errors[1] < 0.1


def test_normal_quantiles_beat_even_steps_on_normal_weights_and_not_on_even_ones():
    normal, even = weight((256, 512), 0), torch.rand((256, 512), generator=torch.Generator().manual_seed(0)) - 0.5
    assert error(quantize(normal, "nf4"), normal) < 0.9 * error(quantize(normal, "int4"), normal)
    assert error(quantize(even, "nf4"), even) > error(quantize(even, "int4"), even)


@FEW
@given(st.sampled_from(sorted(FORMATS)), st.integers(1, 300), st.integers(0, 10**6))
def test_any_number_of_weights_comes_back_within_half_a_step(name, count, seed):
    original = weight((1, count), seed, 1.0)
    held = quantize(original, name)
    back, levels = held.dequantized(), held.format.levels
    step = float((levels[1:] - levels[:-1]).max())
    assert back.shape == original.shape
    assert float((back - original).abs().max()) <= (step / 2 + 0.02) * float(original.abs().max()) + 1e-6


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50), st.sampled_from([normal_float(4), uniform(8)]))
def test_a_code_is_that_of_the_nearest_level(values, levels):
    scaled = torch.tensor(values)
    nearest = (scaled[:, None] - levels).abs().min(1).values
    assert torch.allclose((scaled - levels[codes_of(scaled, levels).int()]).abs(), nearest, atol=1e-6)


@pytest.mark.parametrize("name", ["nf4-single", "int8", "nf3", "nf2"])
def test_quantising_again_changes_nothing(name):
    once = quantize(weight((64, 128), 0), name)
    if name != "nf4-single":
        once = quantize(once.dequantized(), name)  # scales in 8 bits settle after the first time
    again = quantize(once.dequantized(), name)
    assert torch.equal(again.packed, once.packed)


def test_zeros_stay_zeros():
    held = quantize(torch.zeros(4, 64), "nf4-single")
    assert not held.dequantized().any()


def test_what_cannot_be_quantised_is_named():
    with pytest.raises(BadValue, match="nf4"):
        quantize(torch.ones(1, 64), "nf5")
    with pytest.raises(BadValue, match="NaN or infinity"):
        quantize(torch.full((1, 64), float("nan")))
