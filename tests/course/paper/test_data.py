import json
from itertools import product
from random import Random
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from lora_course.paper import e2e
from lora_course.paper.e2e import SLOTS, parse, written
from lora_course.paper.glue import TASKS
from lora_course.paper.slot_errors import ADDED, MISSING, RIGHT, WRONG, Matcher, levels, scores
from lora_lab import load_task
from lora_lab.training.assets import shipped
from tests.conftest import assert_raises

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
    folder.mkdir(exist_ok=True)
    for stem in ("train", "dev_matched", "dev_mismatched") if task == "mnli" else ("train", "dev"):
        (folder / f"{stem}.tsv").write_text("\n".join(filter(None, lines)) + "\n", encoding="utf-8")
    return load_task(f"glue:{task}:{folder}")


def test_task_is_read_with_and_without_header(tmp_path):
    for task, line, texts, label, metric in (
        ("sst-2", 'she said\r"no\t1\r', ['she said\r"no'], 1, "accuracy"),
        ("mrpc", '1\t7\t8\tHe said "no .\tHe declined .', ['He said "no .', "He declined ."], 1, "accuracy"),
        ("cola", "gj04\t0\t*\tThem goes.", ["Them goes."], 0, "matthews"),
        ("qnli", "0\tWho?\tAnn.\tnot_entailment", ["Who?", "Ann."], 1, "accuracy"),
        ("qqp", "9\t1\t2\tWhy rain?\tWhy does it rain?\t1", ["Why rain?", "Why does it rain?"], 1, "accuracy"),
        ("rte", "0\tAnn ran.\tAnn moved.\tentailment", ["Ann ran.", "Ann moved."], 0, "accuracy"),
        ("sts-b", "0\tg\tf\t2012\t1\ts\ts\tA cat.\tA dog.\t1.250", ["A cat.", "A dog."], 1.25, "pearson"),
        ("mnli", "0\tp\tq\tg\tb\tb\tp\tp\tA.\tB.\tneutral\tcontradiction", ["A.", "B."], 2, "accuracy"),
    ):
        for header in ("", HEADERS[task]):
            loaded = load(tmp_path / TASKS[task].folder, task, header, line)
            assert load_task(f"glue:{task}:{tmp_path}").train == loaded.train  # of the folder's parent
            assert [*loaded.train.texts, *loaded.train.seconds] == texts
            assert (loaded.train.labels, type(loaded.train.labels[0])) == ((label,), type(label))
            assert loaded.metric == metric
            assert loaded.validation == loaded.test  # the labels of GLUE's test sets are not public
            assert len(loaded.validation) == (2 if task == "mnli" else 1)  # MNLI's two dev sets are merged


def test_hub_files_are_read(tmp_path):
    jsonl = json.dumps({"sentence1": "Ann, ran.", "sentence2": "Ann moved.", "label": 1}) + "\n"
    csv = 'premise,hypothesis,label\n"Ann, ran.",Ann moved.,2\n'
    for task, label, content, *files in (
        ("rte", 1, jsonl, "train.jsonl", "validation.jsonl"),
        ("mnli", 2, csv, "train.csv", "validation_matched.csv", "validation_mismatched.csv"),
    ):
        (folder := tmp_path / task).mkdir()
        for file in files:
            (folder / file).write_text(content)
        train = load_task(f"glue:{task}:{folder}").train
        assert (train.texts, train.seconds, train.labels) == (("Ann, ran.",), ("Ann moved.",), (label,))


def test_broken_line_is_skipped_in_qqp_and_refused_elsewhere(tmp_path):
    assert len(load(tmp_path, "qqp", "1\t2\tbroken", "9\t1\t2\tWhy?\tWhy so?\t1").train) == 1
    for task, line, message in (
        ("rte", "1\t2\tbroken", "only 3 columns, too few"),
        ("rte", "0\ta\tb\tmaybe", "'maybe' is not one of entailment, not_entailment"),
        ("sst-2", "fine\t²", "'²' is not one of 0, 1"),
        ("sts-b", "0\tg\tf\t2012\t1\ts\ts\ta\tb\tnan", "'nan' is not a similarity score"),
    ):
        assert_raises(rf"train.tsv, line 2: {message}", load, tmp_path, task, HEADERS[task], line)
    for stem in ("train", "dev"):
        (tmp_path / f"{stem}.tsv").unlink(missing_ok=True)
        (tmp_path / f"{stem}.csv").write_text("sentence1,sentence2,label\na,b,maybe\n")
    assert_raises(r"train.csv, row 2: 'maybe'", load_task, f"glue:rte:{tmp_path}")


TXT = """name : Saltmarsh | Type : pub | price : £ 20 - 25 | family friendly : yes||Saltmarsh is family - friendly .
name : Saltmarsh | Type : pub | price : £ 20 - 25 | family friendly : yes||A pub for families : Saltmarsh .
name : Quince | customer rating : 5 out of 5 | area : riverside||Quince has 5 stars and is by the river .
"""
CSV = """mr,ref
"name[Saltmarsh], eatType[pub], priceRange[£20-25], familyFriendly[yes]","Saltmarsh, a pub, is family-friendly."
"name[Saltmarsh], eatType[pub], priceRange[£20-25], familyFriendly[yes]",A pub for families: Saltmarsh.
"name[Quince], customer rating[5 out of 5], area[riverside]",Quince has 5 stars.
"""
MEANINGS = [
    "name[Saltmarsh], eatType[pub], priceRange[£20-25], familyFriendly[yes]",
    "name[Quince], customer rating[5 out of 5], area[riverside]",
]


