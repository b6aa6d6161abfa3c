"""Does a sentence say what it was to say? Slot by slot: right, missing, wrong, or added though nobody asked for it.

    slot error rate = (missing + wrong + added) / slots that were to be said

Source: Wen et al. 2015, "Semantically Conditioned LSTM-based Natural Language Generation", the rate ERR; Dušek, Novikova
and Rieser 2020 (E2E's findings) count the same three kinds. Each slot of a text is at most one error.

Names are looked for as they are written, and then hidden, so that "Raja Indian Cuisine" is no cuisine. Other slots have
a pattern for each *level*: "cheap" and "less than £20" are one level, as are "high" and "5 out of 5", because people
who write say one for the other. The patterns know everything that the grammar of `training/restaurants.py` can say, on
which they find no error, and most of what the writers of E2E say; see MEASURED.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lora_lab.training.meanings import SLOTS, Meaning

RIGHT, MISSING, WRONG, ADDED = "right", "missing", "wrong", "added"
