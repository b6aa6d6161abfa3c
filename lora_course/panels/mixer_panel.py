"""A mixture of two adapters on one base: how the certainty of each answer changes with the second adapter's share."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import traitlets as T

from lora_lab.errors import BadValue
from lora_lab.widgets.base import Panel

RIGHT = 128  # a byte of at least this value means a probability of at least one half


class MixerPanel(Panel, file="mixer_panel.js"):
    """W + (1 - s) dW1 + s dW2: each text is a dot that moves while you drag s.

    names    The two adapters.
    shares   The shares of the second adapter, increasing from 0 to 1.
    sure     (shares, texts): the probability of the right answer (of two answers).
    share    The initial share.
    Raises: BadValue if shapes don't match or numbers are not probabilities.
    """

    names = T.List(T.Unicode()).tag(sync=True)
    shares = T.List(T.Float()).tag(sync=True)
    sure = T.Bytes().tag(sync=True)  # (shares, texts); 255 means certain
    texts = T.List(T.Unicode()).tag(sync=True)
    share = T.Float(0.5).tag(sync=True)

    def __init__(
        self, names: Sequence[str], shares: Sequence[float], sure: Any, texts: Sequence[str], share: float = 0.5
    ) -> None:
        if not isinstance(names, (list, tuple)) or [*map(type, names)] != [str, str]:
            raise BadValue(f"names must be those of two adapters, such as ('critic', 'contrarian'), not {names!r}")
        values = np.array([np.asarray(row, float) for row in sure])
        expected = (len(shares), len(texts))
        rising = all(0 <= s <= 1 for s in (*shares, share)) and all(low < high for low, high in pairwise(shares))
        valid = rising and values.size and ((values >= 0) & (values <= 1)).all()
        if values.shape != expected or not valid:
            wanted = f"shares that rise from 0 to 1, texts, and probabilities of shape {expected}"
            raise BadValue(f"pass {wanted}; got shares {shares}, share {share}, and values of shape {values.shape}")
        packed = np.round(255 * values).astype(np.uint8).tobytes()
        super().__init__(names=list(names), shares=list(shares), sure=packed, texts=list(texts), share=share)

    @property
    def right(self) -> list[float]:
        """The percentage of texts that are answered correctly at each share."""
        sure = np.frombuffer(self.sure, np.uint8).reshape(len(self.shares), -1)
        return [float(percent) for percent in 100 * (sure >= RIGHT).mean(1)]

    def describe(self) -> str:
        scores = ", ".join(f"{share:g}: {right:.0f}%" for share, right in zip(self.shares, self.right, strict=True))
        return f"{self.names[0]} mixed with {self.names[1]}. Right answers by the share of {self.names[1]}: {scores}."
