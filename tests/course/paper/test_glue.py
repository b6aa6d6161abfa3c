import json

import pytest

from lora_lab import BadValue, NotFound, load_task

HEADERS = {
    "sst-2": "sentence\tlabel",
    "cola": "",  # the download has none
    "mrpc": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "qnli": "index\tquestion\tsentence\tlabel",
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "rte": "index\tsentence1\tsentence2\tlabel",
    "sts-b": "index\tg\tf\tyear\told\ts1\ts2\tsentence1\tsentence2\tscore",
    "mnli": "index\tpromptID\tpairID\tgenre\tb1\tb2\tp1\tp2\tsentence1\tsentence2\tlabel1\tgold_label",
}


def load(folder, task, *lines):
    """Write these lines to the train and dev files of a task, and load it."""
    for stem in ("train", "dev_matched", "dev_mismatched") if task == "mnli" else ("train", "dev"):
        (folder / f"{stem}.tsv").write_text("\n".join(filter(None, lines)) + "\n", encoding="utf-8")
    return load_task(f"glue:{task}:{folder}")


def test_task_is_read_with_and_without_header(tmp_path):
    for task, line, texts, label, metric in (
        ("sst-2", 'she said "no\t1', ['she said "no'], 1, "accuracy"),
        ("mrpc", '1\t7\t8\tHe said "no .\tHe declined .', ['He said "no .', "He declined ."], 1, "accuracy"),
        ("cola", "gj04\t0\t*\tThem goes.", ["Them goes."], 0, "matthews"),
        ("qnli", "0\tWho?\tAnn.\tnot_entailment", ["Who?", "Ann."], 1, "accuracy"),
        ("qqp", "9\t1\t2\tWhy rain?\tWhy does it rain?\t1", ["Why rain?", "Why does it rain?"], 1, "accuracy"),
        ("rte", "0\tAnn ran.\tAnn moved.\tentailment", ["Ann ran.", "Ann moved."], 0, "accuracy"),
        ("sts-b", "0\tg\tf\t2012\t1\ts\ts\tA cat.\tA dog.\t1.250", ["A cat.", "A dog."], 1.25, "pearson"),
        ("mnli", "0\tp\tq\tg\tb\tb\tp\tp\tA.\tB.\tneutral\tcontradiction", ["A.", "B."], 2, "accuracy"),
    ):
        for header in ("", HEADERS[task]):
            loaded = load(tmp_path, task, header, line)
            assert [*loaded.train.texts, *loaded.train.seconds] == texts
            assert (loaded.train.labels, type(loaded.train.labels[0])) == ((label,), type(label))
            assert loaded.metric == metric
            assert loaded.validation == loaded.test  # the labels of GLUE's test sets are not public
            assert len(loaded.validation) == (2 if task == "mnli" else 1)  # MNLI's two dev sets are merged


def test_parent_folder_works_and_unknown_task_is_refused(tmp_path):
    (tmp_path / "SST-2").mkdir()
    load(tmp_path / "SST-2", "sst-2", "fine\t1")
    assert len(load_task(f"glue:sst-2:{tmp_path}").train) == 1
    with pytest.raises(NotFound, match="nearest: sst-2"):
        load_task(f"glue:sst2:{tmp_path}")


@pytest.mark.parametrize(("task", "label", "suffix"), [("rte", 1, "jsonl"), ("sts-b", 3.5, "csv"), ("mnli", 2, "csv")])
def test_hub_files_are_read(tmp_path, task, label, suffix):
    first, second = ("premise", "hypothesis") if task == "mnli" else ("sentence1", "sentence2")
    csv = f'{first},{second},label\n"Ann, ran.",Ann moved.,{label}\n'
    jsonl = json.dumps({first: "Ann, ran.", second: "Ann moved.", "label": label}) + "\n"
    for stem in ("train", *(["validation_matched", "validation_mismatched"] if task == "mnli" else ["validation"])):
        (tmp_path / f"{stem}.{suffix}").write_text(csv if suffix == "csv" else jsonl)
    train = load_task(f"glue:{task}:{tmp_path}").train
    assert (train.texts, train.seconds, train.labels) == (("Ann, ran.",), ("Ann moved.",), (label,))


def test_broken_line_is_skipped_in_qqp_and_refused_elsewhere(tmp_path):
    assert len(load(tmp_path, "qqp", "1\t2\tbroken", "9\t1\t2\tWhy?\tWhy so?\t1").train) == 1
    for task, line, message in (
        ("rte", "1\t2\tbroken", "only 3 columns, too few"),
        ("rte", "0\ta\tb\tmaybe", "'maybe' is not one of entailment, not_entailment"),
        ("sst-2", "fine\t²", "'²' is not one of 0, 1"),
        ("sts-b", "0\tg\tf\t2012\t1\ts\ts\ta\tb\tnan", "'nan' is not a score"),
    ):
        with pytest.raises(BadValue, match=rf"train.tsv, line 2: {message}"):
            load(tmp_path, task, HEADERS[task], line)
