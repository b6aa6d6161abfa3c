"""One question, several voices: the base, the base with an instruction, and the adapters at any strength.

With adapters and a kernel, the answers stream in; otherwise the panel shows `data/results/styles/voices.json`, written
by `docs/voices.py`.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import traitlets as T
from transformers import PreTrainedTokenizerBase

from lora_course.experiments.styles import BASE, file_sizes, open_bank
from lora_lab import AdapterBank, BadValue
from lora_lab.files import read_json
from lora_lab.training.assets import shipped
from lora_lab.training.chat import Chat, question
from lora_lab.training.generate import Decoding, generate
from lora_lab.widgets.base import Background, LivePanel

TOLD = "told"  # in tables, the name of the base with an instruction
STORED = "data/results/styles/voices.json"
STRENGTHS = [0.0, 0.5, 1.0, 1.5, 2.0]
CAPTAIN = (
    "You are an old ship's captain. Answer every question in two or three sentences, as a captain talks to his crew."
)


class VoicesPanel(LivePanel, file="voices_panel.js"):
    """Ask one question; all voices answer at once, in one batch in which each row has its own adapter.

        VoicesPanel()                             stored answers of the voices that ship with the lab
        VoicesPanel({"captain": run.adapter})     your own adapters, which answer live

    adapters    Folders by name.
    questions   The questions in the menu; the first is asked in headless mode.
    longest     Maximum number of tokens per answer.
    told        Instruction for a second row of the base; "" leaves that row out.
    strength    The factor of every adapter's scaling, one of 0, 0.5, 1, 1.5, 2.
    Raises: NotFound for a folder without an adapter.
    """

    stored = T.Dict().tag(sync=True)  # see `read_stored`; shown if `said` has no answer
    said = T.Dict().tag(sync=True)  # live answers: {question: {strength: {name: text}}}
    # live: {state, busy, error, tokens, seconds, question, strength, texts}
    sizes = T.Dict().tag(sync=True)  # file sizes in bytes: the base's and each adapter's
    names = T.List(T.Unicode()).tag(sync=True)  # the voices that answer
    questions = T.List(T.Unicode()).tag(sync=True)
    told = T.Unicode().tag(sync=True)
    question = T.Unicode().tag(sync=True)
    strength = T.Enum(STRENGTHS, 1.0).tag(sync=True)
    asks = T.Bool().tag(sync=True)  # whether there are adapters to ask

    def __init__(
        self, adapters: Mapping[str, str | Path] | None = None, model: str = "smollm2", *,
        questions: Sequence[str] | str = (), longest: int = 60, told: str = CAPTAIN, strength: float = 1.0,
    ) -> None:  # fmt: skip
        if taken := {BASE, TOLD} & {*(adapters or ())}:
            raise BadValue(f"the panel already has a voice '{min(taken)}': give your adapter a different name")
        stored = {} if adapters else read_stored()
        questions = [questions] if questions and isinstance(questions, str) else questions
        offered = [text.strip() for text in questions] or list(stored.get("questions", ["Why is the sky blue?"]))
        self._voices = partial(LiveVoices, adapters or {}, model, longest, told)
        self.work = self._voices()
        super().__init__(
            stored=stored, sizes=file_sizes(adapters, model) if adapters else stored["bytes"], asks=bool(adapters),
            names=list(self.work.texts) if adapters else list(stored["answers"]), questions=offered,
            told=told if adapters else stored["told"], question=offered[0], strength=strength, live={"state": "ready"},
        )  # fmt: skip

    def show(self) -> Self:
        return super().show() if self.asks else self

    def _prepare(self) -> Background:
        if not self.question.strip():
            raise BadValue("type a question first")
        if not self.asks:
            raise BadValue("pass adapters to ask: VoicesPanel({'captain': folder})")
        self.question = self.question.strip()  # the key under which the answer is stored
        self.work = self.work or self._voices()  # None if the cell was run again
        self.work.ask(self.question, self.strength)
        return self.work

    def describe(self) -> str:
        files = ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in self.sizes.items())
        asked, strength = self.question, f"{self.strength:g}"
        texts = self.said.get(asked, {}).get(strength) or said_at(self.stored, asked, self.strength)
        answers = " ".join(f"{name}: {text}" for name, text in texts.items())
        return f"One question, {len(self.names)} voices ({files}). {asked} At strength {strength}: {answers}"

    def _paint(self, work: "LiveVoices", busy: bool) -> dict[str, Any]:
        question, at = work.asked, f"{work.strength:g}"
        if work.tokens and not busy:
            self.said = {**self.said, question: {**self.said.get(question, {}), at: dict(work.texts)}}
        asked = {"question": question, "strength": work.strength, "texts": dict(work.texts)}
        return {"tokens": work.tokens, "seconds": work.seconds, **asked}


class LiveVoices(Background):
    """Loads the base and the adapters once, then answers one question at a time, token by token, in one mixed batch.

    texts     The answers so far: of the base, the base with the instruction, then the voices.
    tokens    The number of decoding steps so far, which took `seconds`.
    """

    def __init__(self, adapters: Mapping[str, str | Path], model: str, longest: int, told: str) -> None:
        super().__init__()
        self.adapters, self.model, self.longest, self.told = dict(adapters), model, longest, told
        self.opened: tuple[AdapterBank, PreTrainedTokenizerBase] | None = None
        self.ask("", 1.0)

    def ask(self, asked: str, strength: float) -> None:
        """Set the next question, and the factor for every adapter's scaling."""
        self.asked, self.strength, self.tokens, self.seconds = asked, strength, 0, 0.0
        self.texts = dict.fromkeys((BASE, *([TOLD] if self.told else []), *self.adapters), "")

    def _work(self) -> None:
        self.state = "loading"
        self.opened = self.opened or open_bank(self.adapters, self.model)
        bank, tokenizer = self.opened
        self.state, self.started = "answering", time.monotonic()
        prompts = {TOLD: Chat((("system", self.told), ("user", self.asked)))}
        rows = [prompts.get(name, question(self.asked)) for name in self.texts]
        factor = "" if self.strength == 1 else f" x {self.strength:g}"
        scaled = {name: name + factor for name in self.adapters if self.strength}
        for name, other in scaled.items():
            if other not in bank:
                bank.blend({name: self.strength}, other)
        with bank.mixed([scaled.get(name) for name in self.texts]):
            generate(bank.model, tokenizer, rows, Decoding(max_new_tokens=self.longest), self._watch)
        self.state = "stopped" if self._stop.is_set() else "done"

    def _watch(self, texts: list[str]) -> bool:
        """Store the texts after each token, and return whether to stop."""
        self.texts = dict(zip(self.texts, texts, strict=True))
        self.tokens, self.seconds = self.tokens + 1, time.monotonic() - self.started
        return self._stop.is_set()


def read_stored() -> dict[str, Any]:
    """Read the shipped {about, told, bytes: {name: bytes}, questions, answers: {name: {strength: [text, ...]}}}."""
    return read_json(shipped(STORED))


def said_at(stored: Mapping[str, Any], question: str, strength: float) -> dict[str, str]:
    """Return the stored answers to a question at a strength; at strength 0, every voice is the base."""
    if question not in stored.get("questions", ()):
        return {}
    index, answers = stored["questions"].index(question), stored["answers"]
    own = {name: texts if name == TOLD or strength else answers[BASE] for name, texts in answers.items()}
    said = {name: texts.get("0") or texts.get(f"{strength:g}") for name, texts in own.items()}
    return {name: texts[index] for name, texts in said.items() if texts}
