"""Scores of generated answers: those of the packages, what is missing in one sentence, and the command line."""

import json
import math
import sys

import pytest
from click.testing import CliRunner
from nltk.translate.nist_score import corpus_nist
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu, corpus_chrf

from lora_lab import LoRA, load_model, load_task, save_adapter
from lora_lab.cli import commands
from lora_lab.errors import BadValue
from lora_lab.experiments.afterwards import bleu, chrf, nist, rouge_l, score_answers, text_scores

TEXT = "The Quince is a cheap pub by the river ."  # E2E spaces its full stops
ANSWERS = ["The Quince is a cheap pub.", "Near Tilney Park, there is a pub called Quince!", "Cotto serves Thai food."]
REFERENCES = [
    ["The Quince is a cheap pub by the river.", "By the river is The Quince, a pub."],
    ["Quince is a pub near Tilney Park.", "There is a pub called Quince, near Tilney Park."],
    ["Cotto serves Thai food for less than £20.", "At Cotto the food is Thai."],
]


def test_scores_are_those_of_the_packages():
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
    known = [[r.lower().replace(".", " .").replace(",", " ,").split() for r in some] for some in REFERENCES]
    assert nist(ANSWERS, REFERENCES) == pytest.approx(corpus_nist(known, words, n=5))


def test_texts_and_references_must_pair_up_and_packages_be_there(monkeypatch):
    for texts, references in (([], []), (["a"], []), (["a"], [[]])):
        with pytest.raises(BadValue, match="every text needs references"):
            text_scores(texts, references)
    for known in (TEXT, ["", " "]):  # a text alone would be taken for a list of letters
        with pytest.raises(BadValue, match="a list of non-empty texts"):
            text_scores([TEXT], [known])
    for module, name in (("nltk", "nltk"), ("rouge_score", "rouge-score"), ("sacrebleu", "sacrebleu")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(BadValue, match=rf"needs {name}: pip install 'lora-lab\[metrics\]'$"):
            text_scores([TEXT], [[TEXT]])


def test_a_task_without_meanings_is_refused(opinions):
    with pytest.raises(BadValue, match="has no meanings to put into sentences"):
        score_answers(None, None, load_task(opinions))
    with pytest.raises(BadValue, match="prompts must be at least 1"):
        score_answers(None, None, load_task("restaurants"), prompts=0)


def test_evaluate_prints_slot_errors_beside_perplexity(tiny_causal, tmp_path):
    model = load_model(tiny_causal)
    LoRA(rank=2).attach(model)
    save_adapter(model, tmp_path / "adapter")
    (tmp_path / "test.txt").write_text("name : Quince | area : riverside||Quince is by the river .\n", encoding="utf-8")
    (tmp_path / "valid.txt").write_text("name : Fable | food : Thai||Fable is Thai .\n", encoding="utf-8")
    plain = ["--model", tiny_causal, "--dtype", "fp32", "--attention", "eager", "--device", "cpu", "--prompts", "2"]
    found = CliRunner().invoke(
        commands, ["evaluate", str(tmp_path / "adapter"), "--task", str(tmp_path), *plain, "--json"],
        catch_exceptions=False, standalone_mode=False,
    )  # fmt: skip
    metrics = json.loads(found.stdout)["metrics"]
    assert set(metrics) == {"perplexity", "loss", "n", "slot_errors", "bleu", "chrf", "rouge_l", "nist"}
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    assert metrics["n"] == 1
    assert metrics["slot_errors"] >= 1
