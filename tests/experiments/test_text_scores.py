"""Scores against references: worked by hand where that is possible, and what is missing said in one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest
from nltk.translate.nist_score import corpus_nist
from rouge_score.rouge_scorer import RougeScorer

from lora_lab.errors import BadValue
from lora_lab.experiments.text_scores import bleu, chrf, nist, rouge_l, text_scores

TEXT = "The Quince is a cheap pub by the river."


def test_a_text_that_is_one_of_its_references_is_perfect():
    found = text_scores([TEXT, "A pub near Tilney Park."], [["Something else.", TEXT], ["A pub near Tilney Park."]])
    assert (found["bleu"], found["chrf"], found["rouge_l"]) == pytest.approx((100, 100, 100))
    assert found["nist"] > 3


def test_bleu_by_hand():
    """5 words, all but the last right: precisions 4/5, 3/4, 2/3, 1/2, no penalty for length."""
    assert bleu(["a b c d x"], [["a b c d e"]]) == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert bleu(["A B C D x"], [["a b c d e"]]) == bleu(["a b c d x"], [["a b c d e"]])


def test_spaced_full_stops_as_e2e_has_them_set_off_no_warning(caplog):
    text = "The Quince is a cheap pub ."
    assert bleu([text] * 100, [[text]] * 100) == pytest.approx(100)
    assert not caplog.records


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


ANSWERS = ["The Quince is a cheap pub.", "Near Tilney Park, there is a pub called Quince!", "Cotto serves Thai food."]
REFERENCES = [
    ["The Quince is a cheap pub by the river.", "By the river is The Quince, a pub."],
    ["Quince is a pub near Tilney Park.", "There is a pub called Quince, near Tilney Park."],
    ["Cotto serves Thai food for less than £20.", "At Cotto the food is Thai."],
]


def test_bleu_is_what_sacrebleus_own_command_prints(tmp_path):
    """The same strings through the package's command line, a file for each stream of references."""
    for name, lines in (("said", ANSWERS), ("one", [r[0] for r in REFERENCES]), ("two", [r[1] for r in REFERENCES])):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = [str(tmp_path / name) for name in ("one", "two")]
    command = [sys.executable, "-m", "sacrebleu", *files, "-i", str(tmp_path / "said"), "-lc", "-b", "-w", "6"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert bleu(ANSWERS, REFERENCES) == pytest.approx(float(printed), abs=1e-5)


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


def test_texts_may_have_different_numbers_of_references():
    assert bleu([TEXT, TEXT], [[TEXT], ["a", "b", TEXT]]) == pytest.approx(100)


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
