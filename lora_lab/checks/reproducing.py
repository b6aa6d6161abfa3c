"""Exercises of lesson 14, reproducing the paper."""

from __future__ import annotations

from lora_lab.checks.verdict import Verdict, not_yet, number, unsolved

RULES = {
    "a": "a higher mean is luck half the time where nothing differs: a rule needs to be able to say undecided",
    "b": "margin, rows and all three outcomes stand before the first run, so no result can move them",
    "c": "a margin that is chosen when the interval is known fits every interval: it was to be fixed beforehand",
    "d": "equal figures are not to be had from another model and other data; asked is whether the finding holds",
}
ANSWER = "put a number in place of the ..."


def check_gpt2_count(answer: int | None) -> Verdict:
    """Lesson 14: numbers of LoRA of rank 4 on q and v in GPT-2 medium, 24 layers of width 1,024."""
    if unsolved(answer):
        return not_yet(ANSWER)
    one = 4 * (1024 + 1024)
    hints = {
        24 * one: "that is one matrix a layer, or A alone: q and v are two, and each has A and B",
        one: "that is one matrix: there are two in each of 24 layers",
        2 * one: "that is one layer of 24",
        350_000: "that is the printed figure, rounded; asked is what rank 4 comes to",
        24 * 2 * 8 * 2048: "that is rank 8",
        24 * 2 * 1024**2: "those are the matrices themselves: of them LoRA trains none",
    }
    why = "24 layers x 2 matrices x 4 x (1,024 + 1,024) = 393,216: the 0.35M of table 3 follows from no rank"
    return number(answer, 24 * 2 * one, hints, why)


def check_without_rte(answer: float | None) -> Verdict:
    """Lesson 14: LoRA's mean less full fine-tuning's on RoBERTa-base, over the seven tasks besides RTE, in points."""
    if unsolved(answer):
        return not_yet(ANSWER)
    hints = {
        0.8 / 7: "the other way round: LoRA less full fine-tuning",
        0.8875: "that is with RTE: leave its column out of both rows, and divide by seven",
        0.9: "that is with RTE: leave its column out of both rows, and divide by seven",
        -0.1: "divide by seven tasks, not by eight",
        -0.8: "that is the sum over the seven tasks: divide by seven",
    }
    why = "87.33 less 87.44 = -0.11 points: LoRA's lead of 0.9 is RTE alone, whose runs started from MNLI's adapter"
    return number(answer, -0.8 / 7, hints, why, 0.05)


def check_beforehand(answer: str | None) -> Verdict:
    """Lesson 14: which of four is a rule stated beforehand."""
    if unsolved(answer):
        return not_yet("put a letter in place of the ...")
    letter = str(answer).strip(" .,:;()'\"").lower()
    if letter not in RULES:
        return Verdict(False, f"answer with one of {', '.join(RULES)}")
    return Verdict(letter == "b", RULES[letter])


def check_chance(answer: float | None) -> Verdict:
    """Lesson 14: phi(8, 64) of two random subspaces of 384 dimensions."""
    if unsolved(answer):
        return not_yet(ANSWER)
    hints = {
        64 / 12288: "that is GPT-3's width: MiniLM has 384",
        8 / 384: "of the two sizes the larger counts: phi divides by the smaller",
        8 / 64: "that is the one size over the other: chance is against the width of the space",
        384 / 64: "the other way round",
        8 * 64 / 384: "that is the sum of squares: phi divides it by min(8, 64)",
        100 * 64 / 384: "right in per cent; asked is the share",
    }
    why = "max(8, 64) / 384 = 0.17: a sixth is shared by matrices that know nothing of each other; GPT-3 has 0.005"
    return number(answer, 64 / 384, hints, why, 0.01)
