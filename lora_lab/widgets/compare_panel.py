"""A comparison of methods: every seed, each method's costs, and the verdict on a pair at a margin that you can drag.

The browser draws the panel (`js/compare_panel.js`); `experiments/margins.py` computes outcomes at each margin.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import traitlets as T

from lora_lab.errors import BadValue, Failed
from lora_lab.experiments.margins import resampled, scores_in, shown
from lora_lab.files import read_json
from lora_lab.methods.base import plain, whole
from lora_lab.training.assets import shipped
from lora_lab.training.recipe import Recipe, check_fields
from lora_lab.widgets.base import Background, LivePanel
from lora_lab.widgets.method_icons import drawing

SHIPPED = "data/results/compare/minilm_rt_all_linear.json"
CHOICES = (
    "probe", "head", "bitfit", "prompt", "ptuning", "prefix", "bottleneck", "ia3", "lora", "lora:targets=all-linear",
    "lora-xs", "vera", "tinylora", "full",
)  # fmt: skip
WORDS = {
    "b": "better than", "w": "worse than", "e": "equivalent to", "B": "better than, but within the margin of,",
    "W": "worse than, but within the margin of,", "u": "not distinguished from",
}  # fmt: skip


class LiveCompare(Background):
    """A comparison that runs in a thread. A new comparison with the same store resumes one that was stopped.

    found   the comparison so far, as JSON
    words   the latest progress message from `compare`
    """

    words = ""

    def __init__(self, methods: Sequence[str], **terms: Any) -> None:
        super().__init__()
        self.methods, self.terms = tuple(methods), terms
        self.found: dict[str, Any] = {"methods": []}

    def _work(self) -> None:
        from lora_lab.experiments.compare import compare  # imports torch, which a stored comparison doesn't need

        def on_result(comparison: Any) -> None:
            self.found = comparison.to_json()

        self.state, say = "comparing", partial(setattr, self, "words")
        found = compare(methods=self.methods, stop=self._stop, say=say, on_result=on_result, **self.terms)
        if not self._stop.is_set() and not any(row["runs"] for row in found.rows):
            raise Failed(f"every method failed: {found.rows[0]['error']}")
        self.state = "stopped" if self._stop.is_set() else "done"


class ComparePanel(LivePanel, file="compare_panel.js"):
    """A comparison of methods on one task, each at its own tuned learning rate: seeds, costs, and outcomes at a margin.

        ComparePanel()                        the comparison that ships with the lab
        ComparePanel(task="opinions.csv")     a comparison that is trained here and kept in `store`

    methods     methods to train here, written as for `lora-lab compare`, for example "lora:rank=1"
    seeds       number of seeds for each method at its tuned rate
    rates       number of learning rates to try for each method, on the validation rows
    steps, batch    number of steps, and rows per step, of each run
    store       the folder for runs trained here; runs already in it are not trained again
    reference   a finished comparison to show, as `lora-lab compare --json` prints it; by default the one that ships,
                if it has the same model and task
    terms       other arguments of `compare`, except `minutes` and `workers`
    Raises: BadValue for an unknown argument or an impossible number.
    """

    stored = T.Dict().tag(sync=True)  # the reference and the comparison made here, see `margins.shown`; {} if none
    mine = T.Dict().tag(sync=True)
    view = T.Enum(("stored", "mine"), "stored").tag(sync=True)  # which of the two is shown
    # live: the comparison in progress: {state, busy, error, words, done, of}
    dance = T.Dict().tag(sync=True)  # resampled studies of a pair, see `margins.resampled`
    method, rival = (T.Unicode().tag(sync=True) for _ in range(2))  # the labels of a pair, or "" for the suggested pair
    margin = T.Float(0.015).tag(sync=True)
    axis = T.Enum(("trained", "memory", "time"), "trained").tag(sync=True)
    choices, methods = (T.List(T.Unicode()).tag(sync=True) for _ in range(2))
    seeds, rates, steps = (T.Int().tag(sync=True) for _ in range(3))

    def __init__(
        self, model: str = "minilm", task: str = "rt", methods: Sequence[str] | str = "probe,prompt,lora,full", *,
        seeds: int = 2, rates: int = 4, steps: int = 200, batch: int = 8, store: str | Path = "compared",
        reference: Mapping[str, Any] | None = None, **terms: Any,
    ) -> None:  # fmt: skip
        Recipe(model, task, steps=steps, batch=batch)  # raises for impossible settings
        if names := terms.keys() - {"margin", "again", "download", "pack"}:
            from lora_lab.experiments.compare import TERM_NAMES  # imports torch, which a stored comparison doesn't need

            check_fields(names - {*TERM_NAMES})
        for name, count in (("seeds", seeds), ("rates", rates)):
            whole(name, plain(count))
        methods = [name.strip() for name in methods.split(",")] if isinstance(methods, str) else methods
        self.terms = {"model": model, "task": task, "store": store, "batch": batch, **terms}
        if reference is None:
            default = read_json(shipped(SHIPPED))
            reference = default if (default["model"], default["task"]) == (model, task) else {}
        self._found = {"stored": dict(reference), "mine": {}}
        super().__init__(
            choices=list(dict.fromkeys([*CHOICES, *methods])), stored=_drawn(reference) if reference else {},
            margin=float(terms.get("margin", reference.get("margin", 0.015))), live={"state": "ready"},
            methods=list(methods), seeds=seeds, rates=rates, steps=steps,
        )  # fmt: skip

    @property
    def pair(self) -> tuple[str, str]:
        """The labels of the selected method and its rival."""
        data = getattr(self, self.view)
        labels = [entry["label"] for entry in data.get("methods", ())]
        suggested, rival = data.get("pair", ("", ""))
        rival = self.rival if self.rival in labels else rival
        others = [label for label in (self.method, suggested, *labels) if label in labels and label != rival]
        return next(iter(others), ""), rival

    def describe(self) -> str:
        data = getattr(self, self.view)
        if not data:
            return "Methods compared. Nothing has been compared yet."
        means = [f"{entry['name']} {entry['mean']:.1f}{data['unit']}" for entry in data["methods"]]
        method, rival = self.pair
        test, verdict = data["against"].get(rival, {}).get(method), ""
        if test:
            at = min(range(len(data["margins"])), key=lambda i: abs(data["margins"][i] - self.margin))
            size = f"{data['scale'] * data['margins'][at]:g} {data['gap']}"
            size = "1 point" if size == "1 points" else size
            verdict = f" At a margin of {size}, {method} is {WORDS[test['together'][at]]} {rival}."
        return f"Methods compared. {data['about']} Mean {data['metric']}: {', '.join(means)}.{verdict}"

    # ---- training

    def _prepare(self) -> LiveCompare:
        return LiveCompare(self.methods, **self.terms, seeds=self.seeds, rates=self.rates, steps=self.steps)

    def resample(self, rows: int = 200, count: int = 100) -> None:
        """Draw `count` random studies, of `rows` rows each, from the pair's answers, and show them in the panel.

        Raises: BadValue if the answers of either method were not saved, or for a number below 1.
        """
        scores, (method, rival) = scores_in(self._found[self.view] or {"methods": []}), self.pair
        if not {method, rival} <= scores.keys():
            raise BadValue(f"the answers of {method or 'a method'} and {rival or 'its rival'} were not saved")
        margins = getattr(self, self.view)["margins"]
        number = self.dance.get("number", 0) + 1  # different studies each time
        sizes = whole("rows", rows), whole("count", count)
        drawn = resampled(scores[method], scores[rival], sizes[0], margins, count=sizes[1], seed=number)
        self.dance = {**drawn, "method": method, "rival": rival, "view": self.view, "number": number}

    def _do(self, content: dict[str, Any]) -> None:
        if content["do"] == "dance":
            self.resample(content["rows"])
        else:
            super()._do(content)

    def _paint(self, work: LiveCompare, busy: bool) -> dict[str, Any]:
        if work.found["methods"] and work.found is not self._found["mine"]:
            self._found["mine"] = work.found
            self.view = self.view if self.mine else "mine"  # at the first result; after that, keep the reader's choice
            self.mine = _drawn(work.found)
        return {"words": work.words, "done": len(work.found["methods"]), "of": len(work.methods)}


def _drawn(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare a comparison for the browser, with a drawing of what each method adds."""
    data = shown(comparison)
    methods = [entry | drawing(entry["method"], entry["settings"] or {}, entry["head"]) for entry in data["methods"]]
    return data | {"methods": methods}
