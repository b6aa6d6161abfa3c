"""The picture of lesson 03: every adapter's dots, the claimed band, and sizes that a person can read."""

from __future__ import annotations

from lora_course.plots.savings import times_fewer
from lora_lab.plots import Picture

SERIES = {"q,v, r = 8": [(8e9, 2356.0), (23e6, 308.0)], "all-linear, r = 16": [(23e6, 34.0), (8e9, 191.0)]}


def drawn() -> Picture:
    return times_fewer(SERIES, "a finding", named=[("minilm", 23e6)])


def test_each_adapter_has_its_dots_and_the_axes_say_what_they_are():
    axes = drawn().axes[0]
    dots = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [list(line.get_ydata()) for line in dots] == [[308, 2356], [34, 191]]  # from the small model to the large
    assert len({line.get_marker() for line in dots}) == len({line.get_color() for line in dots}) == 2
    assert axes.get_title(loc="left") == "a finding"
    assert "parameters" in axes.get_xlabel()
    assert "times fewer" in axes.get_ylabel()


def test_sizes_are_short_and_the_band_and_every_series_are_in_the_legend():
    picture = drawn()
    axes = picture.axes[0]
    words = [text.get_text() for text in picture.legends[0].get_texts()]
    assert words == ["100 to 1,000 times", *SERIES]
    assert [axes.xaxis.get_major_formatter()(x, 0) for x in (1e3, 1e7, 1e11, 5)] == ["1k", "10M", "100B", "5"]
    assert [text.get_text() for text in axes.texts] == ["minilm"]


def test_it_is_a_png_of_itself():
    assert drawn()._repr_png_().startswith(b"\x89PNG")
