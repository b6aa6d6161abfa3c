"""Pairs of questions and answers: a file of one's own is read or told why not, and held-out questions are new."""

import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import load_task
from lora_lab.errors import BadValue
from lora_lab.training.chat import Chat
from lora_lab.training.tasks import SPLITS, Split, read_pairs


def write(folder, rows) -> str:
    file = folder / "own.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return str(file)


def read_all(folder, rows):
    return read_pairs(Path(write(folder, rows)))


def some(n: int = 20, **more) -> list[dict]:
    return [{"prompt": f"question {i}?", "response": f"answer {i}", **more} for i in range(n)]


def test_prompts_and_responses_are_read_and_a_share_is_held_out(tmp_path):
    task = load_task(write(tmp_path, some()))
    assert [len(getattr(task, split)) for split in SPLITS] == [14, 2, 4]
    saved = tmp_path / "notepad.jsonl"  # of Windows
    saved.write_text("\r\n".join(json.dumps(row) for row in some()), encoding="utf-8-sig", newline="")
    assert load_task(str(saved)).test == task.test
    assert task.test != load_task(write(tmp_path, some()), seed=1).test


@given(st.lists(st.sampled_from(["Why?", " why?  ", "How  so?", "how so?", *"abcdefghijkl"]), min_size=10, max_size=40))
def test_two_answers_to_one_question_never_lie_in_different_splits(asked):
    rows = [*({"prompt": text, "response": str(n)} for n, text in enumerate(asked)), *some(3)]
    with tempfile.TemporaryDirectory() as folder:
        splits = read_all(Path(folder), rows)
    keys = [{" ".join(str(chat).lower().split()) for chat in rows.prompts} for rows in splits.values()]
    assert all(keys)
    assert sum(map(len, keys)) == len(set().union(*keys))
    assert sum(map(len, splits.values())) == len(rows)


@given(st.text(min_size=1).filter(str.strip))
def test_only_a_line_feed_ends_a_line(said):
    """Within JSON's quotes U+2028 and U+0085 are letters as any other."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "own.jsonl"
        rows = [*some(), {"prompt": said, "response": said, "split": None}]
        file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        assert said.strip() in [text for rows in read_pairs(file).values() for text in rows.texts]


def test_messages_are_a_chat_whose_last_answer_is_learnt(tmp_path):
    said = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho"), ("user", "Why?"), ("assistant", "Because.")]
    row = {"messages": [{"role": role, "content": text} for role, text in said], "split": "train"}
    others = [r | {"split": split} for r, split in zip(some(12), ["validation", "test"] * 6, strict=True)]
    pairs = read_all(tmp_path, [row, *others])
    assert pairs["train"] == Split(("Because.",), prompts=(Chat(tuple(said[:-1])),))
    assert str(pairs["train"].prompts[0]) == "Why?"


REFUSED = [
    ([*some(), {"prompt": "x", "response": " "}], "line 21 has no text in 'response'; it has prompt, response"),
    ([*some(), "{"], "line 21 is not JSON"),
    ([*some(), "[1]"], "line 21 is not an object"),
    (some(9), "contains 9 pairs; at least 10"),
    ([one | {"prompt": "Why?"} for one in some()] + some(1), "asks 2 different questions; at least 3"),
    (some(split="train"), "'split' must contain each of train, validation, test and nothing else; it has train"),
    (some(split=[]), "and nothing else; it has []"),
    ([{"messages": "hello"}], "line 1: messages must be a list of objects"),
    ([{"messages": [{"role": "user", "content": "x"}]}], "the last two messages must be the user's message and"),
    ([{"messages": [{"role": "wizard", "content": "x"}]}], "role must be one of system, user, assistant, not 'wi"),
    ([{"messages": [{"role": "user", "content": 3}]}], "has no text in 'content'; it has role, content"),
]


def test_a_file_that_holds_no_pairs_says_where_and_why(tmp_path):
    for rows, sentence in REFUSED:
        with pytest.raises(BadValue, match=re.escape(sentence)):
            load_task(write(tmp_path, rows))
