"""Table 16: little data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from statistics import fmean
from typing import Any, ClassVar

from lora_course.experiments.little import Little, little
from lora_course.paper.reproduce import fit
from lora_course.paper.reproduce.base import Item, Kept, Pairs, Place, Plan, Row
from lora_course.paper.reproduce.trained import CLEAR, marks, unlearned
from lora_lab.errors import Failed
from lora_lab.experiments.budget import Timing, pack_timed
from lora_lab.experiments.statistics import Verdict
from lora_lab.files import read_json
from lora_lab.methods.base import Method
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.methods.soft import PrefixTuning, PromptTuning
from lora_lab.training.assets import shipped
from lora_lab.training.recipe import Recipe
from lora_lab.training.tasks import load_task

SIZES = (100, 1000, 0)
IN_PAPER = {"lora r8": "LoRA", "full": "FT", "prefix 20": "PrefixLayer", "prompt 20": "PrefixEmbed"}
COLUMNS = {100: "MNLI-100", 1000: "MNLI-1k", 0: "MNLI-392k"}


@cache
def rates() -> dict[Method, float]:
    """Each method's rate: what the shipped comparison chose for it on validation, with all of rt."""
    compared = read_json(shipped("data/results/compare/minilm_rt.json"))["methods"]
    chosen = {one["method"]: one["lr"] for one in compared}
    return {one: chosen[one.name] for one in (LoRA(), FullFineTuning(), PrefixTuning(), PromptTuning())}


class LittleData(Item):
    name = "table16"
    title = "Few examples: LoRA, full, prefix and prompt on draws of rt, minilm"
    finding = "With a hundred examples LoRA is as good as full fine-tuning or better, and better than prefixes."
    rule = (
        f"Tested if every run of LoRA, full and prefix tuning on all of the examples is {CLEAR:g} points above chance: "
        "else its rate or the steps cannot train it. At 100 examples, by the same draws and test rows (margin 1.5 "
        "points, Holm over all sizes and methods): holds if full fine-tuning is worse than or equivalent to LoRA and "
        "prefix tuning is worse, fails if either is better by more than the margin (the whole 95 % interval), else "
        "undecided."
    )
    minutes = 26.0
    limits = (
        "Film reviews in two classes in place of MNLI, MiniLM in place of GPT-3; each method at the rate that the "
        "shipped comparison (data/results/compare/minilm_rt.json) chose with all of rt, the same steps for every size. "
        "The results that ship are older: an earlier comparison's rates, 0.1 for prefix tuning and 0.01 for prompts, "
        "where that chose 0.032. rt has some 6,000 training sentences, not 392,000."
    )
    pairs: ClassVar[Pairs] = {
        "full against LoRA": ("full", "lora r8", "no better"),
        "prefix against LoRA": ("prefix 20", "lora r8", "worse"),
    }

    def __init__(self, model: str = "minilm", task: str = "rt", sizes: tuple[int, ...] = SIZES, **fields: Any) -> None:
        self.model, self.task, self.sizes, self.fields = model, task, sizes, fields

    def expected(self, minutes: float) -> Plan:
        return self._sized(minutes, [fit.quick(self._recipe(one)) for one in rates()])

    def plan(self, place: Place) -> Plan:
        return self._sized(place.minutes, [pack_timed([self._recipe(one)]) for one in rates()])

    def run(self, plan: Plan, place: Place) -> Little:
        found = little(
            rates(), model=self.model, task=self.task, examples=self.sizes, subsets=plan.sizes["seeds"],
            steps=plan.sizes["steps"], batch=8, store=place.folder / "runs", fields=self.fields, stop=place.stop,
        )  # fmt: skip
        if place.stop.is_set() and any(run is None for runs in found.runs.values() for run in runs):
            raise Failed("the time is over before every run was done; the same call goes on where it was")
        return found

    def rows(self, found: Little) -> list[Row]:
        places = [(name, size) for size in found.sizes for name in found.methods]
        runs = {f"{size:,} examples, {name}": [run for run in found.runs[name, size] if run] for name, size in places}
        return [
            Row(n, tuple(100 * r.metrics["accuracy"] for r in own), self.axis, marks(own)) for n, own in runs.items()
        ]

    def verdicts(self, found: Little) -> Mapping[str, Verdict]:
        return {name: found.verdicts[method, found.sizes[0]] for name, (method, _, _) in self.pairs.items()}

    def untested(self, kept: Kept) -> str:
        all_of_them = list(kept.rows)[-1].partition(", ")[0]
        return unlearned(kept, [f"{all_of_them}, {name}" for name in ("lora r8", "full", "prefix 20")])

    def published(self, table: Any) -> Mapping[str, str]:
        total = len(load_task(self.task).train)
        return {
            f"{size or total:,} examples, {name}": f"{table.row(method=method)[COLUMNS[size]]} ({COLUMNS[size]})"
            for size in self.sizes
            for name, method in IN_PAPER.items()
            if size in COLUMNS
        }

    def _recipe(self, method: Any) -> Recipe:
        return Recipe(self.model, self.task, method, lr=rates()[method], batch=8, validations=0, **self.fields)

    def _sized(self, minutes: float, timings: list[Timing]) -> Plan:
        each = Timing(*(fmean(getattr(t, f) for t in timings) for f in ("load", "step", "validation")))
        return fit.sized(len(rates()) * len(self.sizes), minutes, each, load_task(self.task))


ITEM = LittleData()
