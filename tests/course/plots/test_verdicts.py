"""The sheet of claims says verdicts in words and marks, and the guesses that differ."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg

from lora_course.claims.cards import judge
from lora_course.plots.verdicts import COLOURS, SHAPES, sheet

SOME = {name: judge(name) for name in ("shapes", "footprint_70b", "larger_r")}


def texts(picture) -> list[str]:
    return [text.get_text() for axes in picture.axes for text in axes.texts]


def test_every_claim_has_its_words():
    picture = sheet(SOME)
    said = texts(picture)
    assert said[0] == "3 claims: 1 true, 1 false and 1 depends"
    assert "depends on what is counted" in said
    assert all(one.words in picture.alt for one in SOME.values())


def test_a_guess_is_shown_where_it_differs():
    said = texts(sheet(SOME, {"1": "true", "larger_r": "true", "4": None}))
    assert "false (you: true)" in said
    assert "true" in said


def test_words_differ_in_colour_and_in_shape():
    assert len(set(COLOURS.values())) == len(set(SHAPES.values())) == 4


def test_a_long_verdict_keeps_inside_the_sheet():
    picture = sheet(SOME)
    renderer = FigureCanvasAgg(picture).get_renderer()
    width = picture.bbox.width
    assert all(text.get_window_extent(renderer).x1 <= width for axes in picture.axes for text in axes.texts)
