"""Exercises for lesson 15 (no regret): a rate and a published ratio at another alpha."""

from typing import Any

from lora_course.checks.verdict import Number, Verdict, exercise, parts, texts

TEXTS = texts("regret")
RATE, TEN = Number(**TEXTS["rate"]), {part: Number(**TEXTS[part]) for part in ("at_16", "three_at")}


@exercise
def check_ten(at_16: Any, three_at: Any) -> Verdict:
    """Lesson 15: check what a ratio of ten at alpha 32 becomes at alpha 16, and the alpha for a ratio of three."""
    return parts(TEN, (at_16, three_at), why=TEXTS["agree"], hints=texts("hints")["ten"])


@exercise
def check_new_rate(rate: Any) -> Verdict:
    """Lesson 15: check the rate for alpha 256, given that 0.0022 is best at alpha 16."""
    return RATE.judge(rate)
