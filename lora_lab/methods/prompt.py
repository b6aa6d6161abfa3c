"""Prompt tuning: a few made-up tokens stand before the text, and only their vectors train.

    (tokens, hidden) numbers        Hu et al. call it PreEmbed: d_model (l_p + l_i), section 5.1

Source: Lester et al. 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lora_lab.methods.base import Method, Report, register
from lora_lab.methods.options import one_of, whole

if TYPE_CHECKING:
    from torch import nn

INITS = ("vocabulary", "random")


@register
@dataclass(frozen=True)
class PromptTuning(Method):
    """`tokens` vectors of the model's width, starting as those of real tokens ("vocabulary") or at random.

    Raises: BadValue for an impossible value.
    """

    name: ClassVar[str] = "prompt"
    packs: ClassVar[bool] = True
    lanes_differ: ClassVar[tuple[str, ...]] = ("init",)

    tokens: int = 20
    init: str = "vocabulary"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("tokens", self.tokens)
        one_of("init", self.init, INITS)

    def attach(self, model: nn.Module) -> Report:
        """Freeze the model, put a soft prompt before its embeddings, give a classification head a copy that trains.

        Raises: BadValue when the model carries an adapter already.
        """
        from lora_lab.methods import soft_prompt  # imports torch

        return soft_prompt.attach_prompt(model, self, tokens=self.tokens, vocabulary=self.init == "vocabulary")
