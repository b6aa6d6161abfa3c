"""Exercises for readers without Python: the forms that `answer.js` shows below an exercise, with the checks' replies.

Pages and forms show what `lesson.draw` draws for a student without a name.
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
    regret,
    reproducing,
    reward,
    styles,
    sure,
    variants,
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

CARD, ALPHA, PAIR = "T4 16 GB", 128.0, "3 bits against 16"  # drawn without a name
TOKENS = 2048
BRACKET_WORDS = ("CLOSE", "WIDE", "PEAK", "BELOW", "ABOVE", "LOWER", "HIGHER")
ROW_WORDS = ("FITS", "OVER", "SHORT", "HOLDS", "SHORTEST", "LEFT_OUT")
LENGTHS = (32, 64, 128, 256, 512, 1024, 4096, 16384)  # between them, a step's memory is linear in the length
FAR = {"sign": verdict.SIGN, "nearly": verdict.NEARLY, "large": verdict.LARGE, "small": verdict.SMALL}


def plain_number(name: str, **settings: Any) -> dict[str, Any]:
    return {"kind": "number", "name": name, **settings}


def number(name: str, right: verdict.Number, hint: str | None = None) -> dict[str, Any]:
    """Return a field for a number, or for a formula with that value."""
    settings = asdict(right) | {"misconceptions": [*right.misconceptions.items()], "hint": hint}
    return plain_number(name, **settings, judge="number", far=FAR)


def word(name: str, words: Iterable[str], **settings: Any) -> dict[str, Any]:
    """Return a field with words to choose from."""
    return {"kind": "word", "name": name, "options": [*words], "judge": "choice", **settings}


def report() -> dict[str, Any]:
    import pandas as pd

    scores = from_store(shipped("data/results/sweeps/seeds.zip")).scores
    accuracy = 100 * scores.mean(axis=1)
    a, b = next((i, j) for i in range(40) for j in range(40) if 1 < accuracy[i] - accuracy[j] < 1.8)
    right, why, share = sure.report(pd.DataFrame({"a": scores[a], "b": scores[b]}).astype(int))
    question = f"a has {accuracy[a]:.2f}% right, b {accuracy[b]:.2f}%, of n = {scores.shape[1]:,} rows. "
    question += f"They disagree on a share of {share:.4g}: there, a squared difference is 1, elsewhere 0."
    fields = [
        number("half", right["half"], sure.HINTS["half"]),
        word("word", sure.WORDS, **asdict(right["word"]), hint=sure.HINTS["word"]),
        number("rows", right["rows"], sure.HINTS["rows"]),
    ]
    return {"told": question, "fields": fields, "why": why, "sealed": True}


def bracket() -> dict[str, Any]:
    lowest, highest = knobs.plateau(playground.shown(playground.load())[0], ALPHA)
    return {
        "told": f"Three rates for alpha {ALPHA:g} at rank 8. Here nothing trains: the other rows of the map judge.",
        "judge": "bracket",
        "fields": [plain_number(name) for name in ("low", "middle", "high")],
        "plateau": [lowest, highest],
        "found": knobs.PLATEAU.format(least=f"{lowest:g}", most=f"{highest:g}"),
        "words": {name.lower(): getattr(knobs, name) for name in BRACKET_WORDS},
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
        "look": ["an end lies outside", "both ends lie inside"],  # for wrongly marked options, and for missed ones
    }
    question = f"Nine 90% intervals, as shares. Which are equivalent within {margin}? Mark every one."
    return {"told": question, "fields": [several], "why": rule.why}


def row() -> dict[str, Any]:
    room, cases = usable(card_of(CARD)), []
    for method in METHODS:
        for checkpointing in (False, True):
            setup = Setup(checkpointing=checkpointing)
            steps = [fit.step(method, replace(setup, seq=seq)) for seq in LENGTHS]
            sizes = [
                {"seq": seq, "peak": s.peak, "at": s.at} | {part: s.categories.get(part, 0) for part in fit.PARTS}
                for seq, s in zip(LENGTHS, steps, strict=True)
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
        "told": f"Llama 3.1 8B on a {CARD} ({room / 2**30:.2f} GiB usable), AdamW, one text a step.",
        "judge": "row",
        "fields": [word("method", METHODS), word("checkpointing", ("off", "on")), plain_number("seq", whole=True)],
        "card": CARD, "room": room, "best": best, "near": fit.NEAR, "almost": fit.ALMOST, "cases": cases,
        "parts": fit.HINTS, "words": {name.lower(): getattr(fit, name) for name in ROW_WORDS},
    }  # fmt: skip


def defense() -> dict[str, Any]:
    """List margins in steps of 0.1 points; neighbors with the same texts are merged into one case."""
    cases: list[dict[str, Any]] = []
    for tenths in range(round(10 * comparing.LEAST), 10 * comparing.MOST + 1):
        right = comparing.defense(PAIR, tenths / 10)
        margin, placeholder = f"{tenths / 10:g} points", "{margin} points"
        case = {
            "seen": right.seen,
            "word": right.word,
            "why_not": {w: comparing.why_not(w, right.word) for w in comparing.WORDS if w != right.word},
            "replies": [[text.replace(margin, placeholder) for text in pair] for pair in right.replies.items()],
            "right": [*right.replies].index(right.sentence),
        }
        if not cases or {**cases[-1], "from": 0} != {**case, "from": 0}:
            cases.append({**case, "from": tenths / 10})
    return {
        "told": comparing.asked(PAIR) + ".", "judge": "defense", "fields": [plain_number("margin")],
        "next": [word("word", comparing.WORDS), {"kind": "one", "name": "sentence"}],
        "sealed_at": comparing.SEALED, "rule": comparing.RULE, "which": comparing.WHICH, "parts": comparing.HINTS,
        "limits": [comparing.LEAST, comparing.MOST],
        "none": comparing.no_margin(0),
        "little": comparing.no_margin(comparing.LEAST / 2).replace(f"{comparing.LEAST / 2:g}", "{margin}"),
        "much": comparing.no_margin(comparing.MOST + 1),
        "cases": cases,
    }  # fmt: skip


def turn_mask() -> dict[str, Any]:
    turns = styles.CONVERSATIONS[1]
    marks = {reply: [label != -100 for label in labels] for reply, labels in styles.wrong_labels(turns).items()}
    tokens = [f"{token} ({role})" for role, ids in turns for token in ids]
    several = {
        "kind": "several",
        "name": "counts in the loss",
        "judge": "several",
        "options": [f"{number}: token {token}" for number, token in enumerate(tokens, 1)],
        "right": [label != -100 for label in styles.labels_of(turns, "assistant")],
        "near": [[marked, reply] for reply, marked in marks.items() if len(marked) == len(tokens)],
        "look": ["it isn't the assistant's", "the assistant says it"],
    }
    return {"told": "A conversation. Mark every token that counts.", "fields": [several], "why": styles.WHY}


def diagnosis() -> dict[str, Any]:
    fields = [
        word(letter, sorted(debugging.NAMES), right=[fault], replies=dict.fromkeys(debugging.NAMES, hint), why="")
        for letter, patient in broken.PATIENTS.items()
        for fault, hint in [(patient.fault, debugging.HINTS[patient.fault])]
    ]
    return {"told": "What is wrong with each?", "fields": fields, "why": "all ten found", "sealed": True}


def eleventh() -> dict[str, Any]:
    (fault, _), hints = broken.ELEVENTH[0], debugging.ELEVENTH
    field = word("fault", hints, right=[fault], replies=dict.fromkeys(hints, hints[fault]), why="")
    return {"told": "What is wrong with the eleventh patient?", "fields": [field], "why": fault, "sealed": True}


def block() -> dict[str, Any]:
    question, index, weight = bits.index_and_weight()
    return {"told": question, "fields": [number("index", index), number("weight", weight)], "why": weight.why}


def on_card() -> dict[str, Any]:
    (name, device, tokens), (peak, saved, fits) = bits.CASE, checks.check_card(..., ..., ...).right.values()
    linear, other, rest = bits.sizes(name, tokens)
    question = f"{name}: {linear:,} weights in linear layers, {other:,} elsewhere. A text of {tokens:,} tokens: "
    question += f"{rest:,} bytes besides weights. {device}: {usable(card_of(device)):,} bytes usable. The peak in GiB, "
    question += "what double quantization saves in MiB, and the most bits that fit:"
    fields = [number("peak", peak), number("saved", saved), word("fits", bits.WORDS, **asdict(fits))]
    return {"told": question, "fields": fields, "why": fits.why}


def facts() -> dict[str, Any]:
    right = ranks.right_at_each_rank(64)
    scores = ", ".join(f"{r}: {100 * right[r]:.1f}" for r in (1, 4, 8, *range(12, 25)))
    question = f"64 facts. Pieces and percent right: {scores}. The fewest pieces for 95%:"
    return ask("rank", question, checks.check_facts)


def flip() -> dict[str, Any]:
    """Offer changes to claim 3, with the check's reply to each."""
    changes = [("models", "llama-2-70b"), ("models", "llama-3.2-1b"), ("seq", 32), ("seq", 2048), ("rank", 1)]
    judged = {f"{name} = {value:,}" if name == "seq" else f"{name} = {value}": planning.check_flip({name: value})
              for name, value in changes}  # fmt: skip
    right = [change for change, result in judged.items() if result.passed]
    replies = {change: result.words for change, result in judged.items()}
    field = word("change", judged, right=right, replies=replies, why="activations, which both keep, are a smaller part")
    return {"told": "Which one makes claim 3 true?", "fields": [field], "why": "so it holds for every model left"}


