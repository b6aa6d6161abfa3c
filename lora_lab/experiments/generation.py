"""Generate answers and score them: by plugins' scorers, and by similarity to references with the standard packages.

    bleu     n-grams of up to four words that also occur in a reference, 0 to 100 (Papineni et al. 2002; sacrebleu)
    chrf     the same for n-grams of up to six characters, 0 to 100 (Popović 2015; sacrebleu)
    rouge_l  longest common subsequence of words, F1 against the closest reference, 0 to 100 (Lin 2004; rouge-score)
    nist     n-grams of up to five words weighted by information, at least 0 (Doddington 2002; nltk)

BLEU and NIST ignore case, like the E2E challenge's script. Other details differ from that script, so scores are
comparable within the lab, but only roughly with the paper's. METEOR and CIDEr need Java tools. Of these
papers, Papineni et al. was read; the others were not read here. The packages compute all scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import zip_longest
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_lab import plugins
from lora_lab.errors import BadValue
from lora_lab.training.generate import GREEDY, Decoding, generate
from lora_lab.training.tasks import Task

PACKAGES = {"sacrebleu": "sacrebleu", "rouge_score": "rouge-score", "nltk": "nltk"}
Texts = Sequence[str]


def score_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    prompts: int = 64,
    decoding: Decoding = GREEDY,
) -> dict[str, Any]:
    """Generate answers to the first `prompts` meanings of the test split, and score them.

    Return the metrics and details of plugins' scorers, those of `text_scores`, n, and texts: [{meaning, text, ...}].
    Raises: BadValue for a task without meanings, fewer than one prompt, or a missing package.
    """
    check_scorable(task)
    if prompts < 1:
        raise BadValue(f"prompts must be at least 1, not {prompts}")
    rows: Any = task.test  # its prompts are the meanings
    meanings, references = rows.prompts[:prompts], rows.references[:prompts]
    texts = generate(model, tokenizer, meanings, decoding)
    result: dict[str, Any] = {"n": len(texts), **text_scores(texts, references)}
    answers = [{"meaning": str(meaning).strip(), "text": text} for meaning, text in zip(meanings, texts, strict=True)]
    for scores in plugins.scores(task, meanings, texts):
        result |= {**scores.metrics, **scores.details}
        answers = [{**answer, **details} for answer, details in zip(answers, scores.each, strict=True)]
    return {**result, "texts": answers}


def check_scorable(task: Task) -> None:
    """Check that a task has meanings and the scoring packages are installed. Raises: BadValue."""
    if not task.generates:
        raise BadValue(f"{task.name} has no meanings to put into sentences; use a task such as restaurants")
    check_installed()


def text_scores(texts: Texts, references: Sequence[Texts]) -> dict[str, float]:
    """Return all scores of `texts`, each of which has one or more references.

    Raises: BadValue for no texts, a text without a list of non-empty references, or a missing package.
    """
    if not texts or len(texts) != len(references) or not all(references):
        raise BadValue(f"every text needs references: {len(texts)} texts have {len(references)} lists of references")
    for group in references:
        if isinstance(group, str) or not any(text.strip() for text in group):
            raise BadValue(f"a text's references must be a list of non-empty texts, not {group!r}")
    check_installed()
    return {score.__name__: score(texts, references) for score in (bleu, chrf, rouge_l, nist)}


def check_installed() -> None:
    """Check that the scoring packages are installed. Raises: BadValue with the pip extra if one is missing."""
    for name in missing_packages():
        raise BadValue(f"scoring generated text needs {name}: pip install 'lora-lab[metrics]'")


def missing_packages() -> list[str]:
    """Return the pip names of missing scoring packages."""
    return [name for module, name in PACKAGES.items() if find_spec(module) is None]


def bleu(texts: Texts, references: Sequence[Texts]) -> float:
    """Return corpus BLEU. `force` only silences a warning about E2E's spaced periods."""
    score = import_module("sacrebleu").corpus_bleu
    return float(score(list(texts), _streams(references), lowercase=True, force=True).score)


def chrf(texts: Texts, references: Sequence[Texts]) -> float:
    """Return corpus chrF."""
    return float(import_module("sacrebleu").corpus_chrf(list(texts), _streams(references)).score)


def rouge_l(texts: Texts, references: Sequence[Texts]) -> float:
    """Return the mean ROUGE-L F1 against each text's closest reference."""
    scorer = import_module("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    scores = [scorer.score_multi(list(r), text)["rougeL"].fmeasure for text, r in zip(texts, references, strict=True)]
    return 100 * float(sum(scores)) / len(scores)


def nist(texts: Texts, references: Sequence[Texts]) -> float:
    """Return corpus NIST with n-grams of up to five words, or fewer if all texts are shorter."""
    tokenize = import_module("sacrebleu.tokenizers.tokenizer_13a").Tokenizer13a()
    words = [tokenize(text.lower()).split() for text in texts]
    expected = [[tokenize(text.lower()).split() for text in group] for group in references]
    n = min(5, max(map(len, words)))
    return float(import_module("nltk.translate.nist_score").corpus_nist(expected, words, n=n)) if n else 0.0


def _streams(references: Sequence[Texts]) -> list[list[str | None]]:
    """Return the first reference of every text, the second ones, ...; None where a text has fewer."""
    return [list(stream) for stream in zip_longest(*references)]
