"""Options for methods and recipes: each field of each method is an option."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

import click

from lora_lab.cli.shared import Command, say, together
from lora_lab.errors import BadValue, nearest
from lora_lab.methods import REGISTRY, Method, method_from

if TYPE_CHECKING:
    from lora_lab.accounting.models import Architecture

FIELDS: dict[str, dict[str, Field[Any]]] = {}  # fields of the methods: {field name: {method name: field}}
for _name, _method in REGISTRY.items():
    for _field in fields(_method):  # type: ignore[arg-type]
        FIELDS.setdefault(_field.name, {})[_name] = _field
OTHER_NAMES = {"dropout": "lora_dropout"}  # `memory` uses --dropout for the model's dropout
HELP = {
    "rank": "Number of columns of B and rows of A",
    "alpha": "scaling = alpha / rank",
    "targets": "Roles, names or patterns, separated by commas",
    "dropout": "Dropout on the adapter's input",
    "rslora": "scaling = alpha / sqrt(rank)",
    "rank_pattern": "Other ranks for some layers: q=4,down=16",
    "alpha_pattern": "Other alphas for some layers: q=4,down=16",
    "init": "Initialization",
    "dora": "DoRA: also train the norm of each row of the weight",
    "lr_ratio": "LoRA+: ratio of B's learning rate to A's",
    "freeze_a": "LoRA-FA: train only B",
    "tokens": "Number of virtual tokens before each row",
    "layers": "Adapt only this many of the top layers",
    "l2": "L2 penalty on the classifier's weights",
    "hidden": "Width of the network that generates the prompt; the model's width by default",
    "size": "Width of the bottleneck",
    "placement": "Where bottlenecks go: houlsby, pfeiffer or lin",
    "d_initial": "Initial value of d",
    "u": "Size of the trained vector",
    "weight_tying": "0: each layer has its own vector; 1: all share one",
    "projection_seed": "Seed of the frozen matrices",
    "save_projection": "Save the frozen matrices in the file",
    "feedforward": "Targets whose input is scaled instead of their output",
}
TASK_NAMES = "rt, imdb, tweets; smollm2: kjv, shakespeare, restaurants, captain, json, preacher;"
RECIPE: dict[str, tuple[type, Any, str | None]] = {
    "model": (str, "minilm", "minilm, smollm2, a folder or a hub id."),
    "task": (str, "rt", f"{TASK_NAMES} or your own file."),
    "lr": (float, 2e-3, "Peak learning rate."),
    "steps": (int, 400, None),
    "batch": (int, 16, None),
    "seed": (int, 0, None),
    "examples": (int, 0, "Number of training texts, with the data's class balance; 0 for all."),
    "subset": (int, 0, "Seed of the random draw of --examples texts."),
    "weight_decay": (float, 0.0, None),
    "clip": (float, 1.0, "Maximum gradient norm; 0 for no clipping."),
    "patience": (int, 0, "Stop after this many validations without improvement; 0 for never."),
    "max_length": (int, None, "Truncate texts to this many tokens."),
    "text_column": (str, "text", "Column of the texts in your own file."),
    "label_column": (str, "label", "Column of the labels in your own file."),
    "dtype": (str, "auto", "The frozen base's dtype: fp32, bf16 or fp16; nf4, int8, nf3, nf2 or nf4+fp32 quantize it."),
    "attention": (str, "auto", "eager or sdpa."),
    "device": (str, "auto", "cuda, mps or cpu."),
    "validations": (int, 8, "Validations during training, evenly spaced; 0 for none."),
}


def recipe_options(without: Collection[str] = (), unset: Collection[str] = ()) -> Callable[[Command], Command]:
    """Add the options of a recipe and its method, except those in `without`; those in `unset` have no default."""
    defaults = {name: None if name in unset else default for name, (_, default, _) in RECIPE.items()}
    options = [
        click.option(f"--{name.replace('_', '-')}", type=kind, default=defaults[name], show_default=True, help=text)
        for name, (kind, _, text) in RECIPE.items()
        if name not in without
    ]
    return together(*options, *([] if "method" in without else [method_options(without)]))


def method_options(without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Add `--method` and the options of all methods, except those named; defaults depend on the method."""
    names = f"{', '.join(REGISTRY)}; qlora."
    options = [_option(name, owners) for name, owners in FIELDS.items() if name not in without]
    return together(click.option("--method", default="lora", show_default=True, help=names), *options)


def take_method(options: dict[str, Any], architecture: Architecture | None = None) -> Method:
    """Make the method from its options and remove them from `options`.

    "qlora" is lora on a 4-bit base: it targets all linear layers by default, and dtype "auto" becomes nf4. If given,
    `architecture` determines lora's default targets. Raises: BadValue or NotFound for an unknown name.
    """
    name = options.pop("method")
    given = {}
    for field in FIELDS:
        value = options.pop(OTHER_NAMES.get(field, field), None)
        if value is not None:
            given[field] = _pattern(field, value) if field.endswith("_pattern") else value
    if name not in (*REGISTRY, "qlora"):
        raise BadValue(f"unknown method '{name}'; known: {nearest(name, [*REGISTRY, 'qlora'])}")
    if name == "qlora":
        name, given = "lora", {"targets": "all-linear", **given}
        if options.get("dtype") == "auto":
            options["dtype"] = "nf4"
    if architecture and name == "lora" and "targets" not in given:
        given["targets"] = _default_targets(architecture)
    return method_from({"name": name, **given})


def _option(name: str, owners: dict[str, Field[Any]]) -> Callable[[Command], Command]:
    kind = str(next(iter(owners.values())).type).partition(" ")[0]
    option, defaults = f"--{OTHER_NAMES.get(name, name).replace('_', '-')}", []
    for owner, field in owners.items():
        value = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        defaults.append(owner if value is False or value in (MISSING, None, "") else f"{owner}: {value}")
    text = f"{HELP.get(name, name)} ({', '.join(defaults)})."
    if kind == "bool":
        return click.option(f"{option}/--no-{option[2:]}", default=None, help=text)
    return click.option(option, type={"int": int, "float": float}.get(kind, str), default=None, help=text)


def _pattern(name: str, text: str) -> dict[str, float]:
    """Parse "q=4,down=16" into {"q": 4, "down": 16}; alphas may be fractional."""
    pattern: dict[str, float] = {}
    try:
        for part in filter(str.strip, text.split(",")):
            target, _, value = map(str.strip, part.partition("="))
            pattern[target] = float(value) if name == "alpha_pattern" and not value.isdecimal() else int(value)
        if "" in pattern:
            raise ValueError
    except ValueError:
        key = name.partition("_")[0]
        raise BadValue(f"--{key}-pattern needs target={key} pairs such as q=4,down=16, not '{text}'") from None
    return pattern


def _default_targets(architecture: Architecture) -> str:
    """Return "q,v" or, for latent attention, the layers that project the latent to q, k and v."""
    if {"q", "v"} <= set(architecture.roles):
        return "q,v"
    leaves = {module.name.rpartition(".")[2] for module in architecture.modules}
    projections = [name for name in ("q_proj", "q_b_proj", "kv_b_proj") if name in leaves]
    targets = ",".join(projections) or "all-linear"
    say(f"{architecture.name} has no separate q and v layers; counting with --targets {targets}")
    return targets
