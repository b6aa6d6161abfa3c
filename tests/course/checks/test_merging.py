"""The checks of lesson 08: answers for `test_checks`."""

import torch

BYTES = (90_000_000, 300_000)


def mixed(x, W, A, B, scaling, which):
    h = torch.einsum("nri,ni->nr", A[which], x)
    return x @ W.T + scaling * torch.einsum("nor,nr->no", B[which], h)


def unscaled(x, W, A, B, scaling, which):
    return mixed(x, W, A, B, 1.0, which)


def first(x, W, A, B, scaling, which):
    return mixed(x, W, A, B, scaling, 0 * which)


def all_of_them(x, W, A, B, scaling, which):
    return x @ W.T + scaling * torch.einsum("aor,ari,ni->no", B, A, x)


RIGHT = {"mixed_batch": (mixed,), "forty_copies": (40 * 90 / (90 + 12), *BYTES)}
WRONG = [
    ("mixed_batch", (lambda x, W, *_: x @ W.T,), "W x alone"),
    ("mixed_batch", (unscaled,), "scaling is missing"),
    ("mixed_batch", (lambda x, W, *rest: mixed(x, 0 * W, *rest),), "detours alone"),
    ("mixed_batch", (first,), "the first adapter"),
    ("mixed_batch", (all_of_them,), "the sum of all adapters"),
    ("mixed_batch", (lambda x, *_: x,), "(rows, out), (6, 5)"),
    ("forty_copies", (102 / 3600, *BYTES), "other way around"),
    ("forty_copies", (300, *BYTES), "one base against one adapter"),
    ("forty_copies", (40, *BYTES), "nearly"),
    ("forty_copies", (2, *BYTES), "over one base"),
]
