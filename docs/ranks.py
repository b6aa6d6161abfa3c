"""Write the initial data of `RankPanel`: `python docs/ranks.py FOLDER` trains two runs and truncates their updates.

    W_r = W + sum over i <= r of s_i u_i v_i^T        where dW is the sum over all i, for every matrix at once

At rank 0, the model is the base with the trained head. Biases and norms are vectors, so their updates have rank 1.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_lab import FullFineTuning, LoRA, Recipe, load_model, load_task, train
from lora_lab.experiments.low_rank import rank_for_energy, spectrum
from lora_lab.files import write_atomically
from lora_lab.methods.merge import merge_for_good
from lora_lab.methods.targets import HEADS
from lora_lab.training.assets import shipped
from lora_lab.training.batches import encode
from lora_lab.training.evaluate import evaluate
from lora_lab.training.models import load_tokenizer
from lora_lab.training.runs import Store
from lora_lab.training.train import open_adapter
from lora_lab.widgets.matrices import CUTS, ROLES, packed

ATTENTION = "bert.encoder.layer.{}.attention.{}.weight"
RANKS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 384)
SETTINGS: dict[str, Any] = {"steps": 400, "batch": 16, "validations": 0, "dtype": "fp32"}
ROUNDING = 3e-6  # singular values below this fraction of the largest are rounding errors
CORNER = 96  # rows and columns of a smaller picture
COUNT = 500  # validation sentences
EXAMPLE = 70  # preferred number of characters in an example sentence
State = dict[str, Tensor]


def trained(recipe: Recipe, folder: Path) -> State:
    """Train a run unless it is stored; return its weights with any adapter merged, named as in a plain model."""
    run = Store(folder).find(recipe) or train(recipe, store=folder)
    model = open_adapter(str(run.adapter), recipe.task, model=recipe.model, dtype="fp32", device="cpu").model
    if not recipe.method.trains_base:
        merge_for_good(model)
    return {name: tensor.detach().float() for name, tensor in model.state_dict().items()}


def update_of(before: State, after: State) -> State:
    """Return dW for every tensor that changed, except the head's."""
    names = [n for n in before if n.split(".")[0] not in HEADS and before[n].is_floating_point()]
    return {n: after[n] - before[n] for n in names if not torch.equal(after[n], before[n])}


def random_like(update: State) -> State:
    """Draw Gaussian noise of the same Frobenius norm, in the rows that changed."""
    torch.manual_seed(0)
    noise = {
        n: torch.randn(delta.shape) * (delta if delta.dim() < 2 else delta.any(1, True)).bool()
        for n, delta in update.items()
    }
    return {n: noise[n] * (delta.norm() / noise[n].norm()) for n, delta in update.items()}


