PAIRS = [{"prompt": f"question {n}", "response": "yes"} for n in range(12)]


def mask(*roles: str, ignored: int = -100):
    """Return a function that labels the tokens of turns in these roles; the others get `ignored`."""
    return lambda turns: [token if role in roles else ignored for role, tokens in turns for token in tokens]


RIGHT = [("turn_mask", (mask("assistant"),)), ("own_pairs", (PAIRS,))]
UNSOLVED = [
    ("own_pairs", ([],), "add at least 10 pairs"),
    ("own_pairs", ([{"prompt": "x", "response": ...}],), "replace each ..."),
]
WRONG = [
    ("turn_mask", (mask("system", "user", "assistant"),), "nothing is masked"),
    ("turn_mask", (mask("system", "user"),), "the mask reversed"),
    ("turn_mask", (mask("system", "assistant"),), "count the system's turn"),
    ("turn_mask", (lambda turns: mask("assistant")(turns[-1:]),), "every token needs a label"),
    ("turn_mask", (lambda turns: mask()(turns[:-1]) + turns[-1][1],), "count only the last answer"),
    ("turn_mask", (mask("assistant", ignored=0),), "the labels are [-100, -100, 7, 8, 2]"),
    ("turn_mask", (lambda turns: 3,), "return a list of labels, not int"),
    ("own_pairs", (PAIRS[:9],), "your list contains 9 pairs; at least 10"),
    ("own_pairs", ([*PAIRS, {"prompt": "x"}],), "pair 13 has no text in 'response'"),
    ("own_pairs", (["x"] * 12,), "every pair is a dict"),
    ("own_pairs", ([*PAIRS, {"prompt": "x", "response": object()}],), "only texts"),
]
