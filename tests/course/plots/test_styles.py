from lora_course.plots.styles import perplexity_table

TABLE = {"base": {"a": 40.0, "b": 50.0}, "a": {"a": 4.0, "b": 60.0}, "b": {"a": 39.0, "b": 5.0}}


def test_title_says_whether_each_voice_fits_its_adapter():
    fits = perplexity_table(TABLE).alt
    assert fits.startswith("Each voice is most likely under its own adapter. base: a 40.0, b 50.0.")
    differs = perplexity_table(TABLE | {"base": {"a": 3.0, "b": 50.0}}).alt
    assert differs.startswith("Not every voice is most likely under its own adapter: a (most likely under base).")
