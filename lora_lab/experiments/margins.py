"""Judge a comparison at every margin, so that a panel only looks results up: no test runs in the browser.

    shown(found)       what `ComparePanel` draws of the JSON of `lora-lab compare`
    judged(scores)     {rival: {method: intervals, and a letter for each margin}}
    resampled(a, b)    studies resampled from two methods' answers, to see how often intervals miss

A letter is an outcome: b better, w worse, e equivalent, u undecided, B or W better or worse but within the margin,
- unknown, for a comparison without stored answers.
"""

from __future__ import annotations

import base64
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from lora_lab.experiments.statistics import LEVEL, Pair, holm, mean_interval
from lora_lab.metrics import metric as metric_of

MARGINS = tuple(k / 1000 for k in range(1, 61))  # 0.1 to 6 points; nats per token for language models
NAMES = {
    "full": "full fine-tuning", "prompt": "prompt tuning", "ptuning": "P-tuning", "prefix": "prefix tuning",
    "bitfit": "BitFit", "ia3": "IA3", "bottleneck": "bottleneck adapter", "head": "head only",
    "vera": "VeRA", "lora-xs": "LoRA-XS", "tinylora": "TinyLoRA",
}  # fmt: skip
SWAP = str.maketrans("bwBW", "wbWB")


def packed(scores: np.ndarray) -> dict[str, Any]:
    """Encode scores (seeds, rows) for JSON: a bit per right or wrong answer, float32 for other scores."""
    right = scores.dtype == bool
    each = [np.packbits(one) if right else one.astype("<f4") for one in scores]
    seeds = [base64.b64encode(one.tobytes()).decode() for one in each]
    return {"rows": scores.shape[1], "right": right, "seeds": seeds}


def unpacked(answers: Mapping[str, Any]) -> np.ndarray:
    """Decode what `packed` encoded: (seeds, rows)."""
    each = [base64.b64decode(one) for one in answers["seeds"]]
    if answers["right"]:
        return np.array([np.unpackbits(np.frombuffer(one, np.uint8), count=answers["rows"]) for one in each], bool)
    return np.array([np.frombuffer(one, "<f4") for one in each], float)


def letter(difference: float, p_difference: float, p_equivalence: float) -> str:
    """Return the outcome that follows from these p-values."""
    side = "b" if difference > 0 else "w"
    if p_equivalence < LEVEL:
        return side.upper() if p_difference < LEVEL else "e"
    return side if p_difference < LEVEL else "u"


def judged(scores: Mapping[str, np.ndarray], margins: Sequence[float] = MARGINS) -> dict[str, dict[str, Any]]:
    """{rival: {method: entry}} of scores (seeds, rows) by name, as `verdict(method, rival, margin)` finds them.

    An entry has the difference; low and high, its 95 % interval; within, [[position, low, high], ...], the 90 %
    intervals from these positions in `margins` on; outcomes, a letter for each margin; together, the same with Holm's
    correction over all that meet this rival; more, [seeds, rows] that would tell for each margin where it is undecided.
    """
    entries: dict[str, dict[str, Any]] = {name: {} for name in scores}
    differ: dict[tuple[str, str], float] = {}
    equal: dict[tuple[str, str], list[float]] = {}
    for a, b in combinations(scores, 2):
        pair = Pair(scores[a].astype(float), scores[b].astype(float), margins[0])
        differ[a, b] = differ[b, a] = pair.p_difference()
        equal[a, b] = equal[b, a] = [_equal(pair, margin) for margin in margins]
        entries[b][a] = _entry(pair, differ[a, b], equal[a, b], margins)
        entries[a][b] = _turned(entries[b][a])
    for rival, others in entries.items():
        corrected = holm([differ[name, rival] for name in others])
        each = [holm(at) for at in zip(*(equal[name, rival] for name in others), strict=True)]
        for place, entry in enumerate(others.values()):
            letters = (letter(entry["difference"], corrected[place], one[place]) for one in each)
            entry["together"] = "".join(letters)
    return entries


def _equal(pair: Pair, margin: float) -> float:
    pair.margin = margin
    return pair.p_equivalence()


def _entry(pair: Pair, differ: float, equal: Sequence[float], margins: Sequence[float]) -> dict[str, Any]:
    """A pair's entry from its p-values: of a difference, and of equivalence at each margin."""
    within, outcomes, more = list[list[float]](), "", []
    for at, (margin, p) in enumerate(zip(margins, equal, strict=True)):
        pair.margin = margin
        ends = [round(end, 5) for end in pair.interval(LEVEL, pair.widening(pair.rows))]
        if not within or within[-1][1:] != ends:
            within.append([at, *ends])
        outcomes += letter(pair.difference, differ, p)
        if outcomes[-1] == "u":
            found = pair.judged(differ, p)
            more.append([many and int(float(f"{many:.2g}")) for many in (found.more_seeds, found.more_rows)])
    found = pair.judged(differ, 0.0)  # whatever the margin: the 95 % interval
    ends95 = {"low": round(found.low95, 5), "high": round(found.high95, 5)}
    return {"difference": round(pair.difference, 6), **ends95, "within": within, "outcomes": outcomes, "more": more}


