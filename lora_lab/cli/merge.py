"""`lora-lab merge`: an adapter and its base become one plain checkpoint."""

from __future__ import annotations

import click

from lora_lab.cli.shared import DOWNLOAD, JSON, tell


@click.command()
@click.argument("adapter")
@click.option("--base", default=None, help="The base; the one that the adapter names when left out.")
@click.option("--out", required=True, help="Folder for the checkpoint: a new or empty one, or an earlier result.")
@click.option(
    "--dtype", default=None, help="fp32, bf16, fp16; the base's own when left out; nf4 for the numbers of a 4-bit base."
)
@DOWNLOAD
@JSON
def merge(adapter: str, base: str | None, out: str, dtype: str | None, download: bool, as_json: bool) -> None:
    """Write ADAPTER merged into its base, a plain transformers checkpoint with its tokenizer.

    It loads without lora_lab and runs at the base's own speed, but is as large as the base. In bf16 and fp16 the sum is
    rounded, and the report says what that costs; --dtype fp32 rounds nothing. With nf4 the base is quantised and turned
    back first, as the adapter of a 4-bit base has met it; what is written is plain numbers all the same.
    """
    from lora_lab.training.merged import write_merged

    written = write_merged(adapter, out, base=base, dtype=dtype, download=download)
    tell(written.to_json() if as_json else str(written))
