import json
import re
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import LoRA, load_task, train
from lora_lab.errors import BadValue, LabWarning, NotFound
from lora_lab.training.chat import Chat
from lora_lab.training.tasks import SPLITS, Split, Task, chosen_rows, passages, read_pairs
from tests.conftest import PLAIN, assert_raises


def all_texts(task: Task) -> tuple[str, ...]:
    return task.train.texts + task.validation.texts + task.test.texts


def assert_disjoint(task: Task) -> None:
    texts = [" ".join(text.lower().split()) for text in all_texts(task)]
    assert len(texts) == len(set(texts))
    assert "" not in texts


@pytest.mark.parametrize(
    ("name", "train", "validation", "test"),
    [("rt", 6_000, 500, 2000), ("imdb", 20_000, 500, 2000), ("kjv", 2_500, 32, 128), ("shakespeare", 5_000, 32, 128)],
)
def test_bundled_task_has_disjoint_balanced_splits(name, train, validation, test):
    task = load_task(name, max_length=np.int64(64))
    assert (len(task.validation), len(task.test)) == (validation, test)
    assert len(task.train) > train
    assert_disjoint(task)
    assert task.metric == ("accuracy" if task.labels else "perplexity")
    if task.labels:
        assert not any("<br" in text for text in all_texts(task))
        for split in (task.train, task.validation, task.test):
            assert set(split.labels) == {0, 1}
            assert 0.42 < sum(split.labels) / len(split) < 0.58


@given(st.lists(st.text(alphabet="ab \n", max_size=80)))
def test_passages_keep_all_text_and_are_long(paragraphs):
    text = "\n\n".join(paragraphs)
    pieces = passages(text, characters=50)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(piece) >= 50 for piece in pieces[:-1])


# ---- a user's own file


def records(n: int = 20) -> list[dict[str, object]]:
    return [{"text": f"text {i}", "label": ("no", "yes")[i % 2]} for i in range(n)]


