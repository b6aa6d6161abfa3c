"""What is kept as recomputed is what the formulas come to, and its verdicts are those that the printed digits allow."""

from functools import cache
from math import ceil  # noqa: F401  # the formulas call it
from statistics import mean  # noqa: F401

import pytest

from lora_course import paper
from lora_course.paper import facts, table
from lora_lab import LoRA
from lora_lab.accounting.models import architecture_of
from lora_lab.accounting.params import params
from lora_lab.errors import NotFound
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
    """exact: rounded to the printed digits; rounded: cut off, or two digits right before printed zeros."""
    digits = published.rstrip("KMB")
    unit = {"K": 1e3, "M": million, "B": 1e9}.get(published[len(digits) :], 1)
    value, step = float(digits.replace(",", "")) * unit, unit * 10.0 ** -len(digits.partition(".")[2])
    if abs(off := exact - value) <= step * (0.5 + 1e-9):
        return "exact"
    significant = digits.replace(",", "").replace(".", "").lstrip("0")
    zeros = len(significant) - max(2, len(significant.rstrip("0")))
    coarse = max(10 ** max(0, zeros) * step, about)
    return "rounded" if 0 <= off < step or abs(off) <= coarse / 2 else "does not follow"


@pytest.mark.parametrize("name", sorted({one["table"] for one in NUMBERS}))
def test_each_number_is_what_its_formula_comes_to(name: str):
    where = table(name)
    for one in (number for number in NUMBERS if number["table"] == name):
        row = {} if one["row"] is None else where.records()[one["row"]]
        exact = eval(one["formula"], {**globals(), "row": row})
        assert exact == pytest.approx(one["exact"], rel=1e-12), one
        how = {key: one[key] for key in ("million", "about") if key in one}
        assert verdict(one["published"], exact, **how) == one["verdict"], one
        if one["row"] is None:
            assert one["published"] in where.markdown()
        else:
            assert one["published"].replace("0.67", "2/3") in str(row[one["column"]])


def test_a_frame_of_one_table_or_of_all():
    assert len(paper.recomputed()) == len(NUMBERS)
    one = paper.recomputed("table3").set_index("number").loc["GPT-2 M, LoRA: trainable"]
    assert (one.published, one.exact, one.verdict) == ("0.35M", "393,216", "does not follow")
    assert paper.recomputed("table6").empty
    with pytest.raises(NotFound, match="nearest: table3"):
        paper.recomputed("table33")
