"""Tasks: the bundled ones as promised, one's own from a file, and a sentence for every file that cannot be one."""

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import LoRA, load_task, train
from lora_lab.errors import BadValue, LabWarning, NotFound
from lora_lab.training.tasks import SPLITS, Split, Task, chosen_rows, passages
from tests.conftest import PLAIN


def assert_disjoint(task: Task) -> None:
    texts = task.train.texts + task.validation.texts + task.test.texts
    everything = [" ".join(text.lower().split()) for text in texts]  # case and spaces do not count
    assert len(everything) == len(set(everything))
    assert "" not in everything


@pytest.mark.parametrize(
    ("name", "train", "validation", "test"),
    [("rt", 6_000, 500, 2000), ("imdb", 20_000, 500, 2000), ("kjv", 2_500, 32, 128), ("shakespeare", 5_000, 32, 128)],
)
def test_bundled_tasks_have_their_sizes_and_share_no_text_between_splits(name, train, validation, test):
    task = load_task(name)
    assert (len(task.validation), len(task.test)) == (validation, test)
    assert len(task.train) > train
    assert_disjoint(task)
    assert task.metric == ("accuracy" if task.labels else "perplexity")
    for split in (task.train, task.validation, task.test) if task.labels else ():  # balanced, and free of markup
        assert set(split.labels) == {0, 1}
        assert 0.42 < sum(split.labels) / len(split) < 0.58
        assert not any("<br" in text for text in split.texts)


@given(st.lists(st.text(alphabet="ab \n", max_size=80)))
def test_passages_lose_nothing_and_are_long(paragraphs):
    text = "\n\n".join(paragraphs)
    pieces = passages(text, characters=50)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(piece) >= 50 for piece in pieces[:-1])


# ---- a user's own


def records(n: int = 20) -> list[dict[str, object]]:
    return [{"text": f"text {i}", "label": ("no", "yes")[i % 2]} for i in range(n)]


def write(tmp_path, rows, suffix: str = "csv") -> str:
    file = tmp_path / f"own.{suffix}"
    if suffix == "csv":
        pd.DataFrame(rows).to_csv(file, index=False)
    else:
        file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "ndjson"])
def test_a_file_of_ones_own_is_a_task(tmp_path, suffix):
    repeats = [{"text": "  TEXT \t 3 ", "label": "no"}, {"text": " ", "label": "no"}]  # case and spaces do not count
    file = Path(write(tmp_path, [*records(), *repeats], suffix))
    task = load_task(str(file))
    assert task.labels == ("no", "yes")
    assert (len(task.train), len(task.validation), len(task.test)) == (14, 2, 4)
    assert_disjoint(task)
    for text, label in zip(task.test.texts, task.test.labels, strict=True):
        assert label == int(text.split()[1]) % 2
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # the mark that Windows puts before a text
    assert load_task(str(file)).train == task.train
    assert load_task(str(file), seed=1).test != task.test


def test_labels_of_rows_that_are_left_out_are_no_classes_and_two_labels_of_a_text_are_warned_of(tmp_path):
    rows = [*records(), {"text": " ", "label": "maybe"}, {"text": "TEXT 1", "label": "no"}]
    with pytest.warns(LabWarning, match="1 texts have more than one label"):
        assert load_task(write(tmp_path, rows)).labels == ("no", "yes")
    rows = [{"text": f"text {n}", "label": "1" * (5000 if n % 2 else 1)} for n in range(20)]
    assert load_task(write(tmp_path, rows, "jsonl")).num_labels == 2  # more digits than Python reads as a number


def test_a_text_in_quotes_may_hold_commas_lines_and_quotes(tmp_path):
    long = "x" * 2**17  # longer than Python's csv reads of its own
    texts = [f'text {i}, said\nthe "critic",\r\n\nof films{long * (i % 2)}' for i in range(10)]
    task = load_task(write(tmp_path, [{"text": text, "label": i % 2} for i, text in enumerate(texts)]))
    assert sorted(task.train.texts + task.validation.texts + task.test.texts) == sorted(texts)


def test_rows_without_text_or_label_are_left_out_columns_may_have_other_names_and_numbers_stay_whole(tmp_path):
    rows = [{"review": r["text"], "stars": i % 3 + 8} for i, r in enumerate(records())]
    rows += [{"review": None, "stars": 8}, {"review": "a new text", "stars": None}]
    task = load_task(write(tmp_path, rows, "jsonl"), text="review", label="stars")
    assert len(task.train) + len(task.validation) + len(task.test) == 20
    assert task.labels == ("8", "9", "10")


def test_columns_without_a_name_and_with_the_same_one_are_no_obstacle(tmp_path):
    """As spreadsheets leave them; of two with one name the first counts."""
    file = tmp_path / "own.csv"
    lines = [f"{r['text']},{r['label']},twice,," for r in records()]
    file.write_text("\n".join(["text,label,text,,", *lines]))
    assert {text[:5] for text in load_task(str(file)).train.texts} == {"text "}


def test_a_column_split_is_used_as_it_stands(tmp_path):
    rows = [{**r, "split": ("train", "validation", "test", "train")[i % 4]} for i, r in enumerate(records(8))]
    task = load_task(write(tmp_path, rows))
    assert task.train.texts == ("text 0", "text 3", "text 4", "text 7")
    assert task.test.texts == ("text 2", "text 6")


