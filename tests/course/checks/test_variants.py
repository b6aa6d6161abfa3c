from lora_course import checks
from lora_course.checks.variants import AS_PLAIN, ahead

RATE, POINTS = checks.check_flattered(..., ...).right.values()
RIGHT = [("as_plain", (AS_PLAIN.right,)), ("flattered", (RATE.right, POINTS.right, "DoRA"))]
WRONG = [
    ("as_plain", (lambda alpha, rank: alpha / rank**0.5,), "rsLoRA's scaling"),
    ("as_plain", (lambda alpha, rank: alpha,), "sqrt(rank) times smaller"),
    ("as_plain", (lambda alpha, rank: alpha * rank,), "divides by the root"),
    ("as_plain", (lambda alpha, rank: alpha / rank,), "the other way"),
    ("flattered", (4e-3, POINTS.right, "DoRA"), "another rate flatters the variant more"),
    ("flattered", (RATE.right, -POINTS.right, "DoRA"), "wrong sign"),
    ("flattered", (2.5e-4, 0.1, "rsLoRA"), "nearer to zero"),
    ("flattered", (RATE.right, max(ahead("DoRA").values()), "DoRA"), "with one rate for both"),
]
