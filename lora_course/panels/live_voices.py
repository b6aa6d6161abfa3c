"""The base, the base with an instruction, and every voice answer a question in a background thread. No widgets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_course.experiments.styles import BASE, open_bank
from lora_lab.errors import BadValue
from lora_lab.methods.bank import AdapterBank
from lora_lab.training.chat import Chat, Prompt, end_of_turn, prompt_ids, question
from lora_lab.training.models import answering, is_causal
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


def side_by_side(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], max_new_tokens: int = 60
) -> Iterator[list[str]]:
    """Decode greedily, and yield the texts of all rows after each token, until all have ended or are long enough.

    The caller chooses the adapter of each row (`AdapterBank.mixed`). The model's training mode is restored between
    tokens too. Shorter prompts are padded on the left.
    Raises: BadValue without prompts, or for a model that is not causal.
    """
    if not prompts or not is_causal(model):
        raise BadValue(
            f"answers need a causal model and at least one prompt, not {type(model).__name__} and {len(prompts)}"
        )
    ends = {int(tokenizer.eos_token_id), end_of_turn(tokenizer)}
    rows = prompt_ids(tokenizer, prompts)
    longest = max(map(len, rows))
    pad = tokenizer.pad_token_id or 0
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=model.device)  # (rows, tokens)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=model.device)
    padded = not mask.all()
    generated: list[list[int]] = [[] for _ in rows]
    unfinished, cache = set(range(len(rows))), None
    for _ in range(max_new_tokens):
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        extra: dict[str, Any] = {"attention_mask": mask, "position_ids": positions} if padded else {}
        with answering(model), torch.inference_mode():
            out = model(input_ids=ids, past_key_values=cache, use_cache=True, **extra)
        cache, next_tokens = out.past_key_values, out.logits[:, -1].argmax(-1).tolist()
        for row in sorted(unfinished):
            if next_tokens[row] in ends:
                unfinished.discard(row)
            else:
                generated[row].append(next_tokens[row])
        yield [text.strip() for text in tokenizer.batch_decode(generated, skip_special_tokens=True)]
        if not unfinished:
            return
        ids = torch.tensor([[token] for token in next_tokens], device=model.device)  # finished rows are ignored
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
