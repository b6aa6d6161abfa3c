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
    "rank": "Number of columns of B, which is the number of rows of A",
    "alpha": "Factor that scales the update, which is multiplied by alpha / rank",
    "targets": "Layers to adapt: roles, names or patterns, separated by commas",
    "dropout": "Dropout probability for the adapter's input",
    "rslora": "Multiply the update by alpha / sqrt(rank)",
    "rank_pattern": "Different ranks for some layers, such as q=4,down=16",
    "alpha_pattern": "Different values of alpha for some layers, such as q=4,down=16",
    "init": "How to initialize the trained parameters",
    "dora": "Use DoRA, which also trains the norm of each row of the weight",
    "lr_ratio": "Ratio of B's learning rate to A's, as in LoRA+",
    "freeze_a": "Use LoRA-FA, which trains only B",
    "tokens": "Number of virtual tokens before each row",
    "layers": "Adapt only this many of the top layers",
    "l2": "L2 penalty on the classifier's weights",
    "hidden": "Width of the network that generates the prompt; by default, the width of the model",
    "size": "Width of the bottleneck",
    "placement": "Where to put the bottlenecks: houlsby, pfeiffer or lin",
    "d_initial": "Initial value of the trained vector d",
    "u": "Size of the trained vector",
    "weight_tying": "Fraction of weight tying: with 0, each layer has its own vector; with 1, all share one",
    "projection_seed": "Random seed of the frozen matrices",
    "save_projection": "Save the frozen matrices in the adapter file",
    "feedforward": "Layers in which the input is scaled instead of the output",
}
TASK_NAMES = "rt, imdb or tweets; for smollm2: kjv, shakespeare, restaurants, captain, json or preacher;"
RECIPE: dict[str, tuple[type, Any, str | None]] = {
    "model": (str, "minilm", "Model: minilm, smollm2, a folder or a hub id."),
    "task": (str, "rt", f"Task: {TASK_NAMES} or your own file."),
    "lr": (float, 2e-3, "Peak learning rate."),
    "steps": (int, 400, "Number of training steps."),
    "batch": (int, 16, "Number of rows per step."),
    "seed": (int, 0, "Random seed of the run."),
    "examples": (int, 0, "Number of training texts, drawn with the data's class balance; 0 uses all."),
    "subset": (int, 0, "Random seed for drawing the --examples texts."),
    "weight_decay": (float, 0.0, "Weight decay of AdamW."),
    "clip": (float, 1.0, "Maximum gradient norm; 0 turns clipping off."),
    "patience": (int, 0, "Stop a run after this many validations without improvement; 0 never stops it."),
    "max_length": (int, None, "Truncate texts to this many tokens."),
    "text_column": (str, "text", "Column that contains the texts in your own file."),
    "label_column": (str, "label", "Column that contains the labels in your own file."),
    "dtype": (str, "auto", "Dtype of the frozen base: fp32, bf16, fp16, or quantized: nf4, int8, nf3, nf2, nf4+fp32."),
    "attention": (str, "auto", "Attention implementation: eager or sdpa."),
    "device": (str, "auto", "Device to use: cuda, mps or cpu."),
    "validations": (int, 8, "Number of evenly spaced validations during training; 0 for none."),
}


def recipe_options(without: Collection[str] = (), unset: Collection[str] = ()) -> Callable[[Command], Command]:
    """Add the options of a recipe and its method, except those in `without`. Options in `unset` have no default."""
    options = []
    for name, (kind, default, text) in RECIPE.items():
        if name not in without:
            default, flag = None if name in unset else default, f"--{name.replace('_', '-')}"
            options.append(click.option(flag, type=kind, default=default, show_default=True, help=text))
    return together(*options, *([] if "method" in without else [method_options(without)]))


def method_options(without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Add `--method` and the options of all methods, except those in `without`; defaults depend on the method."""
    names = f"Method: {', '.join(REGISTRY)} or qlora."
    options = [_option(name, owners) for name, owners in FIELDS.items() if name not in without]
    return together(click.option("--method", default="lora", show_default=True, help=names), *options)


def take_method(options: dict[str, Any], architecture: Architecture | None = None) -> Method:
    """Make the method from its options and remove them from `options`.

    "qlora" is lora on a 4-bit base: it targets all linear layers by default. In training, dtype "auto" becomes nf4, and
    "bf16" becomes nf4+bf16. If given, `architecture` determines lora's default targets, and the dtype isn't changed.
    Raises: BadValue or NotFound for an unknown name.
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
        if architecture is None and (dtype := options.get("dtype")) in ("auto", "fp32", "bf16", "fp16"):
            options["dtype"] = "nf4" if dtype == "auto" else f"nf4+{dtype}"
    if architecture and name == "lora" and "targets" not in given:
        given["targets"] = _default_targets(architecture)
    return method_from({"name": name, **given})


def _option(name: str, owners: dict[str, Field[Any]]) -> Callable[[Command], Command]:
    kind = str(next(iter(owners.values())).type).partition(" ")[0]
    option, defaults = f"--{OTHER_NAMES.get(name, name).replace('_', '-')}", []
    for owner, field in owners.items():
        value = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        defaults.append(owner if value is False or value in (MISSING, None, "") else f"{owner} (default {value})")
    text = f"{HELP.get(name, name)}. Methods: {', '.join(defaults)}."
    if kind == "bool":
        return click.option(f"{option}/--no-{option[2:]}", default=None, help=text)
    return click.option(option, type={"int": int, "float": float}.get(kind, str), default=None, help=text)


def _pattern(name: str, text: str) -> dict[str, float]:
    """Parse "q=4,down=16" into {"q": 4, "down": 16}; alphas may be fractional."""
    pattern: dict[str, float] = {}
    try:
        for part in filter(str.strip, text.split(",")):
            target, _, value = map(str.strip, part.partition("="))
            if not target or target in pattern:
                raise ValueError
            pattern[target] = float(value) if name == "alpha_pattern" and not value.isdecimal() else int(value)
    except ValueError:
        key = name.partition("_")[0]
        raise BadValue(f"--{key}-pattern takes one {key} for each target, as in q=4,down=16, not '{text}'") from None
    return pattern


def _default_targets(architecture: Architecture) -> str:
    """Return the default targets: "q,v" or, for latent attention, the layers that project the latent to q, k and v."""
    if {"q", "v"} <= set(architecture.roles):
        return "q,v"
    leaves = {module.name.rpartition(".")[2] for module in architecture.modules}
    projections = [name for name in ("q_proj", "q_b_proj", "kv_b_proj") if name in leaves]
    targets = ",".join(projections) or "all-linear"
    say(f"{architecture.name} has no separate q and v layers; counting with --targets {targets}")
    return targets
