"""Two adapters mixed on one base: how sure each answer is while the share of the second one grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import traitlets as T

from lora_lab.errors import BadValue
from lora_lab.widgets.base import Panel

RIGHT = 128  # a byte from here on is a probability of at least a half


class MixerPanel(Panel, file="mixer_panel.js"):
    """W + (1 - s) dW1 + s dW2: each text is a dot that moves while you drag s.

    names    the two adapters
    shares   of the second adapter, rising from 0 to 1
    sure     (shares, texts): probability of the right answer, where there are two
    Raises: BadValue for shapes that don't match, or numbers that are not probabilities.
    """

    names = T.List(T.Unicode()).tag(sync=True)
    shares = T.List(T.Float()).tag(sync=True)
    sure = T.Bytes().tag(sync=True)  # (shares, texts), 255 is certain
    texts = T.List(T.Unicode()).tag(sync=True)
    share = T.Float(0.5).tag(sync=True)

    def __init__(self, names: Sequence[str], shares: Sequence[float], sure: Any, texts: Sequence[str]) -> None:
        values = np.array([np.asarray(row, float) for row in sure])
        wanted = (len(shares), len(texts))
        if values.shape != wanted or len(names) != 2 or not ((values >= 0) & (values <= 1)).all():
            raise BadValue(f"sure has shape {values.shape}: give two names and probabilities of shape {wanted}")
        packed = np.round(255 * values).astype(np.uint8).tobytes()
        super().__init__(names=list(names), shares=list(shares), sure=packed, texts=list(texts))

    @property
    def right(self) -> list[float]:
        """Percentage of the texts that are answered correctly at each share."""
        sure = np.frombuffer(self.sure, np.uint8).reshape(len(self.shares), -1)
        return [float(one) for one in 100 * (sure >= RIGHT).mean(1)]

    def describe(self) -> str:
        """The panel in plain words."""
        told = ", ".join(f"{share:g}: {right:.0f}%" for share, right in zip(self.shares, self.right, strict=True))
        return f"{self.names[0]} mixed with {self.names[1]}. Right answers by the share of {self.names[1]}: {told}."
