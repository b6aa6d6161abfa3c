"""Exercises for readers without Python: what `answer.js` asks below an exercise, and the replies, from the checks.

A page shows the lesson as it is drawn for nobody by name, and so do the forms.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from lora_course import checks
from lora_course.checks import (
    bits,
    comparing,
    counting,
    debugging,
    fit,
    knobs,
    merging,
    placing,
    planning,
    ranks,
    reading,
    reproducing,
    small_file,
    styles,
    sure,
    verdict,
    writing,
)
from lora_course.experiments import broken
from lora_lab.accounting.gpus import card as card_of
from lora_lab.accounting.gpus import usable
from lora_lab.accounting.setup import Setup
from lora_lab.experiments import playground
from lora_lab.experiments.results import from_store
from lora_lab.training.assets import shipped
from lora_lab.widgets.memory_panel import METHODS

CARD, ALPHA, PAIR = "T4 16 GB", 128.0, "3 bits against 16"  # as drawn for nobody by name
TOKENS = 2048
ROW_WORDS = ("FITS", "OVER", "SHORT", "HOLDS", "SHORTEST", "LEFT_OUT")
LENGTHS = (32, 64, 128, 256, 512, 1024, 4096, 16384)  # between them the memory of a step grows in proportion
FAR = {"sign": verdict.SIGN, "nearly": verdict.NEARLY, "large": verdict.LARGE, "small": verdict.SMALL}


def asked(name: str, **field: Any) -> dict[str, Any]:
    return {"kind": "number", "name": name, **field}


def number(name: str, compared: verdict.Number, hint: str | None = None) -> dict[str, Any]:
    """A field for a number, or for a formula whose value it is."""
    fields = asdict(compared) | {"misconceptions": [*compared.misconceptions.items()], "hint": hint}
    return asked(name, **fields, judge="number", far=FAR)


def word(name: str, words: Iterable[str], **compared: Any) -> dict[str, Any]:
    """A field with words to choose from."""
    return {"kind": "word", "name": name, "options": [*words], "judge": "choice", **compared}


def report() -> dict[str, Any]:
    import pandas as pd

    right = from_store(shipped("data/results/sweeps/seeds.zip")).scores
    accuracy = 100 * right.mean(axis=1)
    ahead = ((i, j) for i in range(40) for j in range(40) if 1 < accuracy[i] - accuracy[j] < 1.8)
    a, b = next(ahead)
    compared = sure.report(pd.DataFrame({"a": right[a], "b": right[b]}).astype(int))
    told = f"a has {accuracy[a]:.2f} % right, b {accuracy[b]:.2f} %, of n = {right.shape[1]:,} rows. "
    told += f"They disagree on a share of {compared.share:.4g}."
    fields = [
        number("half", compared.half, sure.HINTS["half"]),
        word("word", sure.WORDS, **asdict(compared.word), hint=sure.HINTS["word"]),
        number("rows", compared.rows, sure.HINTS["rows"]),
    ]
    return {"told": told, "fields": fields, "why": compared.why, "sealed": True}


def bracket() -> dict[str, Any]:
    least, most = knobs.plateau(playground.shown(playground.load())[0], ALPHA)
    return {
        "told": f"Three rates for alpha {ALPHA:g} at rank 8. Here nothing trains: the other rows of the map judge.",
        "judge": "bracket",
        "fields": [asked(name) for name in ("low", "middle", "high")],
        "plateau": [least, most],
        "found": knobs.PLATEAU.format(least=f"{least:g}", most=f"{most:g}"),
        "words": {name.lower(): getattr(knobs, name) for name in ("STEPS", "PEAK", "ON_IT", "BELOW", "ABOVE")},
        "steps": [knobs.NEAREST, knobs.FARTHEST],
        "carried": [knobs.TOO_HIGH, knobs.CARRIED],
    }


def rule() -> dict[str, Any]:
    rule, margin = comparing.EQUIVALENCE, 0.015
    cases = [case for case in rule.cases if case[-1] == margin]
    several = {
        "kind": "several",
        "name": "equivalent",
        "judge": "several",
        "options": [f"{low:g} to {high:g}".replace("-", "−") for low, high, _ in cases],
        "right": [rule.right(*case) for case in cases],
        "near": [[[wrong(*case) for case in cases], words] for words, wrong in rule.near.items()],
        "look": ["an end lies outside", "both ends lie inside"],  # at what was marked, and at what was not
    }
    told = f"Nine 90 % intervals, as shares. Which are equivalent within {margin}? Mark every one."
    return {"told": told, "fields": [several], "why": rule.why}


def row() -> dict[str, Any]:
    room, cases = usable(card_of(CARD)), []
    for method in METHODS:
        for checkpointing in (False, True):
            setup = Setup(checkpointing=checkpointing)
            steps = [fit.step(method, replace(setup, seq=seq)) for seq in LENGTHS]
            sizes = [
                {"seq": seq, "peak": one.peak, "at": one.at} | {part: one.categories.get(part, 0) for part in fit.PARTS}
                for seq, one in zip(LENGTHS, steps, strict=True)
            ]
            over = fit.over(method, steps[0], room)
            cases.append({
                "options": [method, "on" if checkpointing else "off"],
                "longest": fit.longest(method, setup, CARD),
                "over": "" if over.startswith(fit.HOLDS.partition("{")[0]) else over,
                "short": fit.short(method, setup),
                "part": fit.wrong_part(method, setup),
                "sizes": sizes,
            })  # fmt: skip
    best = fit.longest("QLoRA", Setup(checkpointing=True, optimizer="sgd"), CARD)
    return {
        "told": f"Llama 3 8B on a {CARD} ({room / 2**30:.2f} GiB usable), AdamW, one text a step.",
        "judge": "row",
        "fields": [word("method", METHODS), word("checkpointing", ("off", "on")), asked("seq", whole=True)],
        "card": CARD, "room": room, "best": best, "near": fit.NEAR, "almost": fit.ALMOST, "cases": cases,
        "parts": fit.HINTS, "words": {name.lower(): getattr(fit, name) for name in ROW_WORDS},
    }  # fmt: skip


def defense() -> dict[str, Any]:
    """The margins in tenths; those next to each other at which the same is said are one case."""
    cases: list[dict[str, Any]] = []
    for tenths in range(round(10 * comparing.LEAST), 10 * comparing.MOST + 1):
        said = comparing.defense(PAIR, tenths / 10)
        margin, open_ = f"{tenths / 10:g} points", "{margin} points"
        case = {
            "seen": said.seen,
            "word": said.word,
            "why_not": {one: comparing.why_not(one, said.word) for one in comparing.WORDS if one != said.word},
            "replies": [[text.replace(margin, open_), reply] for text, reply in said.replies.items()],
            "right": [*said.replies].index(said.sentence),
        }
        if not cases or {**cases[-1], "from": 0} != {**case, "from": 0}:
            cases.append({**case, "from": tenths / 10})
    little = comparing.LEAST / 2
    return {
        "told": comparing.asked(PAIR) + ".", "judge": "defense", "fields": [asked("margin")],
        "next": [word("word", comparing.WORDS), {"kind": "one", "name": "sentence"}],
        "sealed_at": comparing.SEALED, "rule": comparing.RULE, "which": comparing.WHICH, "parts": comparing.HINTS,
        "limits": [comparing.LEAST, comparing.MOST],
        "none": comparing.no_margin(0),
        "little": comparing.no_margin(little).replace(f"{little:g}", "{margin}"),
        "much": comparing.no_margin(comparing.MOST + 1),
        "cases": cases,
    }  # fmt: skip


def turn_mask() -> dict[str, Any]:
    turns = styles.CONVERSATIONS[1]
    marks = {words: [label != -100 for label in labels] for words, labels in styles.wrong_labels(turns).items()}
    tokens = [f"{token} ({role})" for role, some in turns for token in some]
    several = {
        "kind": "several",
        "name": "counts in the loss",
        "judge": "several",
        "options": [f"{place}: token {token}" for place, token in enumerate(tokens, 1)],
        "right": [label != -100 for label in styles.labels_of(turns, "assistant")],
        "near": [[some, words] for words, some in marks.items() if len(some) == len(tokens)],
        "look": ["it isn't the assistant's", "the assistant says it"],
    }
    return {
        "told": "A conversation. Mark every token that counts.",
        "fields": [several],
        "why": styles.WHY,
    }


def diagnosis() -> dict[str, Any]:
    fields = [
        word(letter, sorted(debugging.NAMES), right=[one.fault], replies=dict.fromkeys(debugging.NAMES, hint), why="")
        for letter, one in broken.PATIENTS.items()
        for hint in [debugging.HINTS[one.fault]]
    ]
    return {"told": "What is wrong with each?", "fields": fields, "why": "all ten found", "sealed": True}


def eleventh() -> dict[str, Any]:
    (fault, _), hints = broken.ELEVENTH[0], debugging.ELEVENTH
    field = word("fault", hints, right=[fault], replies=dict.fromkeys(hints, hints[fault]), why="")
    return {"told": "What is wrong with the eleventh patient?", "fields": [field], "why": fault, "sealed": True}


def block() -> dict[str, Any]:
    told, index, weight = bits.index_and_weight()
    return {"told": told, "fields": [number("index", index), number("weight", weight)], "why": weight.why}


def on_card() -> dict[str, Any]:
    (name, device, tokens), (peak, saved, fits) = bits.CASE, bits.on_card(bits.CASE)
    linear, other, rest = bits.sizes(name, tokens)
    told = f"{name}: {linear:,} weights in linear layers, {other:,} elsewhere. A text of {tokens:,} tokens: {rest:,} "
    told += f"bytes beside weights. {device}: {usable(card_of(device)):,} bytes usable. The peak in GiB, what double "
    told += "quantization saves in MiB, and the most bits that fit:"
    fields = [number("peak", peak), number("saved", saved), word("fits", bits.WORDS, **asdict(fits))]
    return {"told": told, "fields": fields, "why": fits.why}


def facts() -> dict[str, Any]:
    right = ranks.right_at_each_rank(64)
    seen = ", ".join(f"{r}: {100 * right[r]:.1f}" for r in (1, 4, 8, *range(12, 25)))
    told = f"64 facts. Pieces and percent right: {seen}. The fewest pieces for 95 %:"
    return one("rank", told, ranks.facts_rank)


def flip() -> dict[str, Any]:
    """Claim 3: changes that were judged here, and what is said to each."""
    tries = [("models", "llama-2-70b"), ("models", "llama-3.2-1b"), ("seq", 32), ("seq", 2048), ("rank", 1)]
    said = {f"{name} = {value:,}" if name == "seq" else f"{name} = {value}": planning.check_flip({name: value})
            for name, value in tries}  # fmt: skip
    right = [words for words, found in said.items() if found.passed]
    replies = {words: found.words for words, found in said.items()}
    field = word("change", said, right=right, replies=replies, why="activations, which both keep, are a smaller part")
    return {"told": "Which one makes claim 3 true?", "fields": [field], "why": "so it holds for every model left"}


def job() -> dict[str, Any]:
    """Five choices and their evidence, for the brief drawn for nobody by name."""
    fields = []
    for name, choice in planning.lines(0).items():
        evidence = planning.evidence_of(name)
        fields.append(word(name, choice.replies, **asdict(choice)))
        fields.append(word(f"{name}, because of", evidence.replies, **asdict(evidence)))
    key = "; ".join(f"{name} ({words})" for name, words in planning.EVIDENCE.items())
    told = f"{planning.BRIEFS[0].text} Evidence, with its lesson: {key}."
    return {"told": told, "fields": fields, "why": "each choice has its evidence", "sealed": True}


def at_one_budget() -> dict[str, Any]:
    told = (
        "The highest rank on q,k,v,o (attention) and on all linear layers (everything) for what rank 32 on q,v costs. "
    )
    told += "In Llama 3 8B, q and o are 4096 x 4096, k and v 4096 x 1024, the MLP's gate, up and down 4096 x 14336."
    right = placing.ranks("llama-3-8b")
    why = placing.WHY.format(" and ".join(one.why for one in right.values()))
    return {"told": told, "fields": [number(name, compared) for name, compared in right.items()], "why": why}


def plan() -> dict[str, Any]:
    """All three rounds at once: the intervals stand in the question."""
    pair = "q against q,k,v,o"
    (told, needed), right = placing.seeds_of(pair), comparing.defense(pair, placing.GAP)
    replies = {one: comparing.why_not(one, right.word) for one in comparing.WORDS if one != right.word}
    fields = [
        number("seeds", needed, placing.HINT),
        word("word", comparing.WORDS, right=[right.word], replies=replies, hint=comparing.HINTS["word"]),
        {"kind": "one", "name": "sentence", "options": [*right.replies], "judge": "choice", "right": [right.sentence],
         "replies": right.replies, "hint": comparing.HINTS["sentence"]},
    ]  # fmt: skip
    told += f" Then the word and the sentence for all five seeds. {right.seen}. {comparing.RULE}"
    return {"told": told, "fields": fields, "why": f"{needed.why}; {right.replies[right.sentence]}"}


def judge() -> dict[str, Any]:
    name, any_word = reproducing.ITEMS[0], reproducing.OUTCOMES
    fields = [
        word(letter, any_word, right=[right], replies=dict.fromkeys(any_word, reproducing.WHY[right]), why="")
        for letter, right in reproducing.outcomes(name).items()
    ]
    made = [f"{one}: {', '.join(f'{a} {b}' for a, b in run.items())}" for one, run in reproducing.runs(name).items()]
    told = f"{reproducing.item(name).rule} All rows are seen once in {reproducing.PASS} steps. {'; '.join(made)}."
    return {"told": told, "fields": fields, "why": "by the rule", "sealed": True}


def published() -> dict[str, Any]:
    error, points, shown = reproducing.pair("large")
    p, q = reproducing.published("large")
    fields = [number("error", error), number("points", points), word("word", reproducing.SHOWN, **asdict(shown))]
    told = f"RoBERTa-large: LoRA, no mark, {p}; full fine-tuning *, {q}; n = {reproducing.RTE}."
    return {"told": told, "fields": fields, "why": f"below {points.right:.1f} points it can be luck", "sealed": True}


def one(name: str, told: str, compared: Callable[[], verdict.Number]) -> dict[str, Any]:
    return {"told": told, "fields": [number(name, right := compared())], "why": right.why}


FORMS: dict[str, Callable[[], dict[str, Any]]] = {
    "pair_numbers": partial(one, "numbers", "Numbers in A and B at rank 2:", small_file.pair_numbers),
    "file_bytes": partial(one, "bytes", "Bytes for llama-3.2-1b at rank 8:", small_file.file_bytes),
    "merge": lambda: {
        "told": "W = [[1, 2], [3, 4]], A = [[1, 0]], B = [[0], [5]], alpha 2, rank 1. Merged, row 2, column 1 holds:",
        "fields": [number("entry", writing.MERGED, writing.MERGED.hint)],
        "why": writing.MERGED.why,
    },
    "half_width": partial(
        one, "half", "Half the 95 % interval, as a share, for p = 0.9 and n = 400:",
        lambda: sure.HALF_WIDTH.at(0.9, 400, within=0.02),
    ),
    "report": report,
    "teacher_rank": partial(one, "rank", "The teacher's rank:", knobs.teacher_rank),
    "bracket": bracket,
    "peak": partial(
        one, "bytes", f"Bytes at the peak for {TOKENS:,} tokens:", lambda: fit.peak_of_qlora().at(TOKENS, within=0.015)
    ),
    "longest_row": row,
    "equivalence_rule": rule,
    "defense": defense,
    "turn_mask": turn_mask,
    "mixed_batch": lambda: {
        "told": "W = [[1, 0], [0, 1]], scaling 3. Adapter 0: A = [[1, 0]], B = [[1], [0]]. "
        "Adapter 1: A = [[0, 1]], B = [[0], [1]]. A row x = [1, 2] takes adapter 1. The second number of y:",
        "fields": [number("y", merging.MIXED, merging.MIXED.hint)],
        "why": merging.MIXED.why,
    },
    "forty_copies": partial(
        one, "times", "The base has 91 MB, an adapter 0.30 MB. Forty merged models take how many times the bytes?",
        lambda: merging.forty(91_000_000, 301_776),
    ),
    "block": block,
    "card": on_card,
    "energy": partial(
        one, "share", "Of the singular values 5, 4, 2, 1 the first two hold a share of the energy of:",
        lambda: ranks.ENERGY.at(np.array([5.0, 4.0, 2.0, 1.0]), 2, within=0.005),
    ),
    "facts": facts,
    "rank_of_file": partial(
        one, "rank", "37,868,984 bytes, on gate, up and down, 28 layers, d = 3,072, intermediate_size 8,192. The rank:",
        counting.rank_of_file,
    ),
    "audit": partial(one, "numbers", f"{counting.unseen()}. Numbers that train at rank 8:", counting.audit),
    "chance": lambda: {
        "told": "phi by chance, in 384 dimensions: of one direction and one, and of 8 directions and 64.",
        "fields": [number(name, one) for name, one in zip(("1 and 1", "8 and 64"), reading.chance(64), strict=True)],
        "why": reading.chance(64)[1].why,
    },
    "stranger": lambda: {
        "told": "It reads “wonderful” as +3.4, and calls “a wonderful film” positive. What was negated?",
        "fields": [word("negated", reading.SIGNS, **asdict(reading.stranger(0)))],
        "why": reading.stranger(0).why,
    },
    "diagnosis": diagnosis,
    "eleventh": eleventh,
    "flip": flip,
    "brief": job,
    "ranks": at_one_budget,
    "plan": plan,
    "judge": judge,
    "published": published,
}  # fmt: skip


def form(name: str) -> dict[str, Any]:
    """The cell for the check of a name: what `answer.js` makes a form of."""
    os.environ.pop("LORA_LAB_STUDENT", None)
    content = {"check": name, "judge": "fields", **FORMS[name](), "hints": getattr(checks, f"check_{name}").hints}
    seal = " data-seal" * content.pop("sealed", False)
    text = json.dumps(content).replace("<", "\\u003c")
    markup = f'<div data-answer{seal}><script type="application/json">{text}</script></div>'
    return {"cell_type": "markdown", "metadata": {}, "source": markup}
