"""The checks of lesson 06: answers for `test_checks`."""

from lora_course import checks

PAIRS = [{"prompt": f"question {n}", "response": "yes"} for n in range(12)]


def masked(*counting: str, keep: int = -100):
    """A learner's function: labels for turns in these roles, `keep` for the others."""
    return lambda turns: [t if role in counting else keep for role, tokens in turns for t in tokens]


RIGHT = {"turn_mask": (masked("assistant"),), "own_pairs": (PAIRS,)}
WRONG = [
    ("turn_mask", (masked("system", "user", "assistant"),), "nothing is masked"),
    ("turn_mask", (masked("system", "user"),), "the mask reversed"),
    ("turn_mask", (masked("system", "assistant"),), "the system's turn counts"),
    ("turn_mask", (lambda turns: masked("assistant")(turns[-1:]),), "one label for each token"),
    ("turn_mask", (lambda turns: [-100] * sum(len(t) for _, t in turns[:-1]) + turns[-1][1],), "only the last answer"),
    ("turn_mask", (masked("assistant", keep=0),), "the labels are [-100, -100, 7, 8, 2]"),
    ("turn_mask", (lambda turns: 3,), "return a list of labels, not int"),
    ("own_pairs", (PAIRS[:9],), "your list contains 9 pairs; at least 10"),
    ("own_pairs", ([*PAIRS, {"prompt": "x"}],), "pair 13 has no text in 'response'"),
    ("own_pairs", (["x"] * 12,), "every pair is a dict"),
    ("own_pairs", ([*PAIRS, {"prompt": "x", "response": object()}],), "texts only"),
]


def test_a_list_without_pairs_is_not_yet_one():
    assert checks.check_own_pairs([]).passed is None
    assert checks.check_own_pairs([{"prompt": "x", "response": ...}]).passed is None
