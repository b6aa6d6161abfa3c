"""`lora-lab memory`: what a training step needs, where it goes, which cards it fits."""

from __future__ import annotations

from typing import Any

import click

from lora_lab.cli.method import method_options
from lora_lab.cli.shared import JSON, tell, together

setup_options = together(
    click.option("--batch", type=int, default=1, show_default=True, help="Rows."),
    click.option("--seq", type=int, default=512, show_default=True, help="Tokens a row, padding included."),
    click.option("--dtype", default="bf16", show_default=True, help="bf16, fp16 or fp32."),
    click.option("--adapter-dtype", default="auto", show_default=True, help="auto, fp32 (PEFT's way) or bf16."),
    click.option("--optimizer", default="adamw", show_default=True, help="adamw, -foreach, -fused, -8bit; sgd"),
    click.option("--checkpointing", is_flag=True, help="Keep each layer's input only, and run layers twice."),
    click.option("--dropout", type=float, default=0.0, show_default=True, help="The model's own."),
    click.option("--padded", is_flag=True, help="Rows of unequal length: attention gets a mask."),
    click.option("--outputs-kept", is_flag=True, help="The loop holds logits, keys and values to the end."),
    click.option("--master-weights", is_flag=True, help="The optimizer keeps fp32 copies of half-precision weights."),
    click.option("--shard", default="", help="kind:devices, such as fsdp:8 or zero2:4."),
    click.option("--double-quant/--no-double-quant", default=None, help="Of qlora: yes when left out."),
    click.option("--device", default=None, help="Whose kernels: cuda or cpu; the card's own when left out."),
    click.option("--gpu", default=None, help="A card by name: 4090, a100 80, '16 gb laptop'."),
    click.option("--gpu-gb", type=float, default=None, help="A card by its memory in GB."),
    click.option("--num-labels", type=int, default=None, help="Classes of an encoder's head; 2 when left out."),
    click.option("--trace", is_flag=True, help="Follow this very step over tensors without data: seconds."),
    click.option("--inference", is_flag=True, help="Generation instead of training: weights and cache."),
)
"""The options that make a set-up and name a card; their defaults are the set-up's own."""


@click.command()
@click.argument("model")
@method_options()
@setup_options
@JSON
def memory(model: str, as_json: bool, **options: Any) -> None:
    """How much memory a training step of MODEL needs, term by term, and whether a card has it.

    MODEL is a name of the zoo (llama-2-70b), a folder, a config.json or a hub id that is in the local cache.
    """
    from lora_lab.cli.memory_answer import answer_of, describe

    answer = answer_of(model, options)
    tell(answer.to_json() if as_json else describe(answer))
