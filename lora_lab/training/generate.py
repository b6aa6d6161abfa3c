"""Generate answers to prompts, greedily or by beam search.

Prompts are padded on the left, so that all answers begin at the same position. An answer ends at the end-of-text token,
at the token that ends a chat turn, or at a special token that the model's generation config lists as an end. A soft
prompt or prefix is added in the first forward pass and kept in the cache.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList

from lora_lab.errors import BadValue
from lora_lab.machine import quiet
from lora_lab.methods.attach import answering
from lora_lab.methods.base import make_plain, number, whole
from lora_lab.training.chat import Prompt, end_of_text, end_of_turn, is_special, prompt_ids
from lora_lab.training.models import is_causal

ROWS = 32  # answers or beams generated at once


@dataclass(frozen=True)
class Decoding:
    """Settings for choosing tokens.

    beams             1 for greedy decoding, or the number of beams for beam search.
    length_penalty    A beam's log likelihood is divided by length ** length_penalty. Low values favor short answers.
    no_repeat_ngram   N-grams of this size occur at most once in an answer. 0 sets no limit.
    max_new_tokens    The maximum number of tokens in an answer.
    Raises: BadValue for an invalid value.
    """

    beams: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram: int = 0
    max_new_tokens: int = 80

    def __post_init__(self) -> None:
        make_plain(self)
        for name, minimum in (("beams", 1), ("no_repeat_ngram", 0), ("max_new_tokens", 1)):
            whole(name, getattr(self, name), minimum)
        number("length_penalty", self.length_penalty, ("that is finite", math.isfinite))


GREEDY = Decoding()
PAPER = Decoding(beams=10, length_penalty=0.9, no_repeat_ngram=4)  # Hu et al. 2021, table 11, E2E


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], decoding: Decoding = GREEDY,
    watch: Callable[[list[str]], bool] | None = None,
) -> list[str]:  # fmt: skip
    """Return an answer to each prompt, without the prompt or surrounding spaces.

    Answers depend only on the prompts and their order. Prompts that fit into one batch keep their order, so that
    `AdapterBank` can use a different adapter for each row. `watch` gets a batch's answers after each token and may end
    the batch. The model's mode is restored.
    Raises: BadValue for a model that does not predict the next token, or for a prompt without tokens.
    """
    if not is_causal(model):
        raise BadValue(f"{type(model).__name__} does not predict the next token; generation needs a causal model")
    answers, rows = [""] * len(prompts), max(1, ROWS // decoding.beams)
    listed = getattr(model.generation_config, "eos_token_id", None)  # may list several
    listed = [n for n in (listed if isinstance(listed, list) else [listed]) if is_special(tokenizer, n)]
    ends = sorted({end_of_text(tokenizer), end_of_turn(tokenizer), *listed})
    config = transformers.GenerationConfig(
        do_sample=False, num_beams=decoding.beams, length_penalty=decoding.length_penalty,
        max_new_tokens=decoding.max_new_tokens, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id,
        no_repeat_ngram_size=0, num_return_sequences=1, return_dict_in_generate=False,  # override the model's settings
    )  # fmt: skip
    ids, order = prompt_ids(tokenizer, prompts), list(range(len(prompts)))
    if not all(ids):  # some tokenizers add no token at the start
        raise BadValue(f"prompt {ids.index([])} is empty: pass at least one word to continue")
    if len(order) > rows:  # several batches
        order.sort(key=lambda place: -len(ids[place]))  # so that each batch has similar lengths

    def texts_of(found: Any) -> list[str]:  # the text after the prompt, which is the first `width` tokens
        return [text.strip() for text in tokenizer.batch_decode(found[:, width:], skip_special_tokens=True)]

    def ended(found: Any, scores: Any) -> Any:
        return torch.full((len(found),), watch is not None and watch(texts_of(found)), device=found.device)

    def without_repeats(found: Any, scores: Any) -> Any:  # the answer may repeat a four-token name from the prompt
        return transformers.NoRepeatNGramLogitsProcessor(decoding.no_repeat_ngram)(found[:, width:], scores)

    with answering(model), torch.inference_mode(), quiet():  # transformers warns if padding is a separate step
        for start in range(0, len(order), rows):
            places = order[start : start + rows]
            inputs = tokenizer.pad({"input_ids": [ids[n] for n in places]}, padding_side="left", return_tensors="pt")
            width = inputs["input_ids"].shape[1]
            found: Any = model.generate(
                **inputs.to(model.device), generation_config=config,
                logits_processor=LogitsProcessorList([without_repeats] if decoding.no_repeat_ngram else []),
                stopping_criteria=StoppingCriteriaList([ended] if watch else []),
            )  # fmt: skip
            for place, text in zip(places, texts_of(found), strict=True):
                answers[place] = text
    return answers
