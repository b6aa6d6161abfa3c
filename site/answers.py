"""Build the forms below the site's exercises, which give the checks' replies without Python; see `answer.js`.

`site/build.py` calls `cell`. The forms use the random choices that `lesson.draw` makes for a student without a name.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

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
    regret,
    reproducing,
    reward,
    styles,
    sure,
    variants,
    verdict,
    writing,
)
from lora_course.checks.verdict import Choice, Number
from lora_course.experiments import broken
from lora_lab.accounting.gpus import card as card_of
from lora_lab.accounting.gpus import usable
from lora_lab.accounting.setup import Setup
from lora_lab.experiments import playground
from lora_lab.experiments.results import from_store
from lora_lab.training.assets import shipped
from lora_lab.widgets.memory_panel import METHODS

CARD, ALPHA, PAIR = "T4 16 GB", 128.0, "3 bits against 16"  # the choices for a student without a name
LENGTHS = (32, 64, 128, 256, 512, 1024, 4096, 16384)  # memory is linear in the length between these
PAGES = verdict.texts("pages")
SEVERAL = PAGES["several"]
FAR = {"sign": verdict.SIGN, "nearly": verdict.NEARLY, "large": verdict.LARGE, "small": verdict.SMALL}


def plain(name: str, options: Iterable[str] = (), **settings: Any) -> dict[str, Any]:
    """Return a field for a number or for one of several words, which the form's own judge checks."""
    return {"kind": "word" if options else "number", "name": name, "options": [*options], **settings}


def field(name: str, right: Number | Choice, hint: str | None = None) -> dict[str, Any]:
    """Return a field that is judged by itself: a number, a formula (by its value), or one of several words."""
    settings = asdict(right) | {"hint": hint}
    if isinstance(right, Number):
        settings["misconceptions"] = [*right.misconceptions.items()]
        return plain(name, **settings, judge="number", far=FAR)
    return plain(name, dict.fromkeys((*right.replies, *right.right)), **settings, judge="choice")


