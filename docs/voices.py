"""Write the stored answers of `VoicesPanel`: `python docs/voices.py captain=FOLDER preacher=FOLDER ...`.

All answer some held-out questions of the captain's pairs greedily, each adapter at every strength. Without
adapters, it takes what lesson 10's reference has (strength 1), and asks only the base that is told.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from lora_course.experiments.styles import BASE, DECODING, answers, file_sizes, open_bank
from lora_course.lesson import reference_styles
from lora_course.panels.live_voices import TOLD
from lora_course.panels.voices_panel import CAPTAIN, STORED, STRENGTHS, read_stored
from lora_lab.files import write_atomically
from lora_lab.training import device
from lora_lab.training.assets import shipped
from lora_lab.training.chat import Chat, question
from lora_lab.training.generate import generate
from lora_lab.training.tasks import load_task

ASKED = slice(2, 14)  # of the held-out questions


def main(adapters: dict[str, str]) -> None:
    """Ask them all, then write the file."""
    asked = [str(prompt) for prompt in load_task("captain").test.prompts[ASKED]]
    bank, tokenizer = open_bank(adapters)
    told = generate(bank.model, tokenizer, [Chat((("system", CAPTAIN), ("user", one))) for one in asked], DECODING)
    here = device.environment(device.choose(64))
    made = f"{here['date']}, {here['device']}, {here['dtype']}"
    about = f"SmolLM2-135M, greedy, at most {DECODING.max_new_tokens} tokens; {made}."
    if adapters:
        for name in list(bank.names):
            for strength in STRENGTHS[1:]:
                bank.blend({name: strength}, f"{name} {strength:g}")
            bank.remove(name)
        found = answers(bank, tokenizer, [question(one) for one in asked])
        voices = {name: {f"{s:g}": found[f"{name} {s:g}"] for s in STRENGTHS[1:]} for name in adapters}
        base, sizes = found[BASE], file_sizes(adapters)
    else:
        kept = reference_styles()
        voices = {name: {"1": texts[ASKED]} for name, texts in kept["answers"].items() if name != BASE}
        base, sizes = kept["answers"][BASE][ASKED], kept["bytes"]
        rank, steps = kept["recipes"]["captain"]["method"]["rank"], kept["recipes"]["captain"]["steps"]
        about += f" Voices: rank {rank} on q and v, {steps} steps, {kept['environment']['date']}."
    content: dict[str, Any] = {"about": about, "told": CAPTAIN, "bytes": sizes, "questions": asked}
    content["answers"] = {BASE: {"0": base}, TOLD: {"0": told}, **voices}
    write_atomically(path := shipped(STORED), (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())
    read_stored(path)
    print(f"{path.name}: {len(asked)} questions, {len(voices)} voices, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(dict(one.split("=", 1) for one in sys.argv[1:]))
