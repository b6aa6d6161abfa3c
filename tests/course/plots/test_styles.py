"""The pictures of lesson 06: the words say whether the lowest of each column is its own adapter."""

from lora_course.plots.styles import perplexity_table

TABLE = {"base": {"a": 40.0, "b": 50.0}, "a": {"a": 4.0, "b": 60.0}, "b": {"a": 39.0, "b": 5.0}}


def test_the_title_says_what_the_table_shows():
    picture = perplexity_table(TABLE, " (illustration)")
    assert picture.alt.startswith(
        "Each voice is most likely under its own adapter (illustration). base: a 40.0, b 50.0."
    )
    other = perplexity_table(TABLE | {"base": {"a": 3.0, "b": 50.0}})
    assert other.alt.startswith("Not every voice is most likely under its own adapter: a (most likely under base).")