REFUSED = [
    ("csv", "text,label\na,1\n", "has 1 different labels; at least 2"),
    ("csv", "text,label\na,1\nb,0\n", "has 2 different texts; at least 10"),
    ("csv", "text,class\na,1\nb,0\n", "no column 'label'; it has text, class"),
    ("csv", 'text,label\na,"1\n', "cannot be read as csv"),
    ("csv", 'text,label\n"a\n\nb",1\n\nb,0\n"c\nd", e,1\n', "line 7 has 3 fields"),
    ("csv", "text,label\na,1,\nb,0,\n", "line 2 has 3 fields.*remove commas at line ends"),
    ("csv", "text;label\na, b;1\n", "no column 'text'; it has text;label"),
    ("csv", "text,label,split\na,1,train\nb,0,test\n", "and nothing else; it has test, train"),
    ("csv", "text,label\na,1\nb,0\nc\n", "'label' is empty in 1 rows"),
    ("csv", "text,label\né,1\n".encode("cp1252"), "in Excel: 'CSV UTF-8'"),
    ("jsonl", '{"text": "a", "label": 1}\n\nnot json', "own.jsonl, line 3 is not JSON"),
    ("jsonl", "[" * 100_000, "own.jsonl, line 1 is not JSON"),
    ("jsonl", '{"text": "\\ud800", "label": 1}', "own.jsonl, line 1 is not JSON: .* surrogates"),
    ("jsonl", "", "no column 'text'; it has nothing"),
    ("jsonl", "1\n2\n", 'own.jsonl, line 1 is not an object such as {"text": ..., "label": ...}'),
    (
        "jsonl",
        '{"text": "a", "label": 1, "split": "train"}\n{"text": "b", "label": 0, "split": null}\n',
        "and nothing else; it has nothing, train",
    ),
    ("txt", "one paragraph", "has 1 passages"),
    ("pdf", "x", "not a .csv, .jsonl or .txt file"),
]


def test_a_file_that_cannot_be_a_task_says_why_and_an_unknown_task_names_those_there_are(tmp_path):
    for suffix, content, sentence in REFUSED:
        file = tmp_path / f"own.{suffix}"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(NotFound if "no column" in sentence else BadValue, match=sentence):
            load_task(str(file))
    for name in ("rtt", "nowhere.csv", ""):
        with pytest.raises(NotFound, match=r"no task or file '.*'; pass rt, imdb, tweets, kjv, shakespeare"):
            load_task(name)


def test_a_task_whose_asset_is_missing_names_the_command(empty_home):
    with pytest.raises(NotFound, match=r"'reviews' is missing; run: lora-lab fetch$"):
        load_task("rt")
    with pytest.raises(NotFound, match=r"'tweets' is missing; run: lora-lab fetch --tweets$"):
        load_task("tweets")


def test_labels_are_in_the_order_of_numbers_or_letters(tmp_path):
    for order in (("-1", "9", "10"), ("10", "a", "b"), ("--1", "2"), ("1", "²")):
        rows = [{"text": f"text {n}", "label": order[-n % len(order)]} for n in range(40)]
        assert load_task(write(tmp_path, rows)).labels == order


# ---- draws of a few training texts: balanced, nested, repeatable


def made(*labels: int) -> Task:
    """A task with these labels on its training texts."""
    some = Split(tuple(f"text {n}" for n in range(len(labels))), labels)
    return Task("made", ("a", "b", "c"), 8, some, some, some)


@given(st.lists(st.integers(0, 2), min_size=30, max_size=60), st.integers(3, 30), st.integers(0, 5))
def test_a_draw_is_balanced_as_the_data_are_and_holds_every_smaller_one(labels, examples, subset):
    task = made(*labels, *[0, 1, 2] * 10)
    places = chosen_rows(task, examples + 12, subset)
    assert len(set(places)) == examples + 12
    assert places == sorted(places)
    for label in range(3):
        expected = (examples + 12) * task.train.labels.count(label) / len(task.train)
        assert abs(sum(task.train.labels[place] == label for place in places) - expected) <= 1.5
    assert set(chosen_rows(task, examples + 9, subset)) < set(places)


def test_a_draw_is_the_same_whenever_it_is_made_and_others_differ():
    task = made(*[0, 1] * 100)
    assert chosen_rows(task, 50) == chosen_rows(task, 50, 0)
    assert len({tuple(chosen_rows(task, 50, subset)) for subset in range(20)}) == 20
    assert chosen_rows(task, 0) == chosen_rows(task, 200, 3) == list(range(200))
    assert task.train.at([2, 5]) == Split(("text 2", "text 5"), (0, 1))
    assert len(chosen_rows(load_task("kjv"), 10)) == 10  # text without labels


def test_a_draw_that_cannot_be_says_why():
    with pytest.raises(BadValue, match="has 4 training texts, not 5"):
        chosen_rows(made(0, 1, 0, 1), 5)
    with pytest.raises(BadValue, match="2 examples of made contain no 'c'"):
        chosen_rows(made(0, 1, 2), 2)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_no_training_text_has_is_refused_before_a_model_is_loaded(split, tmp_path):
    rows = [{"text": f"text {n}", "label": "ab"[n % 2], "split": SPLITS[n % 3]} for n in range(40)]
    task = write(tmp_path, [*rows, {"text": "a rare text", "label": "odd", "split": split}])
    with pytest.raises(BadValue, match=f"'odd', but a {split} text does: .*'split'"):
        train("there is no such model", task, LoRA(rank=1), **PLAIN)
    assert len(load_task(task).labels) == 3  # it can be scored
