"""What cannot be recomputed, and why: everything else in the tables is, or a test fails."""

from __future__ import annotations

from lora_course.paper import SPREAD, Table

NAME = "names the row"
SETTING = "a setting: chosen, not computed"
MEASURED = "measured by the authors or copied from others: only running it again tells"
READ_OFF = "read off a picture: no numbers are published"
WORDS = "words"

NAMES = ("model", "method", "mark", "task", "quantity", "unit", "script", "where")
SETTINGS = (
    "batch", "seq", "rank", "alpha", "bottleneck", "lp", "li", "weights", "epochs", "lr", "weight_decay", "dropout",
    "cls_dropout", "warmup_steps", "warmup_ratio", "label_smoothing", "beams", "length_penalty", "no_repeat_ngram",
    "gpus", "batch_per_gpu", "start_from", "layer", "other_rank",
)  # fmt: skip
SCORES = (
    "MNLI", "SST-2", "MRPC", "CoLA", "QNLI", "QQP", "RTE", "STS-B", "BLEU", "NIST", "MET", "ROUGE-L", "CIDEr", "TER",
    "WikiSQL", "MNLI-m", "R1", "R2", "RL", "val_loss", "MNLI-100", "MNLI-1k", "MNLI-10k", "MNLI-392k",
    "FT/LoRA", "AdapterL", "AdapterH", "norm_W", "norm_dW", "UWV_of_dW", "UWV_of_W",
)  # fmt: skip
IN_TABLES = {
    "table1": {"adapter_parameters": "one figure for two designs, the sizes of neither are stated"},
    "table9": {"trainable": "names the row, as in table 2"},
    "section5_1": {"trainable": "a formula: the counts of the other tables hold it against the print"},
    "section4_1": dict.fromkeys(("A", "B", "scaling"), WORDS),
    "issues": dict.fromkeys(("issue", "about", "found"), WORDS),
    "fig3": dict.fromkeys(("directions", "phi"), READ_OFF),
    "fig4": dict.fromkeys(("compared", "shared"), READ_OFF),
    "fig8": dict.fromkeys(("directions_of_dW", "directions_of_W", "similarity"), READ_OFF),
}
IN_ROWS = {
    ("section4_2", "training speed", "full"): MEASURED,
    ("section4_2", "training speed", "lora"): MEASURED,
    ("section4_2", "memory to train", "said"): "says what the row says",
    ("section4_2", "100 fine-tuned models", "said"): "says what the row says",
}


def why_not(table: Table, row: int, column: str) -> str | None:
    """Why this number cannot be recomputed; None where nothing says that it cannot."""
    own = IN_TABLES.get(table.name, {}).get(column) or IN_ROWS.get((table.name, str(table.rows[row][0]), column))
    if own or column in NAMES:
        return own or NAME
    if column in SETTINGS:
        return SETTING
    score = column.removesuffix(SPREAD)
    return MEASURED if score in SCORES or score.partition("_")[0] in ("BLEU", "MET", "TER") else None
