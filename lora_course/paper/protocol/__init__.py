"""The paper's own protocol for tables 2 and 3: its models, its data, its hyperparameters, and what came out.

    plan("table2")                      what each run would be: hyperparameters with sources, steps, memory, time
    run("table2", task="rte", ...)      the run itself, on a model and data that the user has

A laptop can do the first and, on a small model, check that the second works; the real runs need a GPU. Both return
plain dictionaries; `plan_in_words` and `result_in_words` print them.
Source: Hu et al. 2021, "LoRA", arXiv 2106.09685v2, and the scripts of its authors' repository.
"""

from lora_course.paper.protocol.plan import plan, plan_in_words
from lora_course.paper.protocol.recipes import TABLES, PaperRecipe, recipes
from lora_course.paper.protocol.run import result_in_words, run

__all__ = ["TABLES", "PaperRecipe", "plan", "plan_in_words", "recipes", "result_in_words", "run"]
