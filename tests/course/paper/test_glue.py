"""GLUE's files in every form that they come in, and a sentence for what is none of them. All sentences are ours."""

from __future__ import annotations

import json

import pytest

from lora_lab import load_task
from lora_lab.errors import BadValue, NotFound
from lora_lab.training.batches import encode
from lora_lab.training.models import load_tokenizer
from lora_lab.training.tasks import typical_tokens

MORE = "b\tb\tp\tp"
# header, a line, its texts, its label
FORMS = {
    "sst-2": ("sentence\tlabel", "a fine day\t1", ("a fine day", None), 1),
    "mrpc": (
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", '1\t7\t8\tHe said "no .\tHe declined .',
        ('He said "no .', "He declined ."), 1,
    ),
    "cola": ("", "gj04\t0\t*\tThem goes.", ("Them goes.", None), 0),
    "qnli": (
        "index\tquestion\tsentence\tlabel", "0\tWho ran?\tAnn ran.\tnot_entailment", ("Who ran?", "Ann ran."), 1,
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "9\t1\t2\tWhy rain?\tWhy does it rain?\t1",
        ("Why rain?", "Why does it rain?"), 1,
    ),
    "rte": ("index\tsentence1\tsentence2\tlabel", "0\tAnn ran.\tAnn moved.\tentailment", ("Ann ran.", "Ann moved."), 0),
    "sts-b": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "0\tg\tf\t2012\t1\ts\ts\tA cat.\tA dog.\t1.250", ("A cat.", "A dog."), 1.25,
    ),
    "mnli": (
        "index\tpromptID\tpairID\tgenre\tb1\tb2\tp1\tp2\tsentence1\tsentence2\tlabel1\tgold_label",
        f"0\tp\tq\tg\t{MORE}\tAnn ran.\tAnn sat.\tneutral\tcontradiction", ("Ann ran.", "Ann sat."), 2,
    ),
}  # fmt: skip
FILES = {"mnli": ("train", "dev_matched", "dev_mismatched")}


def written(folder, task, lines):
    for stem in FILES.get(task, ("train", "dev")):
        (folder / f"{stem}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_task(f"glue:{task}:{folder}")


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("task", FORMS)
def test_each_task_is_read_with_its_header_and_without(tmp_path, task, header):
    head, line, (first, second), label = FORMS[task]
    found = written(tmp_path, task, [head, line] if head and header else [line])
    assert found.train.texts == (first,)
    assert found.train.seconds == (() if second is None else (second,))
    assert found.train.labels == (label,)
    assert type(found.train.labels[0]) is type(label)
    assert found.validation == found.test  # the dev set; the labels of GLUE's test sets are not public


def test_the_metrics_are_those_that_table_2_reports_and_mnlis_two_dev_sets_are_one(tmp_path):
    tasks = {task: written(tmp_path, task, [x for x in FORMS[task][:2] if x]) for task in FORMS}
    wanted = dict.fromkeys(FORMS, "accuracy") | {"cola": "matthews", "sts-b": "pearson"}
    assert {name: task.metric for name, task in tasks.items()} == wanted
    mnli = tasks["mnli"]
    assert (len(mnli.train), len(mnli.validation), mnli.num_labels) == (1, 2, 3)


def test_the_folder_of_all_tasks_will_do_and_a_quotation_mark_is_a_letter(tmp_path):
    (tmp_path / "SST-2").mkdir()
    written(tmp_path / "SST-2", "sst-2", ["sentence\tlabel", 'she said "no\t0', 'and "yes" too\t1'])
    assert load_task(f"glue:sst-2:{tmp_path}").train.texts == ('she said "no', 'and "yes" too')


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@pytest.mark.parametrize(("task", "label"), [("rte", 1), ("sts-b", 3.5), ("mnli", 2)])
def test_the_hubs_columns_are_read_too(tmp_path, task, label, ending):
    columns = {"mnli": ("premise", "hypothesis")}.get(task, ("sentence1", "sentence2"))
    row = {columns[0]: "Ann, ran.", columns[1]: "Ann moved.", "label": label}
    dev = ("validation_matched", "validation_mismatched") if task == "mnli" else ("validation",)
    for stem in ("train", *dev):
        csv = f'{",".join(row)}\n"Ann, ran.",Ann moved.,{label}\n'
        (tmp_path / f"{stem}.{ending}").write_text(json.dumps(row) + "\n" if ending == "jsonl" else csv)
    found = load_task(f"glue:{task}:{tmp_path}")
    assert (found.train.texts, found.train.seconds, found.train.labels) == (("Ann, ran.",), ("Ann moved.",), (label,))


def test_pairs_are_encoded_as_the_tokenizer_joins_them(tmp_path):
    task = written(tmp_path, "rte", FORMS["rte"][:2])
    tokenizer = load_tokenizer("minilm")
    assert typical_tokens(task) == len("Ann ran." + "Ann moved.") // 4
    (row,) = encode(task.train, task, tokenizer)
    assert list(row.tokens) == tokenizer("Ann ran.", "Ann moved.")["input_ids"]
    (cut,) = encode(task.train, load_task(task.name, max_length=6), tokenizer)
    assert len(cut.tokens) == 6


def test_lines_that_the_download_of_qqp_broke_are_passed_over_and_no_others(tmp_path):
    header, line, *_ = FORMS["qqp"]
    assert len(written(tmp_path, "qqp", [header, "1\t2\tbroken", line]).train) == 1
    header, line, *_ = FORMS["rte"]
    with pytest.raises(BadValue, match=r"train.tsv, line 2: it has 3 columns"):
        written(tmp_path, "rte", [header, "1\t2\tbroken", line])


@pytest.mark.parametrize(
    ("task", "line", "sentence"),
    [
        ("rte", "0\ta\tb\tmaybe", "'maybe' is none of entailment, not_entailment"),
        ("sst-2", "fine\t2", "'2' is none of 0, 1"),
        ("sst-2", "fine\t²", "'²' is none of 0, 1"),
        ("sts-b", "0\tg\tf\t2012\t1\ts\ts\ta\tb\tmuch", "'much' is no number"),
        ("sts-b", "0\tg\tf\t2012\t1\ts\ts\ta\tb\tnan", "'nan' is no number"),
    ],
)
def test_a_label_that_is_none_names_its_line(tmp_path, task, line, sentence):
    with pytest.raises(BadValue, match=rf"train.tsv, line 2: {sentence}"):
        written(tmp_path, task, [FORMS[task][0], line])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("sentence,label\n", "is empty: it holds no row of CoLA"),
        ("sentence,label\nThem, goes.,0\n", "line 2 has 3 fields and the header 2"),
        ('sentence,label\n"Them goes.,0\nHe goes.,1\n', "line 2 opens a quotation mark that is never closed"),
        ("sentence,label\nThem goes.\n", "line 2 has no label; CoLA needs sentence, label"),
        ("sentence,label\nThem goes.,-1\n", "line 2: the label is hidden"),
    ],
)
def test_a_table_that_is_none_says_why(tmp_path, content, sentence):
    (tmp_path / "validation.csv").write_text(content)
    with pytest.raises(BadValue, match=rf"validation.csv.*{sentence}"):
        load_task(f"glue:cola:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("glue:sst2:{}", NotFound, "nearest: sst-2"),
        ("glue:rte", BadValue, "names no folder"),
        ("glue:mnli:{}", NotFound, r"lacks dev_matched.tsv or dev_mismatched.tsv of MNLI"),
        ("glue:rte:/nowhere", NotFound, "there is no folder"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, name, error, words):
    with pytest.raises(error, match=words):
        load_task(name.format(tmp_path))
