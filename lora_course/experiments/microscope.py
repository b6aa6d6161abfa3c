"""The truncation microscope: every specimen at every rank answers the same sentences; what is seen is kept.

Looking at one rank takes seconds, looking it up nothing: so all ranks are looked at once, in the background of a panel
or for a file that ships with the lab, and the slider only reads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from lora_course.experiments.truncation import Specimen
from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.training.batches import Row, encode
from lora_lab.training.evaluate import evaluate
from lora_lab.training.models import answer_at_first_token, load_model, load_tokenizer
from lora_lab.training.tasks import load_task

RANKS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 384)
SENTENCES = 300
EXAMPLE = 70  # characters of a sentence that is easy to show


@dataclass(frozen=True)
class Seen:
    """One specimen at one rank: share of the update's energy, and the class that each sentence was given."""

    rank: int
    energy: float
    answers: np.ndarray


@dataclass(frozen=True)
class Sentences:
    """The sentences that are asked: their texts, the number of each one's true label, and the labels' names."""

    texts: tuple[str, ...]
    labels: np.ndarray
    names: tuple[str, ...]
    places: tuple[int, ...] = ()  # in the validation split


@dataclass
class Views:
    """All that has been seen, by specimen and rank. Written by one thread while others read."""

    sentences: Sentences
    ranks: Mapping[str, tuple[int, ...]]  # of each specimen, the last being its full rank
    seen: dict[str, dict[int, Seen]] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)  # where, when and from which runs

    def at(self, name: str, rank: int) -> Seen | None:
        """What was seen of a specimen at a rank; a rank above its own is its own. None while not looked at yet.

        Raises: NotFound for a specimen that is not here.
        """
        if name not in self.ranks:
            raise NotFound(f"there is no specimen '{name}'; there is {nearest(name, self.ranks)}")
        return self.seen.get(name, {}).get(min(rank, self.ranks[name][-1]))

    def whole(self, name: str) -> Seen | None:
        """The specimen with nothing cut."""
        return self.at(name, self.ranks[name][-1])

    def accuracy(self, seen: Seen) -> float:
        """The share of sentences that were given their true class."""
        return float((seen.answers == self.sentences.labels).mean())

    def flipped(self, name: str, rank: int) -> list[int]:
        """Sentences that are answered otherwise than by the untruncated model; [] while one of both is not seen."""
        cut, whole = self.at(name, rank), self.whole(name)
        return [] if cut is None or whole is None else np.flatnonzero(cut.answers != whole.answers).tolist()

    def curve(self, name: str) -> tuple[list[int], list[float], list[float]]:
        """Ranks, accuracies and energies of what has been seen so far, rank by rank."""
        there = [one for _, one in sorted(self.seen.get(name, {}).items())]
        return [one.rank for one in there], [self.accuracy(one) for one in there], [one.energy for one in there]

    @property
    def left(self) -> int:
        """How many looks are still to be taken; one at a rank between, where a slider stood, is none of them."""
        return sum(rank not in self.seen.get(name, {}) for name, ranks in self.ranks.items() for rank in ranks)

    def cuts(self) -> dict[str, Any]:
        """What `RankPanel` shows: of each specimen, by rank, right and flipped answers, energy, and some sentences.

        gained   sentences that are right from this rank on, and were wrong at the one below
        lost     those that are wrong at this rank and right with nothing cut
        Raises: BadValue while looks are still to be taken.
        """
        if self.left:
            raise BadValue(f"{self.left} looks are still to be taken: run `for _ in scope.all(): pass`")
        updates = {name: self._cut(name) for name in self.ranks}
        return {"n": len(self.sentences.texts), "labels": list(self.sentences.names), "updates": updates}

    def _cut(self, name: str) -> dict[str, Any]:
        looks, texts = [self.seen[name][rank] for rank in self.ranks[name]], self.sentences.texts
        answers = np.array([seen.answers for seen in looks])  # (ranks, sentences)
        right = answers == self.sentences.labels
        stays = np.logical_and.accumulate(right[::-1])[::-1]  # right from this rank on
        before = np.vstack([right[:1] & False, right[:-1]])
        order = sorted(range(len(texts)), key=lambda place: abs(len(texts[place]) - EXAMPLE))
        gained = [[n for n in order if stays[at, n] and not before[at, n]][:3] for at in range(len(looks))]
        lost = [[n for n in order if right[-1, n] and not right[at, n]][:2] for at in range(len(looks))]
        places = sorted({place for some in (*gained, *lost) for place in some})
        at = {place: number for number, place in enumerate(places)}
        return {
            "label": name,
            "ranks": list(self.ranks[name]),
            "energy": [round(seen.energy, 4) for seen in looks],
            "right": right.sum(1).tolist(),
            "flips": (answers != answers[-1]).sum(1).tolist(),
            "gained": [[at[place] for place in some] for some in gained],
            "lost": [[at[place] for place in some] for some in lost],
            "sentences": [[texts[n], int(self.sentences.labels[n]), "".join(map(str, answers[:, n]))] for n in places],
        }

    def to_json(self) -> dict[str, Any]:
        """Answers as strings of digits; texts stay in the data, their places are named."""
        seen = {
            name: [[one.rank, one.energy, "".join(map(str, one.answers))] for _, one in sorted(looks.items())]
            for name, looks in self.seen.items()
        }
        return {"made": dict(self.made), "places": list(self.sentences.places), "seen": seen}


