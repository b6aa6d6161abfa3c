"""GLUE's files in every form that they come in, and a sentence for what is none of them. All sentences are ours."""

import json

import pytest

from lora_lab import load_task
from lora_lab.errors import BadValue, NotFound

RTE, STS_B = "index\tsentence1\tsentence2\tlabel", "index\tg\tf\tyear\told\ts1\ts2\tsentence1\tsentence2\tscore"
MNLI = "index\tpromptID\tpairID\tgenre\tb1\tb2\tp1\tp2\tsentence1\tsentence2\tlabel1\tgold_label"
MRPC, QQP = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
FORMS = {  # header, a line, its texts, its label, the metric
    "sst-2": ("sentence\tlabel", 'she said "no\t1', ('she said "no',), 1, "accuracy"),
    "mrpc": (MRPC, '1\t7\t8\tHe said "no .\tHe declined .', ('He said "no .', "He declined ."), 1, "accuracy"),
    "cola": ("", "gj04\t0\t*\tThem goes.", ("Them goes.",), 0, "matthews"),
    "qnli": ("index\tquestion\tsentence\tlabel", "0\tWho?\tAnn.\tnot_entailment", ("Who?", "Ann."), 1, "accuracy"),
    "qqp": (QQP, "9\t1\t2\tWhy rain?\tWhy does it rain?\t1", ("Why rain?", "Why does it rain?"), 1, "accuracy"),
    "rte": (RTE, "0\tAnn ran.\tAnn moved.\tentailment", ("Ann ran.", "Ann moved."), 0, "accuracy"),
    "sts-b": (STS_B, "0\tg\tf\t2012\t1\ts\ts\tA cat.\tA dog.\t1.250", ("A cat.", "A dog."), 1.25, "pearson"),
    "mnli": (MNLI, "0\tp\tq\tg\tb\tb\tp\tp\tAnn ran.\tAnn sat.\tneutral\tcontradiction", ("Ann ran.", "Ann sat."), 2,
             "accuracy"),
}  # fmt: skip
FILES = {"mnli": ("train", "dev_matched", "dev_mismatched")}


def written(folder, task, lines):
    for stem in FILES.get(task, ("train", "dev")):
        (folder / f"{stem}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_task(f"glue:{task}:{folder}")


@pytest.mark.parametrize("task", FORMS)
def test_each_task_is_read_with_its_header_and_without(tmp_path, task):
    head, line, texts, label, metric = FORMS[task]
    for lines in ([head, line] if head else [line], [line]):
        found = written(tmp_path, task, lines)
        assert (found.train.texts, found.train.labels, found.metric) == ((texts[0],), (label,), metric)
        assert found.train.seconds == texts[1:]
        assert type(found.train.labels[0]) is type(label)
        assert found.validation == found.test  # the dev set; the labels of GLUE's test sets are not public
        assert len(found.validation) == len(FILES.get(task, ("train", "dev"))) - 1  # MNLI's two dev sets are one


def test_the_folder_of_all_tasks_will_do(tmp_path):
    (tmp_path / "SST-2").mkdir()
    written(tmp_path / "SST-2", "sst-2", FORMS["sst-2"][:2])
    assert len(load_task(f"glue:sst-2:{tmp_path}").train) == 1
    with pytest.raises(NotFound, match="nearest: sst-2"):
        load_task(f"glue:sst2:{tmp_path}")


@pytest.mark.parametrize(("task", "label", "ending"), [("rte", 1, "jsonl"), ("sts-b", 3.5, "csv"), ("mnli", 2, "csv")])
def test_the_hubs_columns_are_read_too(tmp_path, task, label, ending):
    columns = {"mnli": ("premise", "hypothesis")}.get(task, ("sentence1", "sentence2"))
    row = {columns[0]: "Ann, ran.", columns[1]: "Ann moved.", "label": label}
    dev = ("validation_matched", "validation_mismatched") if task == "mnli" else ("validation",)
    for stem in ("train", *dev):
        csv = f'{",".join(row)}\n"Ann, ran.",Ann moved.,{label}\n'
        (tmp_path / f"{stem}.{ending}").write_text(json.dumps(row) + "\n" if ending == "jsonl" else csv)
    found = load_task(f"glue:{task}:{tmp_path}")
    assert (found.train.texts, found.train.seconds, found.train.labels) == (("Ann, ran.",), ("Ann moved.",), (label,))


def test_lines_that_the_download_of_qqp_broke_are_passed_over_and_no_others(tmp_path):
    header, line, *_ = FORMS["qqp"]
    assert len(written(tmp_path, "qqp", [header, "1\t2\tbroken", line]).train) == 1
    with pytest.raises(BadValue, match=r"train.tsv, line 2: only 3 columns, too few"):
        written(tmp_path, "rte", [RTE, "1\t2\tbroken", line])


@pytest.mark.parametrize(
    ("task", "line", "sentence"),
    [
        ("rte", "0\ta\tb\tmaybe", "'maybe' is not one of entailment, not_entailment"),
        ("sst-2", "fine\t²", "'²' is not one of 0, 1"),
        ("sts-b", "0\tg\tf\t2012\t1\ts\ts\ta\tb\tnan", "'nan' is not a score"),
    ],
)
def test_a_label_that_is_none_names_its_line(tmp_path, task, line, sentence):
    with pytest.raises(BadValue, match=rf"train.tsv, line 2: {sentence}"):
        written(tmp_path, task, [FORMS[task][0], line])
