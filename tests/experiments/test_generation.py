"""Tests of scores of generated answers: the packages' own values, refused input, and `lora-lab evaluate`."""

import json
import math
import sys

import pytest
from nltk.translate.nist_score import corpus_nist
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu, corpus_chrf

from lora_lab import load_task
from lora_lab.errors import BadValue
from lora_lab.experiments.afterwards import bleu, chrf, nist, rouge_l, score_answers, text_scores

TEXT = "The Quince is a cheap pub by the river ."  # E2E puts a space before full stops
ANSWERS = ["The Quince is a cheap pub.", "Near Tilney Park, there is a pub called Quince!", "Cotto serves Thai food."]
REFERENCES = [
    ["The Quince is a cheap pub by the river.", "By the river is The Quince, a pub."],
    ["Quince is a pub near Tilney Park.", "There is a pub called Quince, near Tilney Park."],
    ["Cotto serves Thai food for less than £20.", "At Cotto the food is Thai."],
]


def test_scores_equal_those_of_the_packages():
    streams = [list(stream) for stream in zip(*REFERENCES, strict=True)]
    assert bleu(ANSWERS, REFERENCES) == corpus_bleu(ANSWERS, streams, lowercase=True).score
    assert chrf(ANSWERS, REFERENCES) == corpus_chrf(ANSWERS, streams).score
    scorer = RougeScorer(["rougeL"])
    each = [
        max(scorer.score(reference, text)["rougeL"].fmeasure for reference in references)
        for text, references in zip(ANSWERS, REFERENCES, strict=True)
    ]
    assert rouge_l(ANSWERS, REFERENCES) == pytest.approx(100 * sum(each) / 3)
    words = [text.lower().replace(".", " .").replace("!", " !").replace(",", " ,").split() for text in ANSWERS]
    known = [[r.lower().replace(".", " .").replace(",", " ,").split() for r in group] for group in REFERENCES]
    assert nist(ANSWERS, REFERENCES) == pytest.approx(corpus_nist(known, words, n=5))


def test_texts_without_references_are_refused():
    for texts, references in (([], []), (["a"], []), (["a"], [[]])):
        with pytest.raises(BadValue, match="every text needs references"):
            text_scores(texts, references)
    for references in (TEXT, ["", " "]):  # a string would count as a list of letters
        with pytest.raises(BadValue, match="a list of non-empty texts"):
            text_scores([TEXT], [references])


@pytest.mark.parametrize(("module", "name"), [("nltk", "nltk"), ("rouge_score", "rouge-score"), ("sacrebleu",) * 2])
def test_missing_package_is_named(module, name, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BadValue, match=rf"needs {name}: pip install 'lora-lab\[metrics\]'$"):
        text_scores([TEXT], [[TEXT]])


def test_unsuitable_task_and_prompt_count_are_refused(opinions):
    with pytest.raises(BadValue, match="has no meaning representations to express"):
        score_answers(None, None, load_task(opinions))
    with pytest.raises(BadValue, match="prompts must be at least 1"):
        score_answers(None, None, load_task("restaurants"), prompts=0)


def test_evaluate_prints_text_scores_next_to_perplexity(tiny_causal, voices, tmp_path, lora_lab):
    (tmp_path / "test.txt").write_text("name : Quince | area : riverside||Quince is by the river .\n")
    (tmp_path / "valid.txt").write_text("name : Fable | food : Thai||Fable is Thai .\n")
    words = ["--model", tiny_causal, "--dtype", "fp32", "--attention", "eager", "--device", "cpu", "--prompts", "2"]
    done = lora_lab("evaluate", str(voices["json"]), "--task", str(tmp_path), *words, "--json")
    metrics = json.loads(done.stdout)["metrics"]
    assert set(metrics) == {"perplexity", "loss", "n", "slot_errors", "bleu", "chrf", "rouge_l", "nist"}
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    assert metrics["n"] == 1
    assert metrics["slot_errors"] >= 1
