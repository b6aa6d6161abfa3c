from lora_course.checks.regret import LOWEST

RIGHT = [("lowest", (LOWEST.right, "nan")), ("carried", (16, "c", "more rates"))]
WRONG = [
    ("lowest", (lambda a, b, c: -LOWEST.right(a, b, c), "nan"), "wrong sign"),
    ("lowest", (lambda a, b, c: (a - c) / (a - 2 * b + c), "nan"), "the slope of p x"),
    ("lowest", (lambda a, b, c: b - (a - c) ** 2 / (8 * (a - 2 * b + c)), "nan"), "return the x where it occurs"),
    ("lowest", (lambda a, b, c: 0.0, "nan"), "where does the parabola turn"),
    ("lowest", (lambda a, b, c: 1.0, "nan"), "the slope p + 2 q x is 0"),
    ("lowest", (LOWEST.right, "the last"), "may lie beyond"),
    ("carried", (32, "c", "more rates"), "isn't the first"),
    ("carried", (16, "a", "more rates"), "the last column is ahead"),
    ("carried", (16, "c", "more ranks"), "rank 10 at most"),
]
