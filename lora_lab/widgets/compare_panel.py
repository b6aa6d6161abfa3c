"""Methods compared: every seed, what each method costs, and what you may say about a pair at a margin that you drag.

The browser draws (`js/compare_panel.js`); outcomes and intervals at each margin come from `experiments/margins.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import traitlets as T

from lora_lab.errors import BadValue
from lora_lab.experiments.margins import resampled, scores_in, shown
from lora_lab.files import read_json
from lora_lab.training.assets import shipped
from lora_lab.training.watching import headless
from lora_lab.widgets.background import Background, begin
from lora_lab.widgets.base import LivePanel
from lora_lab.widgets.method_icons import drawing

if TYPE_CHECKING:
    from lora_lab.experiments.compare import Comparison

SHIPPED = "data/results/compare/minilm_rt_all_linear.json"
CHOICES = (
    "probe", "head", "bitfit", "prompt", "ptuning", "prefix", "bottleneck", "ia3", "lora", "lora:targets=all-linear",
    "lora-xs", "vera", "tinylora", "full",
)  # fmt: skip
AXES = ("trained", "memory", "time")
WORDS = {
    "b": "better than", "w": "worse than", "e": "equivalent to", "B": "better than, but within the margin of,",
    "W": "worse than, but within the margin of,", "u": "not told apart from", "-": "not tested against",
}  # fmt: skip


class LiveCompare(Background):
    """A comparison in a thread. After a stop, another one with the same store continues from there.

    found       the comparison so far as JSON, a method at a time; `version` counts how often it changed
    words       what it is doing, in the words of `compare`
    """

    def __init__(
        self, model: str, task: str, methods: Sequence[str], store: str | Path, terms: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.model, self.task, self.methods, self.store, self.terms = model, task, tuple(methods), store, dict(terms)
        self.comparison: Comparison | None = None
        self.found: dict[str, Any] | None = None
        self.version, self.words = 0, ""

    @property
    def done(self) -> int:
        """How many methods are finished."""
        return len(self.found["methods"]) if self.found else 0

    def _work(self) -> None:
        from lora_lab.experiments.compare import compare  # imports torch, which a stored comparison does not need

        self.state = "comparing"
        how: dict[str, Any] = {"say": self._say, "stop": self._stop, "note": self._note}
        compare(self.model, self.task, self.methods, self.store, **how, **self.terms)
        self.state = "stopped" if self._stop.is_set() else "done"

    def _note(self, made: Comparison) -> None:
        self.comparison, self.found, self.version = made, made.to_json(), self.version + 1

    def _say(self, words: str) -> None:
        self.words = words


class ComparePanel(LivePanel, file="compare_panel.js"):
    """Methods compared on one task, each at its own tuned rate: seeds, costs, and outcomes against a margin.

        ComparePanel()                        the comparison that ships with the lab
        ComparePanel(task="opinions.csv")     one that is trained here, into `store`

    methods     to train here, in the words of `lora-lab compare`: "lora:rank=1" too
    seeds       of each method at its tuned rate
    rates       to try for each method, on validation
    steps, batch    of each run
    store       the folder for what is trained here; what is there is not trained again
    reference   a finished comparison to show, as `lora-lab compare --json` prints it; by default the one that ships,
                if it has the same model and task
    terms       what else `compare` takes
    """

    stored = T.Dict().tag(sync=True)  # the reference and what is compared here, see `margins.shown`; {} for none
    mine = T.Dict().tag(sync=True)
    view = T.Enum(("stored", "mine"), "stored").tag(sync=True)  # which of them is shown
    # live: the comparison at work: {state, busy, error, words, done, of}
    dance = T.Dict().tag(sync=True)  # resampled studies of a pair, see `margins.resampled`
    method = T.Unicode().tag(sync=True)  # the pair, by label; "" for the pair that the comparison suggests
    rival = T.Unicode().tag(sync=True)
    margin = T.Float(0.015).tag(sync=True)
    axis = T.Enum(AXES, "trained").tag(sync=True)
    choices = T.List(T.Unicode()).tag(sync=True)
    methods = T.List(T.Unicode()).tag(sync=True)
    seeds = T.Int().tag(sync=True)
    rates = T.Int().tag(sync=True)
    steps = T.Int().tag(sync=True)

    def __init__(
        self, model: str = "minilm", task: str = "rt", methods: Sequence[str] = ("probe", "prompt", "lora", "full"), *,
        seeds: int = 2, rates: int = 4, steps: int = 200, batch: int = 8, store: str | Path = "compared",
        reference: Mapping[str, Any] | None = None, **terms: Any,
    ) -> None:  # fmt: skip
        self.model, self.task, self.store, self.terms = model, task, store, {"batch": batch, **terms}
        self.lock = threading.RLock()
        self.work: LiveCompare | None = None
        self._version = -1
        if reference is None:
            ships = read_json(shipped(SHIPPED))
            reference = ships if (ships["model"], ships["task"]) == (model, task) else {}
        self._found = {"stored": dict(reference), "mine": {}}
        choices = list(dict.fromkeys([*CHOICES, *methods]))
        plan = {"methods": list(methods), "seeds": seeds, "rates": rates, "steps": steps}
        super().__init__(
            choices=choices, stored=_drawn(reference) if reference else {}, live={"state": "ready"}, **plan
        )
        self.margin = float(terms.get("margin", reference.get("margin", 0.015)))

    @property
    def pair(self) -> tuple[str, str]:
        """The labels of the selected method and of its rival."""
        data = getattr(self, self.view)
        known = {one["label"] for one in data.get("methods", ())}
        method, rival = data.get("pair", ("", ""))
        rival = self.rival if self.rival in known else rival
        method = self.method if self.method in known - {rival} else method
        return (method, rival) if method != rival else (next((one for one in known if one != rival), ""), rival)

    def describe(self) -> str:
        """The panel in plain words."""
        data = getattr(self, self.view)
        if not data:
            return "Methods compared. Nothing is compared yet."
        each = [f"{one['name']} {one['mean']:.1f}{data['unit']}" for one in data["methods"]]
        method, rival = self.pair
        entry, said = data["against"].get(rival, {}).get(method), ""
        if entry:
            at = min(range(len(data["margins"])), key=lambda i: abs(data["margins"][i] - self.margin))
            size = f"{data['scale'] * data['margins'][at]:g} {data['gap']}"
            said = f" At a margin of {size}, {method} is {WORDS[entry['outcomes'][at]]} {rival}."
        return f"Methods compared. {data['about']} Mean {data['metric']}: {', '.join(each)}.{said}"

    # ---- training

    def show(self) -> Self:
        """The panel, ready to compare. With LORA_LAB_HEADLESS=1 it compares before it returns. Raises: as `run`."""
        if headless():
            self.run()
        return self

    def run(self) -> None:
        """Compare in the background; with LORA_LAB_HEADLESS=1, before returning. Raises: BadValue if that fails."""
        if self.work is not None and self.work.alive:
            return
        terms = {**self.terms, "seeds": self.seeds, "rates": self.rates, "steps": self.steps}
        self._version = -1
        self.work = work = LiveCompare(self.model, self.task, self.methods, self.store, terms)
        begin(work, lambda: self._paint(work), self._tell)
        if work.error and headless():
            raise BadValue(work.error)

    def stop(self) -> None:
        """Stop after the current step. What has finished is kept, and `run` continues with the rest."""
        if self.work is not None and self.work.alive:
            self.work.stop()

    def result(self) -> Comparison:
        """The whole comparison that was made here. Raises: BadValue if there is none."""
        work = self.work
        if work is None or work.comparison is None or work.done < len(work.methods):
            why = (work and work.error) or "press Start in the panel above, then run this cell again"
            raise BadValue(f"there is no finished comparison: {why}")
        return work.comparison

    def resample(self, rows: int = 200, count: int = 100) -> None:
        """Draw `count` studies of `rows` rows from the answers of the pair, for the panel to show.

        Raises: BadValue if the answers of one of the two were not kept.
        """
        scores, (method, rival) = scores_in(self._found[self.view] or {"methods": []}), self.pair
        if not {method, rival} <= scores.keys():
            raise BadValue(f"the answers of {method or 'a method'} and {rival or 'its rival'} were not kept")
        margins = getattr(self, self.view)["margins"]
        number = self.dance.get("number", 0) + 1  # other studies each time
        drawn = resampled(scores[method], scores[rival], rows, margins, count=count, seed=number)
        self.dance = {**drawn, "method": method, "rival": rival, "view": self.view, "number": number}

    def _do(self, content: dict[str, Any]) -> None:
        """A button of the browser. Its message carries the traits: a busy kernel may get them later."""
        with self.hold_sync():
            for name, value in content.get("traits", {}).items():
                setattr(self, name, value)
        if content["do"] == "dance":
            self.resample(content["rows"])
        else:
            {"run": self.run, "stop": self.stop}[content["do"]]()

    def _paint(self, work: LiveCompare) -> None:
        """Bring the browser up to date; called several times a second while something trains."""
        with self.lock, self.hold_sync():
            busy, of = work.alive, len(work.methods)
            if work.found and work.version != self._version:
                self._version, self._found["mine"] = work.version, work.found
                self.view = self.view if self.mine else "mine"  # at the first result, not against the reader's choice
                self.mine = _drawn(work.found)
            state = {"state": work.doing, "busy": busy, "error": work.error, "words": work.words}
            self.live = {**state, "done": work.done, "of": of}


def _drawn(found: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison for the browser, with a drawing of what each method adds."""
    data = shown(found)
    methods = [one | drawing(one["method"], one["settings"] or {}, one["head"]) for one in data["methods"]]
    return data | {"methods": methods}
