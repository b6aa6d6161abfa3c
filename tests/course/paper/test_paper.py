"""The paper's tables as data: all load, a row is found or refused in words, what does not hold is shown with them."""

import runpy
from pathlib import Path

import pytest

from lora_course import paper
from lora_course.paper import table
from lora_lab.errors import BadValue, NotFound

DOCS = Path(__file__).parents[3] / "docs"


def test_every_table_is_whole_and_says_what_does_not_hold():
    assert paper.names()[:18] == tuple(f"table{n}" for n in range(1, 19))
    assert {"fig3", "fig4", "fig8", "section4_2"} <= set(paper.names())
    for one in map(table, paper.names()):
        assert one.standing in ("confirmed", "derived", "memory")
        assert all((one.title, one.source, one.seeds))
        assert len(set(one.columns)) == len(one.columns)
        assert all(column.removesuffix(paper.SPREAD) in one.columns for column in one.columns)
        shown = one._repr_markdown_()
        assert all(sentence in shown for sentence in (*one.notes, *one.discrepancies, *one.expected.values()))
        assert tuple(one.frame(spreads=True).columns) == one.columns
        assert not any(column.endswith(paper.SPREAD) for column in one.frame())
        assert one.frame().shape[1] <= 20  # more of them a notebook does not show


def test_a_row_is_found_by_its_values():
    assert table("table5").row(weights="Wq", rank=8) == {"weights": "Wq", "rank": 8, "WikiSQL": 70.4, "MNLI": 91.0}
    assert table("table2").row(model="RoBERTa-large", method="LoRA", mark="†")["RTE"] == 85.2


def test_what_is_not_there_is_one_sentence():
    with pytest.raises(NotFound, match="nearest: table5"):
        table("tabel5")
    with pytest.raises(NotFound, match="available: weights: Wq, Wk"):
        table("table5").row(weights="Wx")
    with pytest.raises(BadValue, match="5 rows with weights='Wq'; specify rank"):
        table("table6").row(weights="Wq")


def test_the_page_in_docs_is_what_the_data_say():
    page = (DOCS / "paper.md").read_text(encoding="utf-8")
    assert page == runpy.run_path(str(DOCS / "paper.py"))["document"]()  # else: python docs/paper.py
