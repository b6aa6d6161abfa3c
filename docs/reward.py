"""Train the runs of lesson 17 and write what ships: `python docs/reward.py [STORE]`.

The questions and the rules, written before the first run. MiniLM on rt, 200 steps of 8 sentences; LoRA of ranks 1, 8
and 64 on q and v, and full fine-tuning. Each method learns from labels, and from one bit of reward per sentence, at its
own rate (the best of six, an octave apart, with three tuning seeds), with five final seeds. Rank 1 on all linear layers
was added after the reward runs of the other four, because LoRA Without Regret adapts all layers.

    Is rank 1 worse than rank 64, or than full fine-tuning? By `verdicts` with Holm's correction, margin 1.5 points.
    How many points do rewards lose against labels, at the same rank?
    How far is the trained model from the untrained one? Mean KL(trained, untrained) over the test sentences, in nats.
    Does luck in the draws matter? Rank 1 without draws (`MeanReward`), at the best rate for rewards and at twice that
    rate, with the same seeds. (We asked this three days after the other runs. For rank 1 on all linear layers, two
    rates tied; the other one was then scored, too.)
    What does the model forget? 256 passages of kjv are split in half; how many first halves have their own second half
    as the nearest one, by the cosine of mean-pooled embeddings?

It takes two hours on one idle core. If interrupted, run it again.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import log_softmax
from torch import Tensor

from lora_course.experiments.reward import Rewarded, halves_found
from lora_lab import LoRA, Recipe, load_adapter, load_model
from lora_lab.experiments.compare import compare, spread
from lora_lab.files import write_atomically, write_json
from lora_lab.training.assets import shipped
from lora_lab.training.pack import Pack
from lora_lab.training.runs import Run
from lora_lab.training.train import open_adapter

METHODS = "lora:rank=1,lora,lora:rank=64,lora:rank=1:targets=all-linear,full"
SETTINGS = {"steps": 200, "batch": 8, "rates": 6, "tuning_seeds": 3, "seeds": 5}
SIGNALS: Mapping[str, Any] = {"reward": Rewarded, "labels": Pack}


class MeanReward(Pack):
    """A pack whose members learn from the mean reward over all possible draws: the probability of the right answer."""

    @staticmethod
    def losses(logits: Tensor, labels: Tensor, members: Sequence[Any]) -> Tensor:
        """Return the negative mean reward of each member."""
        p = logits.float().softmax(-1).gather(1, labels[:, None])
        return -p.view(len(members), -1).mean(1)


@cache
def untrained(seed: int) -> np.ndarray:
    """Return log p of the untrained model with the initial head of a seed, (rows, classes)."""
    pack = Pack([Recipe("minilm", "rt", LoRA(), seed=seed, steps=1, dtype="fp32")])
    return np.asarray(log_softmax(pack.score("test")[0].by_row, axis=-1))


def measure(run: Run) -> dict[str, float]:
    """Return a trained model's KL from the untrained one, its mean confidence, and the share of halves found."""
    log_p = log_softmax(open_adapter(str(run.adapter), "rt", dtype="fp32").score().by_row, axis=-1)
    load_adapter(model := load_model("minilm", 2), str(run.adapter))  # the opened model computes only the first token
    kl = (np.exp(log_p) * (log_p - untrained(run.recipe.seed))).sum(-1).mean()
    return {"kl": float(kl), "sure": float(np.exp(log_p.max(-1)).mean()), "found": halves_found(model)}


def extra() -> None:
    """Write reward_extra.csv: rank 1 without draws at two rates, and on all linear layers at the other tied rate."""
    rows = []
    for name, kind, targets, lr in (
        ("mean", MeanReward, ("q", "v"), 1e-3),
        ("mean", MeanReward, ("q", "v"), 2e-3),
        ("drawn", Rewarded, ("all-linear",), 5e-4),
    ):
        first = Recipe("minilm", "rt", LoRA(rank=1, targets=targets), lr=lr, steps=200, batch=8, validations=1)
        for run in kind([replace(first, seed=seed) for seed in range(5)]).run():
            rows.append((name, ",".join(targets), lr, run.recipe.seed, run.metrics["accuracy"]))
    table = pd.DataFrame(rows, columns=["reward", "targets", "lr", "seed", "accuracy"])
    write_atomically(shipped("data/results/reward_extra.csv"), table.to_csv(index=False, lineterminator="\n").encode())


def main(store: str = "runs/reward", *signals: str) -> None:
    """Train missing runs with these signals, by default with all, and write their files."""
    torch.set_num_threads(1)
    for signal in signals or (*SIGNALS, "extra"):
        if signal == "extra":
            extra()
            continue
        comparison = compare("minilm", "rt", METHODS, Path(store, signal), say=print, pack=SIGNALS[signal], **SETTINGS)
        rows = []
        for row in comparison.rows:
            measured = pd.DataFrame([measure(run) for run in comparison.runs[row["label"]]])
            rows.append({**row, **{name: spread(measured[name].tolist()) for name in measured}})
        about = {**comparison.about, "found_before": halves_found(load_model("minilm", 2))}
        content = replace(comparison, about=about, rows=rows).to_json()
        write_json(shipped("data/results/compare") / f"minilm_rt_{signal}.json", content)


if __name__ == "__main__":
    main(*sys.argv[1:])
