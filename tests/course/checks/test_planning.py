import pytest

from lora_course import checks
from lora_course.checks.planning import BRIEFS, EVIDENCE, SUPPORT, brief, lines

CHOICES = ("LoRA", "2e-4", "beside", "none to learn", "1,600")
PLAN = {name: (choice, SUPPORT[name]) for name, choice in zip(SUPPORT, CHOICES, strict=True)}
RIGHT = [("flip", ({"models": "llama-2-70b"},)), ("brief", (PLAN, 0))]
UNSOLVED = [("brief", ({**PLAN, "rows": (..., "root")}, 0), "a choice and the evidence")]
WRONG = [
    ("flip", ({"times": 2},), "the claim itself"),
    ("flip", ({"rank": 1},), 'stays "depends on model": the trainable part is small already'),
    ("flip", ({"seq": 2048},), 'is now "false": longer rows'),
    ("flip", ({"seq": 32, "batch": 1},), "change one premise"),
    ("flip", ({"store": "runs"},), "isn't a premise"),
    ("flip", ({"ranks": 4},), "nearest: rank"),
    ("brief", ({**PLAN, "method": ("full", "peak")}, 0), "it needs"),
    ("brief", ({**PLAN, "method": ("QLoRA", "share")}, 0), "LoRA in bf16 fits too"),
    ("brief", ({**PLAN, "method": ("LoRA", "share")}, 0), "frozen weights and the activations"),
    ("brief", ({**PLAN, "rate": ("2e-5", "rates")}, 0), "near full fine-tuning's rate"),
    ("brief", ({**PLAN, "serve": ("merge", "file")}, 0), "no batch can mix several"),
    ("brief", ({**PLAN, "facts": ("in the weights", "loss")}, 0), "learns a form"),
    ("brief", ({**PLAN, "rows": ("400", "root")}, 0), "±3.9 points; you need ±2"),
    ("brief", ({**PLAN, "rows": ("10,000", "root")}, 0), "fewer are enough"),
    ("brief", ({**PLAN, "rows": "1,600"}, 0), "a choice and its evidence"),
    ("brief", ({"method": ("LoRA", "peak")}, 0), "a plan has the lines"),
]


@pytest.mark.parametrize("number", range(len(BRIEFS)))
def test_every_brief_has_one_right_plan(number: int):
    choices = lines(number)
    plan = {name: (choice.right[0], SUPPORT[name]) for name, choice in choices.items()}
    assert checks.check_brief(plan, number).passed
    assert all(len(choice.right) == 1 and choice.right[0] in choice.replies for choice in choices.values())
    assert all(text in brief(number) for text in (*EVIDENCE, BRIEFS[number]["text"]))
