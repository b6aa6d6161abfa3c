import json
import quopri
import re
import textwrap
import zlib
from base64 import b64encode
from dataclasses import replace
from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_course import lesson, receipts
from lora_course.cli.classroom import summary
from lora_course.receipts import Check, Range, Receipt, coverage, read
from tests.conftest import assert_raises

texts = st.text("LZ1 aé评:#.>_-09", max_size=20).map(str.strip)
numbers = st.floats(-1e6, 1e6)
ranges = st.builds(Range, texts, st.none() | numbers, st.none() | numbers, st.integers(1, 9), st.none() | numbers)
checks = st.dictionaries(texts, st.builds(Check, st.booleans(), st.integers(0, 99)), max_size=3)
valid = st.builds(
    Receipt, st.sampled_from(["00", "03"]), texts, checks, st.lists(ranges, max_size=3), st.dictionaries(texts, numbers)
)
ADA = Receipt("03", "Ada", {"rows": Check(True, 2)}, [Range("points", 1.0, 3.0, 1, 2.5)], {"accuracy": 0.81})


def line_of(content: str) -> str:
    packed = zlib.compress(content.encode())
    return f"LL1 03 Ada: {b64encode(packed).decode()}.{zlib.crc32(packed):08x}"


@given(valid, st.integers(30, 200), st.sampled_from(["", "> ", "\t", "\u200b"]))
def test_receipt_is_read_from_a_chat_that_wraps_and_quotes(receipt: Receipt, width: int, quote: str):
    wrapped = textwrap.wrap(receipt.line(), width, break_on_hyphens=False)
    chat = "\n".join(["[10:41] Bob: what is LL1?", *(quote + line for line in wrapped), "[10:42] Bob: thanks: 3.5"])
    in_slack = json.dumps(chat).replace("/", "\\/")  # as Slack exports it
    in_teams = json.dumps(chat).replace("+", "\\u002b").replace("=", "\\u003d")
    in_html = escape(chat).replace("\n", "<br/>")
    in_bold = chat.replace(": ", ":**")
    assert read(chat) == read(in_slack) == read(in_teams) == read(in_html) == read(in_bold) == ([receipt], [])
    in_an_email = quopri.encodestring(receipt.line().encode()).decode()
    assert read(in_an_email) == ([receipt], [])


def test_truncated_and_malformed_receipts_are_damaged():
    content, _, checksum = ADA.line().rpartition(".")
    truncated = f"{content[:-4]}.{checksum}"  # lacks zlib's own checksum; the JSON is complete
    malformed = ('["03", "Ada", {}, [], {"a": 1e999}]', "[" * 9999, " " * 2**17)
    for line in (truncated, *map(line_of, malformed)):
        found, damaged = read(f"{line}\n{ADA.line()}")
        assert found == [ADA]
        assert len(damaged) == 1


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(values, min_size=5, max_size=5))
def test_any_content_is_damaged_or_can_be_summarized(content: list):
    found, damaged = read(line_of(json.dumps(content)))
    assert len(found) + len(damaged) == 1
    json.dumps(summary(found), allow_nan=False)


def test_class_summarizes_receipts(lora_lab, tmp_path):
    checks = {"rows": Check(True, 1), "bars": Check(False, 4)}
    ada = Receipt("02", "Ada", checks, [Range("points", 1, 3, 1, 2)], {"accuracy": 0.8})
    checks = {"rows": Check(True, 2), "bars": Check(True, 3)}
    bob = Receipt("02", "Bob", checks, [Range("points", 5, 6, 1, 2)], {"accuracy": 0.9})
    eve = Receipt("03", "Eve", {"bracket": Check(False, 0)})
    lines = [
        "[10:41] Ada: here",
        ada.line(),
        "a file that ends in Bob" + bob.line(),
        eve.line(),
        eve.line().replace("03", "00")[:-12],
    ]
    chat = tmp_path / "chat.txt"
    chat.write_text("\n".join(lines), encoding="utf-8")
    done = lora_lab("class", str(chat), "--json")
    result = json.loads(done.stdout)
    assert [receipt["student"] + receipt["lesson"] for receipt in result["receipts"]] == ["Ada02", "Bob02", "Eve03"]
    assert [(row["check"], row["missed"], row["of"], row["tries"]) for row in result["checks"]] == [
        ("bracket", 1, 1, 0), ("bars", 1, 2, 3.5), ("rows", 0, 2, 1.5),
    ]  # fmt: skip
    assert [(row["what"], row["held"], row["of"]) for row in result["predictions"]] == [("points", 1, 2)]
    (note,) = result["results"]
    assert (note["name"], note["values"]) == ("accuracy", [0.8, 0.9])
    assert (round(note["mean"], 9), round(note["std"], 4)) == (0.85, 0.0707)
    assert (result["calibration"]["hits"], result["calibration"]["of"]) == (1, 2)
    assert result["damaged"] == ["line 5 (LL1 00 Eve) is damaged: ask for it again"]
    assert result["damaged"][0] in done.stderr
    assert "1 of 2 ranges contain" in lora_lab("class", str(chat)).stdout
    chat.write_text(f"{ada.line()}\n{Receipt('02', 'Fox', {'rows': Check(True, 1)}).line()}")
    assert "Fox      1/2" in lora_lab("class", str(chat)).stdout  # and not 1/1: Ada's receipt has two exercises
    three = [Receipt("02", "Ott\u043a 2", checks), Receipt("02", "", checks), Receipt("03", "ott\u043a  2", checks)]
    chat.write_text("\n".join(receipt.line() for receipt in three), encoding="utf-16")  # as Notepad's "Unicode"
    rows = re.findall(r"^(.*\S) +2/2 +(\S+)$", lora_lab("class", str(chat)).stdout, re.M)
    assert rows == [("(no name, 2)", "-"), ("Ott\u043a 2", "2/2")]
    chat.write_bytes(chat.read_bytes() + f"\n{Receipt('02', 'Ada', checks).line()}".encode())  # files joined
    assert "Ada" in lora_lab("class", str(chat)).stdout


