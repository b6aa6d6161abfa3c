"""Questions and answers in a style: our three voices, and files of one's own. One pair a line of JSON:

    {"prompt": "Why is the sky blue?", "response": "Aye, look up, lad ...", "split": "train"}
    {"messages": [{"role": "system", "content": "..."}, {"role": "user", ...}, {"role": "assistant", ...}]}

The last message of a chat is the answer that is learned; all before it is read. `split` (train, validation, test) is
used where every line has one; else a fifth of the *questions* is held out for test and a tenth for validation, so that
two answers to one question never lie in different splits.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue
from lora_lab.training.assets import shipped
from lora_lab.training.chat import ROLES, Chat, question
from lora_lab.training.text_files import json_rows

VOICES = ("captain", "json", "preacher")
SPLITS = ("train", "validation", "test")
LEAST = 10  # pairs


@dataclass(frozen=True)
class Pair:
    """What was asked, and the answer to learn."""

    chat: Chat
    response: str


def voice(name: str) -> dict[str, list[Pair]]:
    """The splits of one of VOICES, with the same questions in each voice."""
    return read(shipped(f"data/styles/{name}.jsonl"))


def holds_pairs(path: Path) -> bool:
    """Whether a file is JSON lines, the first of which is a pair; what is no JSON is left to who reads it."""
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return False
    try:
        with path.open(encoding="utf-8-sig") as lines:
            first = json.loads(next((line for line in lines if line.strip()), "{}"))
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and bool({"response", "messages"} & first.keys())


def read(path: Path, seed: int = 0) -> dict[str, list[Pair]]:
    """The pairs of a file by split. `seed` decides which are held out where the file does not say.

    Raises: BadValue, with the line, for what is no pair; for fewer than ten of them, or three different questions; for
    splits given only in part.
    """
    rows = json_rows(path, "prompt", "response")
    pairs = [_pair(row, f"{path}, line {n}") for n, row in rows]
    if len(pairs) < LEAST:
        raise BadValue(f"{path} holds {len(pairs)} pairs; at least {LEAST} are needed to train, validate and test")
    named = [row.get("split") for _, row in rows]
    splits = _drawn(pairs, seed, path) if set(named) == {None} else named
    if set(splits) != set(SPLITS):
        found = ", ".join(sorted({str(split) for split in splits}))
        raise BadValue(f"{path}: 'split' must hold {', '.join(SPLITS)}, each and no other; it has {found}")
    return {name: [pair for pair, split in zip(pairs, splits, strict=True) if split == name] for name in SPLITS}


def _pair(row: Mapping[str, Any], where: str) -> Pair:
    if "messages" not in row:
        return Pair(question(_text(row, "prompt", where)), _text(row, "response", where))
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadValue(f"{where}: messages must be a list of objects with role and content")
    for role in (message.get("role") for message in messages):
        if role not in ROLES:
            raise BadValue(f"{where}: a role must be one of {', '.join(ROLES)}, not {role!r}")
    turns = tuple((str(message["role"]), _text(message, "content", where)) for message in messages)
    if [role for role, _ in turns[-2:]] != ["user", "assistant"]:
        raise BadValue(f"{where}: the last two messages must be a user's and the assistant's answer to it")
    return Pair(Chat(turns[:-1]), turns[-1][1])


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    text = row.get(name)
    if not isinstance(text, str) or not text.strip():
        raise BadValue(f"{where} has no text in '{name}'; it has {', '.join(row) or 'nothing'}")
    return text.strip()


def _drawn(pairs: Sequence[Pair], seed: int, path: Path) -> list[str]:
    """A split for each pair, the same for all that ask the same but for case and spaces."""
    keys = [" ".join(str(pair.chat).lower().split()) for pair in pairs]
    order = sorted(set(keys))
    if len(order) < len(SPLITS):
        raise BadValue(f"{path} asks {len(order)} different questions; at least 3 are needed, one for each split")
    random.Random(seed).shuffle(order)
    test, validation = max(1, len(order) // 5), max(1, len(order) // 10)
    named = ["test"] * test + ["validation"] * validation + ["train"] * (len(order) - test - validation)
    of = dict(zip(order, named, strict=True))
    return [of[key] for key in keys]
