"""One question, several voices: the base, the base only told to play a part, and the adapters, at any strength.

With adapters and a kernel the answers stream in; without, it shows those of `data/results/styles/voices.json`, which
`docs/voices.py` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import traitlets as T

from lora_course.experiments.styles import BASE, file_sizes
from lora_course.panels.live_voices import TOLD, LiveVoices
from lora_lab.errors import BadValue
from lora_lab.files import read_json
from lora_lab.methods.bank import AdapterBank
from lora_lab.training.assets import shipped
from lora_lab.training.watching import headless
from lora_lab.widgets.background import begin
from lora_lab.widgets.base import LivePanel

STORED = "data/results/styles/voices.json"
STRENGTHS = [0.0, 0.5, 1.0, 1.5, 2.0]
CAPTAIN = (
    "You are an old ship's captain. Answer every question in two or three sentences, as a captain talks to his crew."
)


class VoicesPanel(LivePanel, file="voices_panel.js"):
    """Ask one question; all answer at once, in one batch in which each row has its own adapter.

        VoicesPanel()                                          the stored answers of the voices that ship
        VoicesPanel({"captain": run.adapter})                  your own, live

    adapters    folders by name
    questions   offered in the menu; the first is asked when nobody watches
    longest     tokens of an answer at most
    told        the instruction for the base that is told; "" leaves it out
    strength    the factor of every adapter's scaling, one of 0, 0.5, 1, 1.5, 2
    Raises: NotFound for a folder that is not an adapter, BadValue for a strength that is not offered.
    """

    stored = T.Dict().tag(sync=True)  # see `read_stored`; its answers are shown where none were given here
    said = T.Dict().tag(sync=True)  # given here: {question: {strength: {name: text}}}
    # live: {state, busy, error, tokens, seconds, question, strength, texts}
    sizes = T.Dict().tag(sync=True)  # bytes of the base's files and of each adapter's
    names = T.List(T.Unicode()).tag(sync=True)  # who answers
    questions = T.List(T.Unicode()).tag(sync=True)
    told = T.Unicode().tag(sync=True)
    question = T.Unicode().tag(sync=True)
    strength = T.Enum(STRENGTHS, 1.0).tag(sync=True)
    asks = T.Bool().tag(sync=True)  # whether there are adapters to ask

    def __init__(
        self, adapters: Mapping[str, str | Path] | None = None, model: str = "smollm2", *,
        questions: Sequence[str] = (), longest: int = 60, told: str = CAPTAIN, strength: float = 1.0,
    ) -> None:  # fmt: skip
        if strength not in STRENGTHS:
            raise BadValue(f"the strength is one of {', '.join(f'{one:g}' for one in STRENGTHS)}, not {strength:g}")
        stored = {} if adapters else read_stored()
        offered = list(questions) or list(stored.get("questions", ["Why is the sky blue?"]))
        self.work = LiveVoices(adapters or {}, model, longest, told)
        super().__init__(
            stored=stored, sizes=file_sizes(adapters, model) if adapters else stored["bytes"], asks=bool(adapters),
            names=list(self.work.texts) if adapters else list(stored["answers"]), questions=offered,
            told=told if adapters else stored["told"], question=offered[0], strength=strength, live={"state": "ready"},
        )  # fmt: skip

    def show(self) -> VoicesPanel:
        """The panel. With nobody watching (LORA_LAB_HEADLESS=1) its question is answered before it returns."""
        if headless() and self.asks:
            self.ask()
        return self

    def ask(self) -> None:
        """Let all answer `question` at `strength`; does nothing while they are answering.

        Raises: BadValue for no question, or without adapters; with LORA_LAB_HEADLESS=1, also if they cannot answer.
        """
        if self.work.alive:
            return
        if not self.question.strip():
            raise BadValue("type a question first")
        if not self.asks:
            raise BadValue("give adapters to ask: VoicesPanel({'captain': folder})")
        self.work.ask(self.question.strip(), self.strength)
        begin(self.work, self._paint, self._tell)
        if self.work.error and headless():
            raise BadValue(self.work.error)

    def stop(self) -> None:
        """Stop after the current token; the text so far is kept."""
        if self.work.alive:
            self.work.stop()

    def answers(self) -> dict[str, str]:
        """What each said last, the base first. Raises: BadValue, telling what to press, if nothing was asked."""
        if not self.work.tokens:
            raise BadValue("nothing has been asked yet: press Ask in the panel above, then run this cell again")
        return dict(self.work.texts)

    @property
    def bank(self) -> AdapterBank:
        """The base and the adapters that answered, so that none is opened twice. Raises: BadValue while they answer."""
        self.answers()
        if self.work.alive or self.work.opened is None:
            raise BadValue("the panel above is answering: wait or press Stop, then run this cell again")
        return self.work.opened[0]

    def describe(self) -> str:
        """The panel in plain words."""
        files = ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in self.sizes.items())
        here = self.said.get(self.question, {}).get(f"{self.strength:g}")
        said = here or said_at(self.stored, self.question, self.strength)
        answers = " ".join(f"{name}: {text}" for name, text in said.items())
        at = f"At strength {self.strength:g}"
        return f"One question, {len(self.names)} voices ({files}). {self.question} {at}: {answers}"

    def _do(self, content: dict[str, Any]) -> None:
        """A button of the browser."""
        if content["do"] == "stop":
            self.stop()
        else:
            self.question, self.strength = content["question"], float(content["strength"])
            self.ask()

    def _paint(self) -> None:
        work, busy = self.work, self.work.alive
        asked, at = work.asked, f"{work.strength:g}"
        if work.tokens and not busy:
            self.said = {**self.said, asked: {**self.said.get(asked, {}), at: dict(work.texts)}}
        self.live = {
            "state": work.doing, "busy": busy, "error": work.error, "tokens": work.tokens, "seconds": work.seconds,
            "question": asked, "strength": work.strength, "texts": dict(work.texts),
        }  # fmt: skip


def read_stored(path: str | Path | None = None) -> dict[str, Any]:
    """Stored answers: {about, told, bytes: {name: bytes}, questions, answers: {name: {strength: [text, ...]}}}.

    The base and the base that is told have their answers at "0". Without a path, those that ship.
    Raises: NotFound if there is no such file; BadValue where an answer is missing.
    """
    file = Path(path) if path else shipped(STORED)
    found: dict[str, Any] = dict(read_json(file))
    try:
        count, answers = len(found["questions"]), found["answers"]
        wrong = [name for name, at in answers.items() if not at or any(len(texts) != count for texts in at.values())]
        if list(answers)[:2] != [BASE, TOLD] or wrong or not {"about", "told", "bytes"} <= found.keys():
            raise BadValue(
                f"{file.name} lacks answers of {', '.join(wrong) or 'the base'}: write it with docs/voices.py"
            )
    except (KeyError, TypeError, AttributeError) as error:
        raise BadValue(f"{file.name} has no stored answers ({error}): write it with docs/voices.py") from error
    return found


def said_at(stored: Mapping[str, Any], question: str, strength: float) -> dict[str, str]:
    """The stored answers to a question at a strength; at 0 every voice is the base."""
    if question not in stored.get("questions", ()):
        return {}
    place, answers = stored["questions"].index(question), stored["answers"]
    at = {name: texts if name == TOLD or strength else answers[BASE] for name, texts in answers.items()}
    found = {name: texts.get("0") or texts.get(f"{strength:g}") for name, texts in at.items()}
    return {name: texts[place] for name, texts in found.items() if texts}
