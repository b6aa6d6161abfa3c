"""Table 2's runs: GLUE on RoBERTa and DeBERTa, by tables 9 and 10 of the paper and by the scripts of its authors.

Each line of numbers is in the tables' own order of the tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lora_lab.experiments.protocol.given import Given, PaperRecipe

TASKS = ("mnli", "sst-2", "mrpc", "cola", "qnli", "qqp", "rte", "sts-b")
METRICS = {  # what table 2 reports comes first
    "cola": ("matthews",),
    "sts-b": ("pearson", "spearman"),
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
}
WARM = ("mrpc", "rte", "sts-b")  # start from the adapter that was trained on MNLI

# ---- tables 9 and 10: (batch, epochs, learning rate), a number for all tasks or one for each
Line = tuple[Any, Any, Any]
BASE: Line = (
    (16, 16, 16, 32, 32, 16, 32, 16),
    (30, 60, 30, 80, 25, 25, 80, 40),
    (5e-4, 5e-4, 4e-4, 4e-4, 4e-4, 5e-4, 5e-4, 4e-4),
)
LARGE_RATES = (3e-4, 4e-4, 3e-4, 2e-4, 2e-4, 3e-4, 4e-4, 2e-4)
LARGE: Line = ((4, 4, 4, 4, 4, 4, 8, 8), (10, 10, 20, 20, 10, 20, 20, 30), LARGE_RATES)
LARGE_LENGTH = (128, 128, 512, 128, 512, 512, 512, 512)
RESTRICTED: Line = (4, (10, 10, 20, 20, 10, 20, 20, 10), LARGE_RATES)
PFEIFFER_3M: Line = (32, (10, 20, 20, 20, 10, 20, 20, 20), (3e-5, 3e-5, *(3e-4,) * 6))
PFEIFFER: Line = (32, (5, 20, 20, 20, 10, 20, 20, 20), 3e-4)
HOULSBY_6M: Line = (32, (10, 5, 10, 10, 5, 20, 20, 10), (3e-5, *(3e-4,) * 7))
HOULSBY: Line = (32, (10, 5, 10, 10, 5, 20, 20, 10), 3e-4)
DEBERTA: Line = (
    (8, 8, 32, 4, 6, 8, 4, 4),
    (5, 16, 30, 10, 8, 11, 11, 10),
    (1e-4, 6e-5, 2e-4, 1e-4, 1e-4, 1e-4, 2e-4, 2e-4),
)
DEBERTA_MORE = {
    "weight_decay": (0.0, 0.01, 0.01, 0.0, 0.01, 0.01, 0.01, 0.1),
    "cls_dropout": (0.15, 0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.2),
    "max_length": (256, 128, 128, 64, 512, 320, 320, 128),
}
# row, model, line, what else the table gives
PAPER: tuple[tuple[str, str, str, Line, Mapping[str, Any]], ...] = (
    ("LoRA", "roberta-base", "Table 9", BASE, {"rank": 8, "alpha": 8, "max_length": 512, "warmup_ratio": 0.06}),
    ("LoRA", "roberta-large", "Table 9", LARGE,
     {"rank": 8, "alpha": 16, "max_length": LARGE_LENGTH, "warmup_ratio": 0.06}),
    ("LoRA dagger", "roberta-large", "Table 9", RESTRICTED,
     {"rank": 8, "alpha": 16, "max_length": 128, "warmup_ratio": 0.06}),
    ("AdapterP 3.0M dagger", "roberta-large", "Table 9", PFEIFFER_3M,
     {"placement": "pfeiffer", "size": 64, "max_length": 128, "warmup_ratio": 0.06}),
    ("AdapterP 0.8M dagger", "roberta-large", "Table 9", PFEIFFER,
     {"placement": "pfeiffer", "size": 16, "max_length": 128, "warmup_ratio": 0.06}),
    ("AdapterH 6.0M dagger", "roberta-large", "Table 9", HOULSBY_6M,
     {"placement": "houlsby", "size": 64, "max_length": 128, "warmup_ratio": 0.06}),
    ("AdapterH 0.8M dagger", "roberta-large", "Table 9", HOULSBY,
     {"placement": "houlsby", "size": 8, "max_length": 128, "warmup_ratio": 0.06}),
    ("LoRA", "deberta-v2-xxlarge", "Table 10", DEBERTA,
     {"rank": 8, "alpha": 8, "warmup_ratio": 0.1, **DEBERTA_MORE}),
)  # fmt: skip

# ---- the scripts: (GPUs, rows on each, epochs, rate, length, warm-up share or steps, weight decay, head's dropout)
Script = tuple[int, int, int, float, int, float | int, float, float | None]
SCRIPTS: dict[str, tuple[int, int, dict[str, Script]]] = {  # with rank and alpha
    "roberta-base": (8, 16, {
        "mnli": (8, 16, 30, 5e-4, 512, 0.06, 0.1, None),
        "sst-2": (8, 16, 60, 5e-4, 512, 0.06, 0.1, None),
        "mrpc": (8, 16, 30, 4e-4, 512, 0.06, 0.1, None),
        "cola": (2, 32, 80, 4e-4, 512, 0.06, 0.1, None),
        "qnli": (8, 32, 25, 4e-4, 512, 0.06, 0.1, None),
        "qqp": (8, 16, 25, 5e-4, 512, 0.06, 0.1, None),
        "rte": (8, 32, 80, 5e-4, 512, 0.06, 0.1, None),
        "sts-b": (8, 16, 40, 4e-4, 512, 0.06, 0.1, None),
    }),
    "roberta-large": (8, 16, {
        "mnli": (8, 4, 10, 3e-4, 128, 0.06, 0.1, None),
        "sst-2": (8, 8, 10, 4e-4, 512, 0.06, 0.1, None),
        "mrpc": (8, 4, 20, 3e-4, 512, 0.06, 0.1, None),
        "cola": (8, 4, 20, 3e-4, 128, 0.06, 0.1, None),
        "qnli": (8, 4, 10, 2e-4, 512, 0.06, 0.1, None),
        "qqp": (8, 4, 20, 3e-4, 512, 0.06, 0.1, None),
        "rte": (8, 8, 20, 4e-4, 512, 0.06, 0.1, None),
        "sts-b": (8, 4, 10, 3e-4, 128, 0.06, 0.1, None),
    }),
    "deberta-v2-xxlarge": (16, 32, {
        "mnli": (8, 8, 5, 1e-4, 256, 1000, 0.0, 0.15),
        "sst-2": (8, 8, 16, 6e-5, 128, 1000, 0.01, 0.0),
        "mrpc": (8, 32, 30, 2e-4, 128, 0.1, 0.01, 0.0),
        "cola": (8, 4, 10, 1.3e-4, 64, 100, 0.0, 0.1),
        "qnli": (8, 6, 8, 1e-4, 512, 500, 0.01, 0.1),
        "qqp": (8, 8, 11, 1e-4, 320, 10_000, 0.01, 0.2),
        "rte": (8, 4, 11, 2.6e-4, 320, 50, 0.01, 0.2),
        "sts-b": (8, 4, 10, 2e-4, 128, 100, 0.1, 0.2),
    }),
}  # fmt: skip
SCRIPT_NAMES = {"sst-2": "sst2", "sts-b": "stsb"}

# ---- table 2, dev set, median of five seeds; the standard deviation after the sign
PUBLISHED = {
    ("LoRA", "roberta-base"): "87.5±.3 95.1±.2 89.7±.7 63.4±1.2 93.3±.3 90.8±.1 86.6±.7 91.5±.2",
    ("FT", "roberta-base"): "87.6 94.8 90.2 63.6 92.8 91.9 78.7 91.2",
    ("LoRA", "roberta-large"): "90.6±.2 96.2±.5 90.9±1.2 68.2±1.9 94.9±.3 91.6±.1 87.4±2.5 92.6±.2",
    ("FT", "roberta-large"): "90.2 96.4 90.9 68.0 94.7 92.2 86.6 92.4",
    ("LoRA dagger", "roberta-large"): "90.6±.2 96.2±.5 90.2±1.0 68.2±1.9 94.8±.3 91.6±.2 85.2±1.1 92.3±.5",
    ("AdapterP 3.0M dagger", "roberta-large"): "90.2±.3 96.1±.3 90.2±.7 68.3±1.0 94.8±.2 91.9±.1 83.8±2.9 92.1±.7",
    ("AdapterP 0.8M dagger", "roberta-large"): "90.5±.3 96.6±.2 89.7±1.2 67.8±2.5 94.8±.3 91.7±.2 80.1±2.9 91.9±.4",
    ("AdapterH 6.0M dagger", "roberta-large"): "89.9±.5 96.2±.3 88.7±2.9 66.5±4.4 94.7±.2 92.1±.1 83.4±1.1 91.0±1.7",
    ("AdapterH 0.8M dagger", "roberta-large"): "90.3±.3 96.3±.5 87.7±1.7 66.3±2.0 94.7±.2 91.5±.1 72.9±2.9 91.5±.5",
    ("LoRA", "deberta-v2-xxlarge"): "91.9±.2 96.9±.2 92.6±.6 72.4±1.1 96.0±.1 92.9±.1 94.9±.4 93.0±.2",
}
EXPECTED = {  # what independent people wrote in the repository's issues
    ("roberta-base", "cola"): "63.5 with rate 2e-4 and seeds 1, 3, 13, 37, 71 (microsoft/LoRA issue 149)",
    ("roberta-base", "rte"): "about 60 without the start from MNLI (microsoft/LoRA issue 151)",
    ("roberta-base", "sts-b"): "91.0 (microsoft/LoRA issue 151)",
    (
        "roberta-large",
        "cola",
    ): "about 67 where an update has 32 rows (microsoft/LoRA issues 35 and 151); 0 where it has "
    "4 (issue 35), and by the scripts as they are (issue 149)",
    ("roberta-large", "sts-b"): "92.2 (microsoft/LoRA issue 151)",
    ("roberta-large", "mrpc"): "90.7 (microsoft/LoRA issue 151)",
    ("roberta-large", "mnli"): "31.3, chance, by the scripts as they are (microsoft/LoRA issue 149)",
}
# ---- what neither says
TAKEN = {
    "optimizer": Given("adamw", "Tables 9 and 10"),
    "schedule": Given("linear", "Tables 9 and 10"),
    "clip": Given(1.0, "the scripts' trainer, its default"),
    "base_dropout": Given(True, "the scripts' trainer: the model's own dropout is on"),
    "label_smoothing": Given(0.0, "not in the tables; none is taken"),
}
SEEDS = Given(5, "Table 2: median of five seeds, best epoch of each run")
TARGETS = Given(("q", "v"), "Tables 9 and 10: r_q = r_v")


def paper() -> Iterator[PaperRecipe]:
    """The runs by the paper's own tables of hyperparameters."""
    for row, model, table, line, more in PAPER:
        for number, task in enumerate(TASKS):
            values = {**dict(zip(("batch", "epochs", "lr"), line, strict=True)), **more}
            settings = {name: Given(_at(value, number), table) for name, value in values.items()}
            yield _recipe(row, model, task, "paper", _completed(settings, table))
    yield from _full()