def write(folder: Path | str, rows, suffix: str = "csv") -> str:
    """Write rows as csv, or as lines of JSON; a string is written as it is."""
    file = Path(folder) / f"own.{suffix}"
    if suffix == "csv":
        pd.DataFrame(rows).to_csv(file, index=False)
    else:
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        file.write_text("\n".join(lines), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("suffix", ["csv", "ndjson"])
def test_own_file_becomes_a_task(tmp_path, suffix):
    duplicate_and_empty = [{"text": t, "label": f"{n}"} for n, t in enumerate(("  TEXT \t 3 ", " ", ""))]
    file = Path(write(tmp_path, [*records(), *duplicate_and_empty], suffix))
    labels, texts = "the first label of texts with several labels: 1", "skipped rows without text: 2"
    with pytest.warns(LabWarning, match=labels), pytest.warns(LabWarning, match=texts):
        task = load_task(str(file))
    assert task.labels == ("no", "yes")
    assert [len(getattr(task, split)) for split in SPLITS] == [14, 2, 4]
    assert_disjoint(task)
    for text, label in zip(task.test.texts, task.test.labels, strict=True):
        assert label == int(text.split()[1]) % 2
    with pytest.warns(LabWarning):
        assert load_task(str(file), seed=1).test != task.test
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # Windows adds a byte order mark
    with pytest.warns(LabWarning):
        assert load_task(str(file)).train == task.train


def test_long_paragraphs_that_are_mostly_unused_are_named(tmp_path):
    file = tmp_path / "own.txt"
    for words, warned in ((1000, 1), (150, 0)):
        file.write_text("\n\n".join(f"{n} {'word ' * words}" for n in range(20)))
        with warnings.catch_warnings(record=True) as issued:
            assert len(load_task(str(file)).train) == 14
        assert ["but only the first 128 tokens are used" in str(w.message) for w in issued] == [True] * warned


def test_labels_are_sorted_as_numbers_or_text(tmp_path):
    orders = [("-1", "9", "10"), ("10", "a", "b"), ("--1", "2"), ("1", "²"), ("1", "1" * 5000), ("001", "01", "1", "2")]
    for order in orders:  # Python cannot convert the last one to a number
        rows = [{"text": f"text {n}", "label": order[-n % len(order)]} for n in range(40)]
        assert load_task(write(tmp_path, rows, "jsonl")).labels == order


def test_quoted_text_may_contain_commas_newlines_and_quotes(tmp_path):
    long = "x" * 2**17  # above the default limit of Python's csv module
    texts = [f'text {i}, said\nthe "critic",\r\n\nof films{long * (i % 2)}' for i in range(10)]
    task = load_task(write(tmp_path, [{"text": text, "label": i % 2} for i, text in enumerate(texts)]))
    assert sorted(all_texts(task)) == sorted(texts)
    file = tmp_path / "sheet.csv"  # spreadsheets write unnamed columns
    file.write_text("\n".join(["text, label ,,", *(f"{r['text']},{r['label']},," for r in records())]))
    assert {text[:5] for text in load_task(str(file)).train.texts} == {"text "}
    lines = [f"{n}, {n % 2}, {('train', 'validation', 'test')[n // 4]}" for n in range(12)]  # typed by hand
    file.write_text("\n".join(["text, label, split", *lines]))
    assert len(load_task(str(file)).test) == 4


def test_pairs_that_have_labels_too_are_read_as_labeled_texts_with_a_warning(tmp_path):
    rows = [{**row, "prompt": "Why?", "response": "Because."} for row in records()]
    with pytest.warns(LabWarning, match="is read as texts in 'text' with labels in 'label'; to train on its pairs"):
        assert load_task(write(tmp_path, rows, "jsonl"), seed=2**63 - 1).labels == ("no", "yes")


def test_columns_may_be_renamed_and_incomplete_rows_are_dropped(tmp_path):
    rows = [{"review": r["text"], "stars": i % 3 + 8, "response": "Thanks!"} for i, r in enumerate(records())]
    rows += [{"review": None, "stars": 8}, {"review": "a new text", "stars": None}]
    with pytest.warns(LabWarning, match="is null or missing: 2"):
        task = load_task(write(tmp_path, rows, "jsonl"), text="review", label="stars")
    assert len(all_texts(task)) == 20
    assert task.labels == ("8", "9", "10")
    rows = [{**r, "split": ("train", "validation", "test", "train")[i % 4]} for i, r in enumerate(records(8))]
    task = load_task(write(tmp_path, rows))
    assert task.train.texts == ("text 0", "text 3", "text 4", "text 7")
    assert task.test.texts == ("text 2", "text 6")


REFUSED = [
    ("csv", "text,label\na,1\nb,0\n", "has 2 different texts; at least 10"),
    ("csv", "text,class\na,1\nb,0\n", "no column 'label'; it has text, class"),
    ("csv", 'text,label\na,"1\n', "cannot be read as csv"),
    ("csv", 'text,label\n"a\n\nb",1\n\nb,0\n"c\nd", e,1\n', "row 5, saw 3.: put commas .*remove commas at line ends"),
    ("csv", "", "cannot be read as csv: it is empty"),
    ("csv", "text;label\na b;1\n", "no column 'text'; it has text;label: save it with commas between columns"),
    ("csv", "text,label,text\na,1,b\n", "has 2 columns named 'text': rename or remove all but one"),
    ("csv", "text,label\n" + "a,1\nA,2\n" * 9, "column 'label' needs two labels, but has 1 after duplicates"),
    ("csv", "text,label,split\na,1,train\nb,2,validation\na,1,test\n", "deduplicated: 'split' .* train, validation"),
    ("jsonl", '{"instruction": "a", "output": "b"}', "no column .*; pairs have the fields 'prompt' and 'response'"),
    ("csv", "text,label\na,1\nb,0\nc\n", "'label' is empty in 1 rows"),
    ("csv", "text,label\né,1\n".encode("cp1252"), "in Excel: 'CSV UTF-8'"),
    ("jsonl", '{"text": "a", "label": 1}\n\nnot json', "own.jsonl, line 3 is not JSON"),
    ("jsonl", "[" * 100_000, "own.jsonl, line 1 is not JSON"),
    ("jsonl", '{"text": "\\ud800", "label": 1}', "own.jsonl, line 1 is not JSON: .* surrogates"),
    ("jsonl", "", "own.jsonl is empty: write one JSON object per line"),
    ("jsonl", '{"text": "a", "label": 1}\n{"txt": "b", "label": 0}', "line 2 has no text or number in 'text'"),
    ("jsonl", '{"text": "a", "label": [1]}', "line 1 has no text or number in 'label'"),
    ("jsonl", "1\n2\n", 'own.jsonl, line 1 is not an object such as {"text": ..., "label": ...}'),
    ("jsonl", '{"text": "a", "label": 1, "split": "train"}\n{"text": "b", "label": 0}', "it has nothing, train"),
    ("txt", "one paragraph", "has 1 passages .* divided at blank lines"),
    ("pdf", "x", "not a .csv, .jsonl or .txt file"),
]


def test_unknown_task_and_missing_asset_are_named(empty_home):
    for name in ("rtt", "nowhere.csv", "", "a" * 300, 5, None):
        assert_raises(r"no task or file '.*'; pass rt, imdb, tweets, kjv, shakespeare", load_task, name, error=NotFound)
    assert_raises("seed must be an integer", load_task, "rt", seed=None)
    for name, asset, option in (("rt", "reviews", ""), ("tweets", "tweets", " --tweets")):
        assert_raises(f"'{asset}' is missing; run: lora-lab fetch{option}$", load_task, name, error=NotFound)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_label_without_training_text_is_refused_before_training(split, tmp_path):
    rows = [{"text": f"text {n}", "label": "ab"[n % 2], "split": SPLITS[n % 3]} for n in range(40)]
    task = write(tmp_path, [*rows, {"text": "a rare text", "label": "odd", "split": split}])
    with pytest.raises(BadValue, match=f"'odd', but a {split} text does: .*'split'"):
        train("there is no such model", task, LoRA(rank=1), **PLAIN)
    assert len(load_task(task).labels) == 3  # it can still be scored


# ---- prompts with responses, and chats


def pairs(n: int = 20, **fields) -> list[dict]:
    return [{"prompt": f"question {i}?", "response": f"answer {i}", **fields} for i in range(n)]


def test_pairs_are_read_and_split_by_seed(tmp_path):
    task = load_task(write(tmp_path, pairs(), "jsonl"))
    assert [len(getattr(task, split)) for split in SPLITS] == [14, 2, 4]
    windows = tmp_path / "notepad.jsonl"
    windows.write_text("\r\n".join(json.dumps(row) for row in pairs()), encoding="utf-8-sig", newline="")
    assert load_task(str(windows)).test == task.test
    assert task.test != load_task(write(tmp_path, pairs(), "jsonl"), seed=1).test
    chats = [[("system", f"text {i}"), ("user", "Shorten it."), ("assistant", "A text.")] for i in range(20)]
    rows = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in chats]
    task = load_task(write(tmp_path, rows, "jsonl"))  # each conversation counts as a question of its own
    assert [len(getattr(task, split)) for split in SPLITS] == [14, 2, 4]


