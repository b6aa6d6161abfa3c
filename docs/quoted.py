"""Numbers that text quotes from stored runs: `python docs/quoted.py` writes data/quoted.json and updates the text.

A text quotes a number by its name in a comment right behind it, which no page shows: `80.9<!--compare.lora-->`. The
script replaces what stands before each comment. `tests/docs/test_quoted.py` holds both to the stored runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file

from lora_course.checks.variants import LABELS, ahead
from lora_course.claims.evidence import PLAIN, RATES, TUNED, VARIANTS, Cells, rate_ratios
from lora_course.classroom import room
from lora_course.experiments.rates import best_rate, best_rates, parabola, times
from lora_course.lesson import reference, reference_comparison
from lora_lab import FullFineTuning, LoRA, PromptTuning, memory, params
from lora_lab.accounting.gpus import card, usable
from lora_lab.accounting.memory import largest
from lora_lab.accounting.models import architecture_of, zoo_names
from lora_lab.accounting.params import break_even_rank
from lora_lab.accounting.setup import Setup
from lora_lab.experiments.grid import alpha_of
from lora_lab.experiments.margins import MARGINS, judged, resampled, scores_in
from lora_lab.experiments.playground import load as load_playground
from lora_lab.experiments.playground import shown
from lora_lab.experiments.results import from_store, load
from lora_lab.experiments.statistics import mean_interval, verdict, verdicts, verdicts_of
from lora_lab.files import read_json, write_atomically
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import adapter_layers
from lora_lab.methods.quant import quantize
from lora_lab.training.models import load_model

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = ROOT / "data" / "quoted.json"
RESULTS = ROOT / "data" / "results"
ENDS = ("", ".low", ".high")  # of a number with its interval
QUOTE = re.compile(r"(?:[^\s*(|`>\[=]|\N{NO-BREAK SPACE})+(?=<!--([\w.+-]+)-->)")


def numbers() -> dict[str, str]:
    """Every number that a text may quote, by name, as it is written; from data/results and the accountant."""
    found = (
        voices, seeds, comparison, as_good, fits, rates, knobs, bits, places, latency, reproduced, inside, rehearsed,
        counted, lesson_memory, cost, variants, regret, rewards, learned,
    )  # fmt: skip
    return {name: words for one in found for name, words in one().items()}


def seeds() -> dict[str, str]:
    """Lesson 02: forty seeds of one recipe, in percent of the test sentences.

    seeds.differ: on how many two of them disagree, the mean over all pairs; with such a share, seeds.half is half the
    95% interval of the gap between two, in points, and seeds.rows are what tells one point apart; seeds.needed:
    seeds of each of two recipes for the same; seeds.two: points between two, the mean over all pairs; seeds.halves: the
    verdict on the first twenty against the others, within one point.
    """
    right = from_store(RESULTS / "sweeps" / "seeds.zip").scores
    accuracy = 100 * right.mean(1)
    worst, best = f"{accuracy.min():.1f}", f"{accuracy.max():.1f}"
    differ = float(np.mean([(a != b).mean() for a, b in combinations(right, 2)]))
    return {
        "seeds.worst": worst,
        "seeds.best": best,
        "seeds.apart": f"{float(best) - float(worst):.1f}",
        "seeds.needed": f"{np.ceil(2 * (2.8 * accuracy.std(ddof=1)) ** 2):.0f}",
        "seeds.two": f"{np.mean([abs(a - b) for a, b in combinations(accuracy, 2)]):.1f}",
        "seeds.gain": f"{accuracy.max() - accuracy.mean():.1f}",
        "seeds.differ": f"{100 * differ:.0f}",
        "seeds.half": f"{196 * (differ / 2000) ** 0.5:.1f}",
        "seeds.rows": f"{round(2.8**2 * differ / 0.01**2, -2):,.0f}",
        "seeds.halves": verdict(right[:20], right[20:], margin=0.01).word,
    }


def comparison() -> dict[str, str]:
    """Each method of the reference comparison, in percent, and its verdict against full fine-tuning."""
    found: dict[str, str] = {}
    rows = read_json(RESULTS / "compare" / "minilm_rt.json")["methods"]
    for row in rows:
        name = f"compare.{row['method'] if row['label'] != 'LoRA r8 all-linear' else 'lora-all-linear'}"
        found[name] = f"{100 * row['accuracy']['mean']:.1f}"
        found[f"{name}.rate"] = f"{row['lr']:g}" if row["lr"] else "none"
        if verdict := row["against"].get("full"):
            found[f"{name}.against-full"] = verdict["kind"]
    for name in ("lora", "lora-all-linear"):
        found[f"compare.{name}.times-full"] = (
            f"{float(found[f'compare.{name}.rate']) / float(found['compare.full.rate']):.0f}"
        )
    (direct,) = (row["against"]["lora"] for row in rows if "lora" in row["against"])
    found["compare.lora-all-linear.against-lora"] = direct["kind"]
    return found


def as_good() -> dict[str, str]:
    """Lesson 05: the comparison that ComparePanel shows, in percent and points, rates against full fine-tuning's.

    as_good.lora.within: the least margin at which LoRA is worse, but within it. as_good.blind: of the hundred studies
    of 200 sentences that the panel draws first, those whose interval has 0 in it. as_good.pair: of the sweep over
    rates, ranks and alphas, rank 8 against 32.
    """
    found = read_json(RESULTS / "compare" / "minilm_rt_all_linear.json")
    labels = {"lora": "LoRA r8 q,v", "all": "LoRA r8 all-linear", "prompt": "prompt", "probe": "probe", "full": "full"}
    rows, scores = {row["label"]: row for row in found["methods"]}, scores_in(found)
    lora, full = rows[labels["lora"]], rows["full"]
    against = judged(scores)["full"][labels["lora"]]
    cells = Cells(None, "rate_rank_alpha")
    pair = verdict(cells.best(rank=8, alpha=16)[1], cells.best(rank=32, alpha=16)[1])
    ninety = verdict(scores[labels["lora"]], scores["full"])
    studies = resampled(scores[labels["lora"]], scores["full"], 200, seed=1)["studies"]
    return {
        **{
            f"as_good.{k}": f"{round(100 * rows[v]['accuracy']['mean'], 3):.1f}" for k, v in labels.items()
        },  # as it shows
        **{f"as_good.{name}.rate": f"{rows[labels[name]]['lr']:g}" for name in ("lora", "all", "prompt", "full")},
        **{
            f"as_good.{name}.times": f"{rows[labels[name]]['lr'] / full['lr']:.0f}"
            for name in ("lora", "all", "prompt")
        },
        "as_good.count": f"{lora['trainable'] + lora['head']:,}",
        "as_good.times": f"{(full['trainable'] + full['head']) / (lora['trainable'] + lora['head']):.0f}",
        "as_good.file": f"{full['adapter_bytes'] / lora['adapter_bytes']:.0f}",
        "as_good.memory": f"{full['peak_bytes'] / lora['peak_bytes']:.0f}",
        "as_good.lora.behind": f"{-100 * against['difference']:.1f}",
        "as_good.lora.low95": f"{100 * against['low']:.1f}",
        "as_good.lora.high95": f"{100 * against['high']:.1f}",
        "as_good.lora.low": f"{100 * ninety.low:.1f}",
        "as_good.lora.within": f"{100 * MARGINS[against['outcomes'].index('W')]:.1f}",
        "as_good.all.against-lora": verdict(scores[labels["all"]], scores[labels["lora"]]).word,
        **{f"as_good.pair.{end}": f"{100 * getattr(pair, end):.1f}" for end in ("low", "high", "low95", "high95")},
        "as_good.blind": str(sum(low < 0 < high for _, low, high in studies)),
    }


def rates() -> dict[str, str]:
    """How many times the best rate falls from alpha 4 to 64, at 200 steps, and verdicts on pairs of ranks."""
    runs = load(RESULTS / "sweeps" / "rate_rank_alpha.zip")
    slope, low, high = alpha_slope(runs[runs.dtype == "auto"])  # four runs test if the dtype makes a run collapse
    cells = Cells(None, "rate_rank_alpha")
    best = {rank: cells.best(rank=rank, alpha=16)[1] for rank in (1, 8, 32)}
    pairs = {f"{a}-and-{b}": (best[a], best[b]) for a, b in combinations(best, 2)}
    return {
        "rates.fall": f"{16**-slope:.1f}",
        "rates.fall.low": f"{16**-high:.1f}",
        "rates.fall.high": f"{16**-low:.1f}",
        **{f"rates.{name}": one.word for name, one in verdicts_of(pairs, margin=0.015).items()},
    }


def alpha_slope(runs: pd.DataFrame, draws: int = 1000, rows: int = 500) -> tuple[float, float, float]:
    r"""d log2(best rate) / d log2(alpha), and its 95% interval, from runs of several seeds, alphas, ranks and rates.

    Fits validation accuracy = h - c (log2 lr - m - k log2 alpha - l log2 rank)^2 to the cells that learned (55% or
    more). Each alpha and rank has its own height h; all share the curvature c. The interval is a bootstrap over the
    seeds of each cell, with the noise of `rows` validation rows added. A cell of one seed borrows the others' spread.
    """
    by = ["alpha", "rank", "lr"]
    scores = runs.groupby(by).validation_accuracy
    kept = runs[scores.transform("mean") > 0.55].groupby(by).validation_accuracy.apply(np.array)
    s = np.log2(np.array(kept.index.tolist(), dtype=float))  # (cells, 3)
    x, s = s[:, -1:], s[:, :-1]
    groups, place = np.unique(s, axis=0, return_inverse=True)
    weights = np.sqrt(kept.map(len).to_numpy())[:, None]
    design = np.c_[x * x, x * s, x, place.reshape(-1, 1) == np.arange(len(groups))] * weights

    def slopes(means: np.ndarray) -> np.ndarray:
        """k of each column of means (cells, draws); those without a peak are left out."""
        found = np.linalg.lstsq(design, means * weights, rcond=None)[0]
        found = found[:, found[0] < 0]
        return -found[1] / (2 * found[0])

    several = [cell for cell in kept if len(cell) > 1]
    spread = np.sqrt(sum(len(cell) * cell.var() for cell in several) / sum(len(cell) - 1 for cell in several))
    random = np.random.default_rng(0)

    def redrawn(cell: np.ndarray) -> np.ndarray:
        if (n := len(cell)) == 1:
            return cell[0] + spread * random.standard_normal(draws)
        drawn = random.choice(cell, (draws, n)).mean(axis=1)
        return cell.mean() + np.sqrt(n / (n - 1)) * (drawn - cell.mean())  # n drawn from n vary less than n new seeds

    means = np.array([redrawn(cell) for cell in kept])
    means += np.sqrt(means * (1 - means) / rows) / weights * random.standard_normal(means.shape)
    low, high = np.percentile(slopes(means), [2.5, 97.5])
    return float(slopes(np.array([[cell.mean()] for cell in kept]))[0]), float(low), float(high)


def knobs() -> dict[str, str]:
    """Lesson 03: what each knob moves on the playground, in points, and what a line of rates loses against tuning.

    knobs.seeds: how far the seeds of a cell lie apart, the median over cells that are within 5 points of the best.
    knobs.rank.low, .high: the 95% interval of rank 64 minus rank 1 at alpha 16, paired over the three seeds.
    knobs.rank.64, .256: at this alpha, from rank 1 to rank 64, each at its best rate.
    knobs.cut.0, .2: right answers, in percent, with every update of full fine-tuning cut to this rank.
    ranks.rest.1, .2: lesson 10, with all but this many of the strongest pieces.
    """
    playground = load_playground()
    data, _ = shown(playground)
    moves, lines = data["moves"]["q,v"], data["lines"]
    values: dict[object, list[float]] = {}
    for run in sorted(playground.results, key=lambda run: run.seed):
        values.setdefault(run.cell, []).append(100 * (run.value or 0))
    best = max(map(fmean, values.values()))
    usual = {c: own for c, own in values.items() if (c.alpha, len(own)) == (16, 3)}
    tuned = [max((own for c, own in usual.items() if c.rank == r), key=fmean) for r in (1, 64)]
    paired = mean_interval([b - a for a, b in zip(*tuned, strict=True)])

    def highest(rank: int, alpha: int) -> float:
        return max(fmean(own) for c, own in values.items() if (c.rank, c.alpha) == (rank, alpha))

    apart = median(max(own) - min(own) for own in values.values() if len(own) > 1 and fmean(own) > best - 5)
    found = read_json(RESULTS / "microscope" / "ranks.json")
    cuts, rest = found["cuts"], found["rest"]
    full = cuts["updates"]["full"]
    return {
        "knobs.runs": str(len(playground.results)),
        "knobs.rate": f"{moves['lr']:.0f}",
        **{f"knobs.{name}": f"{moves[name]:.1f}" for name in ("rank", "alpha")},
        "knobs.rank.low": f"{paired[1]:.1f}",
        "knobs.rank.high": f"{paired[2]:.1f}",
        **{f"knobs.rank.{alpha}": f"{highest(64, alpha) - highest(1, alpha):.1f}" for alpha in (64, 256)},
        "knobs.seeds": f"{apart:.1f}",
        **{f"knobs.rank.{name}": f"{line['lost']:.1f}" for name, line in lines["rank"]["q,v|16"].items()},
        **{f"knobs.alpha.{name}": f"{line['lost']:.1f}" for name, line in lines["alpha"]["q,v|8"].items()},
        **{f"knobs.cut.{full['ranks'][at]}": f"{100 * full['right'][at] / cuts['n']:.1f}" for at in (0, 2)},
        **{f"ranks.rest.{r}": f"{100 * rest['right'][rest['ranks'].index(r)] / cuts['n']:.1f}" for r in (1, 2)},
        "knobs.cut.energy": f"{100 * full['energy'][full['ranks'].index(2)]:.0f}",
    }


def bits() -> dict[str, str]:
    """Lesson 12: accuracy by the bits of the base, in percent, and NF4's 90% interval; a step of Llama 3 8B, in GiB.

    bits.nf4.wrong: |W - W'| / |W| of the lesson's matrix, in percent.
    """
    stored = from_store(RESULTS / "sweeps" / "bits.zip")
    right = {form: stored.at(dtype=form).scores for form in sorted(set(stored.frame.dtype))}
    four = verdict(right["nf4+bf16"], right["bf16"])
    lora, step = LoRA(targets="all-linear"), {"seq": 2048, "checkpointing": True}
    sixteen, quantized = (memory("llama-3-8b", lora, quantised=form, **step) for form in ("none", "nf4"))
    weight = load_model("minilm").encoder.layer[2].attention.self.query.weight.detach()
    wrong = (quantize(weight, "nf4").dequantized() - weight).norm() / weight.norm()
    return {
        **{f"bits.{form.partition('+')[0]}": f"{100 * scores.mean():.1f}" for form, scores in right.items()},
        "bits.nf4.low": f"{100 * four.low:.1f}",
        "bits.nf4.high": f"{100 * four.high:.1f}",
        "bits.nf4.wrong": f"{100 * wrong:.1f}",
        "bits.llama.16": f"{sixteen.peak / 2**30:.1f}",
        "bits.llama.share": f"{100 * quantized.peak / sixteen.peak:.0f}",
        "bits.llama.weights": f"{quantized.categories['weights'] / 2**30:.1f}",
        "bits.llama.rest": f"{(quantized.peak - quantized.categories['weights']) / 2**30:.1f}",
    }


def places() -> dict[str, str]:
    """Lesson 13: from the worst to the best placement of one budget, q against q and v, in points.

    place.times, place.memory: from q,v to all linear layers of Llama 3 8B at rank 8, trained numbers as a factor, and
    memory in percent more, of a text of 1,024 tokens; place.checkpointing with it, place.long at 4,096 tokens.
    place.twice.least, .most: points of validation accuracy that twice its best rate costs a placement whose best rate
    wasn't the lowest tried.
    """
    cells = Cells(None, "target_modules")
    best = {place: cells.best(targets=place)[1] for place in set(cells.frame["targets"])}
    accuracy = [100 * runs.accuracy.mean() for runs in best.values()]
    tried = 100 * cells.frame.pivot_table(index="lr", columns="targets", values="validation_score")
    best_rate_of = tried.idxmax()
    best_rate_of = best_rate_of[best_rate_of > tried.index.min()]  # v's best one may be lower
    cost = [tried[place].max() - tried[place].loc[2 * rate] for place, rate in best_rate_of.items()]

    def more(**setup: Any) -> str:
        few, many = (memory("llama-3-8b", LoRA(targets=t), **setup).peak for t in ("q,v", "all-linear"))
        return f"{100 * (many / few - 1):.0f}"

    few, many = (params("llama-3-8b", LoRA(targets=t)).trainable for t in ("q,v", "all-linear"))
    return {
        "place.twice.least": f"{min(cost):.0f}",
        "place.twice.most": f"{max(cost):.0f}",
        "place.apart": f"{max(accuracy) - min(accuracy):.1f}",
        "place.q": f"{-100 * verdict(best['q'], best['q,v']).difference:.1f}",
        "place.times": f"{many / few:.1f}",
        "place.memory": more(seq=1024),
        "place.checkpointing": more(seq=1024, checkpointing=True),
        "place.long": more(seq=4096),
    }


def variants() -> dict[str, str]:
    """Lesson 16 and the README: methods that were tuned on the same terms, and their verdicts against plain LoRA.

    variant.NAME: accuracy in percent; .half: half its 95% interval over seeds, in points; .word: the verdict; .peak:
    MiB of a step; .behind: points behind plain LoRA. variant.winners: how many of plain LoRA and the five that share
    its rates are best at one of them; variant.flattered: the most that one of the five is ahead at one rate for both.
    """
    found = read_json(RESULTS / "compare" / f"{TUNED}.json")
    rows = {row["label"]: row for row in found["methods"]}
    judged = verdicts(scores_in(found), PLAIN, found["margin"])
    names = {label: name.lower() for name, label in VARIANTS.items()} | {PLAIN: "lora"}
    numbers = dict[str, str]()
    for label, row in rows.items():
        name = f"variant.{names.get(label, label.replace('LoRA r8 ', '').replace(' ', '-'))}"
        mean, low, high = mean_interval([100 * value for value in row["accuracy"]["each"]])
        numbers |= {name: f"{mean:.1f}", f"{name}.half": f"{(high - low) / 2:.1f}"}
        numbers[f"{name}.peak"] = f"{row['peak_bytes'] / 2**20:.0f}"
        if label in judged:
            numbers[f"{name}.word"] = judged[label].word
            numbers[f"{name}.behind"] = f"{-100 * judged[label].difference:.1f}"
    shared = pd.DataFrame({name: ahead(name) for name in LABELS} | {"LoRA": 0.0}).dropna()
    return numbers | {
        "variant.winners": str(shared.idxmax(axis=1).nunique()),
        "variant.flattered": f"{shared.max(axis=None):.1f}",
        "variant.flattered.fa": f"{shared['LoRA-FA'].max():.1f}",
    }


def regret() -> dict[str, str]:
    """Lesson 15: how many times full fine-tuning's best rate LoRA's is, with the 95% interval over tuning seeds.

    regret.qv, regret.all: on q and v, on all linear layers; regret.tweets.NAME: the same on tweets.
    regret.fa, .plus: the best rate of LoRA-FA and of LoRA+ over plain LoRA's.
    regret.smollm2.NAME: on SmolLM2 and restaurants.
    regret.fixed, .r, .2r, .sqrt: what doubling the rank multiplies the best rate by, with alpha 16, r, 2 r, sqrt(32 r).
    regret.fall, .alpha: how many times it falls from rank 1 to 64 with alpha = r, and at rank 8 from alpha 1 to 64.
    regret.half.least, .most: nats lost at half the tried rate with the lowest loss, over MiniLM's tasks and targets;
    .twice: at twice; regret.smollm2.half.least, .most, .twice: the same over SmolLM2's targets.
    regret.smollm2.ten: nats that ten times full fine-tuning's best rate costs it on all linear layers, by parabolas.
    regret.points.256, .1024: validation points at rank 8 with alpha 16 minus with this one, each at its own best rate.
    """
    numbers, tasks = dict[str, str](), {"rt": "", "tweets": "tweets.", "restaurants": "smollm2."}

    def add(name: str, ratio: Sequence[float]) -> None:
        digits = [f"{value:.2g}" if value < 99.5 else f"{value:.0f}" for value in ratio]
        numbers.update({f"regret.{name}{end}": shown for end, shown in zip(ENDS, digits, strict=True)})

    for (_, task, targets), ratio in rate_ratios().items():
        add(tasks[task] + {"q,v": "qv", "all-linear": "all"}[targets], ratio)
    rows = {row["label"]: row for row in reference_comparison(TUNED)["methods"]}
    for name, label in ("fa", VARIANTS["LoRA-FA"]), ("plus", VARIANTS["LoRA+"]):
        add(name, times(best_rates(rows[label]), best_rates(rows[PLAIN])))
    table = pd.read_csv(RESULTS / "rates.csv")
    parts = dict(list(table.groupby("part")))
    runs = parts["rank"]
    best = {
        key: best_rate(dict(zip(own.lr, own.loss, strict=True))) for key, own in runs.groupby(["rank", "alpha", "seed"])
    }
    for rule, name in (("fixed:16", "fixed"), ("rank", "r"), ("2rank", "2r"), ("sqrt", "sqrt")):
        of = {rank: round(alpha_of(rule, rank), 2) for rank in (1, 8, 64, 128)}
        slopes = [np.polyfit([0, 3, 6, 7], [best[rank, of[rank], n] for rank in of], 1)[0] for n in range(3)]
        ends = zip(ENDS, mean_interval(slopes), strict=True)
        numbers |= {f"regret.{name}{end}": f"{2**value:.2f}" for end, value in ends}
    for name, first, last in (("fall", (1, 1.0), (64, 64.0)), ("alpha", (8, 1.0), (8, 64.0))):
        add(name, times([best[*first, n] for n in range(3)], [best[*last, n] for n in range(3)]))
    lost, mean_losses = dict[str, list[float]](), list[tuple[str, list[float]]]()
    for name in RATES:
        tuned = {row["label"]: row["tried"] for row in reference_comparison(name)["methods"]}
        for label in (PLAIN, "LoRA r8 all-linear"):
            mean_losses.append(("", [fmean(loss for _, loss in one["each"]) for one in tuned[label]]))
    for _, own in parts["smollm2"].groupby("targets"):  # full fine-tuning has none
        mean_losses.append(("smollm2.", own.groupby("lr").loss.mean().tolist()))
    for model, means in mean_losses:
        at = means.index(min(means))
        lost.setdefault(f"{model}half", []).append(means[at - 1] - means[at])
        lost.setdefault(f"{model}twice", []).append(means[at + 1] - means[at])
    for far, costs in lost.items():
        numbers |= {f"regret.{far}.least": f"{min(costs):.2f}", f"regret.{far}.most": f"{max(costs):.2f}"}
    seeds_of = parts["smollm2"].fillna({"targets": "full"}).groupby(["targets", "seed"])
    cells = {key: dict(zip(own.lr, own.loss, strict=True)) for key, own in seeds_of}
    costs = []
    for n in range(3):
        curve = parabola(cells["all-linear", n])
        assert curve is not None
        costs.append(curve(best_rate(cells["full", n]) + np.log2(10)) - curve(best_rate(cells["all-linear", n])))
    numbers["regret.smollm2.ten"] = f"{fmean(costs):.2f}"
    at_rates = runs[runs["rank"] == 8].pivot_table(index=["alpha", "lr"], columns="seed", values="accuracy")
    usual, *large = (at_rates.loc[alpha].loc[at_rates.loc[alpha].mean(axis=1).idxmax()] for alpha in (16, 256, 1024))
    for alpha, own in zip((256, 1024), large, strict=True):
        ends = zip(ENDS, mean_interval((100 * (usual - own)).tolist()), strict=True)
        numbers |= {f"regret.points.{alpha}{end}": f"{value:.1f}" for end, value in ends}
    return numbers


def rewards() -> dict[str, str]:
    """Lesson 17: LoRA of ranks 1, 8, 64, rank 1 on all linear layers, and full fine-tuning, from labels and rewards.

    reward.SIGNAL.NAME: accuracy in percent; .sure: mean probability of the answer, in percent; .found: halves found.
    reward.SIGNAL.NAME.ahead, .low, .high: points that full fine-tuning is ahead of it, and the 95% interval.
    reward.cost.NAME: points that rewards lose against labels; reward.rank: that rank 64 is ahead of 1, with rewards;
    reward.wider: that full is farther ahead of rank 1 with rewards than with labels; each with .low and .high.
    reward.before: halves that the untrained model finds.
    """
    names = {"LoRA r1 q,v": "one", "LoRA r8 q,v": "eight", "LoRA r64 q,v": "many", "LoRA r1 all-linear": "all"}
    names |= {"full": "full"}
    stored = {name: read_json(RESULTS / "compare" / f"minilm_rt_{name}.json") for name in ("labels", "reward")}
    scores, numbers = {name: scores_in(found) for name, found in stored.items()}, dict[str, str]()
    for signal, found in stored.items():
        for row in found["methods"]:
            name = f"reward.{signal}.{names[row['label']]}"
            numbers[name] = f"{100 * fmean(row['accuracy']['each']):.1f}"
            numbers |= {f"{name}.{what}": f"{100 * row[what]['mean']:.0f}" for what in ("sure", "found")}
        for label, one in verdicts(scores[signal], "full", found["margin"]).items():
            ends = {"ahead": -one.difference, "low": -one.high95, "high": -one.low95}
            numbers |= {f"reward.{signal}.{names[label]}.{end}": f"{100 * value:.1f}" for end, value in ends.items()}
    one, many, full = ({signal: scores[signal][label].astype(float) for signal in scores} for label in
                       ("LoRA r1 q,v", "LoRA r64 q,v", "full"))  # fmt: skip
    asked = {f"cost.{name}": (scores["labels"][label], scores["reward"][label]) for label, name in names.items()}
    asked |= {"rank": (many["reward"], one["reward"])}
    asked |= {"wider": (full["reward"] - one["reward"], full["labels"] - one["labels"])}
    for name, pair in asked.items():
        found = verdict(*pair)
        ends = zip(ENDS, (found.difference, found.low95, found.high95), strict=True)
        numbers |= {f"reward.{name}{end}": f"{100 * value:.1f}" for end, value in ends}
    return numbers | {"reward.before": f"{100 * stored['reward']['found_before']:.0f}"}


def learned() -> dict[str, str]:
    """Lesson 19: coin flips remembered, and accuracy from few labels.

    coins.RANK.TEXTS: bits, a mean over seeds, rank 0 the head alone; coins.RANK.per: bits per trained number, of 2,048.
    coins.slope: d log2(bits) / d log2(trained numbers) at 2,048 flips, with .low and .high over seeds.
    few.METHOD.N: percent right from N labels; few.METHOD.N.word: its verdict against LoRA.
    """
    runs = pd.read_csv(RESULTS / "coins.csv").query("part == 'final'")
    means = runs.groupby(["rank", "texts"]).bits.mean()
    numbers = {f"coins.{rank}.{texts}": f"{bits:,.0f}" for (rank, texts), bits in means.items()}
    full = runs[runs.texts == runs.texts.max()]
    for rank, own in full.groupby("rank"):
        numbers[f"coins.{rank}.per"] = f"{(own.bits / own.numbers).mean():.2f}"
    adapters = full[full["rank"] > 0].groupby("seed")
    slopes = [np.polyfit(np.log2(own.numbers), np.log2(own.bits), 1)[0] for _, own in adapters]
    ends = zip(ENDS, mean_interval(slopes), strict=True)
    numbers |= {f"coins.slope{end}": f"{value:.2f}" for end, value in ends}
    for n in (20, 80, 320, 1280):
        found = reference_comparison(f"minilm_rt_{n}")
        judged = verdicts(scores_in(found), "LoRA r8 q,v", found["margin"])
        for row in found["methods"]:
            name = f"few.{row['method']}.{n}"
            numbers[name] = f"{100 * row['accuracy']['mean']:.1f}"
            if row["label"] in judged:
                numbers[f"{name}.word"] = judged[row["label"]].word
    return numbers


def latency() -> dict[str, str]:
    """Lesson 09: how many percent longer an answer takes with LoRA beside the base, medians of our table 1."""
    rows = {row["name"]: row["yours"] for row in read_json(RESULTS / "reproduce" / "table1" / "result.json")["rows"]}
    cells = {"one": "1 x 128 LoRA beside", "many": "32 x 512 LoRA beside"}
    return {f"latency.{name}": f"{100 * (median(rows[cell]) - 1):.1f}" for name, cell in cells.items()}


def reproduced() -> dict[str, str]:
    """Lesson 18: table 1's bottlenecks and merged LoRA for one short text, and the gap to full fine-tuning in table 2.

    reproduce.table3.margins: the gap on q and v in table 3, in margins; .table3.all: on all linear layers, in nats.
    reproduce.table6.qv: points that rank 1 is behind rank 64 there; all with .low and .high.
    reproduce.fig3.q, .v: phi(1, 1) of ranks 8 and 64 above chance; reproduce.fig4.q, .v: phi(8, 8) of two seeds;
    reproduce.fig4.q.most: phi(1, 1), the most of a pair.
    """
    phi = {name: read_json(RESULTS / "reproduce" / name / "result.json")["rows"] for name in ("fig3", "fig4")}
    first = {"fig3": "phi(1, 1)", "fig4": "phi(8, 8)"}
    shared = {f"reproduce.{name}.{role}": f"{fmean(row['yours']):.2f}" for name, rows in phi.items() for row in rows
              for role in "qv" if row["name"] == f"BA of {role}, {first[name]}"}  # fmt: skip
    (most,) = (max(row["yours"]) for row in phi["fig4"] if row["name"] == "BA of q, phi(1, 1)")
    tables = ("table1", "table2", "table3", "table6")
    kept = {name: read_json(RESULTS / "reproduce" / name / "result.json") for name in tables}
    rows = {row["name"]: row["yours"] for row in kept["table1"]["rows"]}
    gap, loss = (kept[name]["verdicts"]["LoRA against full"] for name in ("table2", "table3"))
    everywhere = kept["table3"]["verdicts"]["LoRA on all layers against full"]
    ranks = kept["table6"]["verdicts"]["q,v, rank 1 against 64"]
    return shared | {
        "reproduce.h.one": f"{100 * (median(rows['1 x 128 bottleneck H']) - 1):.1f}",
        "reproduce.merged": f"{100 * (median(rows['1 x 128 LoRA merged']) - 1):.1f}",
        "reproduce.full": f"{100 * gap['difference']:.1f}",
        **{f"reproduce.full.{end}": f"{100 * gap[end]:.1f}" for end in ("low", "high")},
        "reproduce.table3.margins": f"{-loss['difference'] / loss['margin']:.1f}",
        "reproduce.table3.margins.low": f"{-loss['high'] / loss['margin']:.1f}",
        "reproduce.table3.margins.high": f"{-loss['low'] / loss['margin']:.1f}",
        "reproduce.table3.all": f"{-everywhere['difference']:.3f}",
        "reproduce.table3.all.low": f"{-everywhere['high']:.3f}",
        "reproduce.table3.all.high": f"{-everywhere['low']:.3f}",
        "reproduce.table6.qv": f"{-100 * ranks['difference']:.1f}",
        "reproduce.table6.qv.low": f"{-100 * ranks['high']:.1f}",
        "reproduce.table6.qv.high": f"{-100 * ranks['low']:.1f}",
        "reproduce.fig4.q.most": f"{most:.2f}",
    }


def inside() -> dict[str, str]:
    """inside.full.right: what full fine-tuning gets right of 500 validation sentences, in percent.

    inside.a-moved: |A - A at the start| / |A at the start| of the adapter that ships, least and most of its matrices.
    inside.one: the rank-1 adapter of lesson 14, as its solved notebook finds it: percent right with B as trained,
    negated, and by the number alone; phi of its A with that of another seed; inside.halves: percent of halves found.
    """
    cuts = read_json(RESULTS / "microscope" / "ranks.json")["cuts"]
    run = reference("minilm-rt-r8")
    trained = load_file(f"{run.adapter}/adapter_model.safetensors")
    model = load_model(run.recipe.model, 2)
    torch.manual_seed(run.recipe.seed)  # as a run does just before it attaches
    run.recipe.method.attach(model)
    ways = []
    for name, layer in adapter_layers(model):
        if type(layer) is LoRALinear:
            start = layer.lora_A.detach().numpy()
            ways.append(
                np.linalg.norm(trained[f"base_model.model.{name}.lora_A.weight"] - start) / np.linalg.norm(start)
            )
    return {
        "inside.full.right": f"{100 * cuts['updates']['full']['right'][-1] / cuts['n']:.1f}",
        "inside.a-moved.least": f"{min(ways):.1f}",
        "inside.a-moved.most": f"{max(ways):.1f}",
        **read_json(RESULTS / "rank_one" / "found.json")["quoted"],
    }


def rehearsed() -> dict[str, str]:
    """docs/paper.md: the rehearsal of the paper's protocol for E2E on SmolLM2."""
    found = read_json(RESULTS / "protocol" / "e2e_smollm2.json")
    run = found["seeds"][0]
    return {
        "protocol.steps": f"{found['steps']}",
        "protocol.of": f"{found['full_steps']:,}",
        "protocol.before": f"{run['validation'][0]['perplexity']:.1f}",
        "protocol.after": f"{run['last']['perplexity']:.1f}",
        "protocol.bleu": f"{run['answers']['bleu']:.1f}",
        "protocol.rouge-l": f"{run['answers']['rouge_l']:.1f}",
        "protocol.slots": f"{100 * run['answers']['slot_errors']:.0f}",
    }