def _turned(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of the rival against the method."""
    swapped = {name: entry[name].translate(SWAP) for name in ("outcomes", "together") if name in entry}
    ends = {"difference": -entry["difference"], "low": -entry["high"], "high": -entry["low"]}
    return {**entry, **ends, "within": [[at, -high, -low] for at, low, high in entry["within"]], **swapped}


def resampled(
    a: np.ndarray, b: np.ndarray, rows: int, margins: Sequence[float] = MARGINS, *, count: int = 100, seed: int = 0
) -> dict[str, Any]:
    """Studies of `rows` rows, whose seeds and rows are drawn from scores (seeds, rows) with replacement.

    truth is the difference in `a` and `b`, which every study estimates; studies, [[difference, low, high], ...] with
    95 % intervals; outcomes, a string of letters for each.
    """
    chance, a, b = np.random.default_rng(seed), a.astype(float), b.astype(float)
    studies, outcomes = [], []
    for _ in range(count):
        columns = chance.integers(a.shape[1], size=rows)
        first = chance.integers(len(a), size=len(a))
        second = first if len(a) == len(b) else chance.integers(len(b), size=len(b))
        pair = Pair(a[first][:, columns], b[second][:, columns], margins[0])
        differ = pair.p_difference()
        found = pair.judged(differ, pair.p_equivalence())
        studies.append([round(one, 5) for one in (found.difference, found.low95, found.high95)])
        equal = bisect_left([_equal(pair, margin) < LEVEL for margin in margins], True)  # from there on
        apart, within = (letter(found.difference, differ, p) for p in (1.0, 0.0))
        outcomes.append(apart * equal + within * (len(margins) - equal))
    truth = round(float(a.mean() - b.mean()), 6)
    return {"truth": truth, "rows": rows, "seeds": len(a), "studies": studies, "outcomes": outcomes}


# ---- a comparison as JSON


def scores_in(found: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The scores (seeds, rows) of the methods of a comparison whose answers were kept, by label."""
    return {row["label"]: unpacked(row["answers"]) for row in found["methods"] if row.get("answers")}


def shown(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the panel draws of a comparison: its methods, margins, and the outcome of each pair."""
    name, scores, made = found["metric"], scores_in(found), found.get("environment") or {}
    rows = [row for row in found["methods"] if (row.get(name) or {}).get("each")]
    margins, metric = tuple(sorted({*MARGINS, found["margin"]})), metric_of(name)
    against: dict[str, dict[str, Any]] = {row["label"]: {} for row in rows} | judged(scores, margins)
    first = {row["method"]: row["label"] for row in reversed(rows)}
    for row in rows:
        for opponent, said in (row.get("against") or {}).items():
            label, rival = row["label"], first.get(opponent)
            if rival and label not in against[rival]:  # no answers were kept
                against[rival][label] = _stored(said, margins)
                against[label][rival] = _turned(against[rival][label])
    points = all(one.dtype == bool for one in scores.values()) if scores else metric.factor > 1
    ranked = sorted(rows, key=lambda row: (row["method"] != "full", row["method"] == "lora"))
    rival = ranked[0]["label"] if ranked else ""  # full fine-tuning before others, and those before LoRA
    others = sorted(rows, key=lambda row: row["method"] != "lora")
    about = f"{found['model']} on {found['task']}, {found['steps']} steps of {found['batch']} rows. "
    about += "Each learning rate was chosen on validation rows; the test rows were scored once a run."
    if "hardware" in made and "date" in made:
        about += f" Made {made['date']} on {made['hardware']}."
    return {
        "metric": name.replace("_", " "), "unit": "%" if metric.factor > 1 else "",
        "lower": not metric.higher_is_better, "scale": 100 if points else 1,
        "gap": "nats a token" if not points else "points" if name == "accuracy" else "points of accuracy",
        "margins": margins, "margin": found["margin"], "against": against,
        "pair": [next((row["label"] for row in others if row["label"] != rival), ""), rival],
        "rows": max((one.shape[1] for one in scores.values()), default=0),
        "methods": [_method(row, name) for row in rows],
        "failed": [[row["label"], row["error"]] for row in found["methods"] if row.get("error")],
        "about": about,
    }  # fmt: skip


def _method(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    factor = metric_of(name).factor
    each = [factor * value for value in row[name]["each"]]
    mean, low, high = mean_interval(each)
    kept = ("label", "method", "settings", "lr", "edge", "seconds", "added_tokens", "adapter_bytes")
    tried = [(one.get("lr"), one.get("validation")) for one in row.get("tried") or ()]
    return {
        **{key: row.get(key) for key in kept},
        "name": NAMES.get(row["label"], row["label"]),
        **{"each": [round(one, 3) for one in each], "mean": round(mean, 3)},
        **({"low": round(low, 3), "high": round(high, 3)} if low is not None and high is not None else {}),
        "trained": (row.get("trainable") or 0) + (row.get("head") or 0),
        "head": bool(row.get("head")),
        "bytes": row.get("peak_bytes") or row.get("predicted_bytes"),
        "tried": [[lr, round(factor * value, 2)] for lr, value in tried if lr and value is not None],
    }


def _stored(said: Mapping[str, Any], margins: Sequence[float]) -> dict[str, Any]:
    """The entry of a stored verdict: one margin, and perhaps no 90 % interval."""
    ends = {one["level"]: (one["low"], one["high"]) for one in said["intervals"]}
    low, high = ends[95]
    found = letter(said["difference"], float(low <= 0 <= high), float(said["kind"] != "equivalent"))
    letters = "".join(found if margin == said["margin"] else "-" for margin in margins)
    within = [[0, *ends[90]]] if 90 in ends else []
    interval = {"difference": said["difference"], "low": low, "high": high, "within": within, "more": []}
    return {**interval, "outcomes": letters, "together": letters}
