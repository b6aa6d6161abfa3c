"""The options that make a recipe, for the commands that train."""

from __future__ import annotations

from collections.abc import Callable, Collection

import click

from lora_lab.cli.method import method_options
from lora_lab.cli.shared import Command

TASK_NAMES = "rt, imdb, tweets; smollm2: kjv, shakespeare, restaurants, captain, json, preacher;"


def recipe_options(without: Collection[str] = ()) -> Callable[[Command], Command]:
    """The options of a recipe, but for those named; without "method", none of a method either. Defaults are its own."""

    def add(command: Command) -> Command:
        command = command if "method" in without else method_options(without)(command)
        for name, option in reversed(OPTIONS.items()):
            command = command if name in without else option(command)
        return command

    return add


OPTIONS: dict[str, Callable[[Command], Command]] = {
    "model": click.option(
        "--model", default="minilm", show_default=True, help="minilm, smollm2, a folder or a hub id."
    ),
    "task": click.option("--task", default="rt", show_default=True, help=f"{TASK_NAMES} or a file of your own."),
    "lr": click.option("--lr", type=float, default=2e-3, show_default=True, help="Peak learning rate."),
    "steps": click.option("--steps", type=int, default=400, show_default=True),
    "batch": click.option("--batch", type=int, default=16, show_default=True),
    "seed": click.option("--seed", type=int, default=0, show_default=True),
    "examples": click.option("--examples", type=int, default=0, help="Training texts, drawn evenly; 0 for all."),
    "subset": click.option("--subset", type=int, default=0, help="Which draw of so many examples."),
    "weight_decay": click.option("--weight-decay", type=float, default=0.0),
    "clip": click.option("--clip", type=float, default=1.0, help="Largest norm of the gradient; 0 for none."),
    "patience": click.option(
        "--patience", type=int, default=0, help="Stop after so many validations without a better one."
    ),
    "max_length": click.option("--max-length", type=int, default=None, help="Tokens that a text is cut to."),
    "text_column": click.option("--text-column", default="text", help="In a file of your own."),
    "label_column": click.option("--label-column", default="label", help="In a file of your own."),
    "dtype": click.option(
        "--dtype", default="auto", help="Of the frozen base: fp32 or bf16; nf4, int8, nf3, nf2 or nf4+fp32 quantise it."
    ),
    "attention": click.option("--attention", default="auto", help="eager or sdpa."),
    "device": click.option("--device", default="auto", help="cuda, mps or cpu."),
    "validations": click.option(
        "--validations", type=int, default=8, show_default=True, help="On the way, evenly spread; 0 for none."
    ),
}
