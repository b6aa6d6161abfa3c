"""The film of a training step: what is in memory at each moment, for several methods, compared with real cards.

The browser evaluates polynomials in batch, length and rank (`js/memory_panel.js`), so sliders respond immediately.
Films of some models ship in `films.json`, written by `python docs/films.py`; opening them does not import torch.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import traitlets as T

from lora_lab.accounting import film, gpus
from lora_lab.accounting.models import architecture_of
from lora_lab.accounting.params import params
from lora_lab.accounting.setup import OPTIMIZERS, STEP, Setup
from lora_lab.accounting.units import GIB, binary
from lora_lab.errors import BadValue, NotFound
from lora_lab.files import read_json
from lora_lab.machine import memory
from lora_lab.methods.base import check_method, one_of
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.methods.soft import PromptTuning
from lora_lab.training.watching import headless, training_lock
from lora_lab.widgets.base import Panel

FILMS = Path(__file__).with_name("films.json")
SHIPPED = ("llama-3-8b", "smollm2", "minilm")
HERE = ("smollm2", "minilm")  # small enough for a real step on a laptop
CARDS = {"cuda": "RTX 4090", "cpu": "16 GB laptop, CPU"}  # the defaults
CONDITIONS = ("checkpointing", "quantized", "dtype", "device")  # fields of `Setup` that a film depends on
TOKENS = 2048  # maximum for a real step; more would take minutes on a laptop's CPU
ROOM = 1.25  # memory of a process relative to its tensors, on a CPU; 1.15 to 1.21 was measured
METHODS: dict[str, Any] = {
    "full": FullFineTuning(),
    "LoRA q, v": LoRA(rank=8, targets=("q", "v")),
    "LoRA all-linear": LoRA(rank=8, targets=("all-linear",)),
    "QLoRA": LoRA(rank=8, targets=("all-linear",)),
    "prompt": PromptTuning(tokens=20),
}


class MemoryPanel(Panel, file="memory_panel.js"):
    """The memory of a training step as stacked areas over time, for each method, with the peak and its cause.

    model     a zoo name, a folder, a config, or your own model
    method    a name in METHODS, or any method
    batch, seq, rank, optimizer, checkpointing    initial values of the controls; `rank` is by default the method's own
    card      name of a card, such as "T4"; by default an RTX 4090, or a laptop if the model is small enough
    models    the models in the menu besides `model`; by default those whose films ship
    longest   whether to show the largest batch and length that fit; if not, the sliders offer only powers of two
    conditions    other fields of `Setup` that a film depends on: `dtype`, `quantized`, `device`
    A film that does not ship is traced, with a progress bar, and cached. A traced film covers only the given method.
    Raises: see `memory`; BadValue for an unknown method name, or a field of `Setup` that a film does not cover.
    """

    films = T.Dict().tag(sync=True)  # {model: [film, ...]}, see accounting/film.py and `described`
    model = T.Unicode().tag(sync=True)
    method = T.Unicode().tag(sync=True)
    card = T.Unicode().tag(sync=True)
    batch, seq, rank = (T.Int(start, min=1).tag(sync=True) for start in (1, 512, 8))
    checkpointing = T.Bool(False).tag(sync=True)
    optimizer = T.Enum(OPTIMIZERS, "adamw").tag(sync=True)
    cards: T.List[list[Any]] = T.List().tag(sync=True)  # [name, bytes for tensors, device, has bf16], ascending
    measurable = T.List(T.Unicode()).tag(sync=True)
    asked = T.Int(0).tag(sync=True)  # number of times that a real step was requested
    standing = T.Unicode().tag(sync=True)  # the progress of the measurement, or why it failed
    measured = T.Dict().tag(sync=True)  # the film of a real step, and its settings
    longest = T.Bool(True).tag(sync=True)

    def __init__(
        self, model: Any = "llama-3-8b", method: Any = "LoRA q, v", *, batch: int = 1, seq: int = 512,
        rank: int | None = None, optimizer: str = "adamw", checkpointing: bool = False, card: str = "",
        models: Sequence[str] | str = SHIPPED, longest: bool = True, **conditions: Any,
    ) -> None:  # fmt: skip
        if known := isinstance(method, str):
            one_of("method", method, tuple(METHODS))
        else:
            check_method(method)
        for condition in conditions:
            one_of("a condition of a film", condition, CONDITIONS)
        label, method = (method, METHODS[method]) if known else (method.name, method)
        rank = getattr(method, "rank", 8) if rank is None else rank
        if hasattr(method, "rank"):
            params(model, replace(method, rank=rank))  # raises for a rank that a layer cannot hold
        step = {"batch": batch, "seq": seq, "optimizer": optimizer, "checkpointing": checkpointing}
        name = model if isinstance(model, str) else architecture_of(model).name or "your model"
        models = [models] if isinstance(models, str) else models
        if unknown := [menu_name for menu_name in models if menu_name not in SHIPPED]:
            raise NotFound(f"no film of '{unknown[0]}' ships with the lab; available: {', '.join(SHIPPED)}")
        setup = setup_of(model, label, **{**step, **conditions})  # raises for an invalid setting
        ships = name in SHIPPED and known and not conditions
        own = shipped()[name] if ships else [described(label, setup) | film.filmed(model, method, setup)]
        menu = models if ships and name in models else (name, *models)
        films = {menu_name: own if menu_name == name else shipped()[menu_name] for menu_name in menu}
        device = films[name][0]["device"]
        chosen = gpus.card(card or CARDS[device])
        if chosen.device != device:
            at = f"the step of {name} runs on {device}"
            raise BadValue(f"{at}, but {chosen.name} is a {chosen.device} device: name another card")
        super().__init__(
            films=films, model=name, method=label, rank=rank, card=chosen.name, longest=longest, **step,
            cards=[[gpu.name, gpus.usable(gpu), gpu.device, "bf16" in gpu.peaks] for gpu in gpus.cards()],
            measurable=[small for small in HERE if small in films and films[small][0]["device"] == "cpu"],
        )  # fmt: skip
        self._given = name, label, method
        self._measuring: threading.Thread | None = None
        self.observe(lambda _: self.measure(), "asked")

    @T.validate("model", "method", "card")
    def _check_offered(self, proposal: Any) -> str:
        methods = [item["method"] for films in self.films.values() for item in films]
        offered = {"model": [*self.films], "method": methods, "card": [name for name, *_ in self.cards]}
        name = proposal["trait"].name
        one_of(name, proposal["value"], tuple(dict.fromkeys(offered[name])))
        return str(proposal["value"])

    def shown(self) -> dict[str, Any]:
        """Return the film on display: for `method`, or for the model's first method with a film, as in the browser."""
        available: list[dict[str, Any]] = self.films[self.model]
        methods = [item["method"] for item in available]
        method = self.method if self.method in methods else methods[0]
        films = [item for item in available if item["method"] == method]
        return next((item for item in films if item["checkpointing"] == self.checkpointing), films[0])

    @property
    def setup(self) -> Setup:
        """The step on display."""
        shown = self.shown()
        length = max(shown["low"], min(self.seq, shown["high"] or self.seq))  # as in the browser
        batch, seq = shown.get("fixed") or (self.batch, length)
        return Setup(batch=batch, seq=seq, optimizer=self.optimizer, **{name: shown[name] for name in CONDITIONS})

    @property
    def _rank(self) -> int:
        """The rank on display: at most the narrowest side of an adapted layer, as in the browser."""
        return min([self.rank, *(slope for _, slope, *_ in self.shown()["trained"] if slope)])

    def describe(self) -> str:
        film_shown = self.shown()
        step = film.moments(film_shown, self._rank, self.setup)
        at = max(range(len(step)), key=lambda i: sum(step[i].bytes.values()))
        top = step[at]
        # The loss is computed between the forward and backward pass of the last layer, as in `film.js`.
        inner = any(m.phase == "backward" and "*" in m.path for m in step)  # false if only the head trains
        phases = [m.phase if "*" in m.path or (m.phase == "backward" and not inner) else "" for m in step]
        before, after = phases[: at + 1], phases[at:]
        act = f"in the {top.phase} pass" if "backward" in before or "forward" in after else "at the loss"
        act = "at the update" if top.phase == STEP else act
        parts = ", ".join(f"{name} {binary(size)}" for name, size in top.bytes.items() if size >= 1024)
        cards = {name: size for name, size, device, _ in self.cards if device == film_shown["device"]}
        name = self.card if self.card in cards else [*cards][len(cards) // 2]  # as in the browser
        fits = "fits" if (total := sum(top.bytes.values())) <= cards[name] else "does not fit"
        shown = f"{self.model}, {film_shown['method']}, {self.setup.batch} x {self.setup.seq:,} tokens"
        peak = f"{binary(total)} {act}: {parts}. It {fits} {name} ({binary(cards[name])})"
        return f"The film of a training step: {shown}. The peak is {peak}."

    # ---- a real step

    def measure(self) -> None:
        """Run this step on the CPU, in a thread; with LORA_LAB_HEADLESS=1, wait for it."""
        if self._measuring and self._measuring.is_alive():
            return
        self.standing = "measuring: the model is built and runs two steps, and the second step is measured"
        self._measuring = threading.Thread(target=self._measure, name="lora-lab-measure", daemon=True)
        self._measuring.start()
        if headless():
            self._measuring.join()

    def _measure(self) -> None:
        try:
            self.measured = self._run_step()
            self.standing = ""
        except Exception as error:  # an exception in a thread would go unnoticed
            self.standing = f"not measured: {error}"

    def _run_step(self) -> dict[str, Any]:
        """Run the step. Raises: BadValue if the step would take minutes, or more memory than is free."""
        shown, setup, rank = self.shown(), self.setup, self._rank
        if setup.tokens > TOKENS:
            raise BadValue(f"a real step of {setup.tokens:,} tokens takes minutes: use at most {TOKENS:,}")
        needed = ROOM * max(sum(moment.bytes.values()) for moment in film.moments(shown, rank, setup))
        if needed > (free := memory()[1] or 0):
            raise BadValue(f"a step needs about {needed / GIB:.1f} GiB, but {free / GIB:.1f} is free: reduce the batch")
        from lora_lab.training.measure import measure  # imports torch

        model, label, given = self._given
        method = given if (self.model, shown["method"]) == (model, label) else METHODS[shown["method"]]
        method = replace(method, rank=rank) if shown["ranked"] else method
        step: dict[str, Any] = {"batch": setup.batch, "seq": setup.seq, "optimizer": setup.optimizer}
        with training_lock():  # `measure` draws random numbers, which must not affect a run in another thread
            measurement = measure(self.model, method, **step, **{name: shown[name] for name in CONDITIONS})
        return step | {
            "model": self.model, "method": shown["method"], "rank": rank, "checkpointing": setup.checkpointing,
            "film": film.of_estimate(measurement, setup),
            "where": f"on a CPU, {date.today():%Y-%m-%d}, torch {version('torch')}",
        }  # fmt: skip


@cache
def shipped() -> dict[str, list[dict[str, Any]]]:
    """Load the shipped films, by model."""
    return read_json(FILMS)


def setup_of(model: Any, name: str, **more: Any) -> Setup:
    """Return the setup for a method: fp32 on the CPU for models that train on a laptop, else bf16 on a GPU."""
    laptop = {"dtype": "fp32", "device": "cpu"} if model in HERE else {}
    return Setup(**{"batch": 2, "seq": 64, "quantized": "nf4" if name == "QLoRA" else "none"} | laptop | more)


def described(name: str, setup: Setup) -> dict[str, Any]:
    """Return the fields that the panel needs in addition to those that `film` returns."""
    return {"method": name} | {field: getattr(setup, field) for field in CONDITIONS}
