"""A soft prompt in a model: trained vectors that stand before the embeddings of every row. The methods are in prompt.py
and ptuning.py.

    input ids (rows, tokens) -> embeddings -> [prompt | embeddings] (rows, p + tokens, hidden) -> the frozen model

Attention mask and labels are lengthened with it: the prompt is attended to and has no label. As in PEFT, an encoder's
first position is then the prompt's first vector. Sources: Lester et al. 2021; Liu et al. 2021.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.errors import BadValue
from lora_lab.methods.attach import attach_ahead
from lora_lab.methods.base import Method, Report
from lora_lab.methods.beside import Ahead
from lora_lab.methods.soft import Call, lengthen_mask, longer, move_positions, refuse_two_stacks, under_way

NAME = "soft_prompt"
NO_LABEL = -100  # what cross-entropy leaves out


class SoftPrompt(Ahead):
    """prompt (tokens, hidden), fp32: the same ahead of every row."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.prompt = nn.Parameter(start.detach().to(torch.float32, copy=True))

    def made(self) -> Tensor:
        """(tokens, hidden): what stands ahead of each row."""
        return self.prompt

    def vectors(self, rows: int, dtype: torch.dtype) -> Tensor:
        return self.made().to(dtype).expand(rows, -1, -1)  # (rows, tokens, hidden)

    def prepend(self, model: Any, call: Call, vectors: Tensor) -> Call:
        """With vectors (rows, tokens, hidden) ahead of the embeddings, and all else as long."""
        tokens = vectors.shape[1]
        if under_way(call):
            lengthen_mask(call, tokens)
            move_positions(call, tokens)
            return call
        ids, embedded = call.pop("input_ids", None), call.get("inputs_embeds")
        if embedded is None:
            embedded = model.get_input_embeddings()(ids)  # (rows, tokens, hidden)
        call["inputs_embeds"] = torch.cat([vectors, embedded], dim=1)
        _lengthen(call, embedded.shape[:2], tokens)
        if hasattr(model, "score"):  # a causal classifier, which reads the last token and cannot find it without ids
            _pad_left(call)
        return call


class EncodedPrompt(SoftPrompt):
    """A soft prompt that comes out of a small network, trained with it: three linear layers with ReLU between them.

    prompt (tokens, hidden) is what goes into the network. Once its outcome is kept (`settle`), the network is gone.
    """

    def __init__(self, tokens: int, hidden: int, width: int, device: torch.device) -> None:
        super().__init__(torch.randn(tokens, hidden, device=device))
        where: Any = {"device": device, "dtype": torch.float32}
        first, second = nn.Linear(hidden, width, **where), nn.Linear(width, width, **where)
        layers = (first, nn.ReLU(), second, nn.ReLU(), nn.Linear(width, hidden, **where))
        self.encoder: nn.Sequential | None = nn.Sequential(*layers)

    def made(self) -> Tensor:
        """(tokens, hidden): the network's outcome. Raises: BadValue when it is to be trained without the network."""
        if self.encoder is not None:
            return self.encoder(self.prompt)  # type: ignore[no-any-return]
        if self.training and torch.is_grad_enabled():
            raise BadValue("a P-tuning file holds no encoder, so it answers and cannot be trained on: train it anew")
        return self.prompt

    @torch.no_grad()
    def settle(self, vectors: Tensor) -> None:
        """Keep the finished vectors, which is all that a file holds, and let the network go."""
        self.encoder = None
        self.prompt.copy_(vectors)
        self.prompt.requires_grad_(False)


def attach_prompt(model: nn.Module, method: Method, *, tokens: int, vocabulary: bool) -> Report:
    """Freeze `model`, hang the prompt before its embeddings, and put a trained copy beside each head.

    vocabulary   start as real tokens' vectors, else at random
    """
    refuse_two_stacks(model, "prompt tuning")
    embed: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
    return attach_ahead(model, method, NAME, lambda: SoftPrompt(_start(embed, tokens, vocabulary)))


def attach_encoded(model: nn.Module, method: Method, *, tokens: int, width: int | None) -> Report:
    """The same with a prompt that a network `width` wide makes, as wide as the model when None."""
    refuse_two_stacks(model, "P-tuning")
    table: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
    hidden = table.shape[1]
    return attach_ahead(model, method, NAME, lambda: EncodedPrompt(tokens, hidden, width or hidden, table.device))


@torch.no_grad()
def _start(embed: nn.Embedding, tokens: int, vocabulary: bool) -> Tensor:
    """(tokens, hidden): vectors of random tokens, or random vectors as large as those of tokens.

    The layer is called, for its answers need not be rows of its table: Gemma's are sqrt(hidden) times as large.
    """
    known, d = embed.weight.shape
    where = embed.weight.device
    if vocabulary:
        return embed(torch.randint(0, known, (tokens,), device=where))  # type: ignore[no-any-return]
    every = embed(torch.arange(known, device=where))
    return torch.randn(tokens, d, device=where) * every.float().std()


def _lengthen(call: Call, shape: torch.Size, tokens: int) -> None:
    """Whatever is given token by token."""
    lengthen_mask(call, tokens)
    for name, fill in (("labels", NO_LABEL), ("token_type_ids", 0)):
        given = call.get(name)
        if given is not None and given.shape == shape:
            call[name] = longer(given, tokens, fill)
    if call.get("position_ids") is not None:
        move_positions(call, tokens)
        after = call["position_ids"]
        call["position_ids"] = torch.cat([torch.arange(tokens, device=after.device).expand(len(after), -1), after], 1)


def _pad_left(call: Call) -> None:
    """Move each row's padding from its end to its beginning, so that its last token is the last of all."""
    mask = call.get("attention_mask")
    if mask is None or mask.dim() != 2:
        return
    length = mask.shape[1]
    last = length - 1 - mask.flip(1).long().argmax(1)  # (rows,): where each row's own tokens end
    places = (torch.arange(length, device=mask.device) + last.unsqueeze(1) + 1) % length  # (rows, length)
    embedded = call["inputs_embeds"]
    call["inputs_embeds"] = embedded.gather(1, places.unsqueeze(2).expand_as(embedded))
    if call.get("token_type_ids") is not None:
        call["token_type_ids"] = call["token_type_ids"].gather(1, places)
    call["attention_mask"] = mask = mask.gather(1, places)
    call["position_ids"] = (mask.long().cumsum(1) - 1).clamp(min=0)
