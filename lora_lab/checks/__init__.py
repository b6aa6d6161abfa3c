"""Checks of the exercises: they say what is wrong and why, never only that it is; unsolved they say "not yet".

One file a lesson, over `verdict`; a lesson says `from lora_lab import checks` and `checks.check_x(answer)`.
"""

from lora_lab.checks.bits import check_bf16_step, check_bits_per_weight, check_codes, check_three_bits_said
from lora_lab.checks.debugging import check_diagnosis, check_first_look
from lora_lab.checks.inside import (
    check_amplification,
    check_chance,
    check_phi,
    check_smallest_rank,
    check_what_is_shown,
)
from lora_lab.checks.memory import (
    check_adam_gib,
    check_down_gib,
    check_logits_mb,
    check_nf4_gib,
    check_recompute,
)
from lora_lab.checks.merging import check_forty_copies, check_lost_update, check_merged_weight, check_serving
from lora_lab.checks.ranks import check_energy, check_factor_shapes, check_training_bytes, check_update_shows
from lora_lab.checks.rates import (
    check_best_error,
    check_chosen_rate,
    check_first_step,
    check_same_rate,
    check_sqrt_alpha,
)
from lora_lab.checks.reproducing import (
    check_beforehand,
    check_gpt2_count,
    check_luck,
    check_without_rte,
)
from lora_lab.checks.rivals import (
    check_added_share,
    check_equivalence_rule,
    check_not_equal,
    check_tuned_rate,
)
from lora_lab.checks.savings import (
    check_break_even_rank,
    check_file_size,
    check_qv_count,
    check_storage,
    check_times_fewer,
)
from lora_lab.checks.scratch import check_dead_start, check_detour_cost, check_lora_forward, check_wrong_fan_in
from lora_lab.checks.start import CONTRADICTIONS, check_contradictions, check_trainable_parameters
from lora_lab.checks.styles import (
    check_adapters_per_base,
    check_loss_mask,
    check_own_pairs,
    check_style_or_knowledge,
)
from lora_lab.checks.targets import check_equal_budget, check_one_pair
from lora_lab.checks.training import check_largest_change, check_rows_needed, check_standard_error
from lora_lab.checks.verdict import Verdict
from lora_lab.checks.verdicts import check_own_card, check_turned, check_word

__all__ = [
    "CONTRADICTIONS",
    "Verdict",
    "check_adam_gib",
    "check_adapters_per_base",
    "check_added_share",
    "check_amplification",
    "check_beforehand",
    "check_best_error",
    "check_bf16_step",
    "check_bits_per_weight",
    "check_break_even_rank",
    "check_chance",
    "check_chosen_rate",
    "check_codes",
    "check_contradictions",
    "check_dead_start",
    "check_detour_cost",
    "check_diagnosis",
    "check_down_gib",
    "check_energy",
    "check_equal_budget",
    "check_equivalence_rule",
    "check_factor_shapes",
    "check_file_size",
    "check_first_look",
    "check_first_step",
    "check_forty_copies",
    "check_gpt2_count",
    "check_largest_change",
    "check_logits_mb",
    "check_lora_forward",
    "check_loss_mask",
    "check_lost_update",
    "check_luck",
    "check_merged_weight",
    "check_nf4_gib",
    "check_not_equal",
    "check_one_pair",
    "check_own_card",
    "check_own_pairs",
    "check_phi",
    "check_qv_count",
    "check_recompute",
    "check_rows_needed",
    "check_same_rate",
    "check_serving",
    "check_smallest_rank",
    "check_sqrt_alpha",
    "check_standard_error",
    "check_storage",
    "check_style_or_knowledge",
    "check_three_bits_said",
    "check_times_fewer",
    "check_trainable_parameters",
    "check_training_bytes",
    "check_tuned_rate",
    "check_turned",
    "check_update_shows",
    "check_what_is_shown",
    "check_without_rte",
    "check_word",
    "check_wrong_fan_in",
]
