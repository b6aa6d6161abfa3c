"""A comparison in a thread: started, watched method by method, stopped, resumed. No widgets here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_lab.experiments.compare import Comparison, compare
from lora_lab.widgets.background import Background


class LiveCompare(Background):
    """Methods that are compared one after the other, and what is known so far. Read from any thread.

    The table grows a method at a time, and a Start after a Stop goes on where it was.

    methods   words as `experiments.contenders` takes them: "probe", "lora:rank=1"
    terms     steps, seeds, rates and what else `compare` takes
    words     what it is doing, in the words of `compare`
    """

    def __init__(
        self, model: str, task: str, methods: Sequence[str], store: str | Path, terms: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.model, self.task, self.methods, self.store, self.terms = model, task, tuple(methods), store, dict(terms)
        self.comparison: Comparison | None = None
        self.found: dict[str, Any] | None = None
        self.version, self.words = 0, ""  # counts the results, so that who draws them knows when to

    @property
    def done(self) -> int:
        """How many methods are whole."""
        return len(self.found["methods"]) if self.found else 0

    def _work(self) -> None:
        self.state = "comparing"
        how: dict[str, Any] = {"say": self._say, "stop": self._stop, "note": self._note}
        compare(self.model, self.task, self.methods, self.store, **how, **self.terms)
        self.state = "stopped" if self._stop.is_set() else "done"

    def _note(self, made: Comparison) -> None:
        self.comparison, self.found, self.version = made, made.to_json(), self.version + 1

    def _say(self, words: str) -> None:
        self.words = words
