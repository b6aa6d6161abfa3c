"""The pictures of `lora-lab reproduce`: the paper's own names, and only marks that are there are explained."""

from __future__ import annotations

import pytest

from lora_course.plots.reproduced import headline, picture, place_of

NAMES = [("table1", "Table 1"), ("table16", "Table 16"), ("section4_2", "Section 4.2"), ("fig3", "Figure 3")]


def found(*rows: str, item: str = "table1") -> dict:
    return {
        "item": item, "finding": "B is slower.", "standing": "fails", "line": 1.0, "axis": "times",
        "rows": [{"name": name, "yours": [1.0, 1.2], "published": None} for name in rows],
        "sizes": {"seeds": 2}, "environment": {"hardware": "a laptop", "date": "2026-11-25"},
    }  # fmt: skip


@pytest.mark.parametrize(("item", "name"), NAMES)
def test_an_item_is_named_as_in_the_paper(item: str, name: str):
    assert place_of(item) == name
    assert headline(found("A", item=item)) == f"{name}, a surrogate: “B is slower.” does not hold here"


def test_diamonds_are_explained_only_where_some_are_drawn():
    def below(reference: dict | None) -> str:
        return picture(found("A", "B"), reference).axes[0].get_xlabel()

    assert "Diamonds" in below(found("B", "C"))
    assert "Diamonds" not in below(found("C"))
    assert "Diamonds" not in below(None)


def test_a_row_says_its_unit_where_it_is_not_that_of_the_axis():
    weighed = found("A", "B")
    weighed["rows"][0]["unit"] = "MiB"
    made = picture(weighed)
    assert [label.get_text() for label in made.axes[0].get_yticklabels()] == ["A (MiB)", "B"]
    assert "A (MiB) 1.1; B 1.1" in made.alt


@pytest.mark.parametrize(("sizes", "middle"), [({"rounds": 3}, 1.1), ({"seeds": 3}, 2.0)])
def test_the_line_of_rounds_is_their_median_as_the_rule_takes_it_and_that_of_seeds_their_mean(sizes, middle):
    disturbed = found("A") | {"sizes": sizes}
    disturbed["rows"][0]["yours"] = [0.9, 1.1, 4.0]
    made = picture(disturbed)
    lines = [list(line.get_xdata()) for line in made.axes[0].lines]
    assert [middle, middle] in lines
    assert f"A {middle:.4g}." in made.alt


@pytest.mark.parametrize(("planned", "said"), [(2, "rounds 2."), (26, "rounds 2 of 26 planned.")])
def test_an_item_that_its_minutes_ended_says_how_many_rounds_there_are(planned: int, said: str):
    assert said in picture(found("A") | {"sizes": {"rounds": planned}}).axes[0].get_xlabel()
