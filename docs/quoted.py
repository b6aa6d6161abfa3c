"""Write the numbers that text quotes from stored runs: `make numbers`, or `python docs/quoted.py`.

Text names each quoted number in a comment right after it: `80.9<!--compare.lora-->`. Pages don't show these comments.
The script replaces what precedes each comment. `tests/docs/test_sources.py` checks that nothing is left to replace.
"""

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pandas as pd

from lora_course.checks.variants import LABELS, ahead
from lora_course.claims.evidence import PLAIN, TUNED, VARIANTS, Cells
from lora_course.classroom import room
from lora_course.experiments.rates import best_rate, best_rates, times
from lora_course.lesson import reference_comparison
from lora_lab import FullFineTuning, LoRA, memory, params
from lora_lab.accounting.gpus import card, usable
from lora_lab.accounting.memory import largest
from lora_lab.accounting.setup import Setup
from lora_lab.experiments.grid import alpha_of
from lora_lab.experiments.margins import MARGINS, judged, resampled, scores_in
from lora_lab.experiments.playground import load as load_playground
from lora_lab.experiments.playground import shown
from lora_lab.experiments.results import from_store, load
from lora_lab.experiments.statistics import mean_interval, verdict, verdicts
from lora_lab.files import read_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results"
QUOTE = re.compile(r"(?:[^\s*(|`>\[=]|\N{NO-BREAK SPACE})+(?=<!--([\w.+-]+)-->)")


def numbers() -> dict[str, str]:
    """Return every number that text may quote, formatted, by name."""
    groups = (
        voices, seeds, comparison, as_good, fits, rates, playground, bits, placements, latency, reproduced, inside,
        protocol, counts, lesson_memory, cost, variants, regret, rewards, memorized,
    )  # fmt: skip
    return {name: number for group in groups for name, number in group().items()}


def fixed(name: str, digits: int, **values: float) -> dict[str, str]:
    """Format values with a number of digits, as `name.key`."""
    return {f"{name}.{key}": f"{value:,.{digits}f}" for key, value in values.items()}


def interval(name: str, estimate: Sequence[float], form: str = ".1f") -> dict[str, str]:
    """Format an estimate and its interval as `name`, `name.low` and `name.high`."""
    return {f"{name}{end}": f"{value:{form}}" for end, value in zip(("", ".low", ".high"), estimate, strict=True)}


def seeds() -> dict[str, str]:
    """Lesson 02: forty seeds of one recipe, in percent of the test sentences.

    seeds.differ   sentences on which two seeds disagree, the mean over all pairs. At this share, seeds.half is half the
                   95% interval of a gap between two seeds, and seeds.rows the number of rows that resolve one point
    seeds.needed   seeds per recipe that resolve a gap of one point between two recipes
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
        "seeds.differ": f"{100 * differ:.0f}",
        "seeds.half": f"{196 * (differ / 2000) ** 0.5:.1f}",
        "seeds.rows": f"{round(2.8**2 * differ / 0.01**2, -2):,.0f}",
    }


def comparison() -> dict[str, str]:
    """Lesson 01: LoRA's learning rate in the reference comparison."""
    (rate,) = (row["lr"] for row in reference_comparison("minilm_rt")["methods"] if row["label"] == "LoRA r8 q,v")
    return {"compare.lora.rate": f"{rate:g}"}


