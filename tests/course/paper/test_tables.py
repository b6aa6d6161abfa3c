import runpy
from functools import cache
from math import ceil  # noqa: F401  # the formulas call it
from statistics import mean  # noqa: F401

import pytest

from lora_course import paper
from lora_course.paper import facts, table
from lora_course.paper.protocol import plan
from lora_lab import LoRA, NotFound, load_task, params
from lora_lab.accounting.models import architecture_of
from lora_lab.experiments.study import contenders
from tests.conftest import ROOT, assert_raises

NUMBERS = facts("paper/recomputed")
GLUE = ("MNLI", "SST-2", "MRPC", "CoLA", "QNLI", "QQP", "RTE", "STS-B")


@cache
def trained(model: str, method: str, labels: int | None = None) -> int:
    return params(model, *contenders([method]), labels).trainable


def prelayer(model: str, tokens: int) -> int:
    return architecture_of(model).layers * architecture_of(model).hidden * tokens  # section 5.1: L d_model (l_p + l_i)


def top_layers(model: str, top: int) -> int:
    a = architecture_of(model)
    return sum(m.parameters * m.count for m in a.modules if m.layer is not None and m.layer >= a.layers - top)


def head(model: str, labels: int) -> int:
    return params(model, LoRA(rank=8), labels).head


def pooler(model: str) -> int:
    return sum(row.full for row in params(model, LoRA(rank=8), 3).modules if row.role == "pooler")


def verdict(published: str, exact: float, *, million: int = 10**6, about: float = 0) -> str:
    """Return exact if `exact` rounds to the printed digits; rounded if they are cut off, or two of them are right."""
    digits = published.rstrip("KMB")
    unit = {"K": 1e3, "M": million, "B": 1e9}.get(published[len(digits) :], 1)
    value, step = float(digits.replace(",", "")) * unit, unit * 10.0 ** -len(digits.partition(".")[2])
    difference = exact - value
    if abs(difference) <= step * (0.5 + 1e-9):
        return "exact"
    significant = digits.replace(",", "").replace(".", "").lstrip("0")
    zeros = len(significant) - max(2, len(significant.rstrip("0")))
    coarse = max(10 ** max(0, zeros) * step, about)
    return "rounded" if 0 <= difference < step or abs(difference) <= coarse / 2 else "does not follow"


def test_numbers_follow_from_their_formulas():
    for number in NUMBERS:
        entry = table(number["table"])
        row = {} if number["row"] is None else entry.records()[number["row"]]
        exact = eval(number["formula"], {**globals(), "row": row})
        assert exact == pytest.approx(number["exact"], rel=1e-12), number
        tolerance = {key: number[key] for key in ("million", "about") if key in number}
        assert verdict(number["published"], exact, **tolerance) == number["verdict"], number
        printed = entry.markdown() if number["row"] is None else str(row[number["column"]]).replace("2/3", "0.67")
        assert number["published"] in printed, number
        assert set(paper.recomputed(entry.name)["table"]) == {entry.name}


def test_tables_are_complete_and_show_known_errors():
    for entry in map(table, paper.names()):
        assert entry.standing in ("confirmed", "derived", "memory")
        assert all((entry.title, entry.source, entry.seeds)), entry
        assert len(set(entry.columns)) == len(entry.columns)
        assert all(column.removesuffix(paper.SPREAD) in entry.columns for column in entry.columns), entry
        shown = entry._repr_markdown_()
        assert all(sentence in shown for sentence in (*entry.notes, *entry.discrepancies, *entry.expected.values()))
        assert list(entry.frame(spreads=True).columns) == entry.columns
        assert not any(column.endswith(paper.SPREAD) for column in entry.frame()), entry
        assert entry.frame().shape[1] <= 20, entry  # pandas hides columns beyond 20 in a notebook


def test_row_is_found_by_its_values_and_unknown_names_are_refused():
    assert table("table5").row(weights="Wq", rank=8) == {"weights": "Wq", "rank": 8, "WikiSQL": 70.4, "MNLI": 91.0}
    assert_raises("nearest: table5", table, "tabel5", error=NotFound)
    assert_raises("available: weights: Wq, Wk", table("table5").row, weights="Wx", error=NotFound)
    assert_raises("5 rows with weights='Wq'; specify rank", table("table6").row, weights="Wq")
    assert_raises("nearest: table3", paper.recomputed, "table33", error=NotFound)
    assert_raises("table2 or table3", plan, "table4", error=NotFound)
    assert_raises("nearest: sst-2", plan, "table2", task="sst2", error=NotFound)
    assert_raises("paper, repo", plan, "table2", variant="readme")
    assert_raises("nearest", plan, "table3", gpu="V1000", error=NotFound)
    assert_raises("nearest: sst-2", load_task, "glue:sst2:/nowhere", error=NotFound)


def test_docs_page_is_up_to_date():
    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    assert page == runpy.run_path(str(ROOT / "docs" / "paper.py"))["document"](), "run python docs/paper.py"