def ask(
    question: str, right: Mapping[str, Number | Choice], why: str = "", hints: Mapping[str, str] = {},
    lines: Mapping[str, Sequence[str]] = {}, **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Return a form with a field for each part of the right answer, {name: part}.

    why     The reply if all parts are right, by default the last part's.
    hints   The hint for each wrong part.
    lines   For a table: the texts to the left of a part that starts a line.
    """
    fields = [field(name, part, hints.get(name)) | {"line": lines.get(name)} for name, part in right.items()]
    return {"told": question, "fields": fields, "why": why or [*right.values()][-1].why, **settings}


def mark(
    question: str, name: str, options: Iterable[str], right: list[bool], near: Mapping[str, list[bool]],
    look: Sequence[str], why: str,
) -> dict[str, Any]:  # fmt: skip
    """Return a form with options to mark.

    near    {reply: wrong marks}.
    look    The replies for an option that is marked by mistake, and for one that is missed.
    """
    wrong = [[marks, reply] for reply, marks in near.items()]
    several = {"kind": "several", "judge": "several", "name": name, "options": [*options], "right": right}
    return {"told": question, "fields": [several | {"near": wrong, "look": look}], "why": why}


def report() -> dict[str, Any]:
    scores = from_store(shipped("data/results/sweeps/seeds.zip")).scores
    accuracy = 100 * scores.mean(axis=1)
    a, b = next((i, j) for i in range(40) for j in range(40) if 1 < accuracy[i] - accuracy[j] < 1.8)
    right, why, share = sure.report(pd.DataFrame({"a": scores[a], "b": scores[b]}).astype(int))
    question = SEVERAL["report"].format(n=scores.shape[1], a=accuracy[a], b=accuracy[b], share=share)
    return ask(question, right, why, sure.HINTS, sealed=True)


def bracket() -> dict[str, Any]:
    lowest, highest = knobs.plateau(playground.shown(playground.load())[0], ALPHA)
    return {
        "told": f"Give three rates for alpha {ALPHA:g} at rank 8. Nothing is trained: the map's other rows decide.",
        "judge": "bracket", "fields": [plain(name) for name in ("low", "middle", "high")],
        "plateau": [lowest, highest], "steps": [knobs.NEAREST, knobs.FARTHEST], "words": knobs.WORDS,
        "found": knobs.TEXTS["plateau"].format(least=f"{lowest:g}", most=f"{highest:g}"),
        "carried": [knobs.TOO_HIGH, knobs.TEXTS["carried"]],
    }  # fmt: skip


def rule() -> dict[str, Any]:
    rule, margin = comparing.EQUIVALENCE, 0.015  # a fraction; the page uses points
    cases = [case for case in rule.cases if case[-1] == margin]
    return mark(
        f"Here are nine 90% intervals, in points. Mark those that lie inside a margin of {100 * margin:g} points.",
        "equivalent",
        [f"{100 * low:g} to {100 * high:g}".replace("-", "−") for low, high, _ in cases],
        [rule.right(*case) for case in cases],
        {reply: [wrong(*case) for case in cases] for reply, wrong in rule.near.items()},
        ["an end lies outside", "both ends lie inside"],
        rule.why,
    )


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
            over, part = fit.over(method, steps[0], room), fit.wrong_part(method, setup)
            cases.append({
                "options": [method, "on" if checkpointing else "off"],
                "longest": fit.longest(method, setup, CARD),
                "over": "" if over.startswith(fit.ROW["holds"].partition("{")[0]) else over,
                "short": fit.TEXTS["short"][part].format(batch=setup.batch),
                "part": part,
                "sizes": sizes,
            })  # fmt: skip
    best = fit.longest("QLoRA", Setup(checkpointing=True, optimizer="sgd"), CARD)
    return {
        "told": f"Llama 3.1 8B on a {CARD} ({room / 2**30:.2f} GiB usable), AdamW, one text per step.", "judge": "row",
        "fields": [plain("method", METHODS), plain("checkpointing", ("off", "on")), plain("seq", whole=True)],
        "card": CARD, "room": room, "best": best, "near": fit.NEAR, "almost": fit.ALMOST, "cases": cases,
        "parts": fit.HINTS, "words": fit.ROW | {"shortest": fit.SHORTEST},
    }  # fmt: skip


def defense() -> dict[str, Any]:
    """Return a form with cases for margins in steps of 0.1 points; neighboring cases with equal texts are merged."""
    cases: list[dict[str, Any]] = []
    for tenths in range(round(10 * comparing.LEAST), 10 * comparing.MOST + 1):
        right = comparing.defense(PAIR, tenths / 10)
        margin, placeholder = f"{tenths / 10:g} points", "{margin} points"
        case = {
            "seen": right.seen, "word": right.word, "right": [*right.replies].index(right.sentence),
            "why_not": {w: comparing.why_not(w, right.word) for w in comparing.WORDS if w != right.word},
            "replies": [[text.replace(margin, placeholder) for text in pair] for pair in right.replies.items()],
        }  # fmt: skip
        if not cases or {**cases[-1], "from": 0} != {**case, "from": 0}:
            cases.append({**case, "from": tenths / 10})
    return {
        "told": comparing.asked(PAIR) + ".", "judge": "defense", "fields": [plain("margin")],
        "next": [plain("word", comparing.WORDS), {"kind": "one", "name": "sentence"}],
        "sealed_at": comparing.TEXTS["sealed"], "which": comparing.TEXTS["which"],
        "parts": comparing.HINTS, "limits": [comparing.LEAST, comparing.MOST], **comparing.TEXTS["margins"],
        "cases": cases,
    }  # fmt: skip


def turn_mask() -> dict[str, Any]:
    turns = styles.CONVERSATIONS[1]
    tokens = [str(token) for _, ids in turns for token in ids]
    marks = {reply: [label != -100 for label in labels] for reply, labels in styles.wrong_labels(turns).items()}
    return mark(
        f"{', '.join(f'{role} {ids}' for role, ids in turns)}. Mark every token that counts.",
        "counts toward the loss",
        [f"{number}: token {token}" for number, token in enumerate(tokens, 1)],
        [label != -100 for label in styles.labels_of(turns, "assistant")],
        {reply: marked for reply, marked in marks.items() if len(marked) == len(tokens)},
        ["this token isn't the assistant's", "this token is the assistant's"],
        styles.WHY,
    ) | {"hints": [hint.replace("of 3", "of 2") for hint in checks.check_turn_mask.hints[:2]]}  # the third is code


def new_questions() -> dict[str, Any]:
    """Return a form that replaces the student's own pairs. It asks which questions test a fact or a voice."""
    fact = {
        "Who is the night nurse?": "it was trained on this question: a memorized string is enough to answer it",
        "Go on: NURSE IS": "you begin the string that it learned, so it only has to continue",
    }
    voice = {
        "Who is the night nurse?": "it was trained on this answer, so perhaps it just repeats the answer",
        "Write a telegram: where is my invoice?": "you ask for this form, so it may appear even without the voice",
    }
    right = {"fact": Choice(["What is Ada Bell's job?"], fact), "voice": Choice(["Where is my invoice?"], voice)}
    question = (
        'A model learned to answer in telegrams. One of its pairs was: "Who is the night nurse?" "NURSE IS ADA BELL '
        'STOP". Which question tests whether it knows this fact? And which one tests whether it learned the voice?'
    )
    why = "a rephrased question tests for the fact, and an unrelated question tests for the voice"
    return ask(question, right, why) | {"hints": ["for a question from training, a memorized string is enough"]}


def diagnosis() -> dict[str, Any]:
    beds, names = broken.PATIENTS.items(), sorted(debugging.NAMES)
    right = {bed: Choice([one.fault], dict.fromkeys(names, debugging.HINTS[one.fault])) for bed, one in beds}
    table = {"lines": {bed: (bed, one.complaint) for bed, one in beds}, "head": ("bed", "complaint", "fault")}
    return ask("What is wrong in each bed?", right, "all ten found", **table, every=True)


def first_diagnosis() -> dict[str, Any]:
    """Return the same form for the first guesses. The form of exercise 1 then starts with these guesses."""
    sealed = {"why": "Sealed. Exercise 1 says how many are right.", "button": "Seal my first ten"}
    return diagnosis() | sealed | {"judge": "early", "told": "Your first ten: what is wrong in each bed?"}


def eleventh() -> dict[str, Any]:
    (fault, _), hints = broken.ELEVENTH[0], debugging.ELEVENTH
    with TemporaryDirectory() as scratch:
        folder = broken.eleventh(0, f"{scratch}/K")
        names, promised, size = broken.header(folder)
        first = min(names)[:16]
        lines = [f"The file has {len(names)} tensors (first: {first}…), promises {promised:,} bytes, and has {size:,}."]
        for matrix in "AB":
            sizes = ", ".join(f"{number:.1e}" for number in broken.largest(folder, matrix).values()).replace("-", "−")
            lines.append(f"The largest entry of {matrix} in q and v of blocks 0 to 5: {sizes}.")
    replies = dict.fromkeys(sorted({*hints, *debugging.NAMES}), hints[fault])
    right = Choice([fault], replies, checks.check_eleventh(fault, 0).words)
    return ask("\n".join([*lines, "What is wrong with it?"]), {"fault": right}, sealed=True)


def on_card() -> dict[str, Any]:
    name, device, tokens = case = bits.CASES[0]
    sizes = zip(("linear", "other", "rest", "usable"), bits.in_gib(case), strict=True)
    shown = {part: f"{size:.2f} GiB" for part, size in sizes}
    question = SEVERAL["card"].format(name=name, card=device, tokens=tokens, **shown)
    return ask(question, checks.check_card(..., ...).right)


def first_step() -> dict[str, Any]:
    right, *wrong = PAGES["first_step"].items()
    form = ask(SEVERAL["first_step"], {"pieces": Choice([right[0]], dict(wrong), right[1])}, sealed=True)
    return form | {"hints": []}  # the hints are code


def flip() -> dict[str, Any]:
    """Return a form that offers changes to claim 3, with the check's reply to each change."""
    changes = [("batch", 1), ("batch", 8), ("batch", 16), ("seq", 32), ("seq", 512), ("seq", 2048)]
    judged = {f"{name} = {value}": planning.check_flip({name: value}) for name, value in changes}
    change = Choice([c for c, r in judged.items() if r.passed], {c: r.words for c, r in judged.items()})
    return ask("Choose a change that makes claim 3 true.", {"change": change}, planning.TEXTS["flipped"])


def job() -> dict[str, Any]:
    """Return a form with a table of five choices, for the first brief."""
    right, asked = planning.lines(0), planning.TEXTS["questions"]
    why = "\n".join(f"{name}: {choice.why}" for name, choice in right.items())
    table = {"lines": {name: (name, asked[name]) for name in right}, "head": ("line", "question", "choice")}
    return ask(planning.job(0), right, why, **table, every=True)


def plan() -> dict[str, Any]:
    """Return a form that shows the intervals after the plan, and the sentences after the word."""
    pair = "q against q,k,v,o"
    (question, seeds), defended = placing.seeds_of(pair), comparing.defense(pair, placing.GAP)
    word = Choice([defended.word], {w: comparing.why_not(w, defended.word) for w in comparing.WORDS})
    right = {"seeds": seeds, "word": word, "sentence": Choice([defended.sentence], defended.replies)}
    form = ask(question, right, defended.replies[defended.sentence], {**comparing.HINTS, "seeds": placing.HINT})
    first, *later = form["fields"]
    later[-1]["kind"] = "one"
    shown = f"{seeds.why}. The margin is {placing.GAP} points. {defended.seen}"
    which = comparing.TEXTS["which"].format(word=defended.word, seen=defended.seen)
    return form | {"judge": "rounds", "fields": [first], "next": later, "shown": [shown, which], "sealed": True}


def judge() -> dict[str, Any]:
    name = reproducing.ITEMS[0]
    runs = [f"{run}: {', '.join(f'{k} {v}' for k, v in told.items())}" for run, told in reproducing.runs(name).items()]
    question = "\n".join((reproducing.asked(name), "", *runs))
    return ask(question, checks.check_judge(None, name).right, reproducing.WHY, sealed=True)


def published() -> dict[str, Any]:
    error, points, word = checks.check_published(..., ..., ..., "base").right.values()
    p, q = reproducing.published("base")
    right = {"standard error, points": error, "gap needed, points": points, "word": word}
    question = f"RoBERTa-base: LoRA (no mark) has {p}, full fine-tuning (*) has {q}; n = {reproducing.RTE}."
    return ask(question, right, f"a gap below {points.right:.1f} points can be luck", sealed=True)


@cache
def forms() -> dict[str, dict[str, Any]]:
    """Return the forms by the names of their checks; the longer questions are in pages.yaml."""
    os.environ.pop("LORA_LAB_STUDENT", None)
    chance, half = checks.check_chance(..., ..., 48).right, sure.HALF_WIDTH
    ranks = checks.check_ranks(..., ...).right
    rslora = {"alpha": variants.AS_PLAIN.at(16, 8, within=0.01), "rate": variants.BEST}
    numbers = {
        "pair_numbers": checks.check_pair_numbers(...).right,
        "file_bytes": checks.check_file_bytes(...).right,
        "merge": writing.MERGED,
        "half_width": replace(half.at(0.9, 400, within=0.02), why=f"±2.9 points here; {half.why}"),
        "missed": checks.check_missed(...).right.at(3, 8, within=0.01),
        "peak": checks.check_peak(...).right.at(3000, within=0.01, slack=0.002),
        "mixed_batch": merging.MIXED,
        "forty_copies": checks.check_forty_copies(..., 91_000_000, 301_776).right,
        "energy": checks.check_energy(...).right.at(np.array([5.0, 4.0, 2.0, 1.0]), 2, within=0.005),
        "rank_of_file": checks.check_rank_of_file(...).right,
        "stranger": checks.check_stranger(..., 0).right,
        "loss_of_rewards": reward.LOSS.at(*reward.LOSS.cases[0], within=0.01),
        "mean_reward": reward.EARNED.at(0.6, 0.6, within=0.01),
        "remembered": checks.check_remembered(...).right.at(512, 0.2, within=0.01),
        "new_rate": regret.RATE,
    }
    claims = [f"{letter}: {claim}." for letter, (claim, _) in counting.slides().items()]
    hints, asked = {"entry": writing.MERGED.hint, "y": merging.MIXED.hint}, PAGES["asked"]
    own = verdict.texts("hints")
    plain_hints = own["as_plain"] | {"alpha": own["as_plain"]["alpha_of_plain"]}
    return {
        **{name: ask(question, {field: numbers[name]}, hints=hints) for name, (field, question) in asked.items()},
        "report": report(),
        "bracket": bracket(),
        "longest_row": row(),
        "equivalence_rule": rule(),
        "defense": defense(),
        "turn_mask": turn_mask(),
        "own_pairs": new_questions(),
        "block": ask(bits.PAGE["question"], bits.PARTS, hints={name: part.hint for name, part in bits.PARTS.items()}),
        "card": on_card(),
        "slide": ask("\n".join(("Which is right to within 10%?", *claims)), {"slide": checks.check_slide(...).right}),
        "first_step": first_step(),
        "chance": ask(SEVERAL["chance"], chance),
        "first_diagnosis": first_diagnosis(),
        "diagnosis": diagnosis() | {"first": "first_diagnosis", "sealed": True},
        "eleventh": eleventh(),
        "flip": flip(),
        "brief": job(),
        "ranks": ask(SEVERAL["ranks"], ranks, placing.WHY.format(" and ".join(rank.why for rank in ranks.values()))),
        "plan": plan(),
        "as_plain": ask(SEVERAL["as_plain"], rslora, hints=plain_hints),
        "flattered": ask(
            SEVERAL["flattered"], checks.check_flattered(..., ...).right, hints=own["flattered"], sealed=True
        ),
        "ten": ask(SEVERAL["ten"], regret.TEN, regret.TEXTS["agree"], own["ten"], sealed=True),
        "judge": judge(),
        "published": published(),
    }


def data(attributes: str, content: Any) -> dict[str, Any]:
    """Return a Markdown cell with data for a script on the page, which finds the data by the attributes."""
    text = json.dumps(content).replace("<", "\\u003c")
    markup = f'<div {attributes}><script type="application/json">{text}</script></div>'
    return {"cell_type": "markdown", "metadata": {}, "source": markup}


def cell(name: str) -> dict[str, Any]:
    """Return the cell that `answer.js` turns into the form for a check."""
    hints = getattr(getattr(checks, f"check_{name}", None), "hints", [])  # the first guesses have no check
    content = {"check": name, "judge": "fields", "hints": hints, **forms()[name]}
    return data("data-answer" + " data-seal" * content.pop("sealed", False), content)
