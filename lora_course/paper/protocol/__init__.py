"""The paper's true protocol: its models, its data, its hyperparameters, and what came out, for tables 2 and 3.

    plan("table2")                      what each run would be: hyperparameters with their sources, steps, memory, time
    run("table2", task="rte", ...)      the run itself, on a model and data that the user has

A laptop can do the first and, on a small model, see that the second works; the real runs want a GPU.
Source: Hu et al. 2021, "LoRA", arXiv 2106.09685v2, and the scripts of its authors' repository.
"""

from lora_course.paper.protocol.dry import Dry, plan
from lora_course.paper.protocol.given import Given, PaperRecipe
from lora_course.paper.protocol.result import Result
from lora_course.paper.protocol.run import run
from lora_course.paper.protocol.sheets import TABLES, recipes

__all__ = ["TABLES", "Dry", "Given", "PaperRecipe", "Result", "plan", "recipes", "run"]