@given(st.lists(st.sampled_from(["Why?", " why?  ", "How  so?", "how so?", *"abcdefghijkl"]), min_size=10, max_size=40))
def test_answers_to_one_question_stay_in_one_split(prompts):
    rows = [*({"prompt": text, "response": str(n)} for n, text in enumerate(prompts)), *pairs(3)]
    with tempfile.TemporaryDirectory() as folder:
        splits = read_pairs(Path(write(folder, rows, "jsonl")))
    questions = [{" ".join(str(chat).lower().split()) for chat in split.prompts} for split in splits.values()]
    assert all(questions)
    assert sum(map(len, questions)) == len(set().union(*questions))
    assert sum(map(len, splits.values())) == len(rows)


def test_a_test_prompt_that_is_also_in_train_is_reported(tmp_path):
    rows = [*pairs(10, split="train"), *({**row, "prompt": "Where?"} for row in pairs(3, split="validation"))]
    with warnings.catch_warnings(action="error"):
        load_task(write(tmp_path, [*rows, {"prompt": "When?", "response": "Now.", "split": "test"}], "jsonl"))
    with pytest.warns(LabWarning, match="1 rows"):
        load_task(write(tmp_path, [*rows, {**pairs(1)[0], "split": "test"}], "jsonl"))


@given(st.text(min_size=1).filter(str.strip))
def test_only_line_feeds_end_a_line(text):
    """Inside JSON strings, U+2028 and U+0085 are ordinary characters."""
    with tempfile.TemporaryDirectory() as folder:
        splits = read_pairs(Path(write(folder, [*pairs(), {"prompt": text, "response": text, "split": None}], "jsonl")))
    assert text.strip() in [response for split in splits.values() for response in split.texts]