def as_good() -> dict[str, str]:
    """Lesson 05: the comparison of ComparePanel, in percent and points; rates relative to full fine-tuning's.

    as_good.lora.within   the smallest margin at which LoRA is worse but within the margin
    as_good.lora.alone    the same if this were the only comparison
    as_good.fp32          LoRA on q and v with its frozen weights in fp32, and its verdict against full fine-tuning
    as_good.blind         the number of intervals that contain 0, among the panel's first hundred studies of 200 rows
    """
    stored = read_json(RESULTS / "compare" / "minilm_rt_all_linear.json")
    labels = {"lora": "LoRA r8 q,v", "all": "LoRA r8 all-linear", "full": "full"}
    rows, scores = {row["label"]: row for row in stored["methods"]}, scores_in(stored)
    rates = {name: rows[labels[name]]["lr"] for name in labels}
    lora, full = rows[labels["lora"]], rows["full"]
    trained, gap = lora["trainable"] + lora["head"], judged(scores)["full"][labels["lora"]]
    fp32 = from_store(RESULTS / "sweeps" / "fp32.zip").scores
    studies = resampled(scores[labels["lora"]], scores["full"], 200, seed=1)["studies"]
    accuracies = {name: 100 * rows[label]["accuracy"]["mean"] for name, label in labels.items()}
    return {
        **{f"as_good.{name}": f"{round(value, 3):.1f}" for name, value in accuracies.items()},  # as on the panel
        **{f"as_good.{name}.times": f"{rates[name] / full['lr']:.0f}" for name in ("lora", "all")},
        **fixed("as_good", 0, times=(full["trainable"] + full["head"]) / trained),
        **fixed("as_good", 0, memory=full["peak_bytes"] / lora["peak_bytes"]),
        **fixed("as_good.lora", 1, low95=100 * gap["low"], high95=100 * gap["high"]),
        **fixed("as_good.lora", 1, alone=100 * MARGINS[gap["outcomes"].index("W")]),
        **fixed("as_good.lora", 1, within=100 * MARGINS[gap["together"].index("W")]),
        "as_good.fp32": f"{100 * fp32.mean():.1f}",
        "as_good.fp32.word": verdict(fp32, scores["full"]).word,
        "as_good.blind": str(sum(low < 0 < high for _, low, high in studies)),
    }


def rates() -> dict[str, str]:
    """The factor by which the best rate falls from alpha 4 to 64 (200 steps), and the verdict on ranks 8 and 32."""
    runs = load(RESULTS / "sweeps" / "rate_rank_alpha.zip")
    slope, low, high = alpha_slope(runs[runs.dtype == "auto"])  # four others (another dtype) are tests for collapse
    cells = Cells(None, "rate_rank_alpha")
    eight, many = (cells.best(rank=rank, alpha=16)[1] for rank in (8, 32))
    return {
        **interval("rates.fall", (16**-slope, 16**-high, 16**-low)),
        "rates.8-and-32": verdict(eight, many, margin=0.015).word,
    }


def alpha_slope(runs: pd.DataFrame, draws: int = 1000, rows: int = 500) -> tuple[float, float, float]:
    r"""Return d log2(best rate) / d log2(alpha) and its 95% interval, from runs of several seeds, alphas and ranks.

    Fits validation accuracy = h - c (log2 lr - m - k log2 alpha - l log2 rank)^2 to the cells that learned (55% or
    more). Each pair of alpha and rank has its own height h; all share the curvature c. The interval is a bootstrap over
    the seeds of each cell, plus the noise of `rows` validation rows. Cells with one seed use the spread of the others.
    """
    by = ["alpha", "rank", "lr"]
    means = runs.groupby(by).validation_accuracy.transform("mean")
    cells = runs[means > 0.55].groupby(by).validation_accuracy.apply(np.array)
    s = np.log2(np.array(cells.index.tolist(), dtype=float))  # (cells, 3)
    x, s = s[:, -1:], s[:, :-1]
    groups, place = np.unique(s, axis=0, return_inverse=True)
    weights = np.sqrt(cells.map(len).to_numpy())[:, None]
    design = np.c_[x * x, x * s, x, place.reshape(-1, 1) == np.arange(len(groups))] * weights

    def slopes(means: np.ndarray) -> np.ndarray:
        """Return k for each column of means (cells, draws) that has a peak."""
        fit = np.linalg.lstsq(design, means * weights, rcond=None)[0]
        fit = fit[:, fit[0] < 0]
        return -fit[1] / (2 * fit[0])

    several = [cell for cell in cells if len(cell) > 1]
    spread = np.sqrt(sum(len(cell) * cell.var() for cell in several) / sum(len(cell) - 1 for cell in several))
    random = np.random.default_rng(0)

    def resample(cell: np.ndarray) -> np.ndarray:
        if (n := len(cell)) == 1:
            return cell[0] + spread * random.standard_normal(draws)
        drawn = random.choice(cell, (draws, n)).mean(axis=1)
        return cell.mean() + np.sqrt(n / (n - 1)) * (drawn - cell.mean())  # a bootstrap mean varies less than a new one

    means = np.array([resample(cell) for cell in cells])
    means += np.sqrt(means * (1 - means) / rows) / weights * random.standard_normal(means.shape)
    low, high = np.percentile(slopes(means), [2.5, 97.5])
    return float(slopes(np.array([[cell.mean()] for cell in cells]))[0]), float(low), float(high)


