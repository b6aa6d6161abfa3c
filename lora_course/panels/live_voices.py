"""A thread in which the base, the base with an instruction, and every voice answer one question. No widgets here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from lora_course.experiments.styles import BASE, open_bank
from lora_course.panels.stream import side_by_side
from lora_lab.methods.bank import AdapterBank
from lora_lab.training.chat import Chat, question
from lora_lab.widgets.background import Background

TOLD = "told"  # the name of the base with an instruction, in tables


class LiveVoices(Background):
    """Loads the base and the adapters once, then answers one question at a time, token by token, in one mixed batch.

    told      the instruction; "" for none
    texts     the answers so far: of the base, the base with the instruction, then the voices
    tokens    the number of decoding steps so far, which took `seconds`
    opened    the bank that answers, and its tokenizer; None before the first question
    state     "ready", "starting", "loading", "answering", then "done", "stopped" or "failed"
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
        self.state, started = "answering", time.monotonic()
        prompts = {TOLD: Chat((("system", self.told), ("user", self.asked)))}
        rows = [prompts.get(name, question(self.asked)) for name in self.texts]
        with bank.mixed([self._at_strength(bank, name) for name in self.texts]):
            for texts in side_by_side(bank.model, tokenizer, rows, self.longest):
                self.texts = dict(zip(self.texts, texts, strict=True))
                self.tokens, self.seconds = self.tokens + 1, time.monotonic() - started
                if self._stop.is_set():
                    self.state = "stopped"
                    return
        self.state = "done"

    def _at_strength(self, bank: AdapterBank, name: str) -> str | None:
        """Return the name of this adapter, scaled by the strength, in the bank; None for the base."""
        if name not in self.adapters or self.strength == 0:
            return None
        if self.strength == 1:
            return name
        scaled = f"{name} x {self.strength:g}"
        if scaled not in bank:
            bank.blend({name: self.strength}, scaled)
        return scaled
