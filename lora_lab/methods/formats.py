"""The forms of a quantized weight in numbers. No torch: an answer about memory needs no more of them."""

from __future__ import annotations

QUANTISED_BITS = {"nf4": 4, "nf4-single": 4, "int8": 8, "int4": 4, "nf3": 3, "nf2": 2}
BLOCK, NESTED = 64, 256  # numbers that share a scale, scales that share one of their own
OUTSIDE = ("lm_head", "classifier", "score", "pooler")  # what bitsandbytes leaves as it is
