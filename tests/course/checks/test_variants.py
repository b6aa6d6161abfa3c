"""The checks of lesson 16: answers for `test_checks`, and the rate that flatters a variant."""

from lora_course import checks
from lora_course.checks.variants import AS_PLAIN, LABELS, ahead

RATE, POINTS = checks.check_flattered(..., ...).right.values()
RIGHT = {"as_plain": (AS_PLAIN.right,), "flattered": (RATE.right, POINTS.right, "DoRA")}
WRONG = [
    ("as_plain", (lambda alpha, rank: alpha / rank**0.5,), "rsLoRA's scaling"),
    ("as_plain", (lambda alpha, rank: alpha,), "sqrt(rank) times less"),
    ("as_plain", (lambda alpha, rank: alpha * rank,), "divides by the root"),
    ("as_plain", (lambda alpha, rank: alpha / rank,), "the other way"),
    ("flattered", (4e-3, POINTS.right, "DoRA"), "another rate flatters it more"),
    ("flattered", (RATE.right, -POINTS.right, "DoRA"), "the sign"),
    ("flattered", (RATE.right, max(ahead("DoRA").values()), "DoRA"), "with one rate for both"),
]


def test_the_rate_that_flatters_is_the_best_of_those_that_both_tried():
    for variant in LABELS:
        shared = ahead(variant)
        assert len(shared) == 6
        assert shared[checks.check_flattered(..., ..., variant).right["rate"].right] == max(shared.values())