def repo() -> Iterator[PaperRecipe]:
    """The runs by the authors' scripts."""
    for model, (rank, alpha, tasks) in SCRIPTS.items():
        for task, (gpus, rows, epochs, lr, length, warmup, decay, dropout) in tasks.items():
            name = f"{model.replace('-', '_')}_{SCRIPT_NAMES.get(task, task)}.sh"
            warm = {"warmup_steps": warmup} if isinstance(warmup, int) else {"warmup_ratio": warmup}
            head = {} if dropout is None else {"cls_dropout": dropout}
            values = {
                "batch": rows, "gpus": gpus, "epochs": epochs, "lr": lr, "rank": rank, "alpha": alpha, **warm,
                "weight_decay": decay, "max_length": length, **head,
            }  # fmt: skip
            settings = {key: Given(value, name) for key, value in values.items()}
            yield _recipe("LoRA", model, task, "repo", _completed(settings, name))


def _full() -> Iterator[PaperRecipe]:
    """Full fine-tuning, whose figures the paper took from RoBERTa's own paper."""
    theirs = "Liu et al. 2019, RoBERTa, hyperparameters for GLUE (from memory)"
    settings = {
        "batch": Given(32, f"{theirs}: 16 or 32, chosen on dev"), "epochs": Given(10, theirs),
        "lr": Given(2e-5, f"{theirs}: 1e-5, 2e-5 or 3e-5, chosen on dev; the middle one is taken"),
        "warmup_ratio": Given(0.06, theirs), "weight_decay": Given(0.1, theirs), "max_length": Given(512, theirs),
        **{name: Given(TAKEN[name].value, theirs) for name in ("optimizer", "schedule")},
    }  # fmt: skip
    for model in ("roberta-base", "roberta-large"):
        for task in TASKS:
            yield _recipe("FT", model, task, "paper", {**TAKEN, **settings, "seeds": SEEDS})


