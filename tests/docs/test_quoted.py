"""Numbers that lessons and pages quote are those of the stored runs."""

import re
import runpy
from types import SimpleNamespace

import pytest

from lora_lab.files import read_json
from tests.docs import ROOT

quoted = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "quoted.py")))


def test_the_generated_file_and_every_text_have_the_numbers_of_the_stored_runs():
    numbers = quoted.numbers()
    assert read_json(quoted.NUMBERS) == numbers
    for path in quoted.texts():
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"<!--([\w.+-]+)-->", text) == [quote[1] for quote in quoted.QUOTE.finditer(text)], path
        assert quoted.filled(text, numbers) == text, path


def test_a_stale_number_is_replaced_and_an_unknown_name_is_an_error():
    assert (
        quoted.filled("**80.1<!--a.b-->** % (9<!--c-->)", {"a.b": "81", "c": "10"}) == "**81<!--a.b-->** % (10<!--c-->)"
    )
    assert quoted.filled("[80<!--x-->%](a.md), n=80<!--x-->", {"x": "81"}) == "[81<!--x-->%](a.md), n=81<!--x-->"
    assert quoted.filled("*worse<!--x-->*", {"x": "better"}) == "*better<!--x-->*"
    two_words = quoted.filled("it is fails<!--x-->", {"x": "not\N{NO-BREAK SPACE}tested"})
    assert quoted.filled(two_words, {"x": "holds"}) == "it is holds<!--x-->"
    with pytest.raises(KeyError):
        quoted.filled("1<!--x-->", {})
