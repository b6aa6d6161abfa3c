"""Table 3's runs: the E2E NLG challenge on GPT-2, by table 11 of the paper and by the command of its repository."""

from __future__ import annotations

from collections.abc import Iterator

from lora_course.paper import table
from lora_course.paper.protocol.given import Given, PaperRecipe, published_in
from lora_course.paper.published import PRINTED

MODELS = {"gpt2-medium": "GPT-2 M", "gpt2-large": "GPT-2 L"}
METRICS = ("bleu", "nist", "rouge_l")  # the others need Java
README = "the repository's command for E2E"
TABLE = "Table 11"
BESIDE = {
    "targets": Given(("q", "v"), f"{TABLE}: r_q = r_v"),
    "lora_dropout": Given(0.1, f"{TABLE}: dropout; {README}: it is LoRA's"),
    "base_dropout": Given(False, "the repository's GPT-2 has no dropout of its own"),
    "loss_over": Given("tokens", "the repository's GPT-2: the mean over all answers' tokens of a batch"),
    "optimizer": Given("adamw", TABLE),
    "schedule": Given("linear", TABLE),
    "clip": Given(0.0, f"{README}: none"),
    "max_length": Given(512, README),
    "max_new_tokens": Given(64, README),
    "seeds": Given(3, "Table 3: mean of three seeds, best epoch of each run"),
}
REPO = {"length_penalty": Given(0.8, README)}
NOTES = (
    "METEOR and CIDEr need the challenge's Java tools: shown as published only",
    "BLEU, NIST and ROUGE-L are those of sacrebleu, nltk and rouge-score, without case: they differ from the "
    "challenge's own script in small things, so read differences of a few tenths as none",
    "the repository feeds meanings as 'name : Cotto | area : riverside' with an end-of-text token behind, this lab as "
    "'name[Cotto], area[riverside]' with a line break behind",
    "a reference that stands twice with one meaning trains once here, so the rows are a little fewer than the lines",
    "the repository ends at step 26,289 with 42,061 lines; here an epoch's last, smaller batch counts as a step too",
    "0.35M in table 3 is the baseline paper's label: rank 4 on q and v of GPT-2 medium has 393,216 parameters",
)


def recipes(variant: str) -> Iterator[PaperRecipe]:
    """The runs by a variant, "paper" or "repo": they differ in the length penalty alone."""
    line = table("table11").row(task="E2E")
    given = {name: Given(value, TABLE) for name, value in line.items() if name not in ("task", "dropout")}
    settings = {**given, **BESIDE, **(REPO if variant == "repo" else {})}
    results = table("table3")
    reruns = "; ".join(f"{name}: {results.expected[PRINTED[name]]}" for name in METRICS)
    for model, printed in MODELS.items():
        record = results.row(model=printed, method="LoRA")
        published = {name: published_in(record, column) for name, column in PRINTED.items()}
        expected = reruns if model == "gpt2-medium" else ""
        yield PaperRecipe(
            "table3", "LoRA", model, "e2e", variant, settings, METRICS, published, expected=expected, notes=NOTES
        )