def job() -> dict[str, Any]:
    """Offer five choices and their evidence, for the first brief."""
    fields = []
    for name, choice in planning.lines(0).items():
        evidence = planning.evidence_of(name)
        fields.append(word(name, choice.replies, **asdict(choice)))
        fields.append(word(f"{name}, because of", evidence.replies, **asdict(evidence)))
    key = "; ".join(f"{name} ({words})" for name, words in planning.EVIDENCE.items())
    question = f"{planning.BRIEFS[0]['text']} Evidence, with its lesson: {key}."
    return {"told": question, "fields": fields, "why": "each choice has its evidence", "sealed": True}


def at_one_budget() -> dict[str, Any]:
    question = "The highest rank on q,k,v,o (attention) and on all linear layers (everything) for what rank 32 on q,v "
    question += "costs. In Llama 3 8B, q and o are 4096 x 4096, k and v 4096 x 1024, the MLP's gate, up and down "
    question += "4096 x 14336."
    right = checks.check_ranks(..., ...).right
    why = placing.WHY.format(" and ".join(rank.why for rank in right.values()))
    return {"told": question, "fields": [number(name, rank) for name, rank in right.items()], "why": why}


def plan() -> dict[str, Any]:
    """Ask all three rounds at once, with the intervals in the question."""
    pair = "q against q,k,v,o"
    (question, needed), right = placing.seeds_of(pair), comparing.defense(pair, placing.GAP)
    replies = {wrong: comparing.why_not(wrong, right.word) for wrong in comparing.WORDS if wrong != right.word}
    fields = [
        number("seeds", needed, placing.HINT),
        word("word", comparing.WORDS, right=[right.word], replies=replies, hint=comparing.HINTS["word"]),
        {"kind": "one", "name": "sentence", "options": [*right.replies], "judge": "choice", "right": [right.sentence],
         "replies": right.replies, "hint": comparing.HINTS["sentence"]},
    ]  # fmt: skip
    question += f" Then the word and the sentence for all five seeds. {right.seen}. {comparing.RULE}"
    return {"told": question, "fields": fields, "why": f"{needed.why}; {right.replies[right.sentence]}"}


