"""The film of a training step: what is in memory at each moment, method beside method, against real cards.

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
from lora_lab.accounting.setup import OPTIMIZERS, Setup
from lora_lab.accounting.units import GIB, binary
from lora_lab.errors import BadValue, NotFound
from lora_lab.files import read_json
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.methods.options import one_of
from lora_lab.methods.prompt import PromptTuning
from lora_lab.training.watching import headless
from lora_lab.widgets.base import Panel

FILMS = Path(__file__).with_name("films.json")
SHIPPED = ("llama-3-8b", "smollm2", "minilm")
HERE = ("smollm2", "minilm")  # small enough for a real step on a laptop
CARDS = {"cuda": "RTX 4090", "cpu": "16 GB laptop, CPU"}  # where none was named
TOKENS = 2048  # of a real step; more takes a laptop's CPU minutes
ROOM = 1.25  # what a process takes above its tensors on a CPU: 15 to 21 % was seen
METHODS: dict[str, Any] = {
    "full": FullFineTuning(),
    "LoRA q, v": LoRA(rank=8, targets=("q", "v")),
    "LoRA all-linear": LoRA(rank=8, targets=("all-linear",)),
    "QLoRA": LoRA(rank=8, targets=("all-linear",)),
    "prompt": PromptTuning(tokens=20),
}


class MemoryPanel(Panel, file="memory_panel.js"):
    """A training step as stacked areas over its moments, for each method, and where the peak falls and why.

    model     a name of the zoo, a folder, a config, or a model of your own
    method    a name of METHODS, or any method; a model without films that ship is shown with this one
    batch, seq, rank, optimizer, checkpointing    where the controls start
    card      a card's name, such as "T4"; by default an RTX 4090, or a laptop for models that train on one
    models    the names that the menu offers beside `model`: those that ship unless given
    conditions    more fields of `Setup` (dtype, device, ...); with any of them the film is made, not looked up
    What does not ship is traced, with a progress bar, and kept for the next time.
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
    asked = T.Int(0).tag(sync=True)  # how often a real step was asked for
    standing = T.Unicode().tag(sync=True)  # of the measuring
    measured = T.Dict().tag(sync=True)  # a real step's film and what it was of

    def __init__(
        self, model: Any = "llama-3-8b", method: Any = "LoRA q, v", *, batch: int = 1, seq: int = 512, rank: int = 8,
        optimizer: str = "adamw", checkpointing: bool = False, card: str = "",
        models: Sequence[str] = SHIPPED, **conditions: Any,
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
            setup_of(model, named, **step)  # what cannot be is loud here
        device = films[name][0]["device"]
        chosen = gpus.card(card or CARDS[device])
        if chosen.device != device:
            raise BadValue(
                f"the step of {name} runs on {device}, and {chosen.name} is {chosen.device}: name another card"
            )
        super().__init__(
            films=films, model=name, method=named, rank=rank, card=chosen.name, **step,
            cards=[[one.name, gpus.usable(one), one.device] for one in gpus.cards()],
            measurable=[one for one in HERE if one in films],
        )  # fmt: skip
        self._measuring: threading.Thread | None = None
        self.observe(lambda _: self.measure(), "asked")

    def shown(self) -> dict[str, Any]:
        """The film that is shown."""
        own = [one for one in self.films[self.model] if one["method"] == self.method]
        found: dict[str, Any] = next((one for one in own if one["checkpointing"] == self.checkpointing), own[0])
        return found

    @property
    def setup(self) -> Setup:
        """The step that is shown."""
        kept = {field: self.shown()[field] for field in ("checkpointing", "quantised", "dtype", "device")}
        return Setup(batch=self.batch, seq=self.seq, optimizer=self.optimizer, **kept)

    def describe(self) -> str:
        """The panel in plain words."""
        live = film.moments(self.shown(), self.rank, self.setup)
        top = max(live, key=lambda moment: sum(moment.bytes.values()))
        parts = ", ".join(f"{name} {binary(size)}" for name, size in top.bytes.items() if size)
        card = next(size for name, size, _ in self.cards if name == self.card)
        fits = "fits" if sum(top.bytes.values()) <= card else "does not fit"
        return (
            f"The film of a training step: {self.model}, {self.method}, {self.batch} x {self.seq:,} tokens. The peak, "
            f"{binary(sum(top.bytes.values()))} in {top.phase}, is {parts}. It {fits} {self.card} ({binary(card)})."
        )

    # ---- a real step

    def measure(self) -> None:
        """Take the step that is shown on this machine's CPU: in a thread, or at once where nobody watches."""
        if self._measuring and self._measuring.is_alive():
            return
        self.standing = "measuring: the model is built, two steps are taken, the second one counts"
        self._measuring = threading.Thread(target=self._measure, name="lora-lab-measure", daemon=True)
        self._measuring.start()
        if headless():
            self._measuring.join()

    def _measure(self) -> None:
        try:
            self.measured = self._measured()
            self.standing = ""
        except Exception as error:  # a thread's exception would vanish unseen
            self.standing = f"not measured: {error}"

    def _measured(self) -> dict[str, Any]:
        """Raises: BadValue for a step that takes a student too much patience or this machine too much memory."""
        shown, setup, rank = self.shown(), self.setup, self.rank
        what = {"model": self.model, "method": self.method, "rank": rank, "batch": setup.batch, "seq": setup.seq}
        if setup.tokens > TOKENS:
            raise BadValue(f"a real step of {setup.tokens:,} tokens takes minutes: lower it to {TOKENS:,}")
        wanted = ROOM * max(sum(moment.bytes.values()) for moment in film.moments(shown, rank, setup))
        if wanted > (free := psutil.virtual_memory().available):
            raise BadValue(f"it needs about {wanted / GIB:.1f} GiB and {free / GIB:.1f} GiB are free: lower the batch")
        from lora_lab.training.measure import measure  # imports torch

        method = METHODS[self.method]
        method = LoRA(rank=rank, targets=method.targets) if shown["ranked"] else method
        conditions = {name: shown[name] for name in ("checkpointing", "quantised", "dtype", "device")}
        taken = measure(self.model, method, batch=setup.batch, seq=setup.seq, optimizer=setup.optimizer, **conditions)
        return what | {
            "optimizer": setup.optimizer,
            "checkpointing": shown["checkpointing"],
            "film": film.of_timeline(taken.timeline, setup),
            "where": f"on a CPU, {date.today():%Y-%m-%d}, torch {version('torch')}",
        }


@cache
def shipped() -> dict[str, list[dict[str, Any]]]:
    """The films that ship, by model."""
    films: dict[str, list[dict[str, Any]]] = read_json(FILMS)
    return films


def setup_of(model: Any, name: str, **more: Any) -> Setup:
    """The step of a method: in fp32 on the CPU for models that train on a laptop, else in bf16 on a GPU."""
    here = {"dtype": "fp32", "device": "cpu"} if model in HERE else {}
    return Setup(**{"batch": 2, "seq": 64, "quantised": "nf4" if name == "QLoRA" else "none"} | here | more)


def described(name: str, setup: Setup) -> dict[str, Any]:
    """What a film is of."""
    return {"method": name} | {
        field: getattr(setup, field) for field in ("checkpointing", "quantised", "dtype", "device")
    }
