import re
import runpy
from types import SimpleNamespace

import pytest

from lora_lab.files import read_json
from tests.docs import ROOT

quoted = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "quoted.py")))


def test_all_quoted_numbers_are_up_to_date():
    numbers = quoted.numbers()
    assert read_json(quoted.NUMBERS) == numbers
    for path in quoted.texts():
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"<!--([\w.+-]+)-->", text) == [quote[1] for quote in quoted.QUOTE.finditer(text)], path
        assert quoted.filled(text, numbers) == text, path


def test_stale_quotes_are_replaced_and_unknown_ones_refused():
    text = "**80.1<!--a-->** % [80<!--a-->%](a.md), n=80<!--a-->, *worse<!--b-->*, not\N{NO-BREAK SPACE}tested<!--b-->"
    expected = "**81<!--a-->** % [81<!--a-->%](a.md), n=81<!--a-->, *holds<!--b-->*, holds<!--b-->"
    assert quoted.filled(text, {"a": "81", "b": "holds"}) == expected
    with pytest.raises(KeyError):
        quoted.filled("1<!--x-->", {})
