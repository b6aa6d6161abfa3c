D, F, KV, LAYERS = 2048, 8192, 512, 16  # llama-3.2-1b
COST = 4 * LAYERS * 8
BYTES = COST * (2 * 2 * D + 2 * (D + KV) + 3 * (D + F))
WEIGHTS = 2 * D * D + 2 * D * KV + 3 * D * F
RIGHT = [("pair_numbers", (4224,)), ("file_bytes", (BYTES,))]
WRONG = [
    ("pair_numbers", (576 * 1536,), "W, which stays frozen"),
    ("pair_numbers", (576 * 1536 + 4224,), "A and B alone"),
    ("pair_numbers", (2 * 576 * 1536,), "inputs and outputs are added"),
    ("pair_numbers", (1152,), "A alone"),
    ("pair_numbers", (3072,), "B alone"),
    ("pair_numbers", (2304,), "square W"),
    ("pair_numbers", (2112,), "rank 1"),
    ("pair_numbers", (16896,), "bytes"),
    ("pair_numbers", (576 * 1536 - 4224,), "does not shrink the model"),
    ("pair_numbers", (5000,), "times too large"),
    ("file_bytes", (COST * (8 * D + 3 * (D + F)),), "narrow"),
    ("file_bytes", (BYTES // LAYERS,), "one layer"),
    ("file_bytes", (BYTES // 4,), "takes 4 bytes"),
    ("file_bytes", (BYTES // 2,), "2 bytes a number"),
    ("file_bytes", (BYTES * 8,), "bits"),
    ("file_bytes", (BYTES // 8,), "rank 1"),
    ("file_bytes", (BYTES / 1e6,), "those are MB"),
    ("file_bytes", (BYTES / 2**20,), "those are MiB"),
    ("file_bytes", (COST * (6 * D + F),), "A alone"),
    ("file_bytes", (COST * (3 * D + 2 * KV + 2 * F),), "B alone"),
    ("file_bytes", (COST * (4 * D + 2 * (D + KV)),), "gate, up and down"),
    ("file_bytes", (COST * 3 * (D + F),), "q, k, v and o"),
    ("file_bytes", (COST * (4 * D + 2 * (D + KV) + 2 * (D + F)),), "three matrices"),
    ("file_bytes", (COST * (3 * D + KV),), "q and v alone"),
    ("file_bytes", (4 * LAYERS * WEIGHTS,), "frozen weights"),
    ("file_bytes", (COST * WEIGHTS,), "not multiplied"),
]
