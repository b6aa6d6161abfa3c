from lora_course.checks.counting import CONFIGS, unseen
from lora_lab import LoRA, params

RIGHT = [
    ("rank_of_file", (10,)),
    ("rank_of_file", (32, "q,v", 36_715_216)),  # two published files
    ("rank_of_file", (64, "q,v", 73_415_408)),
    ("audit", (3_096_576,)),
    *(("audit", (params(unseen(n), LoRA(12, targets="all-linear")).trainable, n, 12)) for n in range(len(CONFIGS))),
]
D, Q, KV, F, ROW = 1152, 1280, 256, 3456, 18 * 8  # hidden size, outputs of q and of k, MLP; layers times rank
ATTENTION, MLP = 2 * (D + Q) + 2 * (D + KV), 3 * (D + F)
WRONG = [
    ("rank_of_file", (40,), "1 byte"),
    ("rank_of_file", (20,), "2 bytes"),
    ("rank_of_file", (280,), "one layer"),
    ("rank_of_file", (37_868_984 / 4 / 946_176,), "whole number"),
    ("audit", (ROW * (ATTENTION + MLP) + 8 * (D + 50_000),), "lm_head"),
    ("audit", (ROW * (4 * D + 2 * (D + 230) + MLP),), "1,280 outputs"),
    ("audit", (ROW * (4 * (D + Q) + MLP),), "narrow"),
    ("audit", (ROW * ATTENTION,), "gate, up and down are missing"),
    ("audit", (ROW * MLP,), "q, k, v and o are missing"),
    ("audit", (ROW * (2 * D + Q + KV),), "q and v alone"),
    ("audit", (8 * (ATTENTION + MLP),), "one layer"),
    ("audit", (18 * (ATTENTION + MLP),), "rank 1"),
    ("audit", (4 * ROW * (ATTENTION + MLP),), "bytes"),
    ("audit", (18 * (2 * D * Q + 2 * D * KV + 3 * D * F),), "frozen weights"),
]
