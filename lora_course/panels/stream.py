"""Answers that grow side by side: one prompt, several rows, a token of each at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_lab.errors import BadValue
from lora_lab.training.chat import Prompt, end_of_turn, prompt_ids
from lora_lab.training.models import answering, is_causal


def side_by_side(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: Prompt, rows: int, max_new_tokens: int = 60
) -> Iterator[list[str]]:
    """The texts of all rows so far, after each token, greedily; in the end all have ended or are long enough.

    Every row reads the same prompt; who answers for which row is the caller's affair (`AdapterBank.mixed`). The model
    is left in the mode it was in, between tokens too.
    Raises: BadValue for no rows or a model that does not predict the next token.
    """
    if rows < 1 or not is_causal(model):
        raise BadValue(f"answers grow in at least one row of a causal model, not in {rows} of {type(model).__name__}")
    ends = {int(tokenizer.eos_token_id), end_of_turn(tokenizer)}
    ids = torch.tensor(prompt_ids(tokenizer, [prompt]) * rows, device=model.device)  # (rows, tokens)
    grown: list[list[int]] = [[] for _ in range(rows)]
    open_rows, cache = set(range(rows)), None
    for _ in range(max_new_tokens):
        with answering(model), torch.inference_mode():
            out = model(input_ids=ids, past_key_values=cache, use_cache=True)
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
