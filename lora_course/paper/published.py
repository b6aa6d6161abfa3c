"""The paper's own scores of generated text, to stand beside what is measured here."""

from __future__ import annotations

from lora_course.paper import table

PRINTED = {"bleu": "BLEU", "nist": "NIST", "meteor": "MET", "rouge_l": "ROUGE-L", "cider": "CIDEr"}  # in table 3


def published() -> str:
    """The paper's own figures on E2E as a table, METEOR and CIDEr among them, which are not computed here."""
    rows = [row for row in table("table3").records() if row["model"] == "GPT-2 M"]
    lines = [f"{'published for GPT-2 medium on E2E':34}{''.join(f'{name:>9}' for name in PRINTED)}"]
    lines += [
        f"{row['method']}, {row['trainable']}".ljust(34) + "".join(f"{row[column]:9g}" for column in PRINTED.values())
        for row in rows
    ]
    return "\n".join([*lines, "(Hu et al. 2021, table 3, by E2E's own script)"])
