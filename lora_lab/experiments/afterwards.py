"""Extra scores for a finished language-model run: perplexity on another text, and scores of generated answers.

Plugins score answers, and standard packages measure the similarity of answers to references:

    bleu     n-grams of up to four words that also occur in a reference, 0 to 100 (Papineni et al. 2002; sacrebleu)
    chrf     the same for n-grams of up to six characters, 0 to 100 (Popović 2015; sacrebleu)
    rouge_l  longest common subsequence of words, F1 against the closest reference, 0 to 100 (Lin 2004; rouge-score)
    nist     n-grams of up to five words, weighted by information, 0 or more (Doddington 2002; nltk)

BLEU and NIST ignore case, like the E2E challenge's script. Other details differ from that script, so scores are
comparable within the lab, but only roughly with those of Hu et al. 2021. METEOR and CIDEr are left out, since they need
Java tools. Of the papers above, we have read only Papineni et al.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_lab import plugins
from lora_lab.errors import BadValue
from lora_lab.files import cached_json
from lora_lab.methods.base import whole
from lora_lab.training import device
from lora_lab.training.generate import GREEDY, Decoding, generate
from lora_lab.training.models import load_model, load_tokenizer
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run
from lora_lab.training.tasks import Task, fingerprint, load_task, task_of, typical_tokens
from lora_lab.training.train import Opened, open_adapter

PACKAGES = ("sacrebleu", "rouge-score", "nltk")  # pip names


def before(recipe: Recipe, forgetting: str, folder: Path, *, download: bool = False) -> float:
    """Return the untrained base model's perplexity on another task, in the recipe's dtype; cache it in `folder`."""
    dtype, text = recipe.computed["dtype"], fingerprint(forgetting) or forgetting
    key = digest(recipe.model, dtype, recipe.device, recipe.attention, text)
    file = folder / f"before-{Path(forgetting).stem}-{key}.json"

    def compute() -> dict[str, Any]:
        choice = device.choose(typical_tokens(task_of(recipe)), **recipe.computed)
        model = load_model(recipe.model, dtype=choice.load_as, attention=choice.attention, download=download)
        model.to(choice.device)  # type: ignore[arg-type]
        return Opened(model, load_tokenizer(recipe.model, download=download), load_task(forgetting)).score().metrics

    return float(cached_json(file, compute)["perplexity"])


def afterwards(
    run: Run, forgetting: str | None, prompts: int, folder: Path, *, decoding: Decoding = GREEDY, download: bool = False
) -> dict[str, Any]:
    """Return `forgetting` (a perplexity), scores of generated answers, and `seconds`; cache the result in `folder`."""
    if not forgetting and not prompts:
        return {"seconds": 0.0}

    def compute() -> dict[str, Any]:
        started, recipe = time.perf_counter(), run.recipe
        if run.adapter is None:
            raise BadValue(f"the run {recipe.hash} has no adapter: remove its record and repeat the comparison")
        attention, where = recipe.attention, recipe.device
        opened = open_adapter(run.adapter, model=recipe.model, attention=attention, device=where, download=download)
        scores: dict[str, Any] = {}
        if forgetting:
            scores["forgetting"] = replace(opened, task=load_task(forgetting)).score().metrics["perplexity"]
        if prompts:
            scores |= score_answers(opened.model, opened.tokenizer, opened.task, prompts, decoding)
        return {**scores, "seconds": time.perf_counter() - started}

    text = f"{Path(forgetting).stem}-{digest(fingerprint(forgetting) or forgetting)}" if forgetting else "none"
    decoded = "" if decoding == GREEDY else f"-{digest(str(decoding))}"
    return cached_json(folder / f"{run.recipe.hash}-{text}-{prompts}{decoded}.json", compute)


def digest(*parts: str) -> str:
    """Return a short hash for the name of a cached file."""
    return sha256("\n".join(parts).encode()).hexdigest()[:12]


# ---- generated answers


def score_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, prompts: int = 64,
    decoding: Decoding = GREEDY,
) -> dict[str, Any]:  # fmt: skip
    """Generate answers to the first `prompts` meaning representations of the test split, and score them.

    Return `n` (the number of texts), `texts`: [{meaning, text, ...}], and the results of `text_scores` and of plugins.
    Raises: BadValue for a task without meaning representations, fewer than one prompt, or a missing package.
    """
    check_scorable(task)
    whole("prompts", prompts)
    rows: Any = task.test  # its prompts are the meaning representations
    meanings, references = rows.prompts[:prompts], rows.references[:prompts]
    texts = generate(model, tokenizer, meanings, decoding)
    result: dict[str, Any] = {"n": len(texts), **text_scores(texts, references)}
    answers = [{"meaning": str(meaning).strip(), "text": text} for meaning, text in zip(meanings, texts, strict=True)]
    for scores in plugins.scores(task, meanings, texts):
        result |= {**scores.metrics, **scores.details}
        answers = [{**answer, **details} for answer, details in zip(answers, scores.each, strict=True)]
    return {**result, "texts": answers}


def check_scorable(task: Task) -> None:
    """Check that a task has meaning representations and that the scoring packages are installed. Raises: BadValue."""
    if not task.test.references:
        raise BadValue(f"{task.name} has no meaning representations; use a task such as restaurants")
    check_installed()


def text_scores(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return all scores of `texts`, each of which has one or more references. Raises: BadValue for a missing package.

    `rouge_l` is the mean over texts; `nist` uses shorter n-grams if no text has five words or more.
    """
    check_installed()
    sacrebleu, nist = import_module("sacrebleu"), import_module("nltk.translate.nist_score")
    streams = [list(stream) for stream in zip_longest(*references)]  # first references, second ones, ...; None: missing
    scorer = import_module("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    pairs = zip(references, texts, strict=True)
    closest = [scorer.score_multi(list(own), text)["rougeL"].fmeasure for own, text in pairs]
    tokenize = import_module("sacrebleu.tokenizers.tokenizer_13a").Tokenizer13a()
    words = [tokenize(text.lower()).split() for text in texts]
    expected = [[tokenize(text.lower()).split() for text in group] for group in references]
    n = min(5, max(map(len, words)))
    return {
        # `force` only silences a warning about the space before E2E's periods
        "bleu": float(sacrebleu.corpus_bleu(list(texts), streams, lowercase=True, force=True).score),
        "chrf": float(sacrebleu.corpus_chrf(list(texts), streams).score),
        "rouge_l": 100 * float(sum(closest)) / len(closest),
        "nist": float(nist.corpus_nist(expected, words, n=n)) if n else 0.0,
    }


def check_installed() -> None:
    """Check that the scoring packages are installed. Raises: BadValue with the pip extra if a package is missing."""
    if missing := missing_packages():
        raise BadValue(f"scoring generated text needs {missing[0]}: pip install 'lora-lab[metrics]'")


def missing_packages() -> list[str]:
    """Return the pip names of missing scoring packages."""
    return [name for name in PACKAGES if find_spec(name.replace("-", "_")) is None]
