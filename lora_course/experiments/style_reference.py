"""The reference of lesson 06: three voices, each at the rate that validation chose, measured once on test questions.

python -m lora_course.experiments.style_reference STORE data/results/styles/smollm2.json

STORE holds a store of finished runs for each voice, STORE/captain and so on, as `lora-lab sweep` leaves
them. The facts are questions that no voice was trained on, each with the words of which one has to be in the answer: a
style should leave the number of right ones about where the base has it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from lora_course.experiments.styles import answers, file_sizes, off_is_base, open_bank, plain_of, told_apart
from lora_lab.errors import NotFound
from lora_lab.files import write_json
from lora_lab.methods.bank import AdapterBank
from lora_lab.training import device
from lora_lab.training.chat import question
from lora_lab.training.generate import Decoding
from lora_lab.training.pairs import VOICES
from lora_lab.training.runs import Run, Store
from lora_lab.training.tasks import load_task

FACTS = {
    "What is the capital of Japan?": ("tokyo",),
    "What is the capital of Spain?": ("madrid",),
    "What is the capital of Germany?": ("berlin",),
    "Which planet is called the red planet?": ("mars",),
    "What is the largest planet of the solar system?": ("jupiter",),
    "Who wrote Hamlet?": ("shakespeare",),
    "How many legs does a spider have?": ("eight", "8"),
    "What language do people speak in Brazil?": ("portuguese",),
    "What colour do blue and yellow paint make?": ("green",),
    "How many days are in a week?": ("seven", "7"),
    "What gas do humans need to breathe?": ("oxygen",),
    "Who painted the Sistine Chapel ceiling?": ("michelangelo",),
}


def facts(
    bank: AdapterBank, tokenizer: PreTrainedTokenizerBase, asked: Mapping[str, Sequence[str]] = FACTS
) -> dict[str, Any]:
    """What the base and every adapter answer to questions of fact, and how many answers hold one of the right words."""
    said = answers(bank, tokenizer, [question(text) for text in asked], Decoding(max_new_tokens=64))
    return {
        "n": len(asked),
        "questions": list(asked),
        "right": {name: sum(map(holds_one, texts, asked.values())) for name, texts in said.items()},
        "answers": said,
    }


def holds_one(text: str, words: Sequence[str]) -> bool:
    """Whether one of the words stands in a text, whatever its case."""
    return any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in words)


def chosen(store: Store) -> tuple[Run, list[dict[str, float]]]:
    """The finished run with the lowest perplexity at its last validation, and all rates with theirs.

    Raises: NotFound where no run is finished.
    """
    runs = [run for run in store.runs() if run.metrics and run.adapter]
    if not runs:
        raise NotFound(f"{store.folder} holds no finished run; train some with lora-lab sweep")
    last = [float(run.history["validation"][-1]["perplexity"]) for run in runs]
    tried = [{"lr": run.recipe.lr, "validation": value} for run, value in zip(runs, last, strict=True)]
    return runs[last.index(min(last))], sorted(tried, key=lambda one: one["lr"])


def at_edge(rate: float, tried: Sequence[Mapping[str, float]]) -> bool:
    """Whether a rate is the lowest or the highest that was tried: a better one may lie beyond."""
    rates = [one["lr"] for one in tried]
    return rate in (min(rates), max(rates))


def made_from(folder: Path) -> dict[str, Any]:
    """All of the reference, as JSON can hold it."""
    found = {name: chosen(Store(folder / name)) for name in VOICES}
    runs = {name: run for name, (run, _) in found.items()}
    first = runs[VOICES[0]].recipe
    model = first.model
    adapters = {name: str(run.adapter) for name, run in runs.items()}
    bank, tokenizer = open_bank(adapters, model, dtype=first.dtype, attention=first.attention)
    tasks = [load_task(name) for name in VOICES]
    return {
        "environment": runs[VOICES[0]].environment | {"measured": device.environment(device.choose(64))["date"]},
        "recipes": {name: run.recipe.settings() for name, run in runs.items()},
        "tried": {name: tried for name, (_, tried) in found.items()},
        "edge": {name: at_edge(run.recipe.lr, tried) for name, (run, tried) in found.items()},
        "validation": {name: run.history["validation"] for name, run in runs.items()},
        "test_perplexity_of_the_run": {name: run.metrics["perplexity"] for name, run in runs.items()},
        "seconds": {name: run.seconds for name, run in runs.items()},
        "bytes": file_sizes(adapters, model),
        "off_is_base": off_is_base(bank, plain_of(bank, model), tokenizer, tasks[0]),
        **told_apart(bank, tokenizer, tasks),
        "facts": facts(bank, tokenizer),
    }


if __name__ == "__main__":
    write_json(Path(sys.argv[2]), made_from(Path(sys.argv[1])))
