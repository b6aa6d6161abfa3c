"""Every picture has a text alternative: what is drawn, in words."""

from __future__ import annotations

from lora_lab.plots import Picture


def alt(picture: Picture) -> str:
    data, metadata = picture._repr_mimebundle_()
    assert data["text/plain"] == metadata["image/png"]["alt"]
    return data["text/plain"]


def drawn() -> Picture:
    picture = Picture()
    axes = picture.subplots()
    axes.set(title="A finding:\nit turns", xlabel="rank", ylabel="accuracy (%)")
    axes.plot([1, 2, 4], [70, 80.25, 75], label="q,v")
    axes.plot([1, 2], [1, 1])
    axes.axhline(float("nan"), label="your guess")
    return picture


def test_a_line_is_told_by_its_ends_and_where_it_turns():
    expected = "A finding: it turns. accuracy (%) over rank: q,v (70 at 1, highest 80.2 at 2, 75 at 4)."
    assert alt(drawn()) == expected


def test_own_words_come_first():
    picture = drawn()
    picture.alt = "It turns at 2."
    assert alt(picture) == "It turns at 2."


def test_a_heat_map_is_told_by_its_range():
    picture = Picture()
    picture.subplots().imshow([[1, float("nan")], [3000, 2]])
    assert "from 1 to 3,000" in alt(picture)


def test_names_along_an_axis_and_whole_numbers_are_no_hindrance():
    picture = Picture()
    left, right = picture.subplots(1, 2)
    left.plot(["q", "v"], [1, 2], label="each")
    right.imshow([[1, 2], [3, 4]])
    assert "each (1 at 0, 2 at 1)" in alt(picture)
    assert "from 1 to 4" in alt(picture)
