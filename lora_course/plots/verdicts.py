"""All claims on one sheet: statement, verdict and on what it depends, in words and marks, not in colours alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from textwrap import wrap

from lora_course.claims.cards import Verdict, listed
from lora_course.claims.claim_tests import WORDS
from lora_lab.plots import BLUE, GREY, ORANGE, RED, Picture

COLOURS: Mapping[str, str] = {"true": BLUE, "false": RED, "depends": ORANGE, "undecided": GREY}
SHAPES: Mapping[str, str] = {"true": "o", "false": "X", "depends": "D", "undecided": "s"}
LINE, WIDTH = 0.19, 10.5  # inches: height of a line of text, width of the sheet


def sheet(verdicts: Mapping[str, Verdict], guesses: Mapping[str, str | None] | None = None) -> Picture:
    """One row a claim; `guesses` (words by id or number) stand beside the verdicts, marked where they differ."""
    rows = [_row(one, _guess(one, guesses or {})) for one in verdicts.values()]
    lines = [max(len(row[1]), len(row[2]), 1) for row in rows]
    height = LINE * (sum(lines) + 0.7 * len(lines)) + 0.9
    picture = Picture(figsize=(WIDTH, height), dpi=100, facecolor="white")
    axes = picture.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0), facecolor="white")
    axes.set_axis_off()
    axes.text(0.2, 0.35, _finding(verdicts), fontsize=11, fontweight="bold", va="center")
    top = 0.75
    for (number, statement, verdict, word), n in zip(rows, lines, strict=True):
        axes.axhline(top - 0.35 * LINE, color="#dddddd", linewidth=0.6)
        axes.text(0.2, top, number, fontsize=9, va="top", fontweight="bold")
        axes.text(0.75, top, "\n".join(statement), fontsize=9, va="top")
        axes.scatter([6.35], [top + 0.45 * LINE], marker=SHAPES[word], color=COLOURS[word], s=48)
        axes.text(6.6, top, "\n".join(verdict), fontsize=9, va="top", fontweight="bold")
        top += LINE * (n + 0.7)
    picture.alt = "; ".join(f"{v.card.number} {v.card.statement} {v.words}" for v in verdicts.values())
    return picture


def _row(one: Verdict, guess: str | None) -> tuple[str, list[str], list[str], str]:
    """Number, statement and verdict in lines, and the word."""
    beside = f"{one.words} (you: {guess})" if guess and guess != one.word else one.words
    return one.card.number, wrap(one.card.statement, 78), wrap(beside, 48), one.word


def _guess(one: Verdict, guesses: Mapping[str, str | None]) -> str | None:
    return guesses.get(one.card.id) or guesses.get(one.card.number)


def _finding(verdicts: Mapping[str, Verdict]) -> str:
    """How many of each word."""
    counts = Counter(one.word for one in verdicts.values())
    said = [f"{counts[word]} {word}" for word in WORDS if counts[word]]
    return f"{len(verdicts)} claims: {listed(said)}"
