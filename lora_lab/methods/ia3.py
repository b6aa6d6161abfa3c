"""IA3: a learned factor for every number of the keys, the values and the middle of the feed-forward part.

    k, v    (out_features) each, on the layer's output
    down    (in_features), on the layer's input

Source: Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lora_lab.errors import BadValue
from lora_lab.methods.base import Method, Report, register
from lora_lab.methods.options import words
from lora_lab.methods.targets import Site, choose

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class IA3(Method):
    """Factors at the targets, on the input of those that `feedforward` names and on the output of the others.

    Targets are roles, as everywhere. Raises: BadValue for none, or for a feedforward that is no target.
    """

    name: ClassVar[str] = "ia3"
    packs: ClassVar[bool] = True

    targets: tuple[str, ...] = ("k", "v", "down")
    feedforward: tuple[str, ...] = ("down",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("targets", "feedforward"):
            value = getattr(self, name)
            object.__setattr__(self, name, () if value is None else words(value, such_as="k,v"))
        for target in self.feedforward:
            if target not in self.targets:
                raise BadValue(f"feedforward names '{target}', which is not among the targets {list(self.targets)}")

    def place(self, sites: Sequence[Site]) -> list[tuple[Site, bool]]:
        """Where the factors go among a model's sites, and whether each is on the input there.

        Raises: NotFound for a target that matches nothing; BadValue for one that is no linear layer, and for a slice
        of a fused layer among the feedforward ones.
        """
        on_input = set(choose(self.feedforward, sites)) if self.feedforward else set()
        chosen = choose(self.targets, sites)
        for site in chosen:
            if site.kind not in ("linear", "expert"):  # an expert's can be counted, and no real model has it as a site
                said = f"ia3 is for linear layers, and {site.name} is an {site.kind}"
                raise BadValue(f"{said}: leave it out of the targets")
            if site in on_input and site.rows is not None:
                said = f"{site.name} shares its input with the rest of the layer"
                raise BadValue(f"{said}, so no factor there is its own: leave {site.role} out of feedforward")
        return [(site, site in on_input) for site in chosen]

    def attach(self, model: nn.Module) -> Report:
        """Freeze the model, put a factor at each target, give a classification head a copy that trains.

        Raises: as `place`, and BadValue when the model carries an adapter already.
        """
        from lora_lab.methods import attach, trained_factor  # imports torch

        return trained_factor.attach_factors(model, self, self.place(attach.sites_of(model)))