def lesson_memory() -> dict[str, str]:
    """The lesson that takes the most memory, its GB, those of the next one, and the most of lessons 00 to 05."""
    (first, most), (_, following), *_ = every = sorted(room.peaks().items(), key=lambda one: -one[1].bytes)
    ninety = next(peak for name, peak in every if name < "06")
    return {
        "memory.ninety": f"{ninety.bytes / 1e9:.2f}",
        "memory.lesson": first[:2],
        "memory.most": f"{most.bytes / 1e9:.2f}",
        "memory.next": f"{following.bytes / 1e9:.2f}",
    }


def cost() -> dict[str, str]:
    """docs/guide.md: what a sweep costs, from the measurements of docs/cost.py; CPU seconds unless said otherwise.

    cost.fixed and cost.share are milliseconds of a step, `fixed + members * share`; cost.share.r64 and so on at another
    rank, length (t) or rows per step (b); cost.kN minutes of a sweep of N recipes, cost.aloneN one at a time.
    """
    found = read_json(RESULTS / "cost.json")
    measured = pd.DataFrame(found["runs"]).set_index(["rank", "tokens", "rows"])
    lines = {}
    for setup in measured.index.unique():
        members, cpu = measured.loc[[setup], ["members", "cpu"]].to_numpy().T
        lines[setup] = np.polyfit(members, cpu, 1, w=1 / cpu)
    share, fixed = lines[8, 32, 8]
    scoring = 5 * float(measured["scoring"].median())  # of 500 rows; a run scores 500 and 2,000

    def minutes(recipes: int, size: int = 32, steps: int = 200) -> float:
        packs = -(-recipes // size)
        own = recipes * (steps * share + scoring)
        return (found["startup"] + packs * (found["pack"] + steps * fixed) + own) / 60

    usual = (8, 32, 8)
    others = {
        f"{letter}{setup[at]:.0f}": setup
        for setup in lines
        for at, letter in enumerate("rtb")
        if setup[at] != usual[at]
    }
    return {
        "cost.startup": f"{found['startup']:.1f}",
        "cost.pack": f"{found['pack']:.1f}",
        "cost.fixed": f"{1e3 * fixed:.0f}",
        "cost.share": f"{1e3 * share:.0f}",
        "cost.scoring": f"{scoring:.0f}",
        **{f"cost.share.{name}": f"{1e3 * lines[setup][0]:.0f}" for name, setup in others.items()},
        **{f"cost.k{recipes}": f"{minutes(recipes):.1f}" for recipes in (1, 4, 16, 64, 256)},
        **{f"cost.alone{recipes}": f"{minutes(recipes, size=1):.1f}" for recipes in (1, 4, 16, 64, 256)},
        "cost.hours": f"{minutes(10_000) / 60:.0f}",
        "cost.untested": f"{(minutes(10_000) - 10_000 * 0.8 * scoring / 60) / 60:.0f}",
        "cost.laptops": f"{minutes(10_000) / 80 / 60:.1f}",
    }


def fits() -> dict[str, str]:
    """Lesson 04, from the stored fits: peaks of Llama 3 8B in GiB and shares in percent, rows of a T4, MiniLM in MiB.

    fit.bytes.NAME: what is there for a whole step (weights, gradients, optimizer), in bytes per parameter of the model.
    """
    gib, llama, full, lora, everywhere = 2**30, "llama-3-8b", FullFineTuning(), LoRA(), LoRA(targets="all-linear")
    cheap: dict[str, Any] = {"quantised": "nf4", "checkpointing": True}
    few, many = ({m.name: memory(llama, m, seq=seq) for m in (full, lora, PromptTuning())} for seq in (512, 32768))
    t4 = usable(card("T4"))

    def longest(**more: Any) -> str:
        return f"{largest('seq', Setup(), lambda one: memory(llama, everywhere, seq=one.seq, **cheap | more), t4):,}"

    def kept(model: str, method: Any, **more: Any) -> float:
        found = memory(model, method, seq=64, **more).categories
        states = sum(found.get(name, 0) for name in ("weights", "gradients", "optimizer"))
        return states / params(model, method).total

    here = {"batch": 4, "seq": 64, "dtype": "fp32", "device": "cpu", "padded": True}
    small = {m.name: memory("minilm", m, **here) for m in (full, lora)}
    trained = {model: [params(model, m).trainable for m in (full, lora)] for model in (llama, "minilm")}
    row = memory(llama, everywhere, seq=4096, **cheap)
    before = memory(llama, everywhere, seq=3072, **cheap)
    token, logits = row.peak - before.peak, row.categories["logits"] - before.categories["logits"]
    (embedded,) = (term.bytes for term in row.terms if term.where == "base")
    return {
        **{f"fit.{name}": f"{one.peak / gib:.1f}" for name, one in few.items()},
        "fit.weights": f"{few['lora'].categories['weights'] / gib:.1f}",
        "fit.times-fewer": f"{trained[llama][0] / trained[llama][1]:,.0f}",
        "fit.share": f"{100 * few['lora'].peak / few['full'].peak:.0f}",
        "fit.share.long": f"{100 * many['lora'].peak / many['full'].peak:.0f}",
        **{f"fit.saved.{name}": f"{many[name].categories['activations'] / gib:.0f}" for name in ("full", "lora")},
        "fit.minilm.full": f"{small['full'].peak / 2**20:.0f}",
        "fit.minilm.times-fewer": f"{trained['minilm'][0] / trained['minilm'][1]:.0f}",
        "fit.minilm.times-less": f"{small['full'].peak / small['lora'].peak:.1f}",
        "fit.minilm.weights": f"{small['lora'].categories['weights'] / 2**20:.0f}",
        "fit.t4": f"{t4 / gib:.1f}",
        "fit.t4.adamw": longest(),
        "fit.t4.sgd": longest(optimizer="sgd"),
        "fit.t4.saved": longest(checkpointing=False),
        "fit.logits": f"{100 * logits / token:.0f}",
        "fit.arithmetic": f"{(row.flops or 0) / (memory(llama, everywhere, seq=4096, quantised='nf4').flops or 1):.1f}",
        "fit.embedded": f"{embedded / gib:.1f}",
        "fit.bytes.full": f"{kept(llama, full):.0f}",
        "fit.bytes.masters": f"{kept(llama, full, master_weights=True):.0f}",
        "fit.bytes.lora": f"{kept(llama, lora):.0f}",
        "fit.bytes.qlora": f"{kept(llama, everywhere, **cheap):.2f}",
        "fit.bytes.qlora-70b": f"{kept('llama-2-70b', everywhere, **cheap):.2f}",
    }


def counted() -> dict[str, str]:
    """Lesson 11: parameters of the model over those that LoRA trains, on q and v at rank 8 if not said otherwise."""

    def count(model: str, rank: int = 8, targets: str = "q,v") -> Any:
        return params(model, LoRA(rank=rank, targets=targets))

    def fewer(one: Any) -> str:
        return f"{one.total / one.trainable:,.0f}"

    def percent(model: str, digits: int) -> str:
        return f"{100 * count(model, targets='all-linear').fraction:.{digits}f}"

    dense = [count(name) for name in zoo_names() if not architecture_of(name).experts]
    sizes, adapters = np.log10([(c.total, c.trainable) for c in dense]).T
    paper, mixtral, mistral = count("gpt3-175b", 4), count("mixtral-8x7b"), count("mistral-7b")
    in_experts = count("mixtral-8x7b", targets="gate,up,down").trainable
    return {
        "count.405b": fewer(count("llama-3.1-405b")),
        "count.minilm": fewer(count("minilm")),
        "count.ten": f"{10 ** np.polyfit(sizes, adapters, 1)[0]:.1f}",
        "count.405b.all": percent("llama-3.1-405b", 2),
        "count.8b.all": percent("llama-3-8b", 1),
        "count.paper": fewer(paper),
        "count.paper.mb": f"{2 * paper.trainable / 1e6:.1f}",
        "count.mixtral": f"{mixtral.total / mistral.total:.1f}",
        "count.mixtral.fewer": fewer(mixtral),
        "count.experts": f"{in_experts / mixtral.trainable:.0f}",
        "count.break-even": f"{break_even_rank(8192, 1024):.0f}",
    }


def voices() -> dict[str, str]:
    """Lesson 00: sizes in MB of the base's file and a voice's, and the captain's recipe."""
    found = read_json(RESULTS / "styles" / "voices.json")
    base, file = found["bytes"]["base"], found["bytes"]["captain"]
    speaks = next(one for one in found["tried"] if (one["voice"], one["rank"]) == ("captain", 2))  # they are in order
    return {
        "voices.base": f"{base / 1e6:.0f}",
        "voices.file": f"{file / 1e6:.1f}",
        "voices.together": f"{(base + file) / 1e6:.0f}",
        "voices.rate": f"{speaks['lr']:g}",
        "voices.steps": str(speaks["steps"]),
    }


def texts() -> list[Path]:
    """The files that may quote."""
    return [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("notebooks/src/*.py"))]


def filled(text: str, found: dict[str, str]) -> str:
    """The text with each quoted number replaced by the one of its name. Raises: KeyError for an unknown name."""
    return QUOTE.sub(lambda quote: found[quote[1]], text)


if __name__ == "__main__":
    found = numbers()
    write_atomically(NUMBERS, f"{json.dumps(found, indent=1, ensure_ascii=False)}\n".encode())
    for path in texts():
        before = path.read_text(encoding="utf-8")
        if (after := filled(before, found)) != before:
            path.write_text(after, encoding="utf-8", newline="\n")
            print(path.relative_to(ROOT))
