"""The paper's tables as data: all load, a row is found or refused in words, what does not hold is shown with them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from lora_course import paper
from lora_course.paper import table
from lora_lab.errors import BadValue, NotFound

DOCS = Path(__file__).parents[3] / "docs"


def test_every_table_that_was_promised_is_there():
    assert paper.names()[:18] == tuple(f"table{n}" for n in range(1, 19))
    assert {"fig3", "fig4", "fig8", "section4_2"} <= set(paper.names())


@pytest.mark.parametrize("name", paper.names())
def test_a_table_is_whole_and_says_what_does_not_hold(name):
    one = table(name)
    assert one.standing in ("confirmed", "derived", "memory")
    assert all((one.title, one.source, one.seeds))
    assert len(set(one.columns)) == len(one.columns)
    assert all(column.removesuffix(paper.SPREAD) in one.columns for column in one.columns)
    shown = one._repr_markdown_()
    assert all(sentence in shown for sentence in (*one.notes, *one.discrepancies, *one.expected.values()))
    frame = one.frame(spreads=True)
    assert tuple(frame.columns) == one.columns
    assert not any(column.endswith(paper.SPREAD) for column in one.frame())
    assert one.frame().shape[1] <= 20  # more of them a notebook does not show
    for row, found in zip(one.rows, frame.itertuples(index=False), strict=True):
        for value, kept in zip(row, found, strict=True):
            assert str(kept) in ("None", "nan") if value is None else kept == value


def test_a_row_is_found_by_its_values():
    assert table("table5").row(weights="Wq", rank=8) == {"weights": "Wq", "rank": 8, "WikiSQL": 70.4, "MNLI": 91.0}
    assert table("table2").row(model="RoBERTa-large", method="LoRA", mark="†")["RTE"] == 85.2


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda: table("tabel5"), NotFound, "nearest: table5"),
        (lambda: table("table5").row(weights="Wx"), NotFound, "available: weights: Wq, Wk"),
        (lambda: table("table6").row(weights="Wq"), BadValue, "5 rows with weights='Wq'; add rank"),
    ],
)
def test_what_is_not_there_is_one_sentence(ask, error, words):
    with pytest.raises(error, match=words) as raised:
        ask()
    assert "\n" not in str(raised.value)


def test_the_page_in_docs_is_what_the_data_say():
    page = (DOCS / "paper.md").read_text(encoding="utf-8")
    assert page == runpy.run_path(str(DOCS / "paper.py"))["document"]()  # else: python docs/paper.py
    for name in paper.names():
        assert all(sentence in page for sentence in (*table(name).discrepancies, *table(name).expected.values()))
