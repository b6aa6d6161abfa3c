"""A model's own answers to prompts: greedy, or the best of several beams.

Prompts of different lengths stand side by side with their padding on the left, so that every answer begins at the same
place; it ends at the end-of-text token, or at the one that ends a turn of a chat. Whatever the model carries takes
part: a soft prompt or a prefix enters with the first token and then stands in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lora_lab.errors import BadValue
from lora_lab.training.chat import Prompt, end_of_turn, prompt_ids
from lora_lab.training.models import answering, is_causal
from lora_lab.training.watching import quiet

ROWS = 32  # answers, or beams, that grow side by side


@dataclass(frozen=True)
class Decoding:
    """How an answer is chosen.

    beams            1 takes the likeliest token each time; more keep that many answers open and take the best
    length_penalty   a beam's log likelihood is divided by its length to this power: below 1 short answers gain
    no_repeat_ngram  so many tokens in a row come only once in an answer; 0 for no limit
    max_new_tokens   longest answer
    Raises: BadValue for an impossible value.
    """

    beams: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram: int = 0
    max_new_tokens: int = 80

    def __post_init__(self) -> None:
        for name, least in (("beams", 1), ("no_repeat_ngram", 0), ("max_new_tokens", 1)):
            if getattr(self, name) < least:
                raise BadValue(f"{name} must be at least {least}, not {getattr(self, name)}")


GREEDY = Decoding()
PAPER = Decoding(beams=10, length_penalty=0.9, no_repeat_ngram=4)  # Hu et al. 2021, table 11, E2E


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], decoding: Decoding = GREEDY
) -> list[str]:
    """The model's answer to each prompt, without the prompt and without spaces around it.

    The same prompts in the same order get the same answers; the model is left in the mode it was in.
    Raises: BadValue for a model that does not predict the next token.
    """
    if not is_causal(model):
        raise BadValue(f"{type(model).__name__} does not predict the next token; generating needs a causal model")
    answers = [""] * len(prompts)
    with answering(model):
        ids, rows = prompt_ids(tokenizer, prompts), max(1, ROWS // decoding.beams)
        order = sorted(range(len(ids)), key=lambda place: -len(ids[place]))  # like lengths stand together
        for start in range(0, len(order), rows):
            places = order[start : start + rows]
            new = _answers(model, tokenizer, [ids[place] for place in places], decoding)
            texts = tokenizer.batch_decode(new, skip_special_tokens=True)
            for place, text in zip(places, texts, strict=True):
                answers[place] = text.strip()
    return answers


@torch.inference_mode()
def _answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: Sequence[Sequence[int]], decoding: Decoding
) -> Tensor:
    """The new tokens, (rows, tokens): after an answer's end there is padding."""
    pad, width = int(tokenizer.pad_token_id), max(map(len, ids))
    input_ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in ids], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=model.device)
    ends = sorted({int(tokenizer.eos_token_id), end_of_turn(tokenizer)})
    config = GenerationConfig(
        do_sample=False, num_beams=decoding.beams, length_penalty=decoding.length_penalty,
        max_new_tokens=decoding.max_new_tokens, eos_token_id=ends, pad_token_id=pad,
    )  # fmt: skip
    once = NoRepeatNGramLogitsProcessor(decoding.no_repeat_ngram) if decoding.no_repeat_ngram else None
    with quiet():
        whole: Tensor = model.generate(
            input_ids=input_ids, attention_mask=mask, generation_config=config,
            logits_processor=LogitsProcessorList([_OfAnswer(once, width)] if once else []),
        )  # fmt: skip
    return whole[:, width:]


class _OfAnswer(LogitsProcessor):
    """A rule that looks at the answer alone: a name of four tokens in the prompt may be said."""

    def __init__(self, rule: LogitsProcessor, start: int) -> None:
        self.rule, self.start = rule, start

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        return self.rule(input_ids[:, self.start :], scores)
