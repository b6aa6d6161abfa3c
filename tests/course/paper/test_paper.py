import runpy
from pathlib import Path

import pytest

from lora_course import paper
from lora_course.paper import table
from lora_lab.errors import BadValue, NotFound

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", paper.names())
def test_table_is_complete_and_shows_known_errors(name):
    entry = table(name)
    assert entry.standing in ("confirmed", "derived", "memory")
    assert all((entry.title, entry.source, entry.seeds))
    assert len(set(entry.columns)) == len(entry.columns)
    assert all(column.removesuffix(paper.SPREAD) in entry.columns for column in entry.columns)
    shown = entry._repr_markdown_()
    assert all(sentence in shown for sentence in (*entry.notes, *entry.discrepancies, *entry.expected.values()))
    assert tuple(entry.frame(spreads=True).columns) == entry.columns
    assert not any(column.endswith(paper.SPREAD) for column in entry.frame())
    assert entry.frame().shape[1] <= 20  # pandas hides columns beyond 20 in a notebook


def test_row_is_found_by_its_values():
    assert table("table5").row(weights="Wq", rank=8) == {"weights": "Wq", "rank": 8, "WikiSQL": 70.4, "MNLI": 91.0}
    with pytest.raises(NotFound, match="nearest: table5"):
        table("tabel5")
    with pytest.raises(NotFound, match="available: weights: Wq, Wk"):
        table("table5").row(weights="Wx")
    with pytest.raises(BadValue, match="5 rows with weights='Wq'; specify rank"):
        table("table6").row(weights="Wq")


def test_docs_page_is_up_to_date():
    page = (DOCS / "paper.md").read_text(encoding="utf-8")
    assert page == runpy.run_path(str(DOCS / "paper.py"))["document"](), "run python docs/paper.py"
