"""`lora-lab memory`: what a training step needs, where it goes, which cards it fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from lora_lab.accounting import gpus
from lora_lab.accounting.memory import Estimate, estimate, inference
from lora_lab.accounting.models import architecture_of
from lora_lab.accounting.setup import BYTES, Setup
from lora_lab.accounting.units import GIB
from lora_lab.cli.memory_answer import Answer, Question, describe
from lora_lab.cli.method import method_options, take_method
from lora_lab.cli.shared import JSON, tell, together
from lora_lab.errors import BadValue
from lora_lab.methods.formats import QUANTISED_BITS

SETUP = (
    "batch",
    "seq",
    "dtype",
    "adapter_dtype",
    "optimizer",
    "checkpointing",
    "dropout",
    "padded",
    "outputs_kept",
    "master_weights",
)

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
    answer = _answer(model, options)
    tell(answer.to_json() if as_json else describe(answer))


def _answer(model: str, options: dict[str, Any]) -> Answer:
    traced, generates = options.pop("trace"), options.pop("inference")
    question = _question(model, options)
    if traced and generates:
        raise BadValue("--trace follows a training step; leave out --inference, or --trace")

    def estimated(setup: Setup, trace: bool = False) -> Estimate:
        if generates:
            return inference(model, setup, question.method)
        return estimate(model, question.method, setup, num_labels=question.labels, trace=trace)

    found = estimated(question.setup, trace=traced)
    rows, tokens = (question.largest(field, estimated) for field in ("batch", "seq"))
    return Answer(question, found, rows, tokens, (*found.notes, *_notes(question, found, tokens)))


def _question(model: str, options: dict[str, Any]) -> Question:
    labels, card = options.pop("num_labels"), _card(options.pop("gpu"), options.pop("gpu_gb"))
    architecture = architecture_of(model)
    if labels is not None and architecture.task != "encoder":
        raise BadValue(f"{architecture.name} is counted as a language model, not a classifier; leave out --num-labels")
    device = options.pop("device") or (card.device if card else "cuda")
    name, quantised = options["method"], _quantised(options["method"], options.pop("double_quant"), options["dtype"])
    own = {name: options.pop(name) for name in (*SETUP, "shard")}
    setup = Setup(**own, device=device, quantised=quantised)
    method = take_method(options, architecture)
    return Question(name, model, architecture, method, setup, labels or 2, card)


def _quantised(method: str, double: bool | None, dtype: str) -> str:
    """The form of the frozen linear layers. Raises: BadValue for what only qlora has, or is told by the method."""
    if dtype in QUANTISED_BITS:
        raise BadValue(
            f"dtype must be one of {', '.join(BYTES)}, not {dtype!r}: a base in 4 bits is --method qlora here"
        )
    if method != "qlora" and double is not None:
        raise BadValue(f"only qlora quantises its constants, not {method}: leave --double-quant out, or --method qlora")
    return "none" if method != "qlora" else "nf4-single" if double is False else "nf4"


def _card(name: str | None, gigabytes: float | None) -> gpus.Card | None:
    if name is not None and gigabytes is not None:
        raise BadValue("give a card by --gpu or its memory by --gpu-gb, not both")
    if name is not None:
        return gpus.card(name)
    return None if gigabytes is None else gpus.of_size(gigabytes)


def _notes(question: Question, found: Estimate, max_seq: int | None) -> Iterator[str]:
    """What the figures rest on besides what the estimate says of itself, in sentences."""
    a, card, setup = question.architecture, question.card, question.setup
    if card is not None and question.available is not None:
        yield f"of {card.memory / GIB:g} GiB, {question.available / GIB:.2f} GiB are counted on for the step"
        if setup.dtype in card.lacks:
            yield card.lacks[setup.dtype]
    elif setup.device == "cpu":
        yield "Python with torch, about 0.5 GiB, comes on top"
    if found.flops and card is not None and card.peak(setup.dtype):
        yield f"seconds assume {gpus.UTILISATION:.0%} of the card's published peak, as remembered and not confirmed"
    if a.positions and setup.seq > a.positions:
        yield f"{setup.seq:,} tokens a row are more than {a.name} was trained for: {a.positions:,}"
    elif max_seq and a.positions and max_seq > a.positions:
        yield f"memory would allow {max_seq:,} tokens a row, but {a.name} was trained for {a.positions:,}"