def _completed(settings: dict[str, Given], source: str) -> dict[str, Given]:
    decay = {} if "weight_decay" in settings else {"weight_decay": Given(0.0, f"not in {source}; none is taken")}
    targets = {"targets": TARGETS} if "rank" in settings else {}
    return {**settings, **decay, **targets, **TAKEN, "seeds": SEEDS}


def _recipe(row: str, model: str, task: str, variant: str, settings: Mapping[str, Given]) -> PaperRecipe:
    metrics = METRICS.get(task, ("accuracy",))
    line = PUBLISHED.get((row, model))
    published = {metrics[0]: line.split()[TASKS.index(task)]} if line else {}
    warm = "mnli" if task in WARM and row in ("LoRA", "FT") else ""
    expected = EXPECTED.get((model, task), "") if row == "LoRA" else ""
    notes = tuple(_notes(row, model, task, variant, warm))
    return PaperRecipe("table2", row, model, task, variant, settings, metrics, published, warm, expected, notes)


def _notes(row: str, model: str, task: str, variant: str, warm: str) -> Iterator[str]:
    """Where paper, scripts and this lab differ."""
    if warm:
        yield (
            "the paper starts from the model that was tuned on MNLI: give that run's adapter folder as start; the head "
            "is new, for MNLI's has three classes"
        )
    if row == "FT":
        yield "the paper's figure is copied from prior work, one value without a spread"
    if row.endswith("dagger"):
        yield "dagger: the setting of Houlsby et al. 2019, 128 tokens, one batch for all tasks, no start from MNLI"
    if variant == "repo":
        yield "taken literally, each script's batch is on every GPU: so the update's is so many times table 9's or 10's"
        if model == "roberta-large":
            yield "rates of the scripts differ from table 9 on CoLA and STS-B; two people saw CoLA end at 0 with them"
    if model == "deberta-v2-xxlarge" and variant == "paper":
        yield (
            "rank 8 with alpha 8 gives 2.4M parameters, not the 4.7M of table 2, which the scripts' rank 16 with alpha "
            "32 gives: use variant repo to reproduce the row"
        )
    if model == "deberta-v2-xxlarge":
        yield "the head's own dropout (cls_dropout) is not set here; the checkpoint's own is used"
    if model == "roberta-base" and variant == "paper":
        yield "the scripts use alpha 16 and weight decay 0.1 where table 9 has alpha 8 and none: see variant repo"
    if task == "mnli":
        yield "accuracy over the matched and mismatched dev sets together, as table 2 reports it"


def _at(value: Any, number: int) -> Any:
    return value[number] if isinstance(value, tuple) else value
