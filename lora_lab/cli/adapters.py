"""`lora-lab inspect` and `lora-lab merge`: what is in an adapter, and a plain checkpoint with it merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lora_lab.cli.shared import DOWNLOAD, JSON, tell
from lora_lab.report import aligned

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
    """Show what is in the folder ADAPTER, whether it changes the base, and what is wrong with it."""
    from lora_lab.training.named import inspect_folder

    found = inspect_folder(adapter, base, dtype=dtype, download=download)
    tell(found.to_json() if as_json else _inspection(found))


def _inspection(found: Inspection) -> str:
    """An inspection as a table and sentences."""
    head = f" + {found.head:,} in the head" if found.head else ""
    by = "" if found.difference is None else f": a logit differs by up to {found.difference:.3g}"
    facts = {
        "format": found.format and f"{found.format}, {found.kind}, {found.dtype}, {found.bytes:,} bytes",
        "rank": found.rank,
        "alpha": found.alpha,
        "scaling": found.scaling and f"{found.scaling:.4g}",
        "targets": ", ".join(map(str, found.targets)) if isinstance(found.targets, list) else found.targets,
        "parameters": found.parameters and f"{found.parameters:,}{head}",
        "does something": {None: None, True: f"yes{by}", False: f"no{by}"}[found.does_something],
    }
    lines = [["module", "rank", "scaling", "|BA|", "|W|", "ratio"]]
    for norm in (norm.to_json() for norm in found.norms[:LINES]):
        base = [f"{norm['weight']:.3g}", f"{norm['ratio']:.2%}"] if norm["weight"] else ["-", "-"]
        lines.append([norm["module"], str(norm["rank"]), f"{norm['scaling']:.3g}", f"{norm['update']:.3g}", *base])
    more = len(found.norms) - LINES
    text = "\n".join(
        [
            *(f"{name:16}{value}" for name, value in facts.items() if value is not None),
            *(aligned(lines, "<>>>>>") if len(lines) > 1 else ()),
            *([f"and {more} more"] if more > 0 else ()),
            *([f"problem: {problem}" for problem in found.problems] or ["no problem found"]),
        ]
    )
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)  # a stranger's names, on a terminal


@click.command()
@click.argument("adapter")
@click.option("--base", default=None, help="The base; by default the one that the adapter names.")
@click.option("--out", required=True, help="Folder for the checkpoint: a new or empty one, or an earlier result.")
@click.option("--dtype", default=None, help="fp32, bf16 or fp16, by default the base's; nf4 for a 4-bit base.")
@DOWNLOAD
@JSON
def merge(adapter: str, base: str | None, out: str, dtype: str | None, download: bool, as_json: bool) -> None:
    """Write ADAPTER merged into its base, a plain transformers checkpoint with its tokenizer.

    It loads without lora_lab and runs at the base's own speed, but is as large as the base. In bf16 and fp16 the sum is
    rounded, and the report says what that costs; --dtype fp32 rounds nothing. With nf4 the base is quantized and
    dequantized first, as the adapter of a 4-bit base has met it; the checkpoint is not quantized.
    """
    from lora_lab.training.merged import write_merged

    written = write_merged(adapter, out, base=base, dtype=dtype, download=download)
    tell(written.to_json() if as_json else str(written))
