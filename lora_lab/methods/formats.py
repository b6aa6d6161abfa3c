"""Constants of the quantized formats, without torch: memory is predicted from them."""

from __future__ import annotations

QUANTISED_BITS = {"nf4": 4, "nf4-single": 4, "int8": 8, "int4": 4, "nf3": 3, "nf2": 2}
BLOCK, NESTED = 64, 256  # weights per scale; scales per scale of their own
OUTSIDE = ("lm_head", "classifier", "score", "pooler")  # layers that bitsandbytes does not quantize


def bits_per_weight(form: str) -> float:
    """Bits of a frozen linear weight in a quantized form: its code and, per block of 64, an absmax in fp32 or 8 bits.

    NF4: 4 + 32/64 = 4.5 bits; with double quantization 4 + 8/64 + 32/(64 x 256) = 4.127. Dettmers et al. 2023.
    """
    absmax = 32 / BLOCK if form.endswith("-single") else 8 / BLOCK + 32 / (BLOCK * NESTED)
    return QUANTISED_BITS[form] + absmax
