"""One question, answered by the base and by every voice in one mixed batch, in a thread. No widgets here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from lora_course.experiments.styles import BASE, open_bank, speakers
from lora_course.panels.stream import side_by_side
from lora_lab.methods.bank import AdapterBank
from lora_lab.training.chat import question
from lora_lab.widgets.background import Background


class LiveAnswers(Background):
    """Loads the base and the adapters once, then answers one question at a time, token by token.

    texts     what each speaker has said so far, the base first
    tokens    how many rounds of tokens there were, and `seconds` they took
    opened    the bank that answers, and its tokenizer, from the first question on
    state     "ready", "starting", "loading", "answering", then "done", "stopped" or "failed"
    """

    def __init__(self, adapters: Mapping[str, str | Path], model: str, longest: int) -> None:
        super().__init__()
        self.adapters, self.model, self.longest = dict(adapters), model, longest
        self.asked, self.tokens, self.seconds = "", 0, 0.0
        self.texts: dict[str, str] = dict.fromkeys((BASE, *self.adapters), "")
        self.opened: tuple[AdapterBank, PreTrainedTokenizerBase] | None = None

    def ask(self, text: str) -> None:
        """What is to be answered next."""
        self.asked, self.tokens, self.seconds = text, 0, 0.0
        self.texts = dict.fromkeys(self.texts, "")

    def _work(self) -> None:
        self.state = "loading"
        self.opened = self.opened or open_bank(self.adapters, self.model)
        bank, tokenizer = self.opened
        self.state, started = "answering", time.monotonic()
        names = [None if name == BASE else name for name in speakers(bank)]
        with bank.mixed(names):
            for texts in side_by_side(bank.model, tokenizer, question(self.asked), len(names), self.longest):
                self.texts = dict(zip(self.texts, texts, strict=True))
                self.tokens, self.seconds = self.tokens + 1, time.monotonic() - started
                if self._stop.is_set():
                    self.state = "stopped"
                    return
        self.state = "done"
