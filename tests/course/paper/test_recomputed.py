"""Tests of data/paper/recomputed.yaml: each formula gives the stored number; the printed digits give its verdict."""

from functools import cache
from math import ceil  # noqa: F401  # the formulas call it
from statistics import mean  # noqa: F401

import pytest

from lora_course import paper
from lora_course.paper import facts, table
from lora_lab import LoRA, NotFound, params
from lora_lab.accounting.models import architecture_of
from lora_lab.experiments.study import contenders

NUMBERS = facts("paper/recomputed")
GLUE = ("MNLI", "SST-2", "MRPC", "CoLA", "QNLI", "QQP", "RTE", "STS-B")


@cache
def trained(model: str, method: str, labels: int | None = None) -> int:
    return params(model, *contenders([method]), labels).trainable


def prelayer(model: str, tokens: int) -> int:
    """Section 5.1: L d_model (l_p + l_i)."""
    return architecture_of(model).layers * architecture_of(model).hidden * tokens


def top_layers(model: str, top: int) -> int:
    """FT-Top2: every weight of the topmost layers."""
    a = architecture_of(model)
    return sum(m.parameters * m.count for m in a.modules if m.layer is not None and m.layer >= a.layers - top)


def head(model: str, labels: int) -> int:
    return params(model, LoRA(rank=8), labels).head


def pooler(model: str) -> int:
    return sum(row.full for row in params(model, LoRA(rank=8), 3).modules if row.role == "pooler")


def verdict(published: str, exact: float, *, million: int = 10**6, about: float = 0) -> str:
    """Return exact if `exact` rounds to the printed digits; rounded if it is cut off, or two digits are right."""
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


@pytest.mark.parametrize("name", sorted({number["table"] for number in NUMBERS}))
def test_numbers_follow_from_their_formulas(name):
    entry = table(name)
    for number in (n for n in NUMBERS if n["table"] == name):
        row = {} if number["row"] is None else entry.records()[number["row"]]
        exact = eval(number["formula"], {**globals(), "row": row})
        assert exact == pytest.approx(number["exact"], rel=1e-12), number
        tolerance = {key: number[key] for key in ("million", "about") if key in number}
        assert verdict(number["published"], exact, **tolerance) == number["verdict"], number
        if number["row"] is None:
            assert number["published"] in entry.markdown()
        else:
            assert number["published"].replace("0.67", "2/3") in str(row[number["column"]])


def test_numbers_of_one_table_are_selected():
    assert set(paper.recomputed("table3")["table"]) == {"table3"}
    with pytest.raises(NotFound, match="nearest: table3"):
        paper.recomputed("table33")
