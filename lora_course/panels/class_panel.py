"""A class's runs on a projector: one map with a dot for each student's run, and everyone's guess.

FOLDER/ada/runs/3f2a9c1b77e0.json     the store that a laptop left
FOLDER/ada/guess.json                 {"name": "Ada", "guess": 81}
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import traitlets as T

from lora_lab.errors import NotFound
from lora_lab.experiments import playground
from lora_lab.experiments.collect import collect
from lora_lab.metrics import factor
from lora_lab.training.runs import FINISHED, dtype_of, stores
from lora_lab.widgets.sweep_panel import SweepPanel


class ClassPanel(SweepPanel, file="sweep_panel.js"):
    """What a class found, in large letters. Refresh reads what has arrived since.

    folder    has a folder for each student; a single store works, too
    into      the store that all runs are copied into; FOLDER-collected if left out
    A guess is about the test rows, for the cell that validation chooses; accuracies of 81 and 0.81 are the same guess.
    Raises: NotFound if the folder doesn't exist; BadValue if `into` lies within it or can't be written.
    """

    classroom = T.Dict().tag(sync=True)  # {left_out: words, guesses: [[name, value], ...], measured: value or None}

    def __init__(self, folder: str | Path, into: str | Path | None = None) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise NotFound(f"there is no folder {folder}: give the one that holds the students' folders")
        into = into or self.folder.with_name(f"{self.folder.resolve().name}-collected")
        super().__init__(into=into, model="minilm", task="rt")  # an empty map, until runs have arrived
        self.refresh()

    def refresh(self) -> None:
        """Copy what has arrived into the store, and show it. Raises: as the constructor."""
        arrived = stores(self.folder)
        alone = not arrived or arrived == {self.folder}
        unreadable = {} if alone else collect([self.folder], self.store.folder).unreadable
        records = list(playground.records(self.folder, unreadable))
        found = playground.gathered(records)
        left_out = [why if file in why else f"{file}: {why}" for file, why in unreadable.items()]
        with self.hold_sync():
            measured = None
            if found:
                same, waited = found.same_kind(records), not self.playground.results
                dtype = Counter(one.dtype for one in found.results if one.dtype).most_common(1)
                kept = tuple(one for one in found.results if not dtype or one.dtype in (None, dtype[0][0]))
                many = {
                    "of another method, model, task or length": len(records) - len(same),
                    "in another dtype": len(found.results) - len(kept),
                }
                left_out = [
                    f"{count:,} run{'s' * (count != 1)} {what}" for what, count in many.items() if count
                ] + left_out
                self.playground, self.axes = replace(found, results=kept), {}
                self._show()
                if waited:
                    self._begin_at_best()
                measured = self._measured([record for _, record in same if not dtype or _dtype(record) == dtype[0][0]])
            said = f"Left out: {'; '.join(left_out)}.".replace(f"{self.folder}{os.sep}", "") if left_out else ""
            values = [[name, self._scaled(guess)] for name, guess in guesses(self.folder)]
            self.classroom = {"left_out": said, "guesses": values, "measured": measured}
            self.live = {"state": "ready", "read": self.live.get("read", 0) + 1}  # the browser waits for a change

    def describe(self) -> str:
        """The panel in plain words."""
        measured, many = self.classroom["measured"], len(self.classroom["guesses"])
        found = "" if measured is None else f" Measured on test: {measured:.1f}{self.data['unit']}."
        return f"{super().describe()} {many} guess{'es' * (many != 1)}.{found} {self.classroom['left_out']}".strip()

    def _do(self, content: dict[str, Any]) -> None:
        self.refresh()

    def _measured(self, records: list[Any]) -> float | None:
        """The mean test metric of the best cell's runs."""
        metric = self.playground.metric
        own = [one for one in records if playground.cell_of(one["recipe"]) == self.best and one["status"] in FINISHED]
        return self._scaled(fmean(one["metrics"][metric] for one in own)) if own else None

    def _scaled(self, value: float) -> float:
        return factor(self.playground.metric) * value if abs(value) <= 1 else value


def _dtype(record: Any) -> str | None:
    return dtype_of(record["environment"])


def guesses(folder: Path) -> list[tuple[str, float]]:
    """Everyone's name and guess, from each guess.json below a folder; a file without a finite number is skipped."""
    found = []
    for file in sorted(folder.rglob("guess.json")):
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
            found.append((str(value.get("name") or file.parent.name), float(value["guess"])))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return [(name, guess) for name, guess in found if math.isfinite(guess)]
