"""The page of promises names tests that exist, and a promise without one is only there where it is said to be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"\[(test_\w+)\]\(\.\./(tests/[\w/]+\.py)\)", PAGE)))
UNTESTED = "What no test holds"


@pytest.mark.parametrize("file", sorted({file for _, file in NAMED}))
def test_every_test_that_the_page_names_exists(file: str):
    there = set(re.findall(r"^def (test_\w+)\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE))
    named = {name for name, where in NAMED if where == file}
    assert named <= there, f"{file} lacks {sorted(named - there)}"


def test_every_promise_has_a_test():
    for section in PAGE.split("\n## ")[1:]:
        title = section.partition("\n")[0]
        assert re.search(r"\[test_\w+\]", section) or title == UNTESTED, title


def test_every_link_to_a_test_is_one_of_those():
    """A link that is written otherwise would not be looked at."""
    assert len(re.findall(r"\(\.\./tests/", PAGE)) == len(re.findall(r"\[test_\w+\]\(\.\./tests/[\w/]+\.py\)", PAGE))
