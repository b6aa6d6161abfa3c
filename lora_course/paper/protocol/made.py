"""From a recipe of the paper to what the lab trains by: the method, the number of steps, a `Recipe`."""

from __future__ import annotations

from lora_course.paper.protocol.given import PaperRecipe
from lora_lab.errors import BadValue
from lora_lab.methods.base import Method
from lora_lab.methods.bottleneck import Bottleneck
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.training.generate import Decoding

LABELS = {"mnli": 3, "sts-b": 1, "e2e": None}  # two where nothing is said; one is a number to be predicted


POOLER = "deberta-v2-xxlarge"  # its classifier has a pooler beside the head that no checkpoint brings


def not_run(recipe: PaperRecipe) -> str:
    """Why the lab plans a recipe and does not run it; "" for one that it runs."""
    if recipe.model == POOLER:
        return (
            "DeBERTa's classifier has a random pooler that must train with the head, and this lab trains the head alone"
        )
    return ""


def method_of(recipe: PaperRecipe) -> Method:
    """What trains."""
    if recipe.row == "FT":
        return FullFineTuning()
    if recipe.get("placement"):
        return Bottleneck(recipe["size"], recipe["placement"])
    return LoRA(recipe["rank"], recipe["alpha"], recipe["targets"], recipe.get("lora_dropout", 0.0))


def labels_of(recipe: PaperRecipe) -> int | None:
    """Outputs of the head; None for a language model."""
    return LABELS.get(recipe.task, 2)


def steps_of(recipe: PaperRecipe, rows: int) -> int:
    """Updates: epochs times batches, an epoch's last and smaller batch among them. Raises: BadValue for no rows."""
    if rows < 1:
        raise BadValue(f"{recipe.task} has no rows to train on: its train file is missing or empty")
    return int(recipe["epochs"]) * batches_of(recipe, rows)


def batches_of(recipe: PaperRecipe, rows: int) -> int:
    """Batches of one epoch."""
    return -(-rows // recipe.batch)


def warmup_of(recipe: PaperRecipe, steps: int) -> float:
    """The share of the steps in which the rate rises; warm-up given in steps may be all of them at most."""
    if "warmup_steps" in recipe.settings:
        return min(1.0, recipe["warmup_steps"] / steps)
    return float(recipe["warmup_ratio"])


def decoding_of(recipe: PaperRecipe) -> Decoding:
    """How a language model's answers are chosen."""
    return Decoding(recipe["beams"], recipe["length_penalty"], recipe["no_repeat_ngram"], recipe["max_new_tokens"])
