"""Compare two functions on a machine that also does other work: run them in pairs, and take the median ratio."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Paired:
    """The seconds of each paired run, ours and theirs."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Ours / theirs for each pair. Other work on the machine slows both runs of a pair."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """The median ratio."""
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        low, high = min(self.ratios), max(self.ratios)
        if len(self.ratios) > 3:
            low, _, high = statistics.quantiles(self.ratios, n=4)
        return f"{self.ratio:.3f} ({low:.3f} to {high:.3f})"


def paired(ours: Callable[[], object], theirs: Callable[[], object], pairs: int, warm_up: int = 3) -> Paired:
    """Time two functions in alternating order, after `warm_up` untimed runs of each."""
    for _ in range(warm_up):
        ours(), theirs()
    times: dict[Callable[[], object], list[float]] = {ours: [], theirs: []}
    for n in range(pairs):
        for function in (theirs, ours) if n % 2 else (ours, theirs):
            times[function].append(seconds(function))
    return Paired(tuple(times[ours]), tuple(times[theirs]))


def seconds(function: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def goal(quantity: str, measured: float, at_most: float, digits: int = 2) -> str:
    """Say in one line of Markdown whether a goal is met."""
    verdict = "holds" if measured <= at_most else "fails"
    return f"- **{verdict}**: {quantity}: {measured:.{digits}f}, goal at most {at_most:g}"


def worst_goal(quantity: str, ratios: Sequence[float], at_most: float) -> str:
    """Say whether every case meets a goal, and give the median case."""
    within = sum(ratio <= at_most for ratio in ratios)
    details = f"the slowest case ({within} of {len(ratios)} within the goal, median {statistics.median(ratios):.3f})"
    return goal(f"{quantity}, {details}", max(ratios), round(at_most, 3), 3)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
