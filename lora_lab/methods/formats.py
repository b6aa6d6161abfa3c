"""Constants of the quantized formats, without torch: memory is predicted from them."""

from __future__ import annotations

QUANTISED_BITS = {"nf4": 4, "nf4-single": 4, "int8": 8, "int4": 4, "nf3": 3, "nf2": 2}
BLOCK, NESTED = 64, 256  # weights per scale; scales per scale of their own
OUTSIDE = ("lm_head", "classifier", "score", "pooler")  # layers that bitsandbytes does not quantize
