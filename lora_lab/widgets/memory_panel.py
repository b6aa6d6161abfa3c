"""The memory tower: where a training step's memory goes, method beside method, against the cards that there are.

Stored fits answer at once and without torch. What has none yet is drawn as a bound, and said to be one, while a thread
traces it; "measure here" takes a real step.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import ipywidgets as W

from lora_lab.accounting import gpus
from lora_lab.accounting.memory import Estimate, estimate, largest, quick
from lora_lab.accounting.models import architecture_of, zoo_names
from lora_lab.accounting.setup import BYTES, OPTIMIZERS, Setup
from lora_lab.errors import BadValue, LabError
from lora_lab.methods.bitfit import BitFit
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.methods.prompt import PromptTuning
from lora_lab.plots.towers import Tower, draw_towers, lines, tower_sheet
from lora_lab.training.watching import headless
from lora_lab.widgets import memory_words as words
from lora_lab.widgets.background import Background, begin
from lora_lab.widgets.controls import slider
from lora_lab.widgets.memory_measure import StepMeasured
from lora_lab.widgets.panel import Panel, escape, plain, wrapped

BUNDLED = ("minilm", "smollm2")  # small enough to take a real step with
METHODS = ("full", "LoRA", "QLoRA", "prompt", "BitFit")
BATCHES = tuple(2**n for n in range(8))
LENGTHS = tuple(2**n for n in range(6, 18))
RANKS = tuple(2**n for n in range(9))
TARGETS = {"q, v": ("q", "v"), "all linear": ("all-linear",)}
SCROLLS = W.Layout(width="auto", overflow="auto")  # a table wider than a narrow notebook scrolls by itself
TOKENS = 20  # of the soft prompt
Step = tuple[str, Any, Setup]


class MemoryPanel(Panel):
    """A tower a method, a table of terms for the chosen one, and for bundled models a real step beside the prediction.

    The arguments are where the controls start; targets is "q, v" or "all linear", method one of METHODS.
    Raises: NotFound for an unknown model, BadValue for one that is not modelled or an unknown choice.
    """

    def __init__(
        self,
        model: str = "llama-3-8b",
        *,
        method: str = "LoRA",
        batch: int = 1,
        seq: int = 512,
        rank: int = 8,
        targets: str = "q, v",
        dtype: str = "bf16",
        optimizer: str = "adamw",
        checkpointing: bool = False,
    ) -> None:
        super().__init__("Where training memory goes")
        Setup(batch=batch, seq=seq, dtype=dtype, optimizer=optimizer)  # what cannot be is loud here
        for name, value, known in (("method", method, METHODS), ("targets", targets, tuple(TARGETS))):
            if value not in known:
                raise BadValue(f"{name} must be one of {', '.join(known)}, not {value!r}")
        self.sheet, self.cards = tower_sheet(), lines(gpus.cards())
        self.measuring: StepMeasured | None = None
        self.tracing: Traced | None = None
        self.traced: dict[Step, Estimate | LabError] = {}  # what no stored fit says
        self.model = W.Dropdown(options=models(model), value=model, description="model", layout=_wide("230px"))
        look = {"label": "64px", "width": "270px"}
        self.batch = slider("batch", BATCHES, batch, **look)
        self.seq = slider("sequence", LENGTHS, seq, **look)
        self.rank = slider("rank", RANKS, rank, **look)
        self.dtype = _choice("dtype", BYTES, dtype, "150px")
        self.optimizer = _choice("optimizer", OPTIMIZERS, optimizer, "220px")
        self.targets = _choice("targets", TARGETS, targets, "180px")
        self.checkpointing = W.Checkbox(
            value=checkpointing, description="checkpointing", indent=False, layout=_wide("150px")
        )
        self.method = W.ToggleButtons(
            options=METHODS, value=method, description="explain", style={"button_width": "74px"}
        )
        self.measure_button = W.Button(
            description="Measure here", icon="play", tooltip="take this step for real, on this machine's CPU"
        )
        self._arrange()

    # ---- what the controls say

    @property
    def conditions(self) -> dict[str, Any]:
        """The fields of Setup that the controls set."""
        controls = ("batch", "seq", "dtype", "optimizer", "checkpointing")
        return {name: getattr(self, name).value for name in controls}

    def method_of(self, name: str) -> tuple[Any, dict[str, Any]]:
        """A tower's method, and what it changes of the set-up."""
        lora = LoRA(rank=self.rank.value, targets=TARGETS[self.targets.value])
        made = {"full": FullFineTuning(), "BitFit": BitFit(), "prompt": PromptTuning(tokens=TOKENS)}.get(name, lora)
        return made, {"quantised": "nf4"} if name == "QLoRA" else {}

    def estimate(self, name: str) -> Estimate:
        """The prediction for a tower, or a bound while it is traced. Raises: LabError where there is none."""
        step = self._step(name)
        found = self.traced.get(step) or quick(*step)
        if isinstance(found, LabError):
            raise found
        return found

    def _step(self, name: str) -> Step:
        method, changes = self.method_of(name)
        return self.model.value, method, Setup(**self.conditions, **changes)

    # ---- what the button does

    def show(self) -> MemoryPanel:
        """The panel; with nobody watching (LORA_LAB_HEADLESS=1) a bundled model is measured here and now."""
        if headless() and self.model.value in BUNDLED:
            self.measure()
        return self

    def measure(self, _: object = None) -> None:
        """Take the chosen method's step for real, in the background; does nothing while one is going on."""
        if self.measuring and self.measuring.alive:
            return
        name = self.method.value
        method, changes = self.method_of(name)
        self.measuring = StepMeasured(self.model.value, name, method, {**self.conditions, **changes})
        begin(self.measuring, self._paint_measured, self.tell)

    def _paint_measured(self) -> None:
        """What came of the measuring, or that it goes on."""
        with self.lock:
            step = self.measuring
            if step:
                self.measured.value = words.standing(step)
            self._offer_measuring()

    # ---- painting

    def _paint(self, _: object = None) -> None:
        """Bring picture, words and tables to what the controls say."""
        with self.lock:
            estimates, refused = self._estimates()
            bounds = [name for name, found in estimates.items() if found.mode == "bound"]
            towers = [
                Tower(n + words.AT_MOST * (n in bounds), estimates[n].categories if n in estimates else {})
                for n in METHODS
            ]
            title = f"{words.finding(self.model.value, towers, self.cards)}\n{self._settings()}"
            png = self.sheet.paint("towers", partial(draw_towers, towers=towers, cards=self.cards, title=title))
            self.picture.show(png, words.towers_words(title, towers))
            self.towers.value = words.towers_table(towers, refused, self.cards)
            self._explain(estimates, refused)
            self._offer_measuring()
        if bounds:
            self._trace(bounds)

    def _trace(self, names: list[str]) -> None:
        """Trace what these towers lack in the background, then paint again; one thread at a time does it."""
        if not (self.tracing and self.tracing.alive):
            self.tracing = Traced([self._step(name) for name in names], self.traced)
            begin(self.tracing, self._paint_traced, self.tell)

    def _paint_traced(self) -> None:
        """The towers, once they are traced."""
        if self.tracing and not self.tracing.alive and self.tracing.done:
            self._paint()

    def _estimates(self) -> tuple[dict[str, Estimate], dict[str, str]]:
        found, refused = {}, {}
        for name in METHODS:
            try:
                found[name] = self.estimate(name)
            except LabError as error:
                refused[name] = str(error)
        return found, refused

    def _explain(self, estimates: dict[str, Estimate], refused: dict[str, str]) -> None:
        name = self.method.value
        if name in refused:
            self.words.value = f"<b>{name}:</b> {escape(refused[name])}."
            self.terms.value = self.moments.value = ""
            return
        found = estimates[name]
        told = words.conclusion(f"{name} on {self.model.value}", found, self.cards)
        self.words.value = f"{told} {self._room(name, found)}"
        self.terms.value = words.terms_table(found)
        self.moments.value = words.moments_words(found)

    def _room(self, name: str, found: Estimate) -> str:
        """How many rows the smallest card would take."""
        card = words.smallest(found.peak, self.cards)
        if card is None:
            return ""
        method, changes = self.method_of(name)
        step = partial(quick, self.model.value, method)
        rows = largest("batch", Setup(**self.conditions, **changes), step, card.bytes)
        return f"At {self.seq.value:,} tokens a row it takes a batch of up to {rows or 0:,}."

    def _settings(self) -> str:
        kept = ", checkpointing" if self.checkpointing.value else ""
        step = f"{self.batch.value} x {self.seq.value:,} tokens, {self.dtype.value}, {self.optimizer.value}{kept}"
        return f"{step}; LoRA: rank {self.rank.value} on {self.targets.value}"

    def _offer_measuring(self) -> None:
        busy = bool(self.measuring and self.measuring.alive)
        there = self.model.value in BUNDLED
        self.measure_button.disabled = busy or not there
        self.hint.value = "" if there else f"a real step is offered for {' and '.join(BUNDLED)}"

    # ---- controls

    def _arrange(self) -> None:
        self.towers, self.terms, self.measured = (W.HTML(layout=SCROLLS) for _ in range(3))
        self.moments, self.hint = W.HTML(layout=W.Layout(width="auto")), W.HTML()
        self.words.layout = W.Layout(width="auto")  # as wide as the panel, margins included
        self.measure_button.on_click(self.measure)
        controls = (self.batch, self.seq, self.rank, self.dtype, self.optimizer, self.targets, self.checkpointing)
        for control in (self.model, self.method, *controls):
            control.observe(self._paint, "value")
        self.arrange(
            wrapped(self.model, self.batch, self.seq, self.rank),
            wrapped(self.dtype, self.optimizer, self.targets, self.checkpointing),
            self.picture,
            self.towers,
            self.method,
            self.words,
            self.terms,
            self.moments,
            wrapped(self.measure_button, self.hint),
            self.measured,
        )
        self._paint()

    def describe(self) -> str:
        """The panel in plain words, for a notebook that is read and not run."""
        return f"{super().describe()} {plain(self.measured.value)}".strip()


class Traced(Background):
    """Estimates of some steps, or why there are none, into `found`."""

    def __init__(self, asked: list[Step], found: dict[Step, Estimate | LabError]) -> None:
        super().__init__()
        self.asked, self.found, self.done = asked, found, False

    def _work(self) -> None:
        for step in self.asked:
            try:
                self.found[step] = estimate(*step)
            except LabError as error:
                self.found[step] = error
        self.done = True


def models(model: str) -> list[str]:
    """The models of the zoo with one stack of layers, and `model`. Raises: NotFound or BadValue for one that is not."""
    architecture_of(model)
    return sorted({*(name for name in zoo_names() if architecture_of(name).task != "seq2seq"), model})


def _wide(width: str) -> W.Layout:
    return W.Layout(width=width)


def _choice(name: str, options: Any, value: str, width: str) -> W.Dropdown:
    return W.Dropdown(
        options=list(options), value=value, description=name, layout=_wide(width), style={"description_width": "64px"}
    )
