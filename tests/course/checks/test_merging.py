import torch

SIZES = (90_000_000, 300_000)  # bytes of the base and of an adapter


def mixed(x, W, A, B, scaling, which):
    return x @ W.T + scaling * torch.einsum("nor,nri,ni->no", B[which], A[which], x)


RIGHT = [("mixed_batch", (mixed,)), ("forty_copies", (40 * 90 / (90 + 12), *SIZES))]
WRONG = [
    ("mixed_batch", (lambda x, W, *_: x @ W.T,), "W x alone"),
    ("mixed_batch", (lambda x, W, A, B, scaling, which: mixed(x, W, A, B, 1.0, which),), "scaling is missing"),
    ("mixed_batch", (lambda x, W, *rest: mixed(x, 0 * W, *rest),), "detours alone"),
    ("mixed_batch", (lambda *args: mixed(*args[:-1], 0 * args[-1]),), "the first adapter"),
    ("mixed_batch", (lambda x, W, A, B, s, _: x @ W.T + s * x @ (B @ A).sum(0).T,), "the sum of all adapters"),
    ("mixed_batch", (lambda x, *_: x,), "(rows, out), (6, 5)"),
    ("forty_copies", (102 / 3600, *SIZES), "other way around"),
    ("forty_copies", (300, *SIZES), "one base against one adapter"),
    ("forty_copies", (40, *SIZES), "almost"),
    ("forty_copies", (2, *SIZES), "by that of a base"),
]
