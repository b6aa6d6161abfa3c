"""`lora-lab inspect`: what is in an adapter's folder, what it does to a base, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lora_lab.cli.shared import DOWNLOAD, JSON, tell

if TYPE_CHECKING:
    from lora_lab.methods.inspect import Inspection

LINES = 24  # of norms; --json has them all


@click.command()
@click.argument("adapter")
@click.option("--base", default=None, help="The model that it was trained on: a bundled name, a folder or a hub id.")
@click.option("--dtype", default="fp32", show_default=True, help="Load the base in fp32, bf16 or fp16.")
@DOWNLOAD
@JSON
def inspect(adapter: str, base: str | None, dtype: str, download: bool, as_json: bool) -> None:
    """Say what is in the folder ADAPTER, whether it does anything to the base, and name what is wrong with it."""
    from lora_lab.training.named import inspect_folder

    found = inspect_folder(adapter, base, dtype=dtype, download=download)
    tell(found.to_json() if as_json else describe(found))


def describe(found: Inspection) -> str:
    """An inspection as a table and sentences."""
    facts = {
        "format": found.format and f"{found.format}, {found.kind}, {found.dtype}, {found.bytes:,} bytes",
        "rank": found.rank,
        "alpha": found.alpha,
        "scaling": found.scaling and f"{found.scaling:.4g}",
        "targets": ", ".join(map(str, found.targets)) if isinstance(found.targets, list) else found.targets,
        "parameters": found.parameters
        and f"{found.parameters:,}" + (f" + {found.head:,} in the head" * bool(found.head)),
        "does something": _effect(found),
    }
    lines = [f"{name:16}{value}" for name, value in facts.items() if value is not None]
    problems = [f"problem: {problem}" for problem in found.problems] or ["no problem found"]
    text = "\n".join([*lines, *_table(found), *problems])
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)  # a stranger's names, on a terminal


def _effect(found: Inspection) -> str | None:
    if found.does_something is None:
        return None
    by = "" if found.difference is None else f": a logit differs by up to {found.difference:.3g}"
    return ("yes" if found.does_something else "no") + by


def _table(found: Inspection) -> list[str]:
    """A line a module: ||scaling B A||, ||W|| and their ratio."""
    norms: list[dict[str, Any]] = [norm.to_json() for norm in found.norms[:LINES]]
    if not norms:
        return []
    width = max(len(norm["module"]) for norm in norms)
    lines = [f"{'module':{width}}  rank  scaling     |BA|      |W|   ratio"]
    for n in norms:
        base = f"{n['weight']:8.3g}  {n['ratio']:6.2%}" if n["weight"] else "       -       -"
        lines.append(f"{n['module']:{width}}  {n['rank']:4}  {n['scaling']:7.3g} {n['update']:8.3g} {base}")
    more = len(found.norms) - LINES
    return [*lines, f"and {more} more"] if more > 0 else lines
