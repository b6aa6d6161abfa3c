import json
import math
import sys

import pytest
from nltk.translate.nist_score import corpus_nist
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu, corpus_chrf

from lora_lab import load_task
from lora_lab.errors import BadValue
from lora_lab.experiments.afterwards import score_answers, text_scores

TEXT = "The Quince is a cheap pub by the river ."  # E2E puts a space before full stops
ANSWERS = ["The Quince is a cheap pub.", "Near Tilney Park, there is a pub called Quince!", "Cotto serves Thai food."]
REFERENCES = [
    ["The Quince is a cheap pub by the river.", "By the river is The Quince, a pub."],
    ["Quince is a pub near Tilney Park.", "There is a pub called Quince, near Tilney Park."],
    ["Cotto serves Thai food for less than £20.", "At Cotto the food is Thai."],
]


def test_scores_equal_those_of_the_packages():
    streams = [list(stream) for stream in zip(*REFERENCES, strict=True)]
    scores = text_scores(ANSWERS, REFERENCES)
    assert scores["bleu"] == corpus_bleu(ANSWERS, streams, lowercase=True).score
    assert scores["chrf"] == corpus_chrf(ANSWERS, streams).score
    scorer = RougeScorer(["rougeL"])
    each = [
        max(scorer.score(reference, text)["rougeL"].fmeasure for reference in references)
        for text, references in zip(ANSWERS, REFERENCES, strict=True)
    ]
    assert scores["rouge_l"] == pytest.approx(100 * sum(each) / 3)
    words = [text.lower().replace(".", " .").replace("!", " !").replace(",", " ,").split() for text in ANSWERS]
    known = [[r.lower().replace(".", " .").replace(",", " ,").split() for r in group] for group in REFERENCES]
    assert scores["nist"] == pytest.approx(corpus_nist(known, words, n=5))


def test_tasks_and_machines_without_what_scores_need_are_refused(opinions, monkeypatch):
    for task, prompts, match in (
        (opinions, 1, "has no meaning representations to express"),
        ("restaurants", 0, "prompts must be at least 1"),
    ):
        with pytest.raises(BadValue, match=match):
            score_answers(None, None, load_task(task), prompts=prompts)
    for name in ("nltk", "rouge-score", "sacrebleu"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name.replace("-", "_"), None)
            with pytest.raises(BadValue, match=rf"needs {name}: pip install 'lora-lab\[metrics\]'$"):
                text_scores([TEXT], [[TEXT]])


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
