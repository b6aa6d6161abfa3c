"""Where nothing but heads train, the frozen body under them reads each text once, and its answer is kept.

    rows of all lanes  ->  those not read yet  ->  body  ->  first hidden state and pooled state, kept by its tokens

Lanes of one seed read the same rows, every lane scores the same ones, and a second pass through the data brings no new
ones. Five seeds of 400 steps with 16 of 6,030 texts are 32,000 rows, and the body reads 6,030.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from lora_lab.methods.attach import adapters, put
from lora_lab.methods.packed import PackedHead

KINDS = ("bert", "roberta", "xlm-roberta")
ROWS = 50_000  # kept at most; with 384 numbers a state these are 150 MB
Key = tuple[tuple[int, ...], tuple[int, ...]]  # a row's tokens, and which text of a pair each is of
States = tuple[Tensor, Tensor | None]  # of rows or of one: first hidden state (..., 1, d), pooled state (..., d)


class ReadOnce(nn.Module):
    """An encoder whose heads read the first token alone; its weights are frozen, so a row's answer stays the same."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.kept: dict[Key, States] = {}

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPooling:
        """Each (rows, tokens), padded on the right -> states of the rows, without gradients."""
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        read = zip(input_ids.tolist(), types.tolist(), attention_mask.sum(1).tolist(), strict=True)
        keys = [(tuple(ids[:n]), tuple(own[:n])) for ids, own, n in read]
        new = {key: row for row, key in enumerate(keys) if key not in self.kept}
        if len(self.kept) + len(new) > ROWS:
            self.kept, new = {}, {key: row for row, key in enumerate(keys)}
        if new:
            rows = list(new.values())
            given = {} if token_type_ids is None else {"token_type_ids": token_type_ids[rows]}
            self._read(list(new), input_ids=input_ids[rows], attention_mask=attention_mask[rows], **given)
        hidden, pooled = zip(*(self.kept[key] for key in keys), strict=True)
        together = None if pooled[0] is None else torch.stack(pooled)  # type: ignore[arg-type]
        return BaseModelOutputWithPooling(last_hidden_state=torch.stack(hidden), pooler_output=together)  # type: ignore[arg-type]

    def _read(self, keys: list[Key], **given: Tensor) -> None:
        with torch.inference_mode(False), torch.no_grad():  # what was kept while scoring is trained on as well
            found = self.body(**given)
        hidden, pooled = found.last_hidden_state[:, :1], found.pooler_output
        for row, key in enumerate(keys):
            self.kept[key] = hidden[row], None if pooled is None else pooled[row]


def read_once(model: nn.Module) -> None:
    """Let the body of a packed BERT-like classifier read each text once if the heads are all that trains.

    Anything else is left as it is. The body's dropout must be off, as it is in every pack.
    """
    config: Any = getattr(model, "config", None)
    body: Any = getattr(model, getattr(model, "base_model_prefix", ""), None)
    if getattr(config, "model_type", "") not in KINDS or not isinstance(body, nn.Module):
        return
    heads_only = all(isinstance(part, PackedHead) for _, part in adapters(model))
    if heads_only and not any(p.requires_grad for p in body.parameters()):
        put(model, str(model.base_model_prefix), ReadOnce(body))
