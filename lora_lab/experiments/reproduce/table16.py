"""Table 16: little data."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from lora_lab.errors import Failed
from lora_lab.experiments.budget import Timing, pack_timed
from lora_lab.experiments.little import Little, little
from lora_lab.experiments.reproduce import fit
from lora_lab.experiments.reproduce.base import Item, Judged, Place, Plan, Row
from lora_lab.experiments.statistics import Verdict
from lora_lab.methods.base import Method
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.methods.prefix import PrefixTuning
from lora_lab.methods.prompt import PromptTuning
from lora_lab.training.recipe import Recipe
from lora_lab.training.tasks import load_task

RATES: dict[Method, float] = {LoRA(): 2e-3, FullFineTuning(): 1e-4, PrefixTuning(): 0.1, PromptTuning(): 1e-2}
"""Each method's rate, tuned on validation with all of rt before in a comparison of 2026-11-25.

That of 2026-11-26 (data/results/compare/minilm_rt.json) chose 0.032 for both prompts and prefixes.
"""
SIZES = (100, 1000, 0)
IN_PAPER = {"lora r8": "LoRA", "full": "FT", "prefix 20": "PrefixLayer", "prompt 20": "PrefixEmbed"}
COLUMNS = {100: "MNLI-100", 1000: "MNLI-1k", 0: "MNLI-392k"}


class LittleData(Item):
    name = "table16"
    title = "Few examples: LoRA, full, prefix and prompt on draws of rt, minilm"
    finding = "With a hundred examples LoRA is at least as good as full fine-tuning, and far better than prefixes."
    rule = (
        "At 100 examples, by the same draws and test rows (margin 1.5 points, Holm over all sizes and methods): holds "
        "if full fine-tuning is worse than or equivalent to LoRA and prefix tuning is worse, fails if either is "
        "better, else undecided."
    )
    minutes = 26.0
    limits = (
        "Film reviews in two classes in place of MNLI, MiniLM in place of GPT-3; each method at the rate tuned with "
        "all of rt, the same steps for every size. rt has some 6,000 training sentences, no 392,000."
    )

    def __init__(self, model: str = "minilm", task: str = "rt", sizes: tuple[int, ...] = SIZES, **fields: Any) -> None:
        self.model, self.task, self.sizes, self.fields = model, task, sizes, fields

    def expected(self, minutes: float) -> Plan:
        return self._sized(minutes, [fit.quick(self._recipe(one)) for one in RATES])

    def plan(self, place: Place) -> Plan:
        return self._sized(place.minutes, [pack_timed([self._recipe(one)]) for one in RATES])

    def run(self, plan: Plan, place: Place) -> Little:
        found = little(
            RATES, model=self.model, task=self.task, examples=self.sizes, subsets=plan.sizes["seeds"],
            steps=plan.sizes["steps"], batch=8, store=place.folder / "runs", fields=self.fields, stop=place.stop,
        )  # fmt: skip
        if place.stop.is_set() and any(run is None for runs in found.runs.values() for run in runs):
            raise Failed("the time is over before every run was done; the same call goes on where it was")
        return found

    def rows(self, found: Little) -> list[Row]:
        frame = found.frame
        places = [(name, size) for size in found.sizes for name in found.methods]
        wanted = {(n, s): frame[(frame["method"] == n) & (frame["examples"] == s)]["accuracy"] for n, s in places}
        return [Row(f"{s:,} examples, {n}", tuple(100 * own), self.axis) for (n, s), own in wanted.items()]

    def judge(self, found: Little) -> Judged:
        return at_little(found.verdicts, found.sizes[0])

    def published(self, table: Any) -> Mapping[str, str]:
        total = len(load_task(self.task).train)
        return {
            f"{size or total:,} examples, {name}": f"{table.row(method=method)[COLUMNS[size]]} ({COLUMNS[size]})"
            for size in self.sizes
            for name, method in IN_PAPER.items()
            if size in COLUMNS
        }

    def _recipe(self, method: Any) -> Recipe:
        return Recipe(self.model, self.task, method, lr=RATES[method], batch=8, validations=0, **self.fields)

    def _sized(self, minutes: float, timings: list[Timing]) -> Plan:
        each = Timing(*(fmean(getattr(t, f) for t in timings) for f in ("load", "step", "validation")))
        return fit.sized(len(RATES) * len(self.sizes), minutes, each, load_task(self.task))


def at_little(verdicts: Mapping[tuple[str, int], Verdict], size: int) -> Judged:
    """The rule: verdicts of the others on LoRA, by method and size."""
    full, prefix = verdicts["full", size], verdicts["prefix 20", size]
    words = f"at {size} examples against LoRA: full {full}; prefix {prefix}"
    if "better" in (full.outcome, prefix.outcome):
        return Judged("fails", words)
    held = full.outcome in ("worse", "equivalent") and prefix.outcome == "worse"
    return Judged("holds" if held else "undecided", words)


ITEM = LittleData()
