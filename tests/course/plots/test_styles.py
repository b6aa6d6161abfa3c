"""The pictures of lesson 06: the lowest of each column is framed, and the title says whether it is its own adapter."""

from __future__ import annotations

from lora_course.plots.styles import perplexity_table

TABLE = {"base": {"a": 40.0, "b": 50.0}, "a": {"a": 4.0, "b": 60.0}, "b": {"a": 39.0, "b": 5.0}}


def test_the_title_says_what_the_table_shows():
    picture = perplexity_table(TABLE, " (illustration)")
    assert picture.alt.startswith(
        "Each voice is most likely under its own adapter (illustration). base: a 40.0, b 50.0."
    )
    other = perplexity_table(TABLE | {"base": {"a": 3.0, "b": 50.0}})
    assert other.alt.startswith("Not every voice is most likely under its own adapter: a (most likely under base).")


def test_the_lowest_of_each_column_is_framed_and_every_number_is_there():
    axes = perplexity_table(TABLE).axes[0]
    assert sorted((round(p.get_x() + 0.48), round(p.get_y() + 0.46)) for p in axes.patches) == [(0, 1), (1, 2)]
    assert [text.get_text() for text in axes.texts] == ["40.0", "50.0", "4.0", "60.0", "39.0", "5.0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(TABLE)