def flattered() -> dict[str, Any]:
    variant = "DoRA"
    rate, points = checks.check_flattered(..., ...).right.values()
    shared = ", ".join(f"{lr:g}: {ahead:+.1f}" for lr, ahead in variants.ahead(variant).items())
    question = f"Your paper is on {variant}. Points ahead of plain LoRA, with one rate for both: {shared}. Which rate "
    question += "makes it look best? And how many points is it ahead on test, each at its own rate? (See the table.)"
    fields = [number("rate", rate), number("points", points)]
    return {"told": question, "fields": fields, "why": points.why, "sealed": True}


def lowest() -> dict[str, Any]:
    question = "Losses 0.60, 0.50, 0.56 at half a rate, the rate, and twice the rate: lowest at how many doublings? "
    question += "And if the lowest loss is the last one tried, the best rate is:"
    x, last = regret.LOWEST.at(0.60, 0.50, 0.56, within=0.01), asdict(regret.LAST)
    fields = [number("x", x), word("at the last", (*regret.LAST.replies, *regret.LAST.right), **last)]
    return {"told": question, "fields": fields, "why": f"{x.why}; {regret.LAST.why}"}


def carried() -> dict[str, Any]:
    fields = [
        number("impossible", regret.IMPOSSIBLE),
        word("sentence", regret.SENTENCES, **asdict(regret.CARRIED)),
        word("then", (*regret.THEN.replies, *regret.THEN.right), **asdict(regret.THEN)),
    ]
    sentences = "; ".join(f"{letter}: {sentence}" for letter, sentence in regret.SENTENCES.items())
    question = "The first rank that no update of the layer can have; the sentence that the numbers support; and what "
    question += f"you would run next. {sentences}."
    return {"told": question, "fields": fields, "why": regret.THEN.why, "sealed": True}


