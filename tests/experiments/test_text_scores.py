"""Scores against references: worked by hand where that is possible, and what is missing said in one sentence."""

from __future__ import annotations

import sys

import pytest

from lora_lab.errors import BadValue
from lora_lab.experiments.text_scores import bleu, chrf, nist, published, rouge_l, text_scores

TEXT = "The Quince is a cheap pub by the river."


def test_a_text_that_is_one_of_its_references_is_perfect():
    found = text_scores([TEXT, "A pub near Tilney Park."], [["Something else.", TEXT], ["A pub near Tilney Park."]])
    assert (found["bleu"], found["chrf"], found["rouge_l"]) == pytest.approx((100, 100, 100))
    assert found["nist"] > 3


def test_bleu_by_hand():
    """5 words, all but the last right: precisions 4/5, 3/4, 2/3, 1/2, no penalty for length."""
    assert bleu(["a b c d x"], [["a b c d e"]]) == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert bleu(["A B C D x"], [["a b c d e"]]) == bleu(["a b c d x"], [["a b c d e"]])


def test_rouge_l_by_hand():
    """Longest common subsequence a c d of 4 and 3 words: precision 3/4, recall 1; the nearer reference counts."""
    assert rouge_l(["a b c d"], [["x y", "a c d"]]) == pytest.approx(100 * 2 * 0.75 / 1.75)


def test_chrf_grows_with_letters_in_common():
    assert 0 < chrf(["pubs"], [["restaurant"]]) + 1 < chrf(["restaurants"], [["restaurant"]]) < 100


def test_nist_counts_rare_words_more_and_stands_short_texts():
    references = [["the the the the quince"]]
    assert nist(["quince x x x x"], references) > nist(["the x x x x"], references)
    assert nist(["pub"], [["pub"]]) >= 0
    assert nist([""], [["pub"]]) == 0


def test_texts_may_have_different_numbers_of_references():
    assert bleu([TEXT, TEXT], [[TEXT], ["a", "b", TEXT]]) == pytest.approx(100)


def test_texts_and_references_must_pair_up():
    for texts, references in (([], []), (["a"], []), (["a"], [[]])):
        with pytest.raises(BadValue, match="scores need texts with references"):
            text_scores(texts, references)


@pytest.mark.parametrize(
    ("module", "name"), [("sacrebleu", "sacrebleu"), ("rouge_score", "rouge-score"), ("nltk", "nltk")]
)
def test_a_missing_package_names_the_extra(monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BadValue, match=rf"need {name}, which is missing: pip install 'lora-lab\[metrics\]'$"):
        text_scores([TEXT], [[TEXT]])


def test_what_is_not_computed_is_shown_as_published():
    head, *rows, source = published().splitlines()
    assert head.split()[-5:] == ["bleu", "nist", "meteor", "rouge_l", "cider"]
    assert rows[-1].split()[-5:] == ["70.4", "8.85", "46.8", "71.8", "2.53"]
    assert "Hu et al. 2021, table 3" in source
