"""The checks of lesson 10: answers for `test_checks`."""

from __future__ import annotations

from lora_course import checks

SIZES = {"base": 538_000_000, "captain": 2_000_000}
PAIRS = [{"prompt": f"question {n}", "response": "yes"} for n in range(12)]
RIGHT = {
    "loss_mask": (lambda tokens, prompt: [-100] * prompt + tokens[prompt:],),
    "adapters_per_base": (269, SIZES),
    "style_or_knowledge": (" B.",),
    "own_pairs": (PAIRS,),
}
WRONG = [
    ("loss_mask", (lambda tokens, prompt: tokens,), "nothing is masked"),
    ("loss_mask", (lambda tokens, prompt: tokens[:prompt] + [-100] * (len(tokens) - prompt),), "the other way round"),
    ("loss_mask", (lambda tokens, prompt: [-100] * (prompt + 1) + tokens[prompt + 1 :],), "shifts by one"),
    ("loss_mask", (lambda tokens, prompt: [-100] * (prompt - 1) + tokens[prompt - 1 :],), "one token too few"),
    ("loss_mask", (lambda tokens, prompt: tokens[prompt:],), "as many labels as tokens"),
    ("loss_mask", (lambda tokens, prompt: [0] * len(tokens),), "the labels are [-100, -100, 7, 8]"),
    ("loss_mask", (lambda tokens, prompt: 3,), "a list of labels is wanted, not int"),
    ("loss_mask", (lambda tokens, prompt: tokens / 2,), "TypeError"),
    ("adapters_per_base", (0.003717, SIZES), "turn it round"),
    ("adapters_per_base", (538_000_000, SIZES), "divide by one adapter's"),
    ("adapters_per_base", (3, SIZES), "too small"),
    ("style_or_knowledge", ("a",), "prices change"),
    ("style_or_knowledge", ("c",), "day of training"),
    ("style_or_knowledge", ("d",), "one of a, b, c"),
    ("own_pairs", (PAIRS[:9],), "your list holds 9 pairs; at least 10"),
    ("own_pairs", ([*PAIRS, {"prompt": "x"}],), "pair 13 has no text in 'response'"),
    ("own_pairs", (["x"] * 12,), "every pair is a dict"),
    ("own_pairs", (5,), "every pair is a dict"),
    ("own_pairs", ([*PAIRS, {"prompt": "x", "response": object()}],), "texts only"),
]


def test_a_list_without_pairs_is_not_yet_one():
    assert checks.check_own_pairs([]).passed is None
