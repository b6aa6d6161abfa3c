"""Write the stored answers of `VoicesPanel`: `python docs/voices.py STORE`.

STORE contains a store of finished runs for each voice, STORE/captain and so on, as `lora-lab sweep` writes it. The run
of rank RANK with the lowest validation perplexity answers the questions; the file lists all runs.
"""

import json
import sys
from pathlib import Path
from typing import Any

from lora_course.experiments.styles import BASE, file_sizes, open_bank
from lora_course.panels.voices_panel import CAPTAIN, STORED, STRENGTHS, TOLD
from lora_lab.files import write_atomically
from lora_lab.training import device
from lora_lab.training.assets import shipped
from lora_lab.training.chat import Chat, question
from lora_lab.training.generate import Decoding, generate
from lora_lab.training.runs import Run, Store
from lora_lab.training.tasks import VOICES, voice

RANK = 2
DECODING = Decoding(max_new_tokens=64, no_repeat_ngram=4)
QUESTIONS = (  # not in the training or validation rows
    "What do owls eat?",
    "How do I learn to code?",
    "What makes thunder?",
    "Why do people like music?",
    "How many strings does a violin have?",
    "What is love?",
    "What should I eat tonight?",
    "Who are you?",
)


def perplexity(run: Run) -> float:
    """Return the perplexity of the last validation."""
    return float(run.history["validation"][-1]["perplexity"])


def best_runs(store: Path) -> tuple[dict[str, Run], list[dict[str, Any]]]:
    """Return the best run of each voice, and a row for every run, best first within each voice."""
    best, tried = {}, []
    for name in VOICES:
        runs = sorted((run for run in Store(store / name).runs() if run.metrics and run.adapter), key=perplexity)
        best[name] = next(run for run in runs if run.recipe.settings()["method"]["rank"] == RANK)
        tried += [row_of(name, run) for run in runs]
    return best, tried


def row_of(name: str, run: Run) -> dict[str, Any]:
    """Return the row of a run."""
    recipe, method, size = run.recipe, run.recipe.settings()["method"], file_sizes({name: str(run.adapter)})[name]
    return {
        "voice": name, "rank": method["rank"], "alpha": method["alpha"], "lr": recipe.lr, "seed": recipe.seed,
        "steps": recipe.steps, "batch": recipe.batch, "bytes": size, "date": run.environment["date"],
        "validation": round(perplexity(run), 3), "test": round(run.metrics["perplexity"], 3),
    }  # fmt: skip


def main(store: Path) -> None:
    """Generate the answers of all voices, then write the file."""
    seen = {str(chat) for split, rows in voice("captain").items() if split != "test" for chat in rows.prompts}
    assert not seen & set(QUESTIONS), "a question is in the training or validation rows"
    best, tried = best_runs(store)
    adapters = {name: str(run.adapter) for name, run in best.items()}
    bank, tokenizer = open_bank(adapters)
    prompted = generate(bank.model, tokenizer, [Chat((("system", CAPTAIN), ("user", q))) for q in QUESTIONS], DECODING)
    for name in adapters:
        for strength in STRENGTHS[1:]:
            bank.blend({name: strength}, f"{name} {strength:g}")
        bank.remove(name)
    replies = {}
    for name in (*bank.names, BASE):
        bank.use(None if name == BASE else name)
        replies[name] = generate(bank.model, tokenizer, [question(q) for q in QUESTIONS], DECODING)
    env, first = device.environment(device.choose(64)), best[VOICES[0]].recipe
    about = (
        f"SmolLM2-135M-Instruct, asked on {env['date']} ({env['device']}, {env['dtype']}): greedy, "
        f"at most {DECODING.max_new_tokens} tokens, no {DECODING.no_repeat_ngram} tokens in a row twice. "
        f"Voices: rank {RANK} on all linear layers, {first.steps} steps of {first.batch} pairs, one seed."
    )
    content: dict[str, Any] = {"about": about, "told": CAPTAIN, "bytes": file_sizes(adapters), "tried": tried}
    content |= {"questions": list(QUESTIONS), "answers": {BASE: {"0": replies[BASE]}, TOLD: {"0": prompted}}}
    for name in adapters:
        content["answers"][name] = {f"{s:g}": replies[f"{name} {s:g}"] for s in STRENGTHS[1:]}
    write_atomically(path := shipped(STORED), (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())
    print(f"{path.name}: {len(QUESTIONS)} questions, {len(adapters)} voices, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
