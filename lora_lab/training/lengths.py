"""How long texts are in tokens, and how long a model lets them be."""

from __future__ import annotations

from transformers import PreTrainedModel

from lora_lab.errors import BadValue
from lora_lab.methods.base import Method
from lora_lab.methods.soft import is_encoder
from lora_lab.training.batches import STEP
from lora_lab.training.models import is_causal
from lora_lab.training.tasks import Task


def typical_tokens(task: Task) -> int:
    """About how long the task's texts are in tokens (4 characters each), for choosing attention and dtype."""
    split = task.train if task.train.texts else task.test
    few = split.at(range(min(200, len(split))))
    return min(task.max_length, sum(map(len, [*few.texts, *few.seconds, *few.prompts])) // (4 * len(few)))


def check_fits(model: PreTrainedModel, task: Task, method: Method | None = None) -> None:
    """Raises BadValue for a model that cannot do the task: an encoder in language modelling, texts too long for it, or
    for it with a soft prompt before them.
    """
    if task.num_labels is None and not is_causal(model):
        raise BadValue(
            f"task {task.name} is language modelling and needs a causal model such as smollm2, not an encoder"
        )
    longest, before = positions(model, method), _ahead(model, method)
    if longest is not None and task.max_length > longest:
        beside = f" after {before} trained ones" if before else ""
        raise BadValue(f"max_length {task.max_length} is above the {longest} tokens that this model can read{beside}")


def positions(model: PreTrainedModel, method: Method | None = None) -> int | None:
    """How many tokens a model can read: whole steps of the batches' width; RoBERTa's first positions are padding's, and
    a prompt's or prefix's are its own.
    """
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest and "roberta" in model.config.model_type:
        longest -= model.config.pad_token_id + 1
    return longest and max(0, longest - _ahead(model, method)) // STEP * STEP


def _ahead(model: PreTrainedModel, method: Method | None) -> int:
    """Positions before each row's own; a prefix takes none of an encoder's."""
    if method is None or (method.name == "prefix" and is_encoder(model)):
        return 0
    return int(getattr(method, "tokens", 0))