def judge() -> dict[str, Any]:
    name, words = reproducing.ITEMS[0], reproducing.OUTCOMES
    fields = [
        word(letter, words, right=[right], replies=dict.fromkeys(words, reproducing.WHY[right]), why="")
        for letter, right in reproducing.outcomes(name).items()
    ]
    facts = {letter: ", ".join(f"{k} {v}" for k, v in run.items()) for letter, run in reproducing.runs(name).items()}
    runs = "; ".join(f"{letter}: {text}" for letter, text in facts.items())
    question = f"{reproducing.item(name).rule} All rows are seen once in {reproducing.PASS} steps. {runs}."
    return {"told": question, "fields": fields, "why": "by the rule", "sealed": True}


def published() -> dict[str, Any]:
    error, points, shown = checks.check_published(..., ..., ..., "large").right.values()
    p, q = reproducing.published("large")
    fields = [number("error", error), number("points", points), word("word", reproducing.SHOWN, **asdict(shown))]
    told = f"RoBERTa-large: LoRA, no mark, {p}; full fine-tuning *, {q}; n = {reproducing.RTE}."
    return {"told": told, "fields": fields, "why": f"below {points.right:.1f} points it can be luck", "sealed": True}


def ask(name: str, question: str, check: Callable[..., Any], *case: Any, at: Any = (), within: float = 0) -> Any:
    """Ask for one number: of an exercise in this case, or the value of its function `at` these arguments."""
    right = check(..., *case).right
    right = right.at(*at, within=within) if at else right
    return {"told": question, "fields": [number(name, right)], "why": right.why}