def playground() -> dict[str, str]:
    """Lesson 03: how much each setting changes the accuracy on the playground, in points.

    knobs.rank.NAME        points lost with rates by the rule NAME, compared to tuning each rank; also knobs.alpha
    knobs.cut.0, .2        right answers, in percent, if all updates of full fine-tuning are truncated to this rank
    ranks.rest.2           lesson 10: the same without the two strongest components of each matrix
    """
    stored = load_playground()
    lines = shown(stored)[0]["lines"]
    microscope = read_json(RESULTS / "microscope" / "ranks.json")
    rest, count, full = microscope["rest"], microscope["cuts"]["n"], microscope["cuts"]["updates"]["full"]
    return {
        **{f"knobs.rank.{name}": f"{line['lost']:.1f}" for name, line in lines["rank"]["q,v|16"].items()},
        **{f"knobs.alpha.{name}": f"{line['lost']:.1f}" for name, line in lines["alpha"]["q,v|8"].items()},
        **{f"knobs.cut.{full['ranks'][i]}": f"{100 * full['right'][i] / count:.1f}" for i in (0, 2)},
        "ranks.rest.2": f"{100 * rest['right'][rest['ranks'].index(2)] / count:.1f}",
        "knobs.cut.energy": f"{100 * full['energy'][full['ranks'].index(2)]:.0f}",
    }


def bits() -> dict[str, str]:
    """Lesson 12: a step of Llama 3 8B, in GiB."""
    lora, step = LoRA(targets="all-linear"), {"seq": 2048, "checkpointing": True}
    sixteen, quantized = (memory("llama-3-8b", lora, quantized=kind, **step) for kind in ("none", "nf4"))
    weights = quantized.categories["weights"] - 4 * params("llama-3-8b", lora).trainable  # without the adapter
    return {
        "bits.llama.16": f"{sixteen.peak / 2**30:.1f}",
        **fixed("bits.llama", 1, rest=(quantized.peak - weights) / 2**30),
    }


def placements() -> dict[str, str]:
    """Lesson 13: points between the worst and the best placement of one budget; points by which q is behind q and v.

    place.times, .memory       q and v against all linear layers of Llama 3 8B at rank 8: trained parameters as a
                               factor, and percent more memory for a text of 1,024 tokens
    """
    cells = Cells(None, "target_modules")
    best = {place: cells.best(targets=place)[1] for place in set(cells.runs.frame["targets"])}
    accuracy = [100 * runs.accuracy.mean() for runs in best.values()]
    q = verdict(best["q"], best["q,v"])
    few, many = (LoRA(targets=targets) for targets in ("q,v", "all-linear"))
    times = params("llama-3-8b", many).trainable / params("llama-3-8b", few).trainable
    more = memory("llama-3-8b", many, seq=1024).peak / memory("llama-3-8b", few, seq=1024).peak
    return {
        **fixed("place", 1, apart=max(accuracy) - min(accuracy), q=-100 * q.difference, times=times),
        **fixed("place", 0, memory=100 * (more - 1)),
    }


