"""The accountants on the command line: what a method would train. No weights are read and no torch is imported."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from lora_lab.errors import BadValue

if TYPE_CHECKING:
    from lora_lab.accounting.architectures import Architecture
    from lora_lab.accounting.parameters import ParameterCount, Row


def method_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that make a method; those left out are the method's own defaults."""
    for option in reversed(
        [
            click.option("--method", default="lora", show_default=True, help="lora, full, prompt, prefix, bitfit, ..."),
            click.option("--rank", type=int, default=None, help="Of lora; 8 when left out."),
            click.option(
                "--alpha", type=float, default=None, help="Of lora; changes no count, but stands in the file."
            ),
            click.option("--rank-pattern", default=None, help="Where some layers differ: q=4,down=16."),
            click.option("--targets", default=None, help="Roles, names or patterns, with commas; q,v when left out."),
            click.option("--tokens", type=int, default=None, help="Of prompt and prefix; 20 when left out."),
            click.option("--form", default=None, help="Of prefix: keys-values or activations."),
            click.option("--size", type=int, default=None, help="Of bottleneck; 64 when left out."),
            click.option("--placement", default=None, help="Of bottleneck: houlsby, lin or pfeiffer."),
            click.option("--layers", type=int, default=None, help="Of bottleneck: the topmost so many only."),
            click.option("--top", type=int, default=None, help="Of full: the topmost so many layers only."),
        ]
    ):
        command = option(command)
    return command


@click.command()
@click.argument("model")
@method_options
@click.option("--num-labels", type=int, default=None, help="Count the model for sequence classification.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def params(model: str, num_labels: int | None, as_json: bool, **options: Any) -> None:
    """How many parameters a method would train on MODEL, module by module.

    MODEL is a name of the zoo (llama-3.1-405b), a folder, a config.json or a hub id that is in the local cache.
    """
    from lora_lab.accounting import parameters, zoo

    architecture = zoo.architecture(model, num_labels)
    count = parameters.count(architecture, method_from_options(options, architecture))
    print(json.dumps(count.to_json(), allow_nan=False) if as_json else describe(count))


def method_from_options(options: dict[str, Any], architecture: Architecture) -> Any:
    """The method that the options make; an option that it does not have is an error.

    Raises: BadValue or NotFound, naming what there is.
    """
    from lora_lab.methods import method_from

    given = {name: value for name, value in options.items() if value is not None}
    if "rank_pattern" in given:
        given["rank_pattern"] = _pattern(given["rank_pattern"])
    if given["method"] == "qlora":  # trains what lora does; only the base differs
        given = {"targets": "all-linear", **given, "method": "lora"}
    if given["method"] == "lora" and "targets" not in given:
        given["targets"] = _usual_targets(architecture)
    return method_from({"name": given.pop("method"), **given})


def _usual_targets(architecture: Architecture) -> str:
    """q,v, or what comes nearest where attention has a latent between: the layers that unfold q, k and v from it."""
    if {"q", "v"} <= {site.role for site in architecture.sites()}:
        return "q,v"
    unfolding = [name for name in ("q_proj", "q_b_proj", "kv_b_proj") if _has(architecture, name)]
    targets = ",".join(unfolding) or "all-linear"
    print(f"{architecture.name} has no layers q and v of their own; counting --targets {targets}", file=sys.stderr)
    return targets


def _has(architecture: Architecture, leaf: str) -> bool:
    return any(module.name.endswith(f".{leaf}") for module in architecture.modules)


def _pattern(text: str) -> dict[str, int]:
    """{"q": 4, "down": 16} from "q=4,down=16"."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    for target, _, rank in pairs:
        if not (target.strip() and rank.strip().isdigit()):
            raise BadValue(f"--rank-pattern is target=rank with commas between, for example q=4,down=16, not '{text}'")
    return {target.strip(): int(rank) for target, _, rank in pairs}


def describe(count: ParameterCount) -> str:
    """A count as a table and its totals. Units: parameters; the file's in bytes and MiB."""
    rest = [row for row in count.modules if not (row.matrix or row.trained)]
    cells = [_HEAD, *(_cells(row) for row in count.modules if row.matrix or row.trained)]
    cells.append(["norms and others", "", "", "", "", f"{sum(row.full for row in rest):,}", "0", ""])
    trained = f"{count.trainable:,} parameters ({count.fraction:.4%})"
    head = f", and {count.head:,} in the task's head" if count.head else ""
    return "\n".join(
        [
            *_aligned(cells),
            "",
            f"{count.model}: {count.total:,} parameters",
            f"{count.method} trains {trained}{head}",
            f"adapter file {count.adapter_bytes:,} bytes ({count.adapter_bytes / 2**20:,.2f} MiB)",
            *(f"note: {note}" for note in count.notes),
        ]
    )


_HEAD = ["module", "role", "in", "out", "count", "full", "trains", "break-even rank"]


def _cells(row: Row) -> list[str]:
    numbers = (row.in_features, row.out_features, row.count, row.full, row.trained)
    rank = row.break_even_rank
    return [row.name, row.role, *(f"{n:,}" for n in numbers), "" if rank is None else f"{rank:,.1f}"]


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Words to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    sides = ["<", "<", *">" * (len(widths) - 2)]
    shape = list(zip(sides, widths, strict=True))
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, (side, width) in zip(line, shape, strict=True)).rstrip()
        for line in cells
    ]
