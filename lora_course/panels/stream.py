"""Answers that grow side by side: each has a prompt and a row, and all gain one token at a time."""

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
    """The texts of all rows so far, after each token, greedily; at the end, all have ended or are long enough.

    The caller chooses the adapter of each row (`AdapterBank.mixed`). The model is left in the mode it was in,
    between tokens too. Shorter prompts are padded on the left.
    Raises: BadValue for no prompts or a model that does not predict the next token.
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
    grown: list[list[int]] = [[] for _ in rows]
    open_rows, cache = set(range(len(rows))), None
    for _ in range(max_new_tokens):
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        more: dict[str, Any] = {"attention_mask": mask, "position_ids": places} if padded else {}
        with answering(model), torch.inference_mode():
            out = model(input_ids=ids, past_key_values=cache, use_cache=True, **more)
        cache, likeliest = out.past_key_values, out.logits[:, -1].argmax(-1).tolist()
        for row in sorted(open_rows):
            if likeliest[row] in ends:
                open_rows.discard(row)
            else:
                grown[row].append(likeliest[row])
        yield [text.strip() for text in tokenizer.batch_decode(grown, skip_special_tokens=True)]
        if not open_rows:
            return
        ids = torch.tensor([[token] for token in likeliest], device=model.device)  # a row that has ended is not read
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
