"""The film of a training step: what is in memory at each moment, for several methods, compared with real cards.

The browser evaluates polynomials in batch, length and rank (`js/memory_panel.js`), so every slider answers at once.
Films of some models ship in `films.json`, written by `python docs/films.py`; opening them imports no torch.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import traitlets as T

from lora_lab.accounting import film, gpus
from lora_lab.accounting.models import architecture_of
from lora_lab.accounting.setup import OPTIMIZERS, STEP, Moment, Setup
from lora_lab.accounting.units import GIB, binary
from lora_lab.errors import BadValue, NotFound
from lora_lab.files import read_json
from lora_lab.methods.base import one_of
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.methods.soft import PromptTuning
from lora_lab.training.watching import headless
from lora_lab.widgets.base import Panel

FILMS = Path(__file__).with_name("films.json")
SHIPPED = ("llama-3-8b", "smollm2", "minilm")
HERE = ("smollm2", "minilm")  # small enough for a real step on a laptop
CARDS = {"cuda": "RTX 4090", "cpu": "16 GB laptop, CPU"}  # by default
CONDITIONS = ("checkpointing", "quantised", "dtype", "device")  # fields of `Setup` that a film depends on
TOKENS = 2048  # of a real step; more would take minutes on a laptop's CPU
ROOM = 1.25  # memory of a process over that of its tensors, on a CPU: 15 to 21 % more was measured
METHODS: dict[str, Any] = {
    "full": FullFineTuning(),
    "LoRA q, v": LoRA(rank=8, targets=("q", "v")),
    "LoRA all-linear": LoRA(rank=8, targets=("all-linear",)),
    "QLoRA": LoRA(rank=8, targets=("all-linear",)),
    "prompt": PromptTuning(tokens=20),
}


class MemoryPanel(Panel, file="memory_panel.js"):
    """A training step as stacked areas over its moments, for each method, with the peak and what causes it.

    model     a name of the zoo, a folder, a config, or a model of your own
    method    a name in METHODS, or any method
    batch, seq, rank, optimizer, checkpointing    the initial values of the controls
    card      such as "T4"; by default an RTX 4090, or a laptop for models that train on one
    models    the models in the menu beside `model`; by default those with films that ship
    longest   whether to show the longest sequence that fits
    conditions    more fields of `Setup`, such as dtype or device
    A film that does not ship is traced, with a progress bar, and cached. It has the given method only.
    Raises: as `memory`; BadValue for an unknown name of a method.
    """

    films = T.Dict().tag(sync=True)  # {model: [film, ...]}, see accounting/film.py and `described`
    model = T.Unicode().tag(sync=True)
    method = T.Unicode().tag(sync=True)
    batch = T.Int(1).tag(sync=True)
    seq = T.Int(512).tag(sync=True)
    rank = T.Int(8).tag(sync=True)
    checkpointing = T.Bool(False).tag(sync=True)
    optimizer = T.Enum(OPTIMIZERS, "adamw").tag(sync=True)
    card = T.Unicode().tag(sync=True)
    cards: T.List[list[Any]] = T.List().tag(sync=True)  # [name, bytes for tensors, device], rising
    measurable = T.List(T.Unicode()).tag(sync=True)
    asked = T.Int(0).tag(sync=True)  # how many times a real step was requested
    standing = T.Unicode().tag(sync=True)  # the progress of the measurement, or why it failed
    measured = T.Dict().tag(sync=True)  # the film of a real step, and its settings
    longest = T.Bool(True).tag(sync=True)

    def __init__(
        self, model: Any = "llama-3-8b", method: Any = "LoRA q, v", *, batch: int = 1, seq: int = 512, rank: int = 8,
        optimizer: str = "adamw", checkpointing: bool = False, card: str = "",
        models: Sequence[str] = SHIPPED, longest: bool = True, **conditions: Any,
    ) -> None:  # fmt: skip
        if isinstance(method, str):
            one_of("method", method, tuple(METHODS))
        named = method if isinstance(method, str) else method.name
        step = {"batch": batch, "seq": seq, "optimizer": optimizer, "checkpointing": checkpointing}
        name = model if isinstance(model, str) else architecture_of(model).name or "your model"
        if unknown := [one for one in models if one not in SHIPPED]:
            raise NotFound(f"no films of '{unknown[0]}' ship; those of {', '.join(SHIPPED)} do")
        films = {one: shipped()[one] for one in models}
        if name not in SHIPPED or not isinstance(method, str) or conditions:
            setup = setup_of(model, named, **{**step, **conditions})
            made = film.filmed(model, METHODS.get(named, method) if isinstance(method, str) else method, setup)
            films = {name: [described(named, setup) | made], **{k: v for k, v in films.items() if k != name}}
        elif name not in films:
            films = {name: shipped()[name], **films}
        else:
            setup_of(model, named, **step)  # raises for an impossible setting
        device = films[name][0]["device"]
        chosen = gpus.card(card or CARDS[device])
        if chosen.device != device:
            raise BadValue(
                f"the step of {name} runs on {device}, and {chosen.name} is {chosen.device}: name another card"
            )
        super().__init__(
            films=films, model=name, method=named, rank=rank, card=chosen.name, longest=longest, **step,
            cards=[[one.name, gpus.usable(one), one.device] for one in gpus.cards()],
            measurable=[one for one in HERE if one in films],
        )  # fmt: skip
        self._measuring: threading.Thread | None = None
        self.observe(lambda _: self.measure(), "asked")

    def shown(self) -> dict[str, Any]:
        """The film on display."""
        own = [one for one in self.films[self.model] if one["method"] == self.method]
        found: dict[str, Any] = next((one for one in own if one["checkpointing"] == self.checkpointing), own[0])
        return found

    @property
    def setup(self) -> Setup:
        """The step on display."""
        kept = {name: self.shown()[name] for name in CONDITIONS}
        return Setup(batch=self.batch, seq=self.seq, optimizer=self.optimizer, **kept)

    def describe(self) -> str:
        """The panel in plain words."""
        live = film.moments(self.shown(), self.rank, self.setup)
        at = max(range(len(live)), key=lambda place: sum(live[place].bytes.values()))
        top = live[at]
        parts = ", ".join(f"{name} {binary(size)}" for name, size in top.bytes.items() if size >= 1024)
        card = next(size for name, size, _ in self.cards if name == self.card)
        fits = "fits" if sum(top.bytes.values()) <= card else "does not fit"
        return (
            f"The film of a training step: {self.model}, {self.method}, {self.batch} x {self.seq:,} tokens. The peak, "
            f"{binary(sum(top.bytes.values()))} {act_of(live, at)}, is {parts}. It {fits} {self.card} ({binary(card)})."
        )

    # ---- a real step

    def measure(self) -> None:
        """Take this step on the CPU, in a thread; with LORA_LAB_HEADLESS=1, before returning."""
        if self._measuring and self._measuring.is_alive():
            return
        self.standing = "measuring: the model is built and takes two steps; the second one counts"
        self._measuring = threading.Thread(target=self._measure, name="lora-lab-measure", daemon=True)
        self._measuring.start()
        if headless():
            self._measuring.join()

    def _measure(self) -> None:
        try:
            self.measured = self._measured()
            self.standing = ""
        except Exception as error:  # nobody would see an exception in a thread
            self.standing = f"not measured: {error}"

    def _measured(self) -> dict[str, Any]:
        """Raises: BadValue for a step that would take minutes, or more memory than is free."""
        shown, setup, rank = self.shown(), self.setup, self.rank
        if setup.tokens > TOKENS:
            raise BadValue(f"a real step of {setup.tokens:,} tokens takes minutes: lower it to {TOKENS:,}")
        wanted = ROOM * max(sum(moment.bytes.values()) for moment in film.moments(shown, rank, setup))
        if wanted > (free := psutil.virtual_memory().available):
            raise BadValue(f"it needs about {wanted / GIB:.1f} GiB and {free / GIB:.1f} GiB are free: lower the batch")
        from lora_lab.training.measure import measure  # imports torch

        method = METHODS[self.method]
        method = LoRA(rank=rank, targets=method.targets) if shown["ranked"] else method
        step: dict[str, Any] = {"batch": setup.batch, "seq": setup.seq, "optimizer": setup.optimizer}
        taken = measure(self.model, method, **step, **{name: shown[name] for name in CONDITIONS})
        return step | {
            "model": self.model, "method": self.method, "rank": rank, "checkpointing": setup.checkpointing,
            "film": film.of_estimate(taken, setup),
            "where": f"on a CPU, {date.today():%Y-%m-%d}, torch {version('torch')}",
        }  # fmt: skip


@cache
def shipped() -> dict[str, list[dict[str, Any]]]:
    """The films that ship, by model."""
    films: dict[str, list[dict[str, Any]]] = read_json(FILMS)
    return films


def act_of(step: Sequence[Moment], at: int) -> str:
    """Where a moment of a step lies, as in `film.js`; the loss is between the last layer's forward and backward."""
    before, after = ({one.phase for one in part if "*" in one.path} for part in (step[: at + 1], step[at:]))
    if step[at].phase == STEP:
        return "at the update"
    return f"in the {step[at].phase} pass" if "backward" in before or "forward" in after else "at the loss"


def setup_of(model: Any, name: str, **more: Any) -> Setup:
    """The setup for a method: fp32 on the CPU for models that train on a laptop, else bf16 on a GPU."""
    here = {"dtype": "fp32", "device": "cpu"} if model in HERE else {}
    return Setup(**{"batch": 2, "seq": 64, "quantised": "nf4" if name == "QLoRA" else "none"} | here | more)


def described(name: str, setup: Setup) -> dict[str, Any]:
    """The fields that a film needs in addition to those of `film`."""
    return {"method": name} | {field: getattr(setup, field) for field in CONDITIONS}
