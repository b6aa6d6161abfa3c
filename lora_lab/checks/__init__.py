"""Checks of the exercises: they say what is wrong and why, never only that it is; unsolved they say "not yet".

One file a lesson, over `verdict`; a lesson says `from lora_lab import checks` and `checks.check_x(answer)`. Whatever is
called `check_...` in one of these files is a check.
"""

from lora_lab.checks import (
    bits,
    debugging,
    inside,
    memory,
    merging,
    ranks,
    rates,
    reproducing,
    rivals,
    savings,
    scratch,
    start,
    styles,
    targets,
    training,
    verdicts,
)
from lora_lab.checks.verdict import Verdict

_LESSONS = (start, ranks, scratch, savings, training, memory, rates, targets, rivals, merging, styles, bits, debugging,
            inside, reproducing, verdicts)  # fmt: skip
_CHECKS = {name: check for one in _LESSONS for name, check in vars(one).items() if name.startswith("check_")}
globals().update(_CHECKS)

__all__ = ["Verdict", *_CHECKS]