def variants() -> dict[str, str]:
    """Lesson 16 and the README: methods tuned under the same conditions, and their verdicts against plain LoRA.

    variant.NAME              accuracy in percent; .half: half-width of 95% interval over seeds, in points; .worst: its
                              worst run, in percent; .word: the verdict; .peak: MiB of a step; .file: kB of its file
    variant.winners           number of the five variants that lead plain LoRA by over 2 points at some shared rate
    variant.flattered         largest lead of one of the five at a shared rate
    """
    stored = read_json(RESULTS / "compare" / f"{TUNED}.json")
    judged = verdicts(scores_in(stored), PLAIN, stored["margin"])
    names = {label: name.lower() for name, label in VARIANTS.items()} | {PLAIN: "lora"}
    numbers = dict[str, str]()
    for row in stored["methods"]:
        label = row["label"]
        name = f"variant.{names.get(label, label.replace('LoRA r8 ', '').replace(' ', '-'))}"
        mean, low, high = mean_interval([100 * value for value in row["accuracy"]["each"]])
        numbers |= {name: f"{mean:.1f}", f"{name}.half": f"{(high - low) / 2:.1f}"}
        numbers[f"{name}.worst"] = f"{100 * min(row['accuracy']['each']):.1f}"
        numbers[f"{name}.peak"] = f"{row['peak_bytes'] / 2**20:.0f}"
        numbers[f"{name}.file"] = f"{row['adapter_bytes'] / 1e3:.0f}"
        if label in judged:
            numbers[f"{name}.word"] = judged[label].word
    leads = pd.DataFrame({name: ahead(name) for name in LABELS})
    return numbers | {
        "variant.winners": str((leads.max() > 2).sum()),
        **fixed("variant", 1, flattered=leads.max(axis=None)),
    }


def regret() -> dict[str, str]:
    """Lessons 03, 15 and 16: ratios of best learning rates, with intervals over seeds.

    regret.fa, .plus         best rate of LoRA-FA and of LoRA+ over plain LoRA's
    regret.fixed, .2r        factor on the best rate when the rank doubles, with alpha 16 or 2 r
    regret.fall              factor by which the best rate falls from rank 1 to 128 with alpha = r
    """
    rows = {row["label"]: row for row in reference_comparison(TUNED)["methods"]}
    runs = pd.read_csv(RESULTS / "rates.csv").query("part == 'rank'")
    cells = runs.groupby(["rank", "alpha", "seed"])
    best = {cell: best_rate(dict(zip(group.lr, group.loss, strict=True))) for cell, group in cells}
    ratios = {
        "fa": times(best_rates(rows[VARIANTS["LoRA-FA"]]), best_rates(rows[PLAIN])),
        "plus": times(best_rates(rows[VARIANTS["LoRA+"]]), best_rates(rows[PLAIN])),
        "fall": times([best[1, 1.0, n] for n in range(3)], [best[128, 128.0, n] for n in range(3)]),
    }
    numbers = dict[str, str]()
    for name, ratio in ratios.items():
        numbers |= interval(f"regret.{name}", [f"{value:.2g}" for value in ratio], form="")
    for rule, name in (("fixed:16", "fixed"), ("2rank", "2r")):
        alphas = {rank: round(alpha_of(rule, rank), 2) for rank in (1, 8, 64, 128)}
        slopes = [np.polyfit([0, 3, 6, 7], [best[*cell, n] for cell in alphas.items()], 1)[0] for n in range(3)]
        numbers |= interval(f"regret.{name}", [2**value for value in mean_interval(slopes)], ".2f")
    return numbers


def rewards() -> dict[str, str]:
    """Lesson 17: LoRA of ranks 1, 8 and 64, rank 1 on all linear layers, and full fine-tuning, with labels and rewards.

    reward.SIGNAL.NAME        accuracy in percent; .sure: mean probability of the answer, in percent
                              .ahead, .low, .high: points by which full fine-tuning is ahead
    reward.rank               points by which rank 64 is ahead of rank 1, with rewards
    """
    names = {"LoRA r1 q,v": "one", "LoRA r8 q,v": "eight", "LoRA r64 q,v": "many", "LoRA r1 all-linear": "all"}
    names |= {"full": "full"}
    stored = {name: read_json(RESULTS / "compare" / f"minilm_rt_{name}.json") for name in ("labels", "reward")}
    scores, numbers = {name: scores_in(result) for name, result in stored.items()}, dict[str, str]()
    for signal, result in stored.items():
        for row in result["methods"]:
            name = f"reward.{signal}.{names[row['label']]}"
            numbers[name] = f"{fmean(100 * value for value in row['accuracy']['each']):.1f}"  # as in lesson 16
            numbers |= fixed(name, 0, sure=100 * row["sure"]["mean"])
        for label, gap in verdicts(scores[signal], "full", result["margin"]).items():
            lead = {"ahead": -100 * gap.difference, "low": -100 * gap.high95, "high": -100 * gap.low95}
            numbers |= fixed(f"reward.{signal}.{names[label]}", 1, **lead)
    gap = verdict(scores["reward"]["LoRA r64 q,v"], scores["reward"]["LoRA r1 q,v"])
    return numbers | interval("reward.rank", [100 * gap.difference, 100 * gap.low95, 100 * gap.high95])


