"""Lesson 17: learn from one bit per answer. The model samples a label, and is told only whether it is right.

    loss = -mean over rows of (reward - mean reward) log p(sampled label)      REINFORCE, Williams 1992 (not read by us)

reward   1 if the sampled label is the row's, else 0; the batch's mean reward is the baseline
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from lora_lab import Recipe, load_task
from lora_lab.methods.attach import answering
from lora_lab.training.evaluate import ROWS
from lora_lab.training.member import Member
from lora_lab.training.models import load_tokenizer
from lora_lab.training.pack import Pack

DRAWS = 1_000_003  # a step's draws depend on the seed and the step, not on the other members of a pack


def reinforce(log_p: Tensor, rewards: Tensor) -> Tensor:
    """Return the loss of a batch from the log-probabilities of the sampled labels and their rewards, both (rows,)."""
    return -((rewards - rewards.mean()) * log_p).mean()


class Rewarded(Pack):
    """A pack whose members see rewards but never labels. `rewards` has each member's mean reward at each step.

    loss   Computes the loss of a batch; see `reinforce`.
    """

    def __init__(
        self, recipes: Sequence[Recipe], *, loss: Callable[[Tensor, Tensor], Tensor] = reinforce, **options: Any
    ) -> None:
        super().__init__(recipes, **options)
        self.rewards: dict[Recipe, list[float]] = {recipe: [] for recipe in recipes}

        def losses(logits: Tensor, labels: Tensor, members: Sequence[Member]) -> Tensor:
            rows = zip(members, logits.chunk(len(members)), labels.chunk(len(members)), strict=True)
            return torch.stack([loss(*self._asked(member, *own)) for member, *own in rows])

        self.losses = losses

    def _asked(self, member: Member, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sample a label for each row; return its log-probability and reward, both (rows,)."""
        generator = torch.Generator().manual_seed(DRAWS * member.recipe.seed + len(member.history["step"]))
        p = logits.detach().softmax(-1).nan_to_num(1.0).cpu()  # if a logit is nan, so is the loss, and the run fails
        sampled = torch.multinomial(p, 1, generator=generator).to(labels.device)  # (rows, 1)
        rewards = (sampled.squeeze(1) == labels).float()
        self.rewards[member.recipe].append(rewards.mean().item())
        return logits.log_softmax(-1).gather(1, sampled).squeeze(1), rewards


def sorted_right(numbers: Tensor, labels: Tensor) -> float:
    """Sort texts by a number, label the half that fits better as positive, and return the share of right labels."""
    agree = ((numbers > numbers.median()) == labels).float().mean().item()
    return max(agree, 1 - agree)


@torch.inference_mode()
def halves_found(model: PreTrainedModel, passages: int = 256) -> float:
    """Return the share of `kjv` passages whose first half is nearest to its own second half (cosine of mean vectors).

    The pretrained MiniLM was made for matching texts. The classification head is not used.
    """
    tokenizer, sides = load_tokenizer("minilm"), []
    words = [text.split() for text in load_task("kjv").train.texts[:passages]]
    options = {"padding": True, "truncation": True, "max_length": 64, "return_tensors": "pt"}
    with answering(model):
        for texts in ([w[: len(w) // 2] for w in words], [w[len(w) // 2 :] for w in words]):
            pooled = []
            for start in range(0, passages, ROWS):
                batch = tokenizer([" ".join(text) for text in texts[start : start + ROWS]], **options).to(model.device)
                hidden = model.base_model(**batch).last_hidden_state  # (rows, tokens, width)
                mask = batch["attention_mask"][..., None]
                pooled.append((hidden * mask).sum(1) / mask.sum(1))
            sides.append(F.normalize(torch.cat(pooled).float(), dim=-1))
    nearest = (sides[0] @ sides[1].T).argmax(1)
    return (nearest == torch.arange(len(words), device=nearest.device)).float().mean().item()
