"""Table 3's runs: the E2E NLG challenge on GPT-2, by table 11 of the paper and by the command of its repository."""

from __future__ import annotations

from collections.abc import Iterator

from lora_lab.experiments.protocol.given import Given, PaperRecipe

MODELS = ("gpt2-medium", "gpt2-large")
METRICS = ("bleu", "nist", "rouge_l")
README = "the repository's command for E2E"
TABLE = "Table 11"

PUBLISHED = {
    "gpt2-medium": {"bleu": "70.4±.1", "nist": "8.85±.02", "meteor": "46.8±.2", "rouge_l": "71.8±.1",
                    "cider": "2.53±.02"},
    "gpt2-large": {"bleu": "70.4±.1", "nist": "8.89±.02", "meteor": "46.8±.2", "rouge_l": "72.0±.2",
                   "cider": "2.47±.02"},
}  # fmt: skip
EXPECTED = {
    "gpt2-medium": "BLEU 68.65 to 68.87, NIST 8.68 to 8.69, ROUGE-L 71.2 to 71.4 in three independent reruns by the "
    "README (microsoft/LoRA issue 165), not 70.4",
    "gpt2-large": "",
}
SHARED = {
    "batch": Given(8, TABLE),
    "epochs": Given(5, TABLE),
    "lr": Given(2e-4, TABLE),
    "warmup_steps": Given(500, TABLE),
    "weight_decay": Given(0.01, TABLE),
    "label_smoothing": Given(0.1, TABLE),
    "rank": Given(4, f"{TABLE}: r_q = r_v = 4"),
    "alpha": Given(32, TABLE),
    "targets": Given(("q", "v"), f"{TABLE}: r_q = r_v"),
    "lora_dropout": Given(0.1, f"{TABLE}: dropout; {README}: it is LoRA's"),
    "base_dropout": Given(False, "the repository's GPT-2 has no dropout of its own"),
    "loss_over": Given("tokens", "the repository's GPT-2: the mean over all answers' tokens of a batch"),
    "optimizer": Given("adamw", TABLE),
    "schedule": Given("linear", TABLE),
    "clip": Given(0.0, f"{README}: none"),
    "max_length": Given(512, README),
    "beams": Given(10, TABLE),
    "no_repeat_ngram": Given(4, TABLE),
    "max_new_tokens": Given(64, README),
    "seeds": Given(3, "Table 3: mean of three seeds, best epoch of each run"),
}
PENALTY = {"paper": Given(0.9, TABLE), "repo": Given(0.8, README)}
NOTES = (
    "METEOR and CIDEr need the challenge's Java tools: shown as published only",
    "BLEU, NIST and ROUGE-L are those of sacrebleu, nltk and rouge-score, without case: they differ from the "
    "challenge's own script in small things, so read differences of a few tenths as none",
    "the repository feeds meanings as 'name : Cotto | area : riverside' with an end-of-text token behind, this lab as "
    "'name[Cotto], area[riverside]' with a line break behind",
    "the repository ends at step 26,289 with 42,061 lines; here an epoch's last, smaller batch counts as a step too",
    "0.35M in table 3 is the baseline paper's label: rank 4 on q and v of GPT-2 medium has 393,216 parameters",
)


def recipes(variant: str) -> Iterator[PaperRecipe]:
    """The runs by a variant, "paper" or "repo": they differ in the length penalty alone."""
    for model in MODELS:
        settings = {**SHARED, "length_penalty": PENALTY[variant]}
        yield PaperRecipe(
            "table3", "LoRA", model, "e2e", variant, settings, METRICS, PUBLISHED[model],
            expected=EXPECTED[model], notes=NOTES,
        )  # fmt: skip
