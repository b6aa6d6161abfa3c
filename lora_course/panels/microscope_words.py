"""What the microscope's panel says: all that its picture shows, and the sentences whose answer flips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from lora_course.experiments.microscope import Seen, Views
from lora_course.panels.live_microscope import LiveLooks
from lora_course.plots.truncation import enough
from lora_lab.widgets.panel import cannot, escape, tabled
from lora_lab.widgets.shown import Table

MOST = 5  # sentences shown


def standing(live: LiveLooks) -> str:
    """How far the looking is; empty when it is over."""
    if live.error:
        return cannot(live.error)
    left = live.views.left
    if not left:
        return ""
    again = "run this cell again to go on" if live.state == "stopped" else "the slider works meanwhile"
    return f"<b>{live.state}</b>: {left} looks to come, {again}. "


def look_words(views: Views, name: str, rank: int) -> str:
    """One specimen at one rank, in words."""
    seen, whole = views.at(name, rank), views.whole(name)
    if seen is None or whole is None:
        return f"<b>{escape(name)}, rank {rank}</b>: not looked at yet."
    flipped, total = views.flipped(name, rank), len(views.sentences.texts)
    return (
        f"<b>{escape(name)} cut to rank {rank}</b>{_own(seen, rank)}: <b>{views.accuracy(seen):.1%}</b> of {total} "
        f"sentences right (nothing cut: {views.accuracy(whole):.1%}), <b>{seen.energy:.1%}</b> of the energy kept, "
        f"<b>{len(flipped)}</b> flipped{_worse(views, seen, flipped)}."
    )


def flipped_table(views: Views, name: str, rank: int) -> str:
    """Some of the sentences that the cut model answers otherwise, as a table; empty where there are none."""
    cut, whole, asked = views.at(name, rank), views.whole(name), views.sentences
    places = views.flipped(name, rank)[:MOST]
    if cut is None or whole is None or not places:
        return ""
    called = asked.names.__getitem__
    rows = [(asked.texts[n], called(asked.labels[n]), called(whole.answers[n]), called(cut.answers[n])) for n in places]
    head = ("sentence that flips", "label", "nothing cut", "cut")
    return tabled("sentences that flip", head, [[escape(cell) for cell in row] for row in rows])


def curves_words(views: Views, rank: int) -> str:
    """Both curves in a sentence an update, for those who cannot see them."""
    found = "; ".join(line for name in views.ranks if (line := enough(views, name)))
    return f"Accuracy, and energy kept, over the rank that every matrix is cut to; a ring at rank {rank}. {found}."


def curves_tables(views: Views) -> Iterator[Table]:
    """Both curves in numbers: a line for each rank that was looked at, a column for each update."""
    names = [name for name in views.ranks if views.seen.get(name)]
    ranks = sorted({rank for name in names for rank in views.seen[name]})
    yield Table("accuracy", ("rank", *names), [_rank_line(views, names, rank, views.accuracy) for rank in ranks])
    energies = [_rank_line(views, names, rank, lambda seen: seen.energy) for rank in ranks]
    yield Table("energy kept", ("rank", *names), energies)


def _rank_line(views: Views, names: Sequence[str], rank: int, value: Callable[[Seen], float]) -> list[str]:
    """A rank above an update's own cuts nothing: the curve goes on as it is, and so does the column."""
    found = [views.at(name, rank) for name in names]
    return [str(rank), *("-" if seen is None else f"{value(seen):.1%}" for seen in found)]


def _own(seen: Seen, rank: int) -> str:
    if rank == 0:
        return " (the base with the trained head)"
    return f" (it has only rank {seen.rank}, so nothing is cut)" if seen.rank < rank else ""


def _worse(views: Views, seen: Seen, flipped: list[int]) -> str:
    if not flipped:
        return ""
    wrong = int((seen.answers[flipped] != views.sentences.labels[flipped]).sum())
    return f", {wrong} of these now wrong"
