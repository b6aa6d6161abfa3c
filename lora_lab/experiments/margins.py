"""Judge a comparison at every margin in advance, so that a panel in the browser only has to look up results.

A letter stands for an outcome: b (better), w (worse), e (equivalent), u (undecided), and B or W (better or worse, but
within the margin).
"""

import base64
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from copy import copy
from itertools import combinations
from typing import Any

import numpy as np

from lora_lab.experiments.statistics import LEVEL, Pair, mean_interval, together, word_of
from lora_lab.metrics import metric as metric_of

WORDS = ("better", "worse", "equivalent", "undecided", "better but within the margin", "worse but within the margin")
LETTERS = dict(zip(WORDS, "bweuBW", strict=True))  # a verdict's `word`: its letter
MARGINS = tuple(k / 1000 for k in range(1, 61))  # 0.1 to 6 points; nats per token for language models
NAMES = {
    "full": "full fine-tuning", "prompt": "prompt tuning", "ptuning": "P-tuning", "prefix": "prefix tuning",
    "bitfit": "BitFit", "ia3": "IA3", "bottleneck": "bottleneck adapter", "head": "head only",
    "vera": "VeRA", "lora-xs": "LoRA-XS", "tinylora": "TinyLoRA", "tinylora weight_tying 1": "TinyLoRA, shared",
}  # fmt: skip
VARIANTS = {  # variants of LoRA, by the option that makes them
    "rslora True": "rsLoRA", "lr_ratio 16": "LoRA+", "freeze_a True": "LoRA-FA", "dora True": "DoRA",
    "init pissa": "PiSSA",
}  # fmt: skip


def packed(scores: np.ndarray) -> dict[str, Any]:
    """Encode scores (seeds, rows) for JSON: one bit per right or wrong answer, float32 for other scores."""
    right = scores.dtype == bool
    arrays = [np.packbits(seed) if right else seed.astype("<f4") for seed in scores]
    seeds = [base64.b64encode(array.tobytes()).decode() for array in arrays]
    return {"rows": scores.shape[1], "right": right, "seeds": seeds}


def unpacked(answers: Mapping[str, Any]) -> np.ndarray:
    """Decode the result of `packed` into scores (seeds, rows)."""
    seeds = [base64.b64decode(text) for text in answers["seeds"]]
    if answers["right"]:
        return np.array([np.unpackbits(np.frombuffer(bits, np.uint8), count=answers["rows"]) for bits in seeds], bool)
    return np.array([np.frombuffer(data, "<f4") for data in seeds], float)


def judged(scores: Mapping[str, np.ndarray], margins: Sequence[float] = MARGINS) -> dict[str, dict[str, Any]]:
    """Return {rival: {method: entry}} for scores (seeds, rows) by name, with results of `verdicts` against the rival.

    difference, low, high   the difference and its 95% interval
    within                  90% intervals, [[index, low, high], ...], each valid from `margins[index]` on
    together, outcomes      a letter for each margin, with and without Holm's correction over this rival's methods
    more                    for each undecided letter in `together`, how many more [seeds, rows] are needed
    """
    entries: dict[str, dict[str, Any]] = {name: {} for name in scores}
    pairs = dict[tuple[str, str], Pair]()
    for a, b in combinations(scores, 2):
        pair = pairs[a, b] = Pair(scores[a].astype(float), scores[b].astype(float))
        turned = pairs[b, a] = copy(pair)  # shares the pair's cached results, which are slow to compute
        turned.difference = -pair.difference
    for rival, own in entries.items():
        named = {name: pairs[name, rival] for name in scores if name != rival}
        at_margins = [together([*named.values()], margin) for margin in margins]
        for (name, pair), found in zip(named.items(), zip(*at_margins, strict=True), strict=True):
            alone = [LETTERS[word_of(pair.difference, pair.p_difference, pair.p_equivalence(m))] for m in margins]
            ends = [(round(verdict.low, 5), round(verdict.high, 5)) for verdict in found]
            more = [(verdict.more_seeds, verdict.more_rows) for verdict in found if verdict.word == "undecided"]
            own[name] = {
                "difference": round(pair.difference, 6),
                "low": round(found[0].low95, 5), "high": round(found[0].high95, 5),  # the same at every margin
                "within": [[i, *both] for i, both in enumerate(ends) if i == 0 or both != ends[i - 1]],
                "together": "".join(LETTERS[verdict.word] for verdict in found),
                "more": [[n and int(float(f"{n:.2g}")) for n in sizes] for sizes in more], "outcomes": "".join(alone),
            }  # fmt: skip
    return entries


