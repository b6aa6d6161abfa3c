from pathlib import Path

ROOT = Path(__file__).parents[2]
COMING = {
    "09_monday", "10_why_low_rank", "11_count_anything", "12_qlora", "13_where_to_put_it", "14_inside_delta_w",
    "18_reproduce_the_paper",
}  # fmt: skip
"""Lessons that pages link to before their notebooks exist. Empty once all of them do."""