def test_txt_and_csv_give_the_same_meanings(tmp_path):
    for name, content in {"train.txt": TXT, "devset.csv": CSV, "test.csv": "\ufeff" + CSV}.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        examples = e2e.read_file(tmp_path / name)
        assert [example.meaning for example in examples] == MEANINGS
        assert [len(example.references) for example in examples] == [2, 1]
    task = load_task(str(tmp_path))
    assert (len(task.train), len(task.validation), len(task.test)) == (3, 2, 2)
    assert task.test.prompts[0] == f"{MEANINGS[0]}\n"
    assert task.test.references[0][1] == "A pub for families: Saltmarsh."


def test_invalid_file_and_meaning_are_refused(tmp_path):
    for name, content, message in (
        ("a.txt", "name : A | area : riverside\n", r"a.txt, line 1: no \|\|reference"),
        ("a.txt", TXT + "name:A|aera:x||A.\n", "line 4: a meaning representation has no slot 'aera'; nearest: area"),
        ("a.txt", "name : A | name : B||A .\n", "a.txt, line 1: .* needs exactly one value for the slot name"),
        ("a.csv", "meaning,text\n1,2\n", "needs the columns mr and ref; it has meaning, text"),
        ("a.csv", "\n\nmr,ref\n\n , \narea[riverside],R.\n", "a.csv, row 4: .*has no name; add name"),
        ("a.csv", 'mr,ref\n"name[A], area[ ]",A.\n', "value for the slot area"),
        ("a.csv", 'mr,ref\n"name[A],",A.\n', "is not of the form slot"),
        ("a.csv", CSV + 'name[B],"B.\nname[C],C.\n', "a.csv .* .a quotation mark is never closed, after row 4"),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert_raises(message, e2e.read_file, tmp_path / name)


values = st.text(alphabet="abcÉ £'-5,", min_size=1, max_size=12).map(str.strip).filter(bool)


@given(st.dictionaries(st.sampled_from(SLOTS[1:]), values), values)
def test_meaning_round_trips_through_text(slots, name):
    meaning = slots | {"name": name}
    text = written(meaning.items())
    assert parse(text) == meaning == parse(f" {text}\n".replace("],", "] ,"))


def read(split: str) -> list[tuple[dict[str, str], list[str]]]:
    lines = shipped(f"data/restaurants/{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [(parse(row["meaning"]), row["references"]) for row in map(json.loads, lines)]


EXAMPLES = read("train")[:400] + read("validation") + read("test")
MATCHER = Matcher([slots for slots, _ in EXAMPLES])
VALUES = {slot: sorted({slots[slot] for slots, _ in EXAMPLES if slot in slots}) for slot in SLOTS}


def errors(slots: dict[str, str], text: str) -> dict[str, str]:
    return {slot: kind for slot, kind in MATCHER.judge(slots, text).items() if kind != RIGHT}


def test_our_references_have_no_errors_and_a_second_value_is_added():
    assert not [(text, wrong) for slots, texts in EXAMPLES for text in texts if (wrong := errors(slots, text))]
    slots = {"name": VALUES["name"][0], "area": "riverside"}
    assert errors(slots, f"{slots['name']} is by the river.") == {}
    assert errors(slots, f"{slots['name']} is by the river, in the city centre.") == {"area": ADDED}


def test_slot_left_out_changed_or_added_is_one_error():
    """Compare each sentence with a meaning that differs from its own in a single slot."""
    rng, kinds = Random("mutations"), set()
    for (slots, references), slot in product(EXAMPLES, SLOTS):
        text = rng.choice(references)
        if slot in slots:
            level = next((values for values, _ in levels().get(slot, ()) if slots[slot] in values), (slots[slot],))
            changed = rng.choice([value for value in VALUES[slot] if value not in level])
            cases = [(WRONG, {**slots, slot: changed})]
            if slot != "name":
                cases.append((ADDED, {name: value for name, value in slots.items() if name != slot}))
        else:
            cases = [(MISSING, {**slots, slot: rng.choice(VALUES[slot])})]
        for kind, mutated in cases:
            assert errors(mutated, text) == {slot: kind}
            kinds.add((slot, kind))
    assert kinds == {("name", WRONG), *product(SLOTS[1:], (MISSING, WRONG, ADDED))}


def test_rate_is_errors_over_requested_slots():
    meaning = "name[Quince], area[riverside], food[Italian], familyFriendly[yes]"
    texts = [
        "Quince serves Italian food by the river and welcomes children.",
        "Quince is a cheap place in the city centre.",
    ]
    split = SimpleNamespace(prompts=[meaning])
    result = scores(SimpleNamespace(test=split, train=split), [meaning] * 2, texts)
    assert result.details["kinds"] == {RIGHT: 5, MISSING: 2, WRONG: 1, ADDED: 1}
    assert result.metrics == {"slot_errors": 4 / 8}
