"""Scores of generated text against references, by the usual packages.

    bleu     n-grams of up to four words that also occur in a reference, 0 to 100 (Papineni et al. 2002; sacrebleu)
    chrf     the same with runs of up to six letters, 0 to 100 (Popović 2015; sacrebleu)
    rouge_l  longest common subsequence of words, F1 against the nearest reference, 0 to 100 (Lin 2004; rouge-score)
    nist     n-grams of up to five words weighted by information, at least 0 (Doddington 2002; nltk)

BLEU and NIST ignore case, as the E2E challenge's script does. Other details of that script differ, so numbers are
comparable within the lab, and only roughly with the paper's. METEOR and CIDEr need Java tools. Of the papers, only
Papineni et al. was read; the others were not read here, and the packages do the computing.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import zip_longest

from lora_lab.errors import BadValue

NAMES = ("bleu", "chrf", "rouge_l", "nist")
_PACKAGES = {"sacrebleu": "sacrebleu", "rouge_score": "rouge-score", "nltk": "nltk"}
Texts = Sequence[str]


def text_scores(texts: Texts, references: Sequence[Texts]) -> dict[str, float]:
    """Return all scores of texts, each with one or more references.

    Raises: BadValue for no texts, a text without a list of non-empty references, or a missing package.
    """
    if not texts or len(texts) != len(references) or not all(references):
        raise BadValue(f"every text needs references: {len(texts)} texts have {len(references)} lists of references")
    for known in references:
        if isinstance(known, str) or not any(one.strip() for one in known):
            raise BadValue(f"a text's references must be a list of non-empty texts, not {known!r}")
    check_installed()
    return {score.__name__: score(texts, references) for score in (bleu, chrf, rouge_l, nist)}


def check_installed() -> None:
    """Raises: BadValue, naming the pip extra, if a scoring package is missing."""
    for name in missing_packages():
        raise BadValue(f"scoring generated text needs {name}: pip install 'lora-lab[metrics]'")


def missing_packages() -> list[str]:
    """Return missing scoring packages by their pip names."""
    return [name for module, name in _PACKAGES.items() if find_spec(module) is None]


def bleu(texts: Texts, references: Sequence[Texts]) -> float:
    """Corpus BLEU. `force` only silences a warning about E2E's spaced periods."""
    score = import_module("sacrebleu").corpus_bleu
    return float(score(list(texts), _streams(references), lowercase=True, force=True).score)


def chrf(texts: Texts, references: Sequence[Texts]) -> float:
    """Corpus chrF."""
    return float(import_module("sacrebleu").corpus_chrf(list(texts), _streams(references)).score)


def rouge_l(texts: Texts, references: Sequence[Texts]) -> float:
    """Mean ROUGE-L F1 against each text's nearest reference."""
    scorer = import_module("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    each = [scorer.score_multi(list(r), text)["rougeL"].fmeasure for text, r in zip(texts, references, strict=True)]
    return 100 * float(sum(each)) / len(each)


def nist(texts: Texts, references: Sequence[Texts]) -> float:
    """Corpus NIST with n-grams of up to five words, or fewer if all texts are shorter."""
    words = import_module("sacrebleu.tokenizers.tokenizer_13a").Tokenizer13a()
    split = [words(text.lower()).split() for text in texts]
    known = [[words(text.lower()).split() for text in some] for some in references]
    longest = min(5, max(map(len, split)))
    return float(import_module("nltk.translate.nist_score").corpus_nist(known, split, n=longest)) if longest else 0.0


def _streams(references: Sequence[Texts]) -> list[list[str | None]]:
    """Return the first references, the second ones, ...; None where a text has fewer."""
    return [list(stream) for stream in zip_longest(*references)]
