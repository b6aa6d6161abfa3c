"""`lora-lab memory`: what a training step needs, where it goes, which cards it fits. No torch, except for --trace."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from lora_lab.accounting.units import GIB
from lora_lab.cli.memory_answer import Answer, Question, describe
from lora_lab.cli.method import method_options, take_method
from lora_lab.cli.shared import JSON, together
from lora_lab.errors import BadValue, LabError

if TYPE_CHECKING:
    from lora_lab.accounting.compute import Work
    from lora_lab.accounting.estimates import Estimate
    from lora_lab.accounting.gpus import Card

SETUP = ("batch", "seq", "dtype", "adapter_dtype", "optimizer", "checkpointing", "dropout", "padded", "outputs_kept")


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
    click.option("--shard", default="", help="kind:devices, such as fsdp:8 or zero2:4."),
    click.option("--double-quant/--no-double-quant", default=None, help="Of qlora: yes when left out."),
    click.option("--device", default=None, help="Whose kernels: cuda or cpu; the card's own when left out."),
    click.option("--gpu", default=None, help="A card by name: 4090, a100 80, '16 gb laptop'."),
    click.option("--gpu-gb", type=float, default=None, help="A card by its memory in GB."),
    click.option("--num-labels", type=int, default=None, help="Classes of an encoder's head; 2 when left out."),
    click.option("--trace", is_flag=True, help="Follow the step over fake tensors: exact, in seconds."),
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
    print(json.dumps(answer.to_json(), allow_nan=False) if as_json else describe(answer))


def _answer(model: str, options: dict[str, Any]) -> Answer:
    trace, inference = options.pop("trace"), options.pop("inference")
    question = _question(model, options)
    if trace and inference:
        raise BadValue("--trace follows a training step; leave out --inference, or --trace")
    if inference:
        return _generation(question)
    return _training(question, _traced(model, question) if trace else None)


def _training(question: Question, traced: Estimate | None) -> Answer:
    from lora_lab.accounting.fits import largest_batch, longest_sequence
    from lora_lab.accounting.memory import estimate

    asked = (question.architecture, question.plan, question.setup)
    found = traced or estimate(*asked, labels=question.labels)
    rows, tokens = question.search(largest_batch), question.search(longest_sequence)
    return Answer(question, found, _work(question), rows, tokens, (*found.notes, *_notes(question, tokens)))


def _generation(question: Question) -> Answer:
    from lora_lab.accounting.fits import fits, longest, most
    from lora_lab.accounting.inference import inference

    a, plan, setup, available = question.architecture, question.plan, question.setup, question.available
    found = inference(a, setup, plan)
    rows = tokens = None
    if available is not None:
        rows = most(lambda n: fits(inference(a, replace(setup, batch=n), plan), available)) or 0
        tokens = most(lambda n: fits(inference(a, replace(setup, seq=n), plan), available), longest(a, plan)) or 0
    return Answer(question, found, None, rows, tokens, (*found.notes, *_notes(question, tokens, generates=True)))


def _traced(model: str, question: Question) -> Estimate:
    from lora_lab.accounting import zoo
    from lora_lab.accounting.trace import trace  # imports torch

    return trace(zoo.config(model), question.method, question.setup, num_labels=question.labels)


def _work(question: Question) -> Work | None:
    from lora_lab.accounting.compute import work

    with suppress(LabError):
        return work(question.architecture, question.plan, question.setup, labels=question.labels)
    return None


def _question(model: str, options: dict[str, Any]) -> Question:
    from lora_lab.accounting import zoo
    from lora_lab.accounting.fits import check_length
    from lora_lab.accounting.setup import Setup

    labels, card = options.pop("num_labels"), _card(options.pop("gpu"), options.pop("gpu_gb"))
    architecture = zoo.architecture(model, labels)
    if labels is not None and architecture.task == "causal":
        raise BadValue(f"the memory of {architecture.name} with a classifier is not modelled; leave out --num-labels")
    device = options.pop("device") or (card.device if card else "cuda")
    name, quantised = options["method"], _quantised(options["method"], options.pop("double_quant"), options["dtype"])
    own = {name: options.pop(name) for name in (*SETUP, "shard")}
    setup = Setup(**own, device=device, quantised=quantised)
    method = take_method(options, architecture)
    plan = method.plan(architecture)
    check_length(architecture, plan, setup)
    return Question(name, architecture, method, plan, setup, labels or 2, card)


def _quantised(method: str, double: bool | None, dtype: str) -> str:
    """The form of the frozen linear layers. Raises: BadValue for what only qlora has, or is told by the method."""
    from lora_lab.accounting.setup import BYTES, QUANTISED_BITS

    if dtype in QUANTISED_BITS:
        raise BadValue(
            f"dtype must be one of {', '.join(BYTES)}, not {dtype!r}: a base in 4 bits is --method qlora here"
        )
    if method != "qlora" and double is not None:
        raise BadValue(f"only qlora quantises its constants, not {method}: leave --double-quant out, or --method qlora")
    return "none" if method != "qlora" else "nf4-single" if double is False else "nf4"


def _card(name: str | None, gigabytes: float | None) -> Card | None:
    from lora_lab.accounting.gpus import card, of_size

    if name is not None and gigabytes is not None:
        raise BadValue("give a card by --gpu or its memory by --gpu-gb, not both")
    if name is not None:
        return card(name)
    return None if gigabytes is None else of_size(gigabytes)


def _notes(question: Question, max_seq: int | None, *, generates: bool = False) -> tuple[str, ...]:
    """What the figures leave out or assume, in sentences."""
    from lora_lab.accounting import gpus
    from lora_lab.accounting.compute import UTILISATION

    a, card, dtype = question.architecture, question.card, question.setup.dtype
    notes = ["compile, autocast, offload and chunked losses are not in it", _beside(question)]
    if card is not None:
        notes += gpus.notes(card, dtype)
    if card is not None and card.peak(dtype) and not generates:
        notes.append(f"seconds assume {UTILISATION:.0%} of the card's published peak, as remembered and not confirmed")
    if a.positions and question.setup.seq > a.positions:
        notes.append(f"{question.setup.seq:,} tokens a row are more than {a.name} was trained for: {a.positions:,}")
    elif max_seq and a.positions and max_seq > a.positions:
        notes.append(f"memory would allow {max_seq:,} tokens a row, but {a.name} was trained for {a.positions:,}")
    return tuple(notes)


def _beside(question: Question) -> str:
    """What else takes memory: of a card named, how much is left; without one, what comes on top."""
    if question.card is not None and question.available is not None:
        return f"of {question.card.memory / GIB:g} GiB, {question.available / GIB:.2f} GiB are counted on for the step"
    if question.setup.device == "cpu":
        return "Python with torch, about 0.5 GiB, comes on top"
    return "the CUDA context, about 0.8 GiB, comes on top"