def resampled(
    a: np.ndarray, b: np.ndarray, rows: int, margins: Sequence[float] = MARGINS, *, count: int = 100, seed: int = 0
) -> dict[str, Any]:
    """Simulate studies: each draws, with replacement, `rows` rows and the original number of seeds from the scores.

    truth      the difference between `a` and `b`, which every study estimates
    studies    [[difference, low, high], ...] with 95% intervals
    outcomes   a string of letters for each study
    """
    rng, a, b = np.random.default_rng(seed), a.astype(float), b.astype(float)
    studies, outcomes = [], []
    for _ in range(count):
        columns = rng.integers(a.shape[1], size=rows)
        first = rng.integers(len(a), size=len(a))
        second = first if len(a) == len(b) else rng.integers(len(b), size=len(b))
        pair = Pair(a[first][:, columns], b[second][:, columns])
        (verdict,) = together([pair], margins[0])
        studies.append([round(value, 5) for value in (verdict.difference, verdict.low95, verdict.high95)])
        first_equal = bisect_left(margins, True, key=lambda margin: pair.p_equivalence(margin) < LEVEL)
        outside, within = (LETTERS[word_of(pair.difference, pair.p_difference, p)] for p in (1.0, 0.0))
        outcomes.append(outside * first_equal + within * (len(margins) - first_equal))
    truth = round(float(a.mean() - b.mean()), 6)
    return {"truth": truth, "rows": rows, "seeds": len(a), "studies": studies, "outcomes": outcomes}


# ---- a comparison as JSON


def scores_in(comparison: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the scores (seeds, rows) of a comparison's methods with stored answers, by label."""
    return {row["label"]: unpacked(row["answers"]) for row in comparison["methods"] if row.get("answers")}


def shown(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a comparison that the panel draws: methods, margins and, if answers are stored, outcomes."""
    name, scores, environment = comparison["metric"], scores_in(comparison), comparison.get("environment") or {}
    rows = [row for row in comparison["methods"] if (row.get(name) or {}).get("each")]
    margins, metric = tuple(sorted({*MARGINS, comparison["margin"]})), metric_of(name)
    against: dict[str, dict[str, Any]] = {row["label"]: {} for row in rows} | judged(scores, margins)
    points = all(answers.dtype == bool for answers in scores.values()) if scores else metric.factor > 1
    ranked = sorted(rows, key=lambda row: (row["method"] != "full", row["method"] == "lora"))
    rival = ranked[0]["label"] if ranked else ""  # full fine-tuning first, LoRA last
    others = sorted(rows, key=lambda row: row["method"] != "lora")
    about = "{model} on {task}, {steps} steps of {batch} rows. ".format(**comparison)
    about += "Each learning rate was chosen on validation rows; runs at that rate were scored on the test rows."
    if "hardware" in environment and "date" in environment:
        about += f" Made {environment['date']} on {environment['hardware']}."
    return {
        "metric": name.replace("_", " "), "unit": "%" if metric.factor > 1 else "",
        "lower": not metric.higher_is_better, "scale": 100 if points else 1,
        "gap": "nats a token" if not points else "points" if name == "accuracy" else "points of accuracy",
        "margins": margins, "margin": comparison["margin"], "against": against,
        "pair": [next((row["label"] for row in others if row["label"] != rival), ""), rival],
        "rows": max((answers.shape[1] for answers in scores.values()), default=0),
        "methods": [_method(row, name) for row in rows],
        "failed": [[row["label"], row["error"]] for row in comparison["methods"] if row.get("error")],
        "about": about,
    }  # fmt: skip


def _method(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    label = NAMES.get(row["label"], row["label"])
    for option, variant in VARIANTS.items():  # "LoRA r8 q,v dora True" is shown as "DoRA r8 q,v"
        shorter, found = re.subn(rf" {option}(?= |$)", "", label)
        label = shorter.replace("LoRA", variant, 1) if found else label
    factor = metric_of(name).factor
    values = [factor * value for value in row[name]["each"]]
    mean, low, high = mean_interval(values)
    kept = ("label", "method", "settings", "lr", "edge", "seconds", "added_tokens", "adapter_bytes")
    tried = [(run.get("lr"), run.get("validation")) for run in row.get("tried") or ()]
    return {
        **{key: row.get(key) for key in kept},
        **{"name": label, "each": [round(value, 3) for value in values], "mean": round(mean, 3)},
        **({"low": round(low, 3), "high": round(high, 3)} if low is not None and high is not None else {}),
        "trained": (row.get("trainable") or 0) + (row.get("head") or 0),
        "head": bool(row.get("head")),
        "bytes": row.get("peak_bytes") or row.get("predicted_bytes"),
        "tried": [[lr, round(factor * value, 2)] for lr, value in tried if lr and value is not None],
    }
