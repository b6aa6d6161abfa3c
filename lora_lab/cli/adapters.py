"""`lora-lab inspect` and `lora-lab merge`: inspect an adapter, or merge it into a plain checkpoint."""

import click

from lora_lab.cli.shared import DOWNLOAD, JSON, aligned, tell
from lora_lab.errors import BadValue

LINES = 24  # norms to print; --json prints all


@click.command()
@click.argument("adapter")
@click.option("--base", default=None, help="The base model: a bundled name, a folder or a hub id.")
@click.option("--dtype", default="fp32", show_default=True, help="Dtype of the base: fp32, bf16 or fp16.")
@DOWNLOAD
@JSON
def inspect(adapter: str, base: str | None, dtype: str, download: bool, as_json: bool) -> None:
    """Show what the folder ADAPTER contains, whether the adapter changes the base model, and any problems."""
    from lora_lab.training.named import inspect_folder

    if base is None and dtype != "fp32":
        raise BadValue(f"--dtype {dtype} is for the base model: pass --base, too")
    result = inspect_folder(adapter, base, dtype=dtype, download=download)
    if as_json:
        tell(result.to_json())
        return
    head = f" + {result.head:,} in the head" if result.head else ""
    difference = "" if result.difference is None else f": logits differ by up to {result.difference:.3g}"
    facts = {
        "format": result.format and f"{result.format}, {result.kind}, {result.dtype}, {result.bytes:,} bytes",
        "rank": result.rank,
        "alpha": result.alpha,
        "scaling": result.scaling and f"{result.scaling:.4g}",
        "targets": ", ".join(map(str, result.targets)) if isinstance(result.targets, list) else result.targets,
        "parameters": None if result.parameters is None else f"{result.parameters:,}{head}",
        "changes output": {None: None, True: f"yes{difference}", False: f"no{difference}"}[result.does_something],
    }
    lines = [["module", "rank", "scaling", "|BA|", "|W|", "ratio"]]
    for norm in result.norms[:LINES]:
        weight = [f"{norm.weight:.3g}", f"{norm.ratio:.2%}"] if norm.weight else ["-", "-"]
        lines.append([norm.module, str(norm.rank), f"{norm.scaling:.3g}", f"{norm.update:.3g}", *weight])
    words = [f"{name:16}{value}" for name, value in facts.items() if value is not None]
    if result.norms:
        words += aligned(lines, "<>>>>>")
    if (more := len(result.norms) - LINES) > 0:
        words.append(f"and {more} more")
    words += [f"problem: {problem}" for problem in result.problems] or ["no problem found"]
    tell("\n".join(words))


@click.command()
@click.argument("adapter")
@click.option("--base", default=None, help="The base model; by default, the model that the adapter names.")
@click.option("--out", required=True, help="Output folder: new, empty, or written by an earlier merge.")
@click.option("--dtype", default=None, help="fp32, bf16 or fp16 (default: the base's dtype), or nf4 for a 4-bit base.")
@DOWNLOAD
@JSON
def merge(adapter: str, base: str | None, out: str, dtype: str | None, download: bool, as_json: bool) -> None:
    """Merge ADAPTER into its base model and write a plain transformers checkpoint with a tokenizer.

    The checkpoint loads without lora_lab, and has the base's speed and size. In bf16 and fp16, the merged weights
    are rounded, and the report shows the effect. With --dtype nf4, the base is first quantized and dequantized, as in
    training, but the checkpoint is not quantized.
    """
    from lora_lab.training.named import in_words, write_merged

    written = write_merged(adapter, out, base=base, dtype=dtype, download=download)
    tell(written if as_json else in_words(written))
