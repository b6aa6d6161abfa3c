"""The checks of lesson 09: answers for `test_checks`, and that every brief has a plan."""

from lora_course import checks
from lora_course.checks.planning import BRIEFS, EVIDENCE, SUPPORT, brief, lines

FIRST = {
    "method": ("LoRA", "peak"), "rate": ("2e-4", "rates"), "serve": ("beside", "batch"),
    "facts": ("none to learn", "strings"), "rows": ("1,600", "root"),
}  # fmt: skip
RIGHT = {"flip": ({"models": "llama-2-70b"},), "brief": (FIRST, 0)}
UNSOLVED = {"brief": ({**FIRST, "rows": (..., "root")}, 0)}
WRONG = [
    ("flip", ({"times": 2},), "what is claimed"),
    ("flip", ({"rank": 1},), "small part already"),
    ("flip", ({"seq": 512},), "the ratio falls"),
    ("flip", ({"seq": 32, "batch": 1},), "change one premise"),
    ("flip", ({"store": "runs"},), "isn't a premise"),
    ("flip", ({"ranks": 4},), "nearest: rank"),
    ("brief", ({**FIRST, "method": ("full", "peak")}, 0), "one row needs"),
    ("brief", ({**FIRST, "method": ("QLoRA", "share")}, 0), "LoRA in bf16 fits too"),
    ("brief", ({**FIRST, "method": ("LoRA", "share")}, 0), "frozen weights and the activations"),
    ("brief", ({**FIRST, "rate": ("2e-5", "rates")}, 0), "near full fine-tuning's rate"),
    ("brief", ({**FIRST, "serve": ("merge", "file")}, 0), "no batch can mix them"),
    ("brief", ({**FIRST, "facts": ("in the weights", "loss")}, 0), "learns a form"),
    ("brief", ({**FIRST, "rows": ("400", "root")}, 0), "±3.9 points; you need ±2"),
    ("brief", ({**FIRST, "rows": ("10,000", "root")}, 0), "fewer are enough"),
    ("brief", ({**FIRST, "rows": ("1,600", "hope")}, 0), "answer with one of"),
    ("brief", ({**FIRST, "rows": "1,600"}, 0), "a choice and its evidence"),
    ("brief", ({"method": ("LoRA", "peak")}, 0), "a plan has the lines"),
]


def test_every_brief_has_one_plan():
    for number in range(len(BRIEFS)):
        right = {name: (one.right[0], SUPPORT[name]) for name, one in lines(number).items()}
        assert checks.check_brief(right, number).passed
        assert all(len(one.right) == 1 and one.right[0] in one.replies for one in lines(number).values())
        assert all(text in brief(number) for text in (*EVIDENCE, BRIEFS[number]["text"]))
