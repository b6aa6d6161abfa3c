"""Scores against references: worked by hand where that is possible, and what is missing said in one sentence."""

from __future__ import annotations

import sys

import pytest
from nltk.translate.nist_score import corpus_nist
from rouge_score.rouge_scorer import RougeScorer

from lora_lab.errors import BadValue
from lora_lab.experiments.text_scores import nist, rouge_l, text_scores

TEXT = "The Quince is a cheap pub by the river."


def test_a_text_that_is_one_of_its_references_is_perfect():
    found = text_scores([TEXT, "A pub near Tilney Park."], [["Something else.", TEXT], ["A pub near Tilney Park."]])
    assert (found["bleu"], found["chrf"], found["rouge_l"]) == pytest.approx((100, 100, 100))
    assert found["nist"] > 3


ANSWERS = ["The Quince is a cheap pub.", "Near Tilney Park, there is a pub called Quince!", "Cotto serves Thai food."]
REFERENCES = [
    ["The Quince is a cheap pub by the river.", "By the river is The Quince, a pub."],
    ["Quince is a pub near Tilney Park.", "There is a pub called Quince, near Tilney Park."],
    ["Cotto serves Thai food for less than £20.", "At Cotto the food is Thai."],
]


def test_rouge_l_is_rouge_scores_and_nist_is_nltks():
    scorer = RougeScorer(["rougeL"])
    each = [
        max(scorer.score(reference, text)["rougeL"].fmeasure for reference in references)
        for text, references in zip(ANSWERS, REFERENCES, strict=True)
    ]
    assert rouge_l(ANSWERS, REFERENCES) == pytest.approx(100 * sum(each) / 3)
    words = [text.lower().replace(".", " .").replace("!", " !").replace(",", " ,").split() for text in ANSWERS]
    known = [[r.lower().replace(".", " .").replace(",", " ,").split() for r in some] for some in REFERENCES]
    assert nist(ANSWERS, REFERENCES) == pytest.approx(corpus_nist(known, words, n=5))


def test_texts_and_references_must_pair_up():
    for texts, references in (([], []), (["a"], []), (["a"], [[]])):
        with pytest.raises(BadValue, match="scores need texts with references"):
            text_scores(texts, references)
    for known in (TEXT, ["", " "]):  # a text alone would be taken for a list of letters
        with pytest.raises(BadValue, match="a list of texts that say something"):
            text_scores([TEXT], [known])


@pytest.mark.parametrize(
    ("module", "name"), [("sacrebleu", "sacrebleu"), ("rouge_score", "rouge-score"), ("nltk", "nltk")]
)
def test_a_missing_package_names_the_extra(monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BadValue, match=rf"need {name}, which is missing: pip install 'lora-lab\[metrics\]'$"):
        text_scores([TEXT], [[TEXT]])
