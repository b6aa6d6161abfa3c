import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_course.paper import e2e
from lora_course.paper.e2e import SLOTS, Meaning, parse
from lora_lab import BadValue, load_task

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
    parse("name[Saltmarsh], eatType[pub], priceRange[£20-25], familyFriendly[yes]"),
    parse("name[Quince], customer rating[5 out of 5], area[riverside]"),
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
        ("a.txt", "name : A | name : B||A .\n", "a.txt, line 1: .* needs one value of the slot name"),
        ("a.csv", "meaning,text\n1,2\n", "needs the columns mr and ref; it has meaning, text"),
        ("a.csv", CSV + 'name[B],"B.\nname[C],C.\n', "a.csv cannot be read as csv: line 5 opens a quotation mark"),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(BadValue, match=message):
            e2e.read_file(tmp_path / name)
    for text, message in (
        ("area[riverside]", "has no name; add name"),
        ("name[A], area[ ]", "one value of the slot area"),
        ("name[A],", "is not of the form slot"),
    ):
        with pytest.raises(BadValue, match=message):
            parse(text)


values = st.text(alphabet="abcÉ £'-5,", min_size=1, max_size=12).map(str.strip).filter(bool)


@given(st.dictionaries(st.sampled_from(SLOTS[1:]), values), values)
def test_meaning_round_trips_through_text(slots, name):
    meaning = Meaning((*slots.items(), ("name", name)))
    assert parse(str(meaning)) == meaning == parse(f" {meaning}\n".replace("],", "] ,"))


def test_published_scores_include_meteor_and_cider():
    header, *rows, source = e2e.published().splitlines()
    assert header.split()[-5:] == ["bleu", "nist", "meteor", "rouge_l", "cider"]
    assert rows[-1].split()[-5:] == ["70.4", "8.85", "46.8", "71.8", "2.53"]
    assert "Hu et al. 2021, table 3" in source
