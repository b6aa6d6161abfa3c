"""Tasks: the bundled ones as promised, one's own from a file, and a sentence for every file that cannot be one."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import LoRA, Recipe, load_task, train
from lora_lab.errors import BadValue, NotFound
from lora_lab.training.tasks import Split, Task, chosen_rows, passages
from tests.training.conftest import PLAIN


def assert_disjoint(task: Task) -> None:
    texts = task.train.texts + task.validation.texts + task.test.texts
    everything = [" ".join(text.lower().split()) for text in texts]  # case and spaces do not count
    assert len(everything) == len(set(everything))
    assert "" not in everything


@pytest.fixture(scope="module")
def bundled():
    kept = {}
    return lambda name: kept.setdefault(name, load_task(name))


@pytest.mark.parametrize(
    ("name", "train", "validation", "test"),
    [("rt", 6_000, 500, 2000), ("imdb", 20_000, 500, 2000), ("kjv", 2_500, 32, 128), ("shakespeare", 5_000, 32, 128)],
)
def test_bundled_tasks_have_their_sizes_and_share_no_text_between_splits(bundled, name, train, validation, test):
    task = bundled(name)
    assert (len(task.validation), len(task.test)) == (validation, test)
    assert len(task.train) > train
    assert_disjoint(task)
    assert task.metric == ("accuracy" if task.labels else "perplexity")


@pytest.mark.parametrize("name", ["rt", "imdb"])
def test_reviews_are_labeled_balanced_and_free_of_markup(bundled, name):
    task = bundled(name)
    assert (task.labels, task.num_labels, task.metric) == (("negative", "positive"), 2, "accuracy")
    for split in (task.train, task.validation, task.test):
        assert len(split.labels) == len(split)
        assert set(split.labels) == {0, 1}
        assert 0.42 < sum(split.labels) / len(split) < 0.58
        assert not any("<br" in text for text in split.texts)


def test_the_seed_decides_what_is_held_out(bundled):
    again, other = load_task("rt"), load_task("rt", seed=1)
    assert again == bundled("rt")
    assert other.test != again.test
    assert sorted(other.train.texts + other.validation.texts + other.test.texts) == sorted(
        again.train.texts + again.validation.texts + again.test.texts
    )


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
    task = load_task(write(tmp_path, records(), suffix))
    assert task.labels == ("no", "yes")
    assert (len(task.train), len(task.validation), len(task.test)) == (14, 2, 4)
    assert_disjoint(task)
    for text, label in zip(task.test.texts, task.test.labels, strict=True):
        assert label == int(text.split()[1]) % 2


@pytest.mark.parametrize("more", ["", "x" * 2**17])  # longer than Python's csv reads of its own
def test_a_text_in_quotes_may_hold_commas_lines_and_quotes(tmp_path, more):
    texts = [f'text {i}, said\nthe "critic",\r\n\nof films{more}' for i in range(10)]
    task = load_task(write(tmp_path, [{"text": text, "label": i % 2} for i, text in enumerate(texts)]))
    assert sorted(task.train.texts + task.validation.texts + task.test.texts) == sorted(texts)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_the_mark_that_windows_puts_before_a_text_is_not_read(tmp_path, suffix):
    plain = Path(write(tmp_path, records(), suffix))
    marked = tmp_path / f"marked.{suffix}"
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    assert load_task(str(marked)).train == load_task(str(plain)).train


def test_repeats_that_differ_in_case_and_spaces_are_kept_once(tmp_path):
    rows = [*records(), {"text": "  TEXT \t 3 ", "label": "no"}, {"text": " ", "label": "no"}]
    task = load_task(write(tmp_path, rows))
    assert len(task.train) + len(task.validation) + len(task.test) == 20
    assert_disjoint(task)


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


@pytest.mark.parametrize(
    ("name", "content", "error", "sentence"),
    [
        ("own.csv", "text,label\na,1\n", BadValue, "has 1 different labels; at least 2"),
        ("own.csv", "text,label\na,1\nb,0\n", BadValue, "has 2 different texts; at least 10"),
        ("own.csv", "text,class\na,1\nb,0\n", NotFound, "no column 'label'; it has text, class"),
        ("own.csv", 'text,label\na,"1\n', BadValue, "cannot be read as csv"),
        ("own.csv", 'text,label\n"a\n\nb",1\n\nb,0\n"c\nd", e,1\n', BadValue, "line 7 has 3 fields"),
        ("own.csv", "text,label\na,1,\nb,0,\n", BadValue, "line 2 has 3 fields.*remove commas at line ends"),
        ("own.csv", "text;label\na, b;1\n", NotFound, "no column 'text'; it has text;label"),
        ("own.csv", "text,label,split\na,1,train\nb,0,test\n", BadValue, "and nothing else; it has test, train"),
        ("own.csv", "text,label\na,1\nb,0\nc\n", BadValue, "'label' is empty in 1 rows"),
        ("own.jsonl", '{"text": "a", "label": 1}\n\nnot json', BadValue, "own.jsonl, line 3 is not JSON"),
        ("own.jsonl", "[" * 100_000, BadValue, "own.jsonl, line 1 is not JSON"),
        ("own.jsonl", '{"text": "\\ud800", "label": 1}', BadValue, "own.jsonl, line 1 is not JSON: .* surrogates"),
        ("own.jsonl", "", NotFound, "no column 'text'; it has nothing"),
        ("own.jsonl", "1\n2\n", BadValue, 'own.jsonl, line 1 is not an object such as {"text": ..., "label": ...}'),
        ("own.txt", "one paragraph", BadValue, "has 1 passages"),
        ("own.csv", "text,label\né,1\n".encode("cp1252"), BadValue, "in Excel: 'CSV UTF-8'"),
        (
            "own.jsonl",
            '{"text": "a", "label": 1, "split": "train"}\n{"text": "b", "label": 0, "split": null}\n',
            BadValue,
            "and nothing else; it has nothing, train",
        ),
        ("own.pdf", "x", BadValue, "not a .csv, .jsonl or .txt file"),
    ],
)
def test_a_file_that_cannot_be_a_task_says_why(tmp_path, name, content, error, sentence):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=sentence):
        load_task(str(file))


@pytest.mark.parametrize("name", ["rtt", "nowhere.csv", ""])
def test_an_unknown_task_names_those_there_are(name):
    with pytest.raises(NotFound, match=r"no task or file '.*'; give rt, imdb, tweets, kjv, shakespeare"):
        load_task(name)


def test_a_task_whose_asset_is_missing_names_the_command(empty_home):
    with pytest.raises(NotFound, match=r"'reviews' is missing; run: lora-lab fetch$"):
        load_task("rt")
    with pytest.raises(NotFound, match=r"'tweets' is missing; run: lora-lab fetch --tweets$"):
        load_task("tweets")


@pytest.mark.parametrize("order", [("-1", "9", "10"), ("10", "a", "b"), ("--1", "2"), ("1", "²")])
def test_labels_are_in_the_order_of_numbers_or_letters(tmp_path, order):
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


def rare(folder: Path, split: str) -> str:
    """A CSV of 40 texts with a column `split`, one of whose labels only a text of this split has."""
    rows = [f"text {n},{'ab'[n % 2]},{'train' if n < 20 else 'validation' if n < 30 else 'test'}" for n in range(40)]
    file = folder / "own.csv"
    file.write_text("\n".join(["text,label,split", *rows, f"a rare text,odd,{split}"]))
    return str(file)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_no_training_text_has_is_refused_before_a_model_is_loaded(split, tmp_path):
    recipe = Recipe("there is no such model", rare(tmp_path, split), LoRA(rank=1), **PLAIN)
    with pytest.raises(BadValue, match=f"'odd' of a {split} text: .*'split'"):
        train(recipe)
    assert len(load_task(recipe.task).labels) == 3  # it can be scored
