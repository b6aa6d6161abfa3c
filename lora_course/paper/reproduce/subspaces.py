"""Table 7 and figures 3 and 4: the updates of LoRA runs at ranks 4, 8 and 64, which these three items share.

||dW||_F / ||U^T W V||_F    table 7, for three choices of U, V: dW's top r singular directions, W's, and random ones
phi(i, j)                   figures 3 and 4: overlap of the first i and first j directions of two runs, minus the chance
                            level max(i, j) / d
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from lora_course.experiments import subspace
from lora_course.experiments.subspace import Update, above_chance
from lora_course.paper.reproduce import Judged, Kept, Place, Row, all_of, in_every
from lora_course.paper.reproduce.studies import Trained
from lora_lab.experiments.statistics import Verdict
from lora_lab.training.train import open_adapter

PARTS = {"q": ("query", "q_proj"), "v": ("value", "v_proj")}  # layer names by role
TOO_FEW = 4  # fewer seeds decide nothing: three agree by chance one time in four
Layers = Mapping[str, Update]  # one run's updates by layer name
Updates = Mapping[str, Sequence[Layers]]  # by group, one run per seed


class Subspaces(Trained):
    """Runs whose updates are analyzed; `rows` returns one value per seed or pair of seeds, by row name."""

    def measured(self, sizes: Mapping[str, Any], place: Place) -> tuple[list[Row], Mapping[str, Verdict]]:
        study = self.trained(sizes, place)
        updates: dict[str, list[Layers]] = {}
        for label in study.groups:
            for run in study.runs(label):
                assert run.adapter is not None
                opened = open_adapter(run.adapter, self.task, model=self.model, dtype="fp32", device="cpu")
                updates.setdefault(label, []).append(subspace.updates_in(opened.model))
        rows = self.rows(updates)
        return [Row(name, tuple(values), self.axis) for name, values in rows.items()], {}


# ---- table 7

SHOWN = {
    "||dW||": "update",
    "||U'WV|| of dW": "in_update",
    "||U'WV|| of W": "in_weight",
    "||U'WV|| by chance": "in_random",
    "amplification": "factor",
}


class Amplified(Subspaces):
    """How much an update amplifies directions that the weight already has."""

    def rows(self, found: Updates) -> dict[str, list[float]]:
        rows: dict[str, list[float]] = {}
        for rank in (4, 64):
            for seed in found[f"rank {rank}"]:
                results = [subspace.amplification(u) for name, u in seed.items() if name.endswith(PARTS["q"])]
                for label, name in SHOWN.items():
                    rows.setdefault(f"rank {rank}, {label}", []).append(fmean(result[name] for result in results))
        return rows

    def judge(self, kept: Kept) -> Judged:
        ranks = {r: {n: np.array(kept.rows[f"rank {r}, {label}"]) for label, n in SHOWN.items()} for r in (4, 64)}
        between = [(x["in_random"] < x["in_update"]) & (x["in_update"] < x["in_weight"]) for x in ranks.values()]
        factors = ", ".join(
            f"{x['factor'].mean():.2g} at rank {r} (by chance {(x['update'] / x['in_random']).mean():.2g})"
            for r, x in ranks.items()
        )
        above = [x["factor"] > 1 for x in ranks.values()]
        ordered = in_every(np.all(between, 0), TOO_FEW, "between chance and W's strongest directions")
        amplified = in_every(np.all(above, 0), TOO_FEW, f"{factors}, above 1 at both ranks")
        return all_of({"||U'WV||": ordered, "amplification": amplified})


# ---- figures 3 and 4

LOOKS: Mapping[str, Callable[[Update], np.ndarray]] = {
    "BA": lambda update: update.right,
    "A": lambda update: subspace.directions(update.a),
}


class Shared(Subspaces):
    """The overlap phi of two runs; the second has the next seed, since equal seeds may initialize A alike."""

    def rows(self, found: Updates) -> dict[str, list[float]]:
        first, second = (found[label] for label in self.between)
        pairs = [(first[n], second[(n + 1) % len(second)]) for n in range(len(first))] if len(second) > 1 else []
        rows = {
            f"{what} of {role}, phi({i}, {j})": [_shared(a, b, basis, role, i, j) for a, b in pairs]
            for what, basis in LOOKS.items()
            for role in "qv"
            for i, j in self.cells
        }
        width = next(iter(found["rank 64"][0].values())).weight.shape[1]
        k = min(8, width)
        random = [tuple(subspace.random_directions(width, k, 2 * n + i) for i in (0, 1)) for n in range(5)]
        return rows | {"random, phi(8, 8)": [above_chance(*pair) for pair in random]}


def _shared(a: Layers, b: Layers, basis: Callable[[Update], np.ndarray], role: str, i: int, j: int) -> float:
    """Return the average, over the q or v layers, of phi(i, j) minus its chance level."""
    names = [name for name in a if name.endswith(PARTS[role])]
    return fmean(above_chance(basis(a[name])[:, :i], basis(b[name])[:, :j]) for name in names)


class BetweenRanks(Shared):
    """Figure 3: do rank 8 and rank 64 find the same directions?"""

    def judge(self, kept: Kept) -> Judged:
        first, rest = (np.array([kept.rows[f"BA of {role}, phi({i}, {i})"] for role in "qv"]) for i in (1, 8))
        holds = np.all((first > 0.5) & (rest < 0.5), axis=0)  # the paper counts 0.5 as overlap
        return in_every(holds, TOO_FEW, "phi(1, 1) above 0.5 and phi(8, 8) below 0.5, in q and in v")


class BetweenSeeds(Shared):
    """Figure 4: do two seeds of rank 64 find the same directions?"""

    def judge(self, kept: Kept) -> Judged:
        q, v = (np.array(kept.rows[f"BA of {role}, phi(8, 8)"]) for role in "qv")
        words = "phi(8, 8) above chance for v and larger for q, in pairs that share seeds"
        return in_every((v > 0) & (q > v), TOO_FEW, words)
