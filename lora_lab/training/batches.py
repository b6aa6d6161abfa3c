"""Tokenize texts and batch them with as little padding as possible.

Sentences of 27 tokens on average are padded to about 50 tokens in random batches, and to about 28 tokens in batches
sorted by length. Widths are multiples of 2, because the CPU builds its matrix kernels for each shape and reuses them
more often if there are fewer shapes. Padding to multiples of 8 would add 10% more tokens.
"""

import inspect
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_lab.errors import BadValue, warn
from lora_lab.methods.base import Method
from lora_lab.methods.soft import is_encoder
from lora_lab.training.chat import Chat, end_of_text, end_of_turn, prompt_ids
from lora_lab.training.models import is_causal
from lora_lab.training.tasks import Split, Task

PAD_MULTIPLE = 2  # tokens
POOL = 32  # batches per pool of randomly drawn rows, which is then sorted by length


@dataclass(frozen=True)
class Row:
    """A tokenized text, its label and its index in the split.

    label    A class, a number to predict, or None in language modeling.
    prompt   The number of leading tokens that don't count toward the loss.
    types    For each token, which text of a pair it belongs to (BERT's `token_type_ids`), or () without pairs.
    """

    tokens: Sequence[int]
    label: float | None
    place: int
    prompt: int = 0
    types: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Batch:
    """Padded rows as tensors.

    Shapes: `input_ids`, `attention_mask` and `token_type_ids` (None without pairs) are (rows, tokens). `labels` is
    (rows,), or (rows, tokens) with -100 at padding and prompts.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    places: tuple[int, ...]
    token_type_ids: Tensor | None = None

    def to(self, device: str) -> "Batch":
        return self.map(lambda t: t.to(device))

    def inputs(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the keyword arguments for `model`, with token types only if the model has an embedding for them."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        base: Any = getattr(model, "get_base_model", lambda: model)()  # PEFT's own forward doesn't list token types
        takes_types = "token_type_ids" in inspect.signature(base.forward).parameters
        if self.token_type_ids is not None and takes_types and getattr(model.config, "type_vocab_size", 2) > 1:
            inputs["token_type_ids"] = self.token_type_ids
        if getattr(getattr(model, "config", None), "model_type", "") == "xlnet":  # its head reads the last position
            order = self.attention_mask.argsort(dim=1, stable=True)  # padding first
            inputs = {name: tensor.gather(1, order) for name, tensor in inputs.items()}
        return inputs

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """Apply a function to every tensor."""
        types = None if self.token_type_ids is None else function(self.token_type_ids)
        return Batch(function(self.input_ids), function(self.attention_mask), function(self.labels), self.places, types)


def encode(split: Split, task: Task, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """Tokenize a split. Texts are truncated to the task's `max_length`, and each answer gets an end token.

    Issue a LabWarning if answers are cut, because a model that is trained on cut answers never learns to stop.
    Raises: BadValue if a prompt leaves no room for an answer.
    """
    length = task.max_length
    if split.prompts:  # tokenized without answers, so that prompts have the same tokens as in generation
        prompts = prompt_ids(tokenizer, split.prompts)
        answers = tokenizer(list(split.texts), add_special_tokens=False)["input_ids"]
        if (longest := max(map(len, prompts))) >= length:
            raise BadValue(f"max_length {length} leaves no room for an answer after a prompt of {longest} tokens")
        end = end_of_turn(tokenizer) if isinstance(split.prompts[0], Chat) else end_of_text(tokenizer)
        pieces = zip(prompts, answers, strict=True)
        rows = [Row([*p, *answer, end][:length], None, place, len(p)) for place, (p, answer) in enumerate(pieces)]
        if any(row.tokens[-1] != end for row in rows):
            warn(f"{task.name}: answers over max_length {length} are cut and lose their end token: increase max_length")
        return rows
    pairs = [list(split.seconds)] if split.seconds else []
    encoded = tokenizer(list(split.texts), *pairs, truncation=True, max_length=length)
    tokens, types = encoded["input_ids"], encoded.get("token_type_ids", [()] * len(split))
    labels = split.labels or [None] * len(split)
    columns = zip(tokens, labels, types, strict=True)
    return [Row(t, label, place, types=kinds if any(kinds) else ()) for place, (t, label, kinds) in enumerate(columns)]


def training_rows(rows: Sequence[Row], batch: int, steps: int, seed: int) -> Iterator[list[Row]]:
    """Yield the rows of each batch, epoch after epoch: shuffle the rows, sort pools by length, and shuffle the batches.

    The seed decides which rows share a batch. The order of short and long batches is the same for every seed, so that
    runs with different seeds can train side by side without extra padding.
    """
    rng, batch_rng = random.Random(seed), random.Random(0)
    queue: list[list[Row]] = []
    for _ in range(steps):
        if not queue:
            for pool in _chunks(rng.sample(rows, len(rows)), POOL * batch):
                batches = _chunks(sorted(pool, key=len), batch)
                batch_rng.shuffle(batches)
                queue += batches
        yield queue.pop(0)


def scoring_batches(rows: Sequence[Row], batch: int, pad: int) -> Iterator[Batch]:
    """Yield batches that hold every row once, with the longest rows first, so that memory errors occur early.

    `rows` may be in any order: a batch's `places` are indices into `rows`, not into the split.
    """
    order = sorted(range(len(rows)), key=lambda n: len(rows[n]))[::-1]
    return (replace(collate([rows[n] for n in chunk], pad), places=tuple(chunk)) for chunk in _chunks(order, batch))


def collate(rows: Sequence[Row], pad: int) -> Batch:
    """Pad rows to the length of the longest row, rounded up to a multiple of PAD_MULTIPLE."""
    width = -(-max(map(len, rows)) // PAD_MULTIPLE) * PAD_MULTIPLE

    def padded(values: Iterable[Sequence[int]], fill: int) -> Tensor:
        return torch.tensor([[*row, *[fill] * (width - len(row))] for row in values], dtype=torch.long)

    mask = padded(([1] * len(row) for row in rows), 0)
    if rows[0].label is None:
        labels = padded(([-100] * row.prompt + list(row.tokens[row.prompt :]) for row in rows), -100)
    else:
        labels = torch.tensor([row.label for row in rows])
    types = padded((row.types for row in rows), 0) if any(row.types for row in rows) else None
    return Batch(padded((row.tokens for row in rows), pad), mask, labels, tuple(row.place for row in rows), types)


def _chunks(items: list[Any], size: int) -> list[list[Any]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def check_fits(model: PreTrainedModel, task: Task, method: Method) -> None:
    """Check that a model can train on a task.

    Raises: BadValue for an encoder in language modeling, or if `max_length` exceeds the model's positions, minus those
    that a soft prompt takes.
    """
    if task.num_labels is None and not is_causal(model):
        raise BadValue(f"task {task.name} is language modeling, which needs a causal model such as smollm2")
    virtual = method.positions(causal=not is_encoder(model))
    # In a table with `padding_idx`, such as RoBERTa's, the first rows hold no position
    tables = (table for name, table in model.named_modules() if "position_embeddings" in name)
    padding = max((t.padding_idx + 1 for t in tables if getattr(t, "padding_idx", None) is not None), default=0)
    positions = getattr(model.config, "max_position_embeddings", None) or 0  # XLNet's is -1: no limit
    limit = max(0, positions - padding - virtual) // PAD_MULTIPLE * PAD_MULTIPLE if positions > 0 else math.inf
    if task.max_length > limit:
        prompt = f" after {virtual} virtual tokens" if virtual else ""
        raise BadValue(f"max_length {task.max_length} exceeds the {limit} tokens that this model can read{prompt}")
