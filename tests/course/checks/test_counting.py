"""The checks of lesson 11: answers for `test_checks`, and what the right ones rest on."""

from lora_course import checks
from lora_course.checks.counting import CONFIGS, unseen
from lora_lab import LoRA, params

RIGHT = {"rank_of_file": (10,), "audit": (3_096_576,)}
SIDES, ROW = 2 * (1152 + 1280) + 2 * (1152 + 256) + 3 * (1152 + 3456), 18 * 8
WRONG = [
    ("rank_of_file", (40,), "1 byte"),
    ("rank_of_file", (20,), "2 bytes"),
    ("rank_of_file", (280,), "one layer"),
    ("rank_of_file", (37_868_984 / 4 / 946_176,), "whole number"),
    ("audit", (ROW * SIDES + 8 * (1152 + 50_000),), "lm_head"),
    ("audit", (ROW * (4 * 1152 + 2 * (1152 + 230) + 3 * (1152 + 3456)),), "1,280 outputs"),
    ("audit", (ROW * (4 * (1152 + 1280) + 3 * (1152 + 3456)),), "narrow"),
    ("audit", (ROW * 7680,), "gate, up and down are missing"),
    ("audit", (ROW * 13_824,), "q, k, v and o are missing"),
    ("audit", (ROW * 3840,), "q and v alone"),
    ("audit", (8 * SIDES,), "one layer"),
    ("audit", (18 * SIDES,), "rank 1"),
    ("audit", (4 * ROW * SIDES,), "bytes"),
    ("audit", (18 * (2 * 1152 * 1280 + 2 * 1152 * 256 + 3 * 1152 * 3456),), "frozen weights"),
]


def test_the_right_count_is_the_labs():
    for which in range(len(CONFIGS)):
        assert checks.check_audit(params(unseen(which), LoRA(12, targets="all-linear")).trainable, which, 12).passed


def test_the_rank_of_a_published_file_is_the_published_one():
    for rank, size in ((32, 36_715_216), (64, 73_415_408)):
        assert checks.check_rank_of_file(rank, "q,v", size).passed