def test_first_attempts_count_after_a_restart():
    first, second = Range("points", 90, 95, 1, 79), Range("points", 78, 80, 2, 79)
    (receipt,), _ = read(Receipt("02", "Ada", {}, [first]).line() + Receipt("02", "Ada", {}, [second]).line())
    assert receipt.ranges == [first, second]
    again, open_range = Range("points", 78, 80, 1, 79), Range("gap", 1, 2)  # no log: an attempt seems to be the first
    sent = [Receipt("02", "Ada", {}, ranges) for ranges in ([first, open_range], [again, replace(open_range, found=3)])]
    (receipt,), _ = read("".join(one.line() for one in sent))
    assert receipt.ranges == [first, Range("gap", 1, 2, 1, 3)]


def test_last_receipt_of_a_student_counts_and_nameless_ones_are_kept():
    nameless = [Receipt("03", notes={"accuracy": n / 10}) for n in range(2)]
    zoe = Receipt("03", "Zo\u00eb", notes={"accuracy": 1.0})
    sent = [Receipt("03", "zoe\u0308"), Receipt("00", "Zo\u00eb"), *nameless, nameless[0], zoe]
    found, _ = read("".join(receipt.line() for receipt in sent))  # a chat may drop the line breaks
    assert sorted((receipt.lesson, receipt.student, *receipt.notes.values()) for receipt in found) == [
        ("00", "Zo\u00eb"), ("03", "", 0.0), ("03", "", 0.1), ("03", "Zo\u00eb", 1.0),
    ]  # fmt: skip


def test_lesson_prints_its_receipt(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(receipts, "CURRENT", Receipt())
    monkeypatch.setenv("LORA_LAB_STUDENT", "Ada")
    assert_raises("no lesson was started", lesson.receipt)
    monkeypatch.setattr(receipts, "CURRENT", Receipt("03"))
    lesson.note("accuracy", 0.81)
    assert_raises("'accuracy' needs a number, not nan", lesson.note, "accuracy", float("nan"))
    lesson.receipt()
    assert read(capsys.readouterr().out) == ([Receipt("03", "Ada", notes={"accuracy": 0.81})], [])
    monkeypatch.delenv("LORA_LAB_STUDENT")
    lesson.receipt()
    assert "It contains no name" in capsys.readouterr().out


def test_seed_and_draws_depend_on_the_name_and_draws_on_the_question(monkeypatch: pytest.MonkeyPatch):
    assert lesson.seed_of("Ada Lovelace") == lesson.seed_of("  ada   LOVELACE ") == 629_644
    assert lesson.seed_of("Zoe\u0308") == lesson.seed_of("Zo\u00eb")  # two encodings of the same letter
    assert len({lesson.seed_of(f"student {n}") for n in range(40)}) == 40
    assert 0 < lesson.seed_of("Jos\udce9") != lesson.seed_of("Jos")  # invalid UTF-8, as Linux passes it on
    drawn = [lesson.draw("rank", 8, 4, 16, name=f"student {n}") for n in range(60)]
    assert all(drawn.count(rank) > 9 for rank in (4, 8, 16))
    assert drawn != [lesson.draw("rate", 8, 4, 16, name=f"student {n}") for n in range(60)]
    monkeypatch.setenv("LORA_LAB_STUDENT", "student 2")
    assert lesson.draw("rank", 8, 4, 16) == drawn[2] != 8
    monkeypatch.delenv("LORA_LAB_STUDENT")
    assert lesson.draw("rank", 8, 4, 16) == 8  # the first option


def test_coverage_is_judged_by_its_interval():
    ignored = [Range("", 0, 1, 2, 0.5), Range("", None, None, 1, 0.5)]  # a second attempt, and a skipped range
    for hits, of, words in ((0, 1, "consistent"), (4, 12, "too narrow"), (30, 30, "too wide")):
        result = coverage([*(Range("", 0, 1, 1, 0.5 if n < hits else 2) for n in range(of)), *ignored])
        assert (result["hits"], result["of"]) == (hits, of)
        assert words in result["words"]
    assert coverage(ignored)["words"].startswith("no range")