def truncate(label: str, base: State, update: State, head: State) -> tuple[dict[str, Any], list[int]]:
    """Truncate an update to each rank and score it on COUNT validation sentences.

    Return the scores, in the format of `RankPanel`, and how many sentences are called negative at each rank.

    gained   Sentences that are right from this rank on and wrong at the rank below.
    lost     Sentences that are wrong at this rank and right at full rank.
    """
    task, tokenizer, model = load_task("rt"), load_tokenizer("minilm"), load_model("minilm", 2)
    rows, labels = encode(task.validation, task, tokenizer)[:COUNT], np.array(task.validation.labels[:COUNT])
    svds = {n: torch.linalg.svd(d, full_matrices=False) for n, d in update.items() if d.dim() == 2}
    full = max(int((s > ROUNDING * s[0]).sum()) for _, s, _ in svds.values())
    ranks = [*(rank for rank in RANKS if rank < full), full]
    total, energy, answers = sum(float(d.square().sum()) for d in update.values()), [], []
    for rank in ranks:
        truncated = {n: d * (rank > 0) for n, d in update.items() if n not in svds}
        truncated |= {n: (u[:, :rank] * s[:rank]) @ vt[:rank] for n, (u, s, vt) in svds.items()}
        applied = update if rank == full else truncated
        model.load_state_dict(base | head | {n: base[n] + d for n, d in applied.items()})
        energy.append(round(sum(float(d.square().sum()) for d in truncated.values()) / total, 4))
        answers.append(evaluate(model, rows, int(tokenizer.pad_token_id)).predictions)
    predictions = np.array(answers)  # (ranks, sentences)
    right = predictions == labels
    stays = np.logical_and.accumulate(right[::-1])[::-1]  # right from this rank on
    before = np.vstack([right[:1] & False, right[:-1]])
    order = sorted(range(len(labels)), key=lambda n: abs(len(task.validation.texts[n]) - EXAMPLE))
    gained = [[n for n in order if stays[i, n] and not before[i, n]][:3] for i in range(len(ranks))]
    lost = [[n for n in order if right[-1, n] and not right[i, n]][:2] for i in range(len(ranks))]
    shown = sorted({n for examples in (*gained, *lost) for n in examples})
    texts = [[task.validation.texts[n], int(labels[n]), "".join(map(str, predictions[:, n]))] for n in shown]
    return {
        "label": label, "ranks": ranks, "energy": energy, "right": right.sum(1).tolist(),
        "flips": (predictions != predictions[-1]).sum(1).tolist(),
        "gained": [[shown.index(n) for n in examples] for examples in gained],
        "lost": [[shown.index(n) for n in examples] for examples in lost], "sentences": texts,
    }, (predictions == 0).sum(1).tolist()  # fmt: skip


def main(folder: str) -> None:
    """Train missing runs, then write the data."""
    store = Path(folder)
    recipes = {
        "full": Recipe("minilm", "rt", FullFineTuning(), lr=1e-4, **SETTINGS),
        "lora": Recipe("minilm", "rt", LoRA(rank=8), lr=2e-3, **SETTINGS),
    }
    after = {name: trained(recipe, store) for name, recipe in recipes.items()}
    base = {name: tensor.float() for name, tensor in load_model("minilm", 2).state_dict().items()}
    update = {name: update_of(base, state) for name, state in after.items()}
    heads = {name: {n: t for n, t in state.items() if n.split(".")[0] in HEADS} for name, state in after.items()}
    full, negative = truncate("full fine-tuning", base, update["full"], heads["full"])
    updates = {
        "full": full,
        "update": truncate("LoRA", base, update["lora"], heads["lora"])[0],
        "noise": truncate("random", base, random_like(update["full"]), heads["full"])[0],
    }
    # Remove the r strongest components of each matrix; the vectors keep their updates, as in "full" from rank 1 on.
    undone = {name: -delta for name, delta in update["full"].items() if delta.dim() == 2}
    rest, without = truncate("undone", after["full"], undone, heads["full"])
    run = Store(store).find(recipes["full"])
    assert run is not None
    about = (
        "MiniLM on movie reviews, 400 steps of 16, full fine-tuning at 1e-4, LoRA of rank 8 on q and v at 2e-3; "
        f"one run each, {run.environment['date']}, {run.environment['device']}, {run.environment['dtype']}. "
        f"Every matrix of the model is cut to rank r; {COUNT} validation sentences."
    )
    labels = list(load_task("rt").labels)
    attention = {
        role: [update["full"][ATTENTION.format(layer, path)].numpy().astype(float) for layer in range(6)]
        for role, path in ROLES.items()
    }
    content = {
        "matrix": packed(attention["q"][0]),
        "cuts": {"n": COUNT, "labels": labels, "updates": updates, "about": about},
        "rest": {"label": "without these", "others": True, "ranks": rest["ranks"], "right": rest["right"]},
        "negative": {"full": negative, "rest": without},
        "value": packed(attention["v"][2], most=8, corner=CORNER),
        "attention": {role: [rank_for_energy(spectrum(m), 0.9) for m in of] for role, of in attention.items()},
    }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path := shipped("data/results/microscope") / Path(CUTS).name, text.encode())
    print(f"{path.name}: {len(text):,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
