"""The options that make a method, for every command that takes one: each field of each method is an option."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

import click

from lora_lab.cli.shared import Command
from lora_lab.errors import BadValue
from lora_lab.methods import REGISTRY, Method, method_from

if TYPE_CHECKING:
    from lora_lab.accounting.models import Architecture

OTHER_NAMES = {"dropout": "lora_dropout"}  # `memory` has a --dropout of its own, the model's
HELP = {
    "rank": "Columns of B, rows of A",
    "alpha": "scaling = alpha / rank",
    "targets": "Roles, names or patterns, with commas",
    "dropout": "On the adapter's input",
    "rslora": "scaling = alpha / sqrt(rank)",
    "rank_pattern": "Where some layers differ: q=4,down=16",
    "alpha_pattern": "Likewise: q=4,down=16",
    "init": "How it starts",
    "dora": "DoRA: learn the length of each row of a weight apart",
    "lr_ratio": "LoRA+: B's learning rate over that of A",
    "freeze_a": "LoRA-FA: only B trains",
    "tokens": "How many stand ahead of each row",
    "layers": "The topmost so many only",
    "l2": "Penalty on the classifier's weights",
    "hidden": "Width of the network that makes the prompt; the model's when left out",
    "size": "Numbers in the bottleneck",
    "placement": "Where bottlenecks stand: houlsby, pfeiffer or lin",
    "d_initial": "What each number of d starts at",
    "u": "Numbers in the vector that trains",
    "weight_tying": "0: each layer has its own vector; 1: all share one",
    "projection_seed": "What frozen matrices are drawn from",
    "save_projection": "Whether the file holds them",
    "feedforward": "Targets whose input is scaled, not the output",
}


def method_options(without: Collection[str] = ()) -> Callable[[Command], Command]:
    """`--method` and the options of all methods but those named; what is left out is the method's own default."""

    def add(command: Command) -> Command:
        for name, owners in reversed(_fields().items()):
            command = command if name in without else _option(name, owners)(command)
        return click.option("--method", default="lora", show_default=True, help=f"{', '.join(REGISTRY)}; qlora.")(
            command
        )

    return add


def take_method(options: dict[str, Any], architecture: Architecture | None = None) -> Method:
    """The method that the options make, which are taken out of `options`.

    "qlora" is lora on a base in 4 bits: on all linear layers unless told otherwise, and where the options have a dtype
    that is "auto", it becomes nf4. With an architecture, lora's targets are those that it has.
    Raises: BadValue or NotFound, naming what there is.
    """
    name = options.pop("method")
    taken = {field: options.pop(OTHER_NAMES.get(field, field), None) for field in _fields()}
    given = {field: _read(field, value) for field, value in taken.items() if value is not None}
    if name == "qlora":
        name, given = "lora", {"targets": "all-linear", **given}
        if options.get("dtype") == "auto":
            options["dtype"] = "nf4"
    if architecture and name == "lora" and "targets" not in given:
        given["targets"] = _usual_targets(architecture)
    return method_from({"name": name, **given})


def _fields() -> dict[str, dict[str, Field[Any]]]:
    """Every field by its name, and the methods that have it."""
    found: dict[str, dict[str, Field[Any]]] = {}
    for name, method in REGISTRY.items():
        for field in fields(method):  # type: ignore[arg-type]
            found.setdefault(field.name, {})[name] = field
    return found


def _option(name: str, owners: dict[str, Field[Any]]) -> Callable[[Command], Command]:
    kind = str(next(iter(owners.values())).type).partition(" ")[0]
    option = f"--{OTHER_NAMES.get(name, name).replace('_', '-')}"
    usual = ", ".join(f"{owner}{_usual(field)}" for owner, field in owners.items())
    words = f"{HELP.get(name, name)} ({usual})."
    if kind == "bool":
        return click.option(f"{option}/--no-{option[2:]}", default=None, help=words)
    return click.option(option, type={"int": int, "float": float}.get(kind, str), default=None, help=words)


def _usual(field: Field[Any]) -> str:
    """What it is when left out; nothing for a switch that is off, and where the method has no number of its own."""
    default = field.default
    if default is False or default in (MISSING, None, ()):
        return ""
    return f": {','.join(default) if isinstance(default, tuple) else default}"


def _read(name: str, value: Any) -> Any:
    return _pattern(name, value) if name.endswith("_pattern") else value


def _pattern(name: str, text: str) -> dict[str, float]:
    """{"q": 4, "down": 16} from "q=4,down=16"; an alpha may have a fraction."""
    what, number = ("alpha", _float) if name == "alpha_pattern" else ("rank", _int)
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    found = {target.strip(): number(value) for target, _, value in pairs}
    if "" in found or None in found.values():
        option = name.replace("_", "-")
        raise BadValue(f"--{option} is target={what} with commas between, for example q=4,down=16, not '{text}'")
    return {target: value for target, value in found.items() if value is not None}


def _int(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


def _float(text: str) -> float | None:
    try:
        return _int(text) or float(text)
    except ValueError:
        return None


def _usual_targets(architecture: Architecture) -> str:
    """q,v, or what comes nearest where attention has a latent between: the layers that unfold q, k and v from it."""
    if {"q", "v"} <= set(architecture.roles):
        return "q,v"
    leaves = {module.name.rpartition(".")[2] for module in architecture.modules}
    unfolding = [name for name in ("q_proj", "q_b_proj", "kv_b_proj") if name in leaves]
    targets = ",".join(unfolding) or "all-linear"
    print(f"{architecture.name} has no layers q and v of their own; counting --targets {targets}", file=sys.stderr)
    return targets
