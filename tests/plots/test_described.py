"""Every picture has a text alternative: what is drawn, in words."""

from __future__ import annotations

from lora_lab.plots import Picture


def alt(picture: Picture) -> str:
    data, metadata = picture._repr_mimebundle_()
    assert data["text/plain"] == metadata["image/png"]["alt"]
    return data["text/plain"]


def test_a_line_is_told_by_its_ends_and_where_it_turns():
    picture = Picture()
    axes = picture.subplots()
    axes.set(title="A finding:\nit turns", xlabel="rank", ylabel="accuracy (%)")
    axes.plot([1, 2, 4], [70, 80.25, 75], label="q,v")
    axes.plot([1, 2], [1, 1])
    axes.axhline(float("nan"), label="your guess")
    expected = "A finding: it turns. accuracy (%) over rank: q,v (70 at 1, highest 80.2 at 2, 75 at 4)."
    assert alt(picture) == expected
    picture.alt = "It turns at 2."  # one's own words come first
    assert alt(picture) == "It turns at 2."


def test_a_heat_map_is_told_by_its_range_and_names_along_an_axis_are_no_hindrance():
    picture = Picture()
    left, middle, right = picture.subplots(1, 3)
    left.plot(["q", "v"], [1, 2], label="each")
    middle.imshow([[1, 2], [3, 4]])  # whole numbers
    right.imshow([[1, float("nan")], [3000, 2]])
    assert "each (1 at 0, 2 at 1)" in alt(picture)
    assert "from 1 to 4" in alt(picture)
    assert "from 1 to 3,000" in alt(picture)
