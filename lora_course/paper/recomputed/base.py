"""One published number, what it should be, and whether the print follows from that."""

from __future__ import annotations

from dataclasses import dataclass

from lora_course.paper import number

EXACT, ROUNDED, NOT = "exact", "rounded", "does not follow"
TINY = 1e-9  # of a step: 353.5 is half a step from 354, whatever the floats say


@dataclass(frozen=True)
class Recomputed:
    """A published number beside the one that follows from its description.

    row         the row of the table, from 0; None where the number stands in the table's words
    published   as printed, "0.35M"; its unit apart
    derivation  in words, how `exact` comes about
    exact       in the published unit, but M and B written out: 393216 for "0.35M"
    million     what M means: 10^6, or 2^20 where the paper counts so
    about       the coarsest step that the words allow: 10,000 where the paper says "about 10,000"; 0: as printed
    """

    table: str
    row: int | None
    column: str
    published: str
    derivation: str
    exact: float
    unit: str = ""
    million: int = 10**6
    about: float = 0

    @property
    def verdict(self) -> str:
        """exact, rounded or does not follow; see `verdict`."""
        return verdict(self.published, self.exact, million=self.million, about=self.about)


def verdict(published: str, exact: float, *, million: int = 10**6, about: float = 0) -> str:
    """Whether a printed figure is this number.

        exact             the number, rounded to the digits that are printed
        rounded           cut off instead of rounded (18.8M for 18.87M), or to fewer digits than its zeros make believe
                          (125.0M for 124.6M: two digits must be left), or within `about`
        does not follow   none of these

    Raises: BadValue where nothing that reads as a number is printed.
    """
    value, step = number(published), _step(published)
    if published.endswith("M"):
        value, step = value * million / 10**6, step * million / 10**6
    off = exact - value
    if abs(off) <= step * (0.5 + TINY):
        return EXACT
    coarse = max(_padding(published) * step, about)
    return ROUNDED if 0 <= off < step or abs(off) <= coarse / 2 else NOT


def _step(printed: str) -> float:
    """The worth of the last printed digit: 10,000 in 0.35M."""
    digits = printed.rstrip("KMB")
    return 10.0 ** -len(digits.partition(".")[2]) * number("1" + printed[len(digits) :])


def _padding(printed: str) -> int:
    """How many last digits' worth the trailing zeros are: 10 for 125.0, 1,000 for 1500.0; 1 for 6.0."""
    digits = printed.rstrip("KMB").replace(",", "").replace(".", "").lstrip("0")
    zeros = len(digits) - max(2, len(digits.rstrip("0")))
    return 10 ** max(0, zeros)
