"""Checks of the exercises: they say what is wrong and why, never only that it is; unsolved they say "not yet".

One file a lesson, over `verdict`; a lesson says `from lora_course import checks` and `checks.check_x(answer)`. A
check's file is imported when the check is first used, so that no lesson waits for what only another one needs.
"""
# ruff: noqa: F403

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lora_course.checks.verdict import Verdict

if TYPE_CHECKING:  # for editors
    from lora_course.checks.bits import *
    from lora_course.checks.debugging import *
    from lora_course.checks.inside import *
    from lora_course.checks.memory import *
    from lora_course.checks.merging import *
    from lora_course.checks.ranks import *
    from lora_course.checks.rates import *
    from lora_course.checks.reproducing import *
    from lora_course.checks.rivals import *
    from lora_course.checks.savings import *
    from lora_course.checks.scratch import *
    from lora_course.checks.start import *
    from lora_course.checks.styles import *
    from lora_course.checks.targets import *
    from lora_course.checks.training import *
    from lora_course.checks.verdicts import *

_LESSONS = {  # a lesson's file, and the checks in it without "check_"
    "start": "trainable_parameters contradictions",
    "ranks": "energy update_shows factor_shapes training_bytes",
    "scratch": "lora_forward dead_start wrong_fan_in detour_cost",
    "savings": "break_even_rank qv_count times_fewer file_size storage",
    "training": "standard_error rows_needed largest_change",
    "memory": "adam_gib nf4_gib logits_mb down_gib recompute",
    "rates": "chosen_rate first_step same_rate best_error sqrt_alpha",
    "targets": "equal_budget one_pair",
    "rivals": "tuned_rate added_share equivalence_rule not_equal",
    "merging": "merged_weight lost_update forty_copies serving",
    "styles": "loss_mask adapters_per_base style_or_knowledge own_pairs",
    "bits": "codes bits_per_weight bf16_step three_bits_said",
    "debugging": "diagnosis first_look",
    "inside": "smallest_rank phi chance amplification what_is_shown",
    "reproducing": "gpt2_count without_rte beforehand luck",
    "verdicts": "word turned own_card",
}
_HOME = {f"check_{name}": lesson for lesson, names in _LESSONS.items() for name in names.split()}

__all__ = ["Verdict", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lora_course.checks' has no attribute '{name}'")
    value = getattr(import_module(f"lora_course.checks.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