def test_last_answer_of_a_chat_is_learned(tmp_path):
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho"), ("user", "Why?"), ("assistant", "Because.")]
    chat = {"messages": [{"role": role, "content": text} for role, text in turns], "split": "train"}
    held_out = [*pairs(6, split="validation"), *({**row, "prompt": "Where?"} for row in pairs(6, split="test"))]
    train = read_pairs(Path(write(tmp_path, [chat, *held_out], "jsonl")))["train"]
    assert train == Split(("Because.",), prompts=(Chat(tuple(turns[:-1])),))
    assert str(train.prompts[0]) == "Why?"


REFUSED_PAIRS = [
    ("jsonl", rows, re.escape(message))
    for rows, message in (
        ([*pairs(), {"prompt": "x", "response": " "}], "line 21 has no text in 'response'; it has prompt, response"),
        (pairs(9), "contains 9 pairs; at least 10"),
        ([row | {"prompt": "Why?"} for row in pairs()] + pairs(1), "asks 2 different questions; at least 3"),
        (pairs(split=[]), "must contain each of train, validation, test and nothing else; it has []"),
        ([{"messages": "hello"}], "line 1: messages must be a list of objects"),
        ([{"messages": [{"role": "user", "content": "x"}]}], "the last two messages must be the user's message and"),
        ([{"messages": [{"role": "wizard", "content": "x"}]}], "role must be one of system, user, assistant, not 'wi"),
        ([{"messages": [{"role": "user", "content": 3}]}], "has no text in 'content'; it has role, content"),
    )
]


@pytest.mark.parametrize(
    ("suffix", "content", "message"), [*REFUSED, *REFUSED_PAIRS], ids=lambda value: str(value)[:50]
)
def test_invalid_file_is_refused_with_the_reason(tmp_path, suffix, content, message):
    if isinstance(content, list):
        write(tmp_path, content, suffix)
    else:
        (tmp_path / f"own.{suffix}").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(NotFound if "no column" in message else BadValue, match=message):
        load_task(str(tmp_path / f"own.{suffix}"))


# ---- draws of a few training texts


def task_with(labels: list[int]) -> Task:
    split = Split(tuple(f"text {n}" for n in range(len(labels))), tuple(labels))
    return Task("own", ("a", "b", "c"), 8, split, split, split)


@given(st.lists(st.integers(0, 2), min_size=30, max_size=60), st.integers(3, 30), st.integers(0, 5))
def test_draws_are_stratified_and_nested(labels, examples, subset):
    task = task_with(labels + [0, 1, 2] * 10)
    places = chosen_rows(task, examples + 12, subset)
    assert len(set(places)) == examples + 12
    assert places == sorted(places) == chosen_rows(task, examples + 12, subset)
    for label in range(3):
        expected = (examples + 12) * task.train.labels.count(label) / len(task.train)
        assert abs(sum(task.train.labels[place] == label for place in places) - expected) <= 1.5
    assert set(chosen_rows(task, examples + 9, subset)) < set(places)


def test_subsets_differ_and_zero_examples_means_all():
    task = task_with([0, 1] * 100)
    assert len({tuple(chosen_rows(task, 50, subset)) for subset in range(20)}) == 20
    assert chosen_rows(task, 0) == chosen_rows(task, 200, 3) == list(range(200))
    assert task.train.at([2, 5]) == Split(("text 2", "text 5"), (0, 1))
    assert len(chosen_rows(load_task("kjv"), 10)) == 10  # text without labels
    for labels, n, match in (([0, 1, 0, 1], 5, "has 4 training texts, not 5"), ([0, 1, 2], 2, "no text labeled 'c'")):
        assert_raises(match, chosen_rows, task_with(labels), n)
