"""The paper's scores of generated text, beside what is measured."""

from __future__ import annotations

from lora_course.paper.published import published


def test_what_is_not_computed_is_shown_as_published():
    head, *rows, source = published().splitlines()
    assert head.split()[-5:] == ["bleu", "nist", "meteor", "rouge_l", "cider"]
    assert rows[-1].split()[-5:] == ["70.4", "8.85", "46.8", "71.8", "2.53"]
    assert "Hu et al. 2021, table 3" in source
