"""Exercises of lesson 07, target modules."""

from __future__ import annotations

from lora_course.checks.verdict import Verdict, choice, numbers

BUDGET, SQUARE, WIDE = 27_648, 768, 1_920  # numbers a layer; numbers a rank of a 384 x 384 and of a 384 x 1536 matrix


def check_equal_budget(qv: float | None, everything: float | None) -> Verdict:
    """Lesson 07: ranks of equal budget on q, v and on all six matrices of a MiniLM layer."""
    right = (BUDGET / (2 * SQUARE), BUDGET / (4 * SQUARE + 2 * WIDE))
    near = {
        "there are two matrices, and each has both A and B: 384 + 384 numbers a rank": (BUDGET / SQUARE, right[1]),
        "up and down are wider: 384 + 1536 numbers a rank, not 768": (right[0], BUDGET / (6 * SQUARE)),
        "that is attention alone: up and down are two more": (right[0], BUDGET / (4 * SQUARE)),
        "that is five matrices: up and down are two": (right[0], BUDGET / (4 * SQUARE + WIDE)),
        "the other way round: what is spread over more matrices has the smaller rank": right[::-1],
        "those would be whole matrices: an adapter has r (in + out) numbers": (BUDGET / (2 * 384 * 384), right[1]),
    }
    wrong = "divide the budget by what one rank costs on all the chosen matrices together"
    return numbers((qv, everything), right, "18 (768 + 768) = 4 (4 x 768 + 2 x 1,920) = 27,648", near, wrong)


def check_one_pair(answer: str | None) -> Verdict:
    """Lesson 07: what one pair of runs, 0.9 points apart on 2,000 rows, allows to say."""
    replies = {
        "a": "0.9 is the standard error of one accuracy; a difference needs about twice its own to be told from luck",
        "b": "overlapping bars show no equality: the same sentences were answered, and equality has a test of its own",
        "c": "and it says nothing of other seeds: for that, several of each are needed",
    }
    return choice(answer, "c", replies)