def memorized() -> dict[str, str]:
    """Lesson 19: memorized coin flips, and accuracy from few labels.

    coins.RANK.TEXTS   bits, the mean over seeds; rank 0 is the head alone
    few.METHOD.N       percent right after training on N labels; .word: the verdict against LoRA
    """
    runs = pd.read_csv(RESULTS / "coins.csv").query("part == 'final'")
    means = runs.groupby(["rank", "texts"]).bits.mean()
    numbers = {f"coins.{rank}.{texts}": f"{bits:,.0f}" for (rank, texts), bits in means.items()}
    for n in (20, 80, 320, 1280):
        stored = reference_comparison(f"minilm_rt_{n}")
        judged = verdicts(scores_in(stored), "LoRA r8 q,v", stored["margin"])
        for row in stored["methods"]:
            name = f"few.{row['method']}.{n}"
            numbers[name] = f"{100 * row['accuracy']['mean']:.1f}"
            if row["label"] in judged:
                numbers[f"{name}.word"] = judged[row["label"]].word
    return numbers


def latency() -> dict[str, str]:
    """Lesson 08: by how many percent an attached LoRA slows a forward pass, medians of our table 1."""
    rows = {row["name"]: row["yours"] for row in _reproduced("table1")["rows"]}
    return {"latency.one": f"{100 * (median(rows['1 x 128 LoRA beside']) - 1):.0f}"}


def reproduced() -> dict[str, str]:
    """Lesson 18: latency in table 1, and gaps to full fine-tuning and between ranks in the other tables.

    reproduce.h.one               percent by which a bottleneck slows one short text
    reproduce.full                points by which LoRA is ahead of full fine-tuning in table 2
    reproduce.table3.margins      how many margins LoRA is behind full fine-tuning in table 3
    """
    latency = {row["name"]: row["yours"] for row in _reproduced("table1")["rows"]}
    full, loss = (_reproduced(table)["verdicts"]["LoRA against full"] for table in ("table2", "table3"))
    return {
        "reproduce.h.one": f"{100 * (median(latency['1 x 128 bottleneck H']) - 1):.1f}",
        **interval("reproduce.full", [100 * full[end] for end in ("difference", "low", "high")]),
        **interval("reproduce.table3.margins", [-loss[end] / loss["margin"] for end in ("difference", "high", "low")]),
    }


def _reproduced(name: str) -> dict[str, Any]:
    return read_json(RESULTS / "reproduce" / name / "result.json")


def inside() -> dict[str, str]:
    """Lessons 10 and 14: full fine-tuning's right answers of 500, in percent; lesson 14's rank-1 adapter.

    inside.NAME      the rank-1 adapter of lesson 14, as computed by its solved notebook
    """
    cuts = read_json(RESULTS / "microscope" / "ranks.json")["cuts"]
    right = cuts["updates"]["full"]["right"][-1] / cuts["n"]
    return {"inside.full.right": f"{100 * right:.1f}", **read_json(RESULTS / "rank_one" / "found.json")["quoted"]}


def protocol() -> dict[str, str]:
    """docs/paper.md: the rehearsal of the paper's protocol for E2E on SmolLM2."""
    rehearsal = read_json(RESULTS / "protocol" / "e2e_smollm2.json")
    run = rehearsal["seeds"][0]
    return {
        **fixed("protocol", 0, steps=rehearsal["steps"], of=rehearsal["full_steps"]),
        **fixed("protocol", 1, before=run["validation"][0]["perplexity"], after=run["last"]["perplexity"]),
        "protocol.bleu": f"{run['answers']['bleu']:.1f}",
        "protocol.rouge-l": f"{run['answers']['rouge_l']:.1f}",
        "protocol.slots": f"{100 * run['answers']['slot_errors']:.0f}",
    }


