"""Prompts and answers for supervised fine-tuning: our three voices and your own files. One JSON object per line:

    {"prompt": "Why is the sky blue?", "response": "Aye, look up, lad ...", "split": "train"}
    {"messages": [{"role": "system", "content": "..."}, {"role": "user", ...}, {"role": "assistant", ...}]}

The last message of a chat is the answer to learn; the rest is context. `split` (train, validation, test) is used if
every line has one. Otherwise a fifth of the *questions* is held out for test and a tenth for validation, so that
answers to the same question are never in different splits.
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
from lora_lab.training.text_files import SPLITS, check_splits, json_rows

VOICES = ("captain", "json", "preacher")
FEWEST = 10  # pairs


@dataclass(frozen=True)
class Pair:
    """A question and the answer to learn."""

    chat: Chat
    response: str


def voice(name: str) -> dict[str, list[Pair]]:
    """Read one of VOICES by split; all voices answer the same questions."""
    return read(shipped(f"data/styles/{name}.jsonl"))


def holds_pairs(path: Path) -> bool:
    """Return whether a JSON Lines file starts with a pair. False for an unreadable one, which the reader reports."""
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return False
    try:
        with path.open(encoding="utf-8-sig") as lines:
            first = json.loads(next((line for line in lines if line.strip()), "{}"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and bool({"response", "messages"} & first.keys())


def read(path: Path, seed: int = 0) -> dict[str, list[Pair]]:
    """Read a file's pairs by split. Without splits in the file, `seed` decides which are held out.

    Raises: BadValue for a line that is not a pair, naming the line; for fewer than ten pairs or three different
    questions; for splits on only some lines.
    """
    rows = json_rows(path, "prompt", "response")
    pairs = [_pair(row, f"{path}, line {n}") for n, row in rows]
    if len(pairs) < FEWEST:
        raise BadValue(f"{path} contains {len(pairs)} pairs; at least {FEWEST} are needed to train, validate and test")
    given = [row.get("split") for _, row in rows]
    splits = _draw_splits(pairs, seed, path) if all(split is None for split in given) else given
    check_splits(path, splits)
    return {name: [pair for pair, split in zip(pairs, splits, strict=True) if split == name] for name in SPLITS}


def _pair(row: Mapping[str, Any], where: str) -> Pair:
    if "messages" not in row:
        return Pair(question(_text(row, "prompt", where)), _text(row, "response", where))
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadValue(f"{where}: messages must be a list of objects with role and content")
    for role in (message.get("role") for message in messages):
        if role not in ROLES:
            raise BadValue(f"{where}: role must be one of {', '.join(ROLES)}, not {role!r}")
    turns = tuple((str(message["role"]), _text(message, "content", where)) for message in messages)
    if [role for role, _ in turns[-2:]] != ["user", "assistant"]:
        raise BadValue(f"{where}: the last two messages must be the user's message and the assistant's answer")
    return Pair(Chat(turns[:-1]), turns[-1][1])


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    text = row.get(name)
    if not isinstance(text, str) or not text.strip():
        raise BadValue(f"{where} has no text in '{name}'; it has {', '.join(row) or 'nothing'}")
    return text.strip()


def _draw_splits(pairs: Sequence[Pair], seed: int, path: Path) -> list[str]:
    """Draw each pair's split; pairs with the same question, ignoring case and spaces, get the same one."""
    keys = [" ".join(str(pair.chat).lower().split()) for pair in pairs]
    questions = sorted(set(keys))
    if len(questions) < len(SPLITS):
        raise BadValue(f"{path} asks {len(questions)} different questions; at least 3 are needed, one for each split")
    random.Random(seed).shuffle(questions)
    test, validation = max(1, len(questions) // 5), max(1, len(questions) // 10)
    splits = ["test"] * test + ["validation"] * validation + ["train"] * (len(questions) - test - validation)
    split_of = dict(zip(questions, splits, strict=True))
    return [split_of[key] for key in keys]
