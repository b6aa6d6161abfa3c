"""Stream the answers to several prompts side by side, one token at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_lab.errors import BadValue
from lora_lab.training.chat import Prompt, end_of_turn, prompt_ids
from lora_lab.training.models import answering, is_causal


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
