"""A against B on a machine that does other things too: one after the other, in turn first, the ratio pair by pair."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Paired:
    """Seconds of ours and of theirs, pair by pair."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Ours / theirs of each pair: what slows the machine for a while slows both."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        if len(self.ratios) < 4:
            return f"{self.ratio:.3f} ({min(self.ratios):.3f} to {max(self.ratios):.3f})"
        low, _, high = statistics.quantiles(self.ratios, n=4)
        return f"{self.ratio:.3f} ({low:.3f} to {high:.3f})"


def paired(ours: Callable[[], object], theirs: Callable[[], object], pairs: int, warm_up: int = 3) -> Paired:
    """Time the two in turn, in alternating order, after `warm_up` unmeasured runs of each."""
    for _ in range(warm_up):
        ours(), theirs()
    times: list[tuple[float, float]] = []
    for n in range(pairs):
        if n % 2:
            b, a = seconds(theirs), seconds(ours)
        else:
            a, b = seconds(ours), seconds(theirs)
        times.append((a, b))
    return Paired(*zip(*times, strict=True))


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def goal(words: str, measured: float, at_most: float, digits: int = 2) -> str:
    """One line of verdict, in Markdown."""
    verdict = "holds" if measured <= at_most else "fails"
    return f"- **{verdict}**: {words}: {measured:.{digits}f}, goal at most {at_most:g}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
