"""What the stock controls lack for those who use no mouse or no screen, put right in the browser, once for all panels.

The focus is seen, and the words are spoken once they stand still.
"""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets as T


class Named(anywidget.AnyWidget):
    """An unseen part of a panel. title: what a screen reader calls the panel."""

    _esm = Path(__file__).with_name("named.js")

    title = T.Unicode().tag(sync=True)
