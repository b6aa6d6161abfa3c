"""A class's runs on a projector: one map with a dot for each student's run, and everyone's guess.

FOLDER/ada/runs/3f2a9c1b77e0.json     a student's store, copied from a laptop
FOLDER/ada/guess.json                 {"name": "Ada", "guess": 81}
"""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import traitlets as T

from lora_course.receipts import finite, handed_in
from lora_lab import BadValue, NotFound, SweepPanel
from lora_lab.experiments import playground
from lora_lab.experiments.results import collect
from lora_lab.files import as_path, read_json
from lora_lab.metrics import factor
from lora_lab.training.runs import FINISHED, dtype_of, stores


class ClassPanel(SweepPanel, file="sweep_panel.js"):
    """A class's results, in large letters. The Refresh button reads newly arrived runs.

    folder    A folder with a subfolder for each student, or a single store.
    into      Store that all runs are copied into; the default is FOLDER-collected.
    A guess predicts the test score of the cell that is best on validation; 81 and 0.81 are the same guess.
    Raises: NotFound if the folder doesn't exist; BadValue if `into` is inside it or can't be written.
    """

    classroom = T.Dict().tag(sync=True)  # {left_out: words, guesses: [[name, value], ...], measured: value or None}

    def __init__(self, folder: str | Path, into: str | Path | None = None) -> None:
        self.folder = as_path(folder)
        if not self.folder.is_dir():
            raise NotFound(f"there is no folder {folder}: pass the one that holds the students' folders")
        into = into or (here := self.folder.resolve()).with_name(f"{here.name}-collected")
        super().__init__(into=into, model="minilm", task="rt")  # an empty map, until runs have arrived
        self.refresh()

    def refresh(self) -> None:
        """Copy the runs that have arrived into the store, and show them. Raises: see the class."""
        arrived = stores(self.folder)
        single = not arrived or arrived == {self.folder}
        unreadable = {} if single else collect([self.folder], self.store.folder).unreadable
        records = list(playground.records(self.folder, unreadable))
        gathered = playground.gathered(records)
        values = [[name, self._scaled(guess)] for name, guess in guesses(self.folder, unreadable)]
        left_out = [why if file in why else f"{file}: {why}" for file, why in unreadable.items()]
        with self.hold_sync():
            measured = None
            if gathered:
                same, was_empty = gathered.same_kind(records), not self.playground.results
                usual = {None, *dict(Counter(r.dtype for r in gathered.results if r.dtype).most_common(1))}
                kept = tuple(r for r in gathered.results if r.dtype in usual)
                counts = {
                    "with another method, model, task or length, or without validation": len(records) - len(same),
                    "in another dtype": len(gathered.results) - len(kept),
                }
                left_out[:0] = [f"{n:,} run{'s' * (n != 1)} {what}" for what, n in counts.items() if n]
                self.playground, self.axes = replace(gathered, results=kept), {}
                self._show()
                if was_empty:
                    self._begin_at_best()
                metric = self.playground.metric
                finished = [r for _, r in same if r["status"] in FINISHED and dtype_of(r["environment"]) in usual]
                if best := [r for r in finished if playground.cell_of(r["recipe"]) == self.best]:
                    measured = self._scaled(fmean(record["metrics"][metric] for record in best))
            message = f"Left out: {'; '.join(left_out)}.".replace(f"{self.folder}{os.sep}", "") if left_out else ""
            self.classroom = {"left_out": message, "guesses": values, "measured": measured}
            self.live = {"state": "ready", "read": self.live.get("read", 0) + 1}  # the browser waits for a new `read`

    def describe(self) -> str:
        measured, count = self.classroom["measured"], len(self.classroom["guesses"])
        result = "" if measured is None else f" Measured on test: {measured:.1f}{self.data['unit']}."
        return f"{super().describe()} {count} guess{'es' * (count != 1)}.{result} {self.classroom['left_out']}".strip()

    def _do(self, content: dict[str, Any]) -> None:
        self.refresh()

    def _scaled(self, value: float) -> float:
        return factor(self.playground.metric) * value if abs(value) <= 1 else value


def guesses(folder: Path, unreadable: dict[str, str]) -> list[tuple[str, float]]:
    """Return everyone's name and guess, from each guess.json; add the reason for each skipped file to `unreadable`."""
    entries = []
    for file in handed_in(folder, "guess.json"):
        try:
            entry = read_json(file)
            entries.append((str(entry.get("name") or file.parent.name), finite(entry.get("guess"), "guess")))
        except BadValue as error:
            unreadable[str(file)] = str(error)
    return entries