def lesson_memory() -> dict[str, str]:
    """The lesson that needs the most memory, its GB, the GB of the next one, and the maximum of lessons 00 to 05."""
    peaks = sorted(room.peaks().items(), key=lambda item: -item[1].bytes)
    (lesson, first), (_, second), *_ = peaks
    core = next(peak for name, peak in peaks if name < "06")
    return {
        "memory.ninety": f"{core.bytes / 1e9:.2f}",
        "memory.lesson": lesson[:2],
        **fixed("memory", 2, most=first.bytes / 1e9, next=second.bytes / 1e9),
    }


def cost() -> dict[str, str]:
    """docs/guide.md: the cost of a sweep, as measured by docs/cost.py, in CPU seconds unless stated otherwise.

    cost.fixed, .share   milliseconds of a step, `fixed + members * share`; cost.share.r64 and so on: at another rank
                         (r), length (t) or batch size (b)
    cost.kN, .aloneN     minutes for a sweep of N recipes, in packs and one at a time
    """
    stored = read_json(RESULTS / "cost.json")
    measured = pd.DataFrame(stored["runs"]).set_index(["rank", "tokens", "rows"])
    lines = {}
    for setup in measured.index.unique():
        members, cpu = measured.loc[[setup], ["members", "cpu"]].to_numpy().T
        lines[setup] = np.polyfit(members, cpu, 1, w=1 / cpu)
    usual = (8, 32, 8)
    share, intercept = lines[usual]
    scoring = 5 * float(measured["scoring"].median())  # measured for 500 rows; a run scores 500 and 2,000

    def minutes(recipes: int, size: int = 32, steps: int = 200) -> float:
        packs = -(-recipes // size)
        training = recipes * (steps * share + scoring)
        return (stored["startup"] + packs * (stored["pack"] + steps * intercept) + training) / 60

    hours = minutes(10_000) / 60
    changes = {
        f"{letter}{setup[i]:.0f}": 1e3 * line[0]
        for setup, line in lines.items()
        for i, letter in enumerate("rtb")
        if setup[i] != usual[i]
    }
    return {
        **fixed("cost", 1, startup=stored["startup"], pack=stored["pack"]),
        **fixed("cost", 0, fixed=1e3 * intercept, share=1e3 * share, scoring=scoring),
        **fixed("cost.share", 0, **changes),
        **{f"cost.k{recipes}": f"{minutes(recipes):.1f}" for recipes in (1, 4, 16, 64, 256)},
        **{f"cost.alone{recipes}": f"{minutes(recipes, size=1):.1f}" for recipes in (1, 4, 16, 64, 256)},
        **fixed("cost", 0, hours=hours, untested=hours - 10_000 * 0.8 * scoring / 3600),
        "cost.laptops": f"{hours / 80:.1f}",
    }


def fits() -> dict[str, str]:
    """Lesson 04, from the stored fits: peaks of Llama 3 8B in GiB, shares in percent, lengths on a T4.

    fit.bytes.NAME   bytes of weights, gradients and optimizer per parameter of the model
    """
    gib, llama, full, lora, everywhere = 2**30, "llama-3-8b", FullFineTuning(), LoRA(), LoRA(targets="all-linear")
    cheap: dict[str, Any] = {"quantized": "nf4", "checkpointing": True}
    few, many = ({m.name: memory(llama, m, seq=seq) for m in (full, lora)} for seq in (512, 32768))
    t4 = usable(card("T4"))

    def longest(**more: Any) -> int:
        return largest("seq", Setup(), lambda setup: memory(llama, everywhere, seq=setup.seq, **cheap | more), t4)

    def state_bytes(model: str, method: Any, **more: Any) -> float:
        categories = memory(model, method, seq=64, **more).categories
        states = sum(categories.get(name, 0) for name in ("weights", "gradients", "optimizer"))
        return states / params(model, method).total

    times_fewer = params(llama, full).trainable / params(llama, lora).trainable
    short, long = (memory(llama, everywhere, seq=seq, **cheap) for seq in (3072, 4096))
    logits = long.categories["logits"] - short.categories["logits"]
    flops = [result.flops or 1 for result in (long, memory(llama, everywhere, seq=4096, quantized="nf4"))]
    (embedded,) = (term.bytes for term in long.terms if term.where == "base")
    return {
        **{f"fit.{name}": f"{result.peak / gib:.1f}" for name, result in few.items()},
        "fit.weights": f"{few['lora'].categories['weights'] / gib:.1f}",
        "fit.times-fewer": f"{times_fewer:,.0f}",
        "fit.share": f"{100 * few['lora'].peak / few['full'].peak:.0f}",
        "fit.share.long": f"{100 * many['lora'].peak / many['full'].peak:.0f}",
        "fit.saved.lora": f"{many['lora'].categories['activations'] / gib:.0f}",
        "fit.t4": f"{t4 / gib:.1f}",
        **fixed("fit.t4", 0, adamw=round(longest(), -2), saved=round(longest(checkpointing=False), -2)),
        "fit.logits": f"{100 * logits / (long.peak - short.peak):.0f}",
        **fixed("fit", 1, arithmetic=flops[0] / flops[1], embedded=embedded / gib),
        **fixed("fit.bytes", 0, full=state_bytes(llama, full), masters=state_bytes(llama, full, master_weights=True)),
        **fixed("fit.bytes", 0, lora=state_bytes(llama, lora)),
        "fit.bytes.qlora": f"{state_bytes(llama, everywhere, **cheap):.2f}",
        "fit.bytes.qlora-70b": f"{state_bytes('llama-3-70b', everywhere, **cheap):.2f}",
    }


def counts() -> dict[str, str]:
    """Lesson 11: a model's parameters over the trained ones; LoRA is on q and v at rank 8 unless stated otherwise."""

    def count(model: str, rank: int = 8, targets: str = "q,v") -> Any:
        return params(model, LoRA(rank=rank, targets=targets))

    def fewer(counted: Any) -> str:
        return f"{counted.total / counted.trainable:,.0f}"

    def percent(model: str, digits: int) -> str:
        return f"{100 * count(model, targets='all-linear').fraction:.{digits}f}"

    paper, mixtral, mistral = count("gpt3-175b", 4), count("mixtral-8x7b"), count("mistral-7b")
    return {
        "count.405b": fewer(count("llama-3.1-405b")),
        "count.minilm": fewer(count("minilm")),
        "count.405b.all": percent("llama-3.1-405b", 2),
        "count.8b.all": percent("llama-3-8b", 1),
        "count.paper": fewer(paper),
        "count.paper.mb": f"{2 * paper.trainable / 1e6:.1f}",
        "count.mixtral": f"{mixtral.total / mistral.total:.1f}",
        "count.mixtral.fewer": fewer(mixtral),
    }


def voices() -> dict[str, str]:
    """Lesson 00: the sizes in MB of the base's file and a voice's file, and the captain's recipe."""
    stored = read_json(RESULTS / "styles" / "voices.json")
    base, file = stored["bytes"]["base"], stored["bytes"]["captain"]
    best = next(run for run in stored["tried"] if (run["voice"], run["rank"]) == ("captain", 2))  # sorted, best first
    return {
        "voices.base": f"{base / 1e6:.0f}",
        "voices.file": f"{file / 1e6:.1f}",
        "voices.together": f"{(base + file) / 1e6:.0f}",
        "voices.rate": f"{best['lr']:g}",
        "voices.steps": str(best["steps"]),
    }


def texts() -> list[Path]:
    """Return the files that may quote numbers."""
    return [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("notebooks/src/*.py"))]


def filled(text: str, numbers: dict[str, str]) -> str:
    """Replace each quoted number with its current value. Raises: KeyError for an unknown name."""
    return QUOTE.sub(lambda quote: numbers[quote[1]], text)


if __name__ == "__main__":
    current = numbers()
    for path in texts():
        before = path.read_text(encoding="utf-8")
        if (after := filled(before, current)) != before:
            path.write_text(after, encoding="utf-8", newline="\n")
            print(path.relative_to(ROOT))
