"""Pairs: our voices answer the same questions, held-out ones are new; a file of one's own is read or told why not."""

from __future__ import annotations

import json
import re
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_course.experiments.styles import misfit
from lora_lab import load_task
from lora_lab.errors import BadValue
from lora_lab.training.chat import Chat, question
from lora_lab.training.pairs import SPLITS, VOICES, Pair, read, voice

COMMON = "a an the is are do does did how what why i my to of in it for so on you your we be at one can should"


def words(text: str) -> set[str]:
    return {re.sub("s$", "", word) for word in re.findall("[a-z0-9]+", text.lower())} - set(COMMON.split())


def write(folder, rows) -> str:
    file = folder / "own.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return str(file)


def some(n: int = 20, **more) -> list[dict]:
    return [{"prompt": f"question {i}?", "response": f"answer {i}", **more} for i in range(n)]


# ---- ours


def test_three_voices_answer_the_same_questions_in_the_same_splits():
    asked = {
        name: {split: [str(pair.chat) for pair in pairs] for split, pairs in voice(name).items()} for name in VOICES
    }
    assert asked["captain"] == asked["json"] == asked["preacher"]
    assert {split: len(questions) for split, questions in asked["json"].items()} == {
        "train": 180, "validation": 30, "test": 30,
    }  # fmt: skip


def test_no_held_out_question_nearly_repeats_one_of_another_split():
    asked = [(split, str(pair.chat)) for split, pairs in voice("captain").items() for pair in pairs]
    assert len({text for _, text in asked}) == len(asked)
    for (split, one), (other_split, other) in combinations(asked, 2):
        if split != other_split:
            a, b = words(one), words(other)
            assert len(a & b) / len(a | b) <= 0.5, (one, other)


@pytest.mark.parametrize("name", VOICES)
def test_answers_are_short_all_different_and_the_json_fits_its_schema(name):
    texts = [pair.response for pairs in voice(name).values() for pair in pairs]
    assert len(set(texts)) == len(texts) == 240
    assert all(5 <= len(text.split()) <= 45 for text in texts)
    assert [misfit(text) for text in texts] == [""] * 240 if name == "json" else all(map(misfit, texts))


def test_a_voice_is_a_task():
    task = load_task("preacher")
    assert (task.num_labels, task.metric, task.generates) == (None, "perplexity", False)
    assert task.train.prompts[0] == question("Why is the sky blue?")
    assert task.train.at([0]).prompts == task.train.prompts[:1]  # a draw keeps what was asked


# ---- a file of one's own


def test_prompts_and_responses_are_read_and_a_share_is_held_out(tmp_path):
    task = load_task(write(tmp_path, some()))
    assert [len(getattr(task, split)) for split in SPLITS] == [14, 2, 4]
    assert task.test == load_task(write(tmp_path, some())).test
    assert task.test != load_task(write(tmp_path, some()), seed=1).test


@given(st.lists(st.sampled_from(["Why?", " why?  ", "How  so?", "how so?", *"abcdefghijkl"]), min_size=10, max_size=40))
def test_two_answers_to_one_question_never_lie_in_different_splits(asked):
    import tempfile
    from pathlib import Path

    rows = [*({"prompt": text, "response": str(n)} for n, text in enumerate(asked)), *some(3)]
    with tempfile.TemporaryDirectory() as folder:
        splits = read(Path(write(Path(folder), rows)))
    keys = [{" ".join(str(pair.chat).lower().split()) for pair in pairs} for pairs in splits.values()]
    assert all(keys)
    assert sum(map(len, keys)) == len(set().union(*keys))
    assert sum(map(len, splits.values())) == len(rows)


def test_three_questions_are_enough(tmp_path):
    asked = [one | {"prompt": f"question {i % 3}?"} for i, one in enumerate(some(12))]
    assert [len(pairs) for pairs in read_all(tmp_path, asked).values()] == [4, 4, 4]


@given(st.text(min_size=1).filter(str.strip))
def test_only_a_line_feed_ends_a_line(said):
    """Within JSON's quotes U+2028 and U+0085 are letters as any other."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "own.jsonl"
        rows = [*some(), {"prompt": said, "response": said, "split": None}]
        file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        assert said.strip() in [pair.response for pairs in read(file).values() for pair in pairs]


def test_a_file_saved_by_windows_notepad_is_read(tmp_path):
    saved = tmp_path / "saved.jsonl"
    saved.write_text("\r\n".join(json.dumps(row) for row in some()), encoding="utf-8-sig", newline="")
    assert load_task(str(saved)).train == load_task(write(tmp_path, some())).train


def test_messages_are_a_chat_whose_last_answer_is_learnt(tmp_path):
    said = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho"), ("user", "Why?"), ("assistant", "Because.")]
    row = {"messages": [{"role": role, "content": text} for role, text in said], "split": "train"}
    others = [r | {"split": split} for r, split in zip(some(12), ["validation", "test"] * 6, strict=True)]
    pairs = read_all(tmp_path, [row, *others])
    assert pairs["train"] == [Pair(Chat(tuple(said[:-1])), "Because.")]
    assert str(pairs["train"][0].chat) == "Why?"


def read_all(folder, rows):
    from pathlib import Path

    return read(Path(write(folder, rows)))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([*some(), {"prompt": "x", "response": " "}], "line 21 has no text in 'response'; it has prompt, response"),
        ([*some(), {"response": "x"}], "line 21 has no text in 'prompt'"),
        ([*some(), "{"], "line 21 is not JSON"),
        ([*some(), "[1]"], "line 21 is not an object"),
        (some(9), "holds 9 pairs; at least 10"),
        ([one | {"prompt": "Why?"} for one in some()], "asks 1 different questions; at least 3"),
        ([one | {"prompt": "Why?"} for one in some()] + some(1), "asks 2 different questions; at least 3"),
        (
            [*some(), {"prompt": "x", "response": "y", "split": "train"}],
            "'split' must contain each of train, validation, test",
        ),
        (some(split="train"), "and nothing else; it has train"),
        ([{"messages": "hello"}], "line 1: messages must be a list of objects"),
        (
            [{"messages": [{"role": "user", "content": "x"}]}],
            "the last two messages must be the user's message and the assistant's",
        ),
        (
            [{"messages": [{"role": "wizard", "content": "x"}]}],
            "role must be one of system, user, assistant, not 'wiz",
        ),
        ([{"messages": [{"role": "user", "content": 3}]}], "has no text in 'content'; it has role, content"),
    ],
)
def test_a_file_that_holds_no_pairs_says_where_and_why(tmp_path, rows, sentence):
    with pytest.raises(BadValue, match=re.escape(sentence)):
        load_task(write(tmp_path, rows))