class Microscope:
    """A base model that is given one specimen after another.

    specimens   by name; all of one base model
    task        whose validation split is read: of its sentences the `count` shortest
    ranks       of which each specimen takes those below its own, and its own
    Raises: BadValue for no specimen, or a task without classes.
    """

    def __init__(
        self, specimens: Sequence[Specimen], task: str = "rt", model: str = "minilm", *, count: int = SENTENCES,
        ranks: Sequence[int] = RANKS,
    ) -> None:  # fmt: skip
        if not specimens:
            raise BadValue("give the microscope at least one specimen, such as specimen_of('full', run.adapter, 'rt')")
        self.specimens = {one.name: one for one in specimens}
        self.rows, sentences, self._pad = shortest(task, model, count)
        self.model = prepared(model, len(sentences.names))
        self._base = {key: value.clone() for key, value in self.model.state_dict().items()}
        own = {
            name: tuple(sorted({*(r for r in ranks if r < one.rank), one.rank})) for name, one in self.specimens.items()
        }
        self.views, self._lock = Views(sentences, own), threading.Lock()

    def look(self, name: str, rank: int) -> Seen:
        """A specimen at a rank, now, or from what has been seen. Raises: as `Views.at`; BadValue for a rank below 0."""
        with self._lock:
            found = self.views.at(name, rank)
            return found or self._look(name, min(rank, self.specimens[name].rank))

    def all(self) -> Iterator[Seen]:
        """Every look that is left: both ends of all specimens first, then the low ranks."""
        order = [(name, rank) for name, ranks in self.views.ranks.items() for rank in (ranks[-1], ranks[0])]
        rest = sorted({(rank, name) for name, ranks in self.views.ranks.items() for rank in ranks[1:-1]})
        for name, rank in [*order, *((name, rank) for rank, name in rest)]:
            yield self.look(name, rank)

    def _look(self, name: str, rank: int) -> Seen:
        one = self.specimens[name]
        self.model.load_state_dict(self._base | one.weights(rank))
        answers = evaluate(self.model, self.rows, self._pad).predictions
        found = Seen(rank, one.energy(rank), answers)
        self.views.seen.setdefault(name, {})[rank] = found
        return found


def shortest(task: str, model: str, count: int) -> tuple[list[Row], Sentences, int]:
    """The shortest sentences of a task's validation split as tokens and as texts, and the padding token.

    Raises: BadValue for a task without classes.
    """
    data, tokenizer = load_task(task), load_tokenizer(model)
    if not data.labels:
        raise BadValue(f"{task} has no classes that could flip: choose a task with labels, such as rt")
    rows = sorted(encode(data.validation, data, tokenizer), key=lambda row: (len(row.tokens), row.place))[:count]
    split = data.validation.at([row.place for row in rows])
    asked = Sentences(split.texts, np.array(split.labels), data.labels, tuple(row.place for row in rows))
    rows = [replace(row, place=place) for place, row in enumerate(rows)]
    return rows, asked, int(tokenizer.pad_token_id)


def prepared(model: str, labels: int) -> nn.Module:
    """The base as a run has it, in fp32: the last layer works for the token that is read."""
    torch.manual_seed(0)  # of the head, which every specimen replaces
    base = load_model(model, labels)
    answer_at_first_token(base)
    return base.requires_grad_(False)


def views_from(values: Mapping[str, Any], task: str = "rt") -> Views:
    """What `Views.to_json` wrote. Raises: BadValue where the file is no such thing."""
    data = load_task(task)
    try:
        split = data.validation.at(values["places"])
        asked = Sentences(split.texts, np.array(split.labels), data.labels, tuple(values["places"]))
        seen = {
            name: {rank: Seen(rank, energy, np.array([int(c) for c in answers])) for rank, energy, answers in looks}
            for name, looks in values["seen"].items()
        }
        return Views(asked, {name: tuple(sorted(looks)) for name, looks in seen.items()}, seen, values["made"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadValue(f"these are no views of the microscope ({error})") from error
