"""Exercises for lesson 15 (no regret): what eighteen published runs show, and the rate for a larger alpha."""

from typing import Any

from lora_course.checks.verdict import Choice, Number, Verdict, exercise, parts, texts

TEXTS = texts("regret")
ALPHA, THEN, RATE = Number(**TEXTS["alpha"]), Choice(**TEXTS["then"]), Number(**TEXTS["rate"])


@exercise
def check_carried(alpha: Any, then: Any) -> Verdict:
    """Lesson 15: check the alpha of the two LoRAs (of 18) that are equally good, and what to run next."""
    hint = "give a number, and one of: " + ", ".join((*THEN.replies, *THEN.right))
    return parts({"alpha": ALPHA, "then": THEN}, (alpha, then), hint)


@exercise
def check_new_rate(rate: Any) -> Verdict:
    """Lesson 15: check the rate for alpha 256, given that 0.0022 is best at alpha 16."""
    return RATE.judge(rate)
