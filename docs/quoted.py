"""Numbers that text quotes from stored runs: `python docs/quoted.py` writes data/quoted.json and updates the text.

A text quotes a number by its name in a comment right behind it, which no page shows: `80.9<!--compare.lora-->`. The
script replaces what stands before each comment. `tests/docs/test_quoted.py` holds both to the stored runs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from lora_course.claims.claim_tests.evidence import Cells
from lora_course.experiments.ridge import best_rate_slopes
from lora_course.experiments.updates import a_at_start
from lora_course.lesson import reference
from lora_lab.experiments.results import load
from lora_lab.experiments.statistics import verdict
from lora_lab.files import read_json, write_atomically

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = ROOT / "data" / "quoted.json"
RESULTS = ROOT / "data" / "results"
QUOTE = re.compile(r"(?:[^\s*(|`>\[=]|\N{NO-BREAK SPACE})+(?=<!--([\w.+-]+)-->)")


def numbers() -> dict[str, str]:
    """Every number that a text may quote, by name, as it is written; all from data/results."""
    found = {**comparison(), **rates(), **targets(), **latency(), **inside(), **reproduced(), **rehearsed()}
    return {**found, **voices()}


def comparison() -> dict[str, str]:
    """Lesson 08: each method of the reference comparison, in percent, and its verdict against full fine-tuning."""
    found: dict[str, str] = {}
    rows = read_json(RESULTS / "compare" / "minilm_rt.json")["methods"]
    for row in rows:
        name = f"compare.{row['method'] if row['label'] != 'LoRA r8 all-linear' else 'lora-all-linear'}"
        found[name] = f"{100 * row['accuracy']['mean']:.1f}"
        found[f"{name}.rate"] = f"{row['lr']:g}" if row["lr"] else "none"
        found[f"{name}.apart"] = f"{100 * (max(row['accuracy']['each']) - min(row['accuracy']['each'])):.1f}"
        if verdict := row["against"].get("full"):
            found[f"{name}.against-full"] = verdict["kind"]
    for name in ("lora", "lora-all-linear"):
        found[f"compare.{name}.times-full"] = (
            f"{float(found[f'compare.{name}.rate']) / float(found['compare.full.rate']):.0f}"
        )
    (direct,) = (row["against"]["lora"] for row in rows if "lora" in row["against"])
    found["compare.lora-all-linear.against-lora"] = direct["kind"]
    for end in ("low", "high"):
        found[f"compare.lora-all-linear.against-lora.{end}"] = f"{100 * direct['intervals'][0][end]:.1f}"
    return found


def rates() -> dict[str, str]:
    """Lesson 06: how the best rate moves with alpha (from 4 to 64) and with rank, at the lesson's 200 steps.

    rates.8-against-1 and the like: the verdict on two ranks, each at its best rate by validation.
    """
    runs = load(RESULTS / "sweeps" / "rate_rank_alpha.zip")
    runs = runs[runs.dtype == "auto"]  # four runs ask whether the dtype makes a run collapse
    alpha = best_rate_slopes(runs)["alpha"]
    rank = best_rate_slopes(runs[(runs.alpha == 16) & (runs["rank"] != 64)], ["rank"])["rank"]
    cells = Cells(None, "rate_rank_alpha")
    best = {r: cells.best(rank=r, alpha=16)[1] for r in (1, 8, 32)}
    words = {f"rates.{a}-against-{b}": verdict(best[a], best[b]).outcome for a, b in [(8, 1), (8, 32), (32, 1)]}
    by_rate = 100 * runs[(runs["rank"] == 8) & (runs.alpha == 16)].groupby("lr").accuracy.mean()
    return {
        "rates.alpha-slope": f"{-alpha.slope:.2f}",
        "rates.alpha-slope.low": f"{-alpha.high:.2f}",
        "rates.alpha-slope.high": f"{-alpha.low:.2f}",
        "rates.fall": f"{16**-alpha.slope:.1f}",
        "rates.fall.low": f"{16**-alpha.high:.1f}",
        "rates.fall.high": f"{16**-alpha.low:.1f}",
        "rates.rank-slope": f"{rank.slope:+.2f}",
        "rates.rank-slope.low": f"{rank.low:+.2f}",
        "rates.rank-slope.high": f"{rank.high:+.2f}",
        "rates.spread": f"{by_rate.max() - by_rate.min():.0f}",
        **words,
    }


def targets() -> dict[str, str]:
    """Lesson 07: each choice of matrices at its best rate by validation, in percent of the test sentences.

    targets.dead: runs at the highest rate that end at chance, below 55 %; targets.dead.v: those of v.
    """
    runs = load(RESULTS / "sweeps" / "target_modules.zip")
    highest = runs[runs.lr == runs.lr.max()]
    dead = highest[highest.accuracy < 0.55]
    best = runs.groupby(["targets", "lr"])[["validation_accuracy", "accuracy"]].mean().reset_index()
    best = best.loc[best.groupby("targets").validation_accuracy.idxmax()]
    return {
        **{f"targets.{one.targets.replace(',', '+')}": f"{100 * one.accuracy:.1f}" for one in best.itertuples()},
        "targets.dead": str(len(dead)),
        "targets.dead.of": str(len(highest)),
        "targets.dead.v": str((dead.targets == "v").sum()),
    }


def latency() -> dict[str, str]:
    """Lesson 09: how many per cent longer an answer takes with LoRA beside the base, medians of our table 1."""
    rows = {row["name"]: row["yours"] for row in read_json(RESULTS / "reproduce" / "table1" / "result.json")["rows"]}
    cells = {"one": "1 x 128 LoRA beside", "many": "32 x 512 LoRA beside"}
    return {f"latency.{name}": f"{100 * (median(rows[cell]) - 1):.1f}" for name, cell in cells.items()}


def inside() -> dict[str, str]:
    """Lesson 13, in percent: ||dW|| / ||W|| of the reference over q and v, its intrinsic curve, what full gets right.

    inside.NAME.held: how much more of W lies in dW's directions than in random ones, as a factor.
    inside.a-moved: |A - A at the start| / |A at the start| of the adapter that ships, least and most of its matrices.
    inside.phi: phi(1, 1) of B A's rows, rank 8 in 64, two seeds: the mean over the matrices, and of some of them.
    """
    found = read_json(RESULTS / "microscope" / "minilm_rt.json")
    shares = {name: sum(row["relative"] for row in rows) / len(rows) for name, rows in found["sizes"].items()}
    points = {f"inside.d-{one['d']}": one["metrics"]["accuracy"] for one in found["intrinsic"]["points"]}
    right = {"inside.full.right": found["runs"]["full"]["validation"]["accuracy"]}
    numbers = {**{f"inside.{name}.relative": shares[name] for name in ("full", "lora")}, **points, **right}
    held = {  # how much more of W lies in dW's directions than in random ones, at r = 4
        f"inside.{name}.held": f"{median(one['in_update'] / one['in_random'] for one in by_rank['4'].values()):.1f}"
        for name, by_rank in found["amplification"].items()
    }
    shared = pd.Series(found["phi"]["8 in 64, two seeds"]["rows of B A"]["first"])
    last, query = shared.index.str.contains("layer.5.", regex=False), shared.index.str.endswith("query")
    groups = {"": shared, ".without-5": shared[~last], ".query-5": shared[last & query]}
    groups[".query-others"] = shared[query & ~last]
    phi = {f"inside.phi{name}": f"{some.mean():.2f}" for name, some in groups.items()}
    run = reference("minilm-rt-r8")
    trained = load_file(f"{run.adapter}/adapter_model.safetensors")
    ways = [
        np.linalg.norm(trained[f"base_model.model.{name}.lora_A.weight"] - a) / np.linalg.norm(a)
        for name, a in a_at_start(run.recipe).items()
    ]
    moved = {"inside.a-moved.least": f"{min(ways):.1f}", "inside.a-moved.most": f"{max(ways):.1f}"}
    return {**{name: f"{100 * value:.1f}" for name, value in numbers.items()}, **held, **phi, **moved}


def reproduced() -> dict[str, str]:
    """Lesson 14: the outcome of each item of `lora-lab reproduce`, and how many have which."""
    found = {file.parent.name: read_json(file)["standing"] for file in sorted(RESULTS.glob("reproduce/*/result.json"))}
    count = pd.Series(found).value_counts()
    outcomes = {f"reproduce.{item}": outcome.replace(" ", "\N{NO-BREAK SPACE}") for item, outcome in found.items()}
    return {**outcomes, **{f"reproduce.n.{outcome.replace(' ', '-')}": str(n) for outcome, n in count.items()}}


def rehearsed() -> dict[str, str]:
    """docs/protocol.md: the rehearsal of the paper's protocol for E2E on SmolLM2."""
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


def voices() -> dict[str, str]:
    """Lesson 00: sizes in MB of the base's file and a voice's, and the captain's validation perplexity by rank."""
    found = read_json(RESULTS / "styles" / "voices.json")
    base, file = found["bytes"]["base"], found["bytes"]["captain"]
    best = {one["rank"]: one for one in reversed(found["tried"]) if one["voice"] == "captain"}  # they are in order
    speaks = best[2]
    ranks = {f"voices.captain.r{rank}": f"{one['validation']:.1f}" for rank, one in best.items()}
    return {
        "voices.base": f"{base / 1e6:.0f}",
        "voices.file": f"{file / 1e6:.1f}",
        "voices.file.r8": f"{best[8]['bytes'] / 1e6:.1f}",
        "voices.together": f"{(base + file) / 1e6:.0f}",
        "voices.rate": f"{speaks['lr']:g}",
        "voices.steps": str(speaks["steps"]),
        "voices.batch": str(speaks["batch"]),
        **ranks,
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
