"""Exercises of old lesson 14, reproducing the paper."""

from __future__ import annotations

from lora_course.checks.verdict import Verdict, choice, number

RULES = {
    "a": "a higher mean is luck half the time where nothing differs: a rule needs to be able to say undecided",
    "b": "margin, rows and outcomes stand before the first run, so no result can move them",
    "c": "a margin that is chosen when the interval is known fits every interval: it was to be fixed beforehand",
    "d": "another model on other data cannot have equal figures; the question is whether the finding holds",
}
ANSWER = "put a number in place of the ..."


def check_gpt2_count(answer: int | None) -> Verdict:
    """Old lesson 14: numbers of LoRA of rank 4 on q and v in GPT-2 medium, 24 layers of width 1,024."""
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
    return number(answer, 24 * 2 * one, hints, why, hint=ANSWER)


def check_without_rte(answer: float | None) -> Verdict:
    """Old lesson 14: LoRA's mean less full fine-tuning's on RoBERTa-base, without RTE, over seven tasks, in points."""
    hints = {
        0.8 / 7: "the other way round: LoRA less full fine-tuning",
        0.8875: "that is with RTE: leave its column out of both rows, and divide by seven",
        0.9: "that is with RTE: leave its column out of both rows, and divide by seven",
        -0.1: "divide by seven tasks, not by eight",
        -0.8: "that is the sum over the seven tasks: divide by seven",
    }
    why = "87.33 - 87.44 = -0.11 points: LoRA's lead of 0.9 is RTE alone. Where did those runs start?"
    return number(answer, -0.8 / 7, hints, why, 0.04, hint=ANSWER)


def check_beforehand(answer: str | None) -> Verdict:
    """Old lesson 14: which of four is a rule stated beforehand."""
    return choice(answer, "b", RULES, "put a letter in place of the ...")


def check_luck(answer: float | None) -> Verdict:
    """Old lesson 14: how probably five coins fall alike, on either side."""
    hints = {
        0.5**5: "that is one of the two sides: all tails decides, too",
        2 * 0.5**3: "that is three seeds",
        2 * 0.5**4: "that is four seeds: asked are five",
        0.5: "that is one coin",
        100 * 2 * 0.5**5: "right in per cent; asked is the share",
        1 - 2 * 0.5**5: "that is how probably it stays undecided",
        0.05: "that is the level of other tests; here it follows from the coins",
    }
    why = "2 x (1/2)^5 = 1/16, if the seeds are independent: chance alone decides in six of a hundred"
    return number(answer, 2 * 0.5**5, hints, why, 0.01, hint=ANSWER)
