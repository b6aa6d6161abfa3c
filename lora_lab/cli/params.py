"""`lora-lab params`: what a method would train on a model. No weights are read; a model of the zoo takes no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lora_lab.cli.method import method_options, take_method
from lora_lab.cli.shared import JSON, aligned, tell

if TYPE_CHECKING:
    from lora_lab.accounting.params import ParameterCount, Row


@click.command()
@click.argument("model")
@method_options()
@click.option("--num-labels", type=int, default=None, help="Count the model for sequence classification.")
@JSON
def params(model: str, num_labels: int | None, as_json: bool, **options: Any) -> None:
    """How many parameters a method would train on MODEL, module by module.

    MODEL is a name of the zoo (llama-3.1-405b), a folder, a config.json or a hub id that is in the local cache.
    """
    from lora_lab.accounting.models import architecture_of
    from lora_lab.accounting.params import params as counted

    count = counted(model, take_method(options, architecture_of(model, num_labels)), num_labels)
    tell(count.to_json() if as_json else describe(count))


def describe(count: ParameterCount) -> str:
    """A count as a table and its totals. Units: parameters; the file's in bytes and MiB."""
    rest = [row for row in count.modules if not (row.break_even_rank or row.trained)]
    cells = [_HEAD, *(_cells(row) for row in count.modules if row.break_even_rank or row.trained)]
    cells.append(["norms and others", "", "", "", "", f"{sum(row.full for row in rest):,}", "0", ""])
    trained = f"{count.trainable:,} parameters ({count.fraction:.4%})"
    head = f", and {count.head:,} in the task's head" if count.head else ""
    return "\n".join(
        [
            *aligned(cells, "<<" + ">" * (len(_HEAD) - 2)),
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