FORMS: dict[str, Callable[[], dict[str, Any]]] = {
    "pair_numbers": partial(ask, "numbers", "Numbers in A and B at rank 2:", checks.check_pair_numbers),
    "file_bytes": partial(ask, "bytes", "Bytes for llama-3.2-1b at rank 8:", checks.check_file_bytes),
    "merge": lambda: {
        "told": "W = [[1, 2], [3, 4]], A = [[1, 2], [1, 3]], B = [[2, 1], [3, 1]], alpha 4, rank 2. "
        "The bottom-right number of the merged matrix:",
        "fields": [number("entry", writing.MERGED, writing.MERGED.hint)],
        "why": writing.MERGED.why,
    },
    "half_width": partial(
        ask, "half", "Half the 95% interval, as a share, for p = 0.9 and n = 400:", checks.check_half_width,
        at=(0.9, 400), within=0.02,
    ),
    "report": report,
    "missed": partial(
        ask, "share", "A secret of 8 equally strong pieces. The share of its size that rank 3 misses:",
        checks.check_missed, at=(3, 8), within=0.01,
    ),
    "bracket": bracket,
    "peak": partial(
        ask, "bytes", f"Bytes at the peak for {TOKENS:,} tokens:", checks.check_peak, at=(TOKENS,), within=0.015
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
        ask, "times", "The base has 91 MB, an adapter 0.30 MB. Forty merged models take how many times the bytes?",
        checks.check_forty_copies, 91_000_000, 301_776,
    ),
    "block": block,
    "card": on_card,
    "energy": partial(
        ask, "share", "Of the singular values 5, 4, 2, 1 the first two hold a share of the energy of:",
        checks.check_energy, at=(np.array([5.0, 4.0, 2.0, 1.0]), 2), within=0.005,
    ),
    "facts": facts,
    "rank_of_file": partial(
        ask, "rank", "37,868,984 bytes, on gate, up and down, 28 layers, d = 3,072, intermediate_size 8,192. The rank:",
        checks.check_rank_of_file,
    ),
    "audit": partial(ask, "numbers", f"{counting.unseen()}. Numbers that train at rank 8:", checks.check_audit),
    "chance": lambda: {
        "told": "phi by chance, in 384 dimensions: of one direction and one, and of 8 directions and 48.",
        "fields": [number(name.replace("one", "1"), n) for name, n in checks.check_chance(..., ..., 48).right.items()],
        "why": checks.check_chance(..., ..., 48).right["8 and 48"].why,
    },
    "stranger": lambda: {
        "told": "It reads “wonderful” as +3.4, and calls “a wonderful film” positive. What was negated?",
        "fields": [word("negated", reading.SIGNS, **asdict(checks.check_stranger(..., 0).right))],
        "why": checks.check_stranger(..., 0).right.why,
    },
    "diagnosis": diagnosis,
    "eleventh": eleventh,
    "flip": flip,
    "brief": job,
    "ranks": at_one_budget,
    "plan": plan,
    "as_plain": partial(
        ask, "alpha", "rsLoRA of rank 64 and alpha 64 is plain LoRA of rank 64 with alpha:", checks.check_as_plain,
        at=(64, 64), within=1e-6,
    ),
    "flattered": flattered,
    "lowest": lowest,
    "carried": carried,
    "loss_of_rewards": partial(
        ask, "loss", "Three answers of probabilities 0.5, 0.9, 0.4 and rewards 1, 0, 1. The loss (ln 0.5 = -0.693, "
        "ln 0.9 = -0.105, ln 0.4 = -0.916):", checks.check_loss_of_rewards, at=reward.LOSS.cases[0], within=0.01,
    ),
    "bits": partial(
        ask, "bits", "It's right once in 100 answers, p = 0.01. Bits that right or wrong tells on average:",
        checks.check_bits, at=(0.01,), within=0.02,
    ),
    "judge": judge,
    "published": published,
    "remembered": partial(
        ask, "bits", "512 flips at a mean loss of 0.2 nats. Bits that it remembers:", checks.check_remembered,
        at=(512, 0.2), within=0.01,
    ),
}  # fmt: skip


def form(name: str) -> dict[str, Any]:
    """Return the Markdown cell from which `answer.js` builds the form of a check."""
    os.environ.pop("LORA_LAB_STUDENT", None)
    content = {"check": name, "judge": "fields", **FORMS[name](), "hints": getattr(checks, f"check_{name}").hints}
    seal = " data-seal" * content.pop("sealed", False)
    text = json.dumps(content).replace("<", "\\u003c")
    markup = f'<div data-answer{seal}><script type="application/json">{text}</script></div>'
    return {"cell_type": "markdown", "metadata": {}, "source": markup}
