"""`lora-lab params` and `lora-lab memory`: count parameters and predict memory without loading weights."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from lora_lab.cli.options import method_options, take_method
from lora_lab.cli.shared import JSON, aligned, tell
from lora_lab.errors import BadValue, LabError


@click.command()
@click.argument("model")
@method_options()
@click.option("--num-labels", type=click.IntRange(1, 10**5), help="Number of classes, to count MODEL as a classifier.")
@JSON
def params(model: str, num_labels: int | None, as_json: bool, **options: Any) -> None:
    """Count the parameters that a method trains in MODEL, module by module.

    MODEL is a known name (such as llama-3.1-405b), a folder, a config.json or a hub id in the local cache.
    """
    from lora_lab.accounting.models import architecture_of
    from lora_lab.accounting.params import params as count_params

    count = count_params(model, take_method(options, architecture_of(model, num_labels)), num_labels)
    if as_json:
        tell(count.to_json())
        return
    lines, rest = [["module", "role", "in", "out", "count", "full", "trains", "break-even rank"]], 0
    for row in count.modules:
        if row.break_even_rank or row.trained:
            numbers = (row.in_features, row.out_features, row.count, row.full, row.trained)
            rank = "" if row.break_even_rank is None else f"{row.break_even_rank:,.1f}"
            lines.append([row.name, row.role, *(f"{n:,}" for n in numbers), rank])
        else:
            rest += row.full
    lines.append(["norms and others", "", "", "", "", f"{rest:,}", "0", ""])
    head = f", and {count.head:,} in the task's head" if count.head else ""
    totals = [
        f"{count.model}: {count.total:,} parameters",
        f"{count.method} trains {count.trainable:,} parameters ({count.fraction:.4%}){head}",
        f"adapter file {count.adapter_bytes:,} bytes ({count.adapter_bytes / 2**20:,.2f} MiB)",
    ]
    tell("\n".join([*aligned(lines, "<<>>>>>>"), "", *totals, *(f"note: {note}" for note in count.notes)]))


@click.command()
@click.argument("model")
@method_options()
@click.option("--batch", type=int, default=1, show_default=True, help="Number of rows per step.")
@click.option("--seq", type=int, help="Tokens per row, including padding; by default 512, or MODEL's maximum if lower.")
@click.option("--dtype", default="bf16", show_default=True, help="Dtype of the weights: bf16, fp16 or fp32.")
@click.option("--adapter-dtype", default="auto", show_default=True, help="Adapter's dtype: auto, fp32, bf16 or fp16.")
@click.option("--optimizer", default="adamw", show_default=True, help="adamw (also -foreach, -fused or -8bit) or sgd.")
@click.option("--checkpointing", is_flag=True, help="Use activation checkpointing: keep only each layer's input.")
@click.option("--dropout", type=float, default=0.0, show_default=True, help="Dropout probability of the model.")
@click.option("--padded", is_flag=True, help="Assume rows of different lengths, so attention needs a mask.")
@click.option("--outputs-kept", is_flag=True, help="Assume that logits, keys and values are kept for the whole step.")
@click.option("--master-weights", is_flag=True, help="Assume that the optimizer keeps fp32 copies of the weights.")
@click.option("--shard", default="", help="Kind of sharding and number of devices, such as fsdp:8 or zero2:4.")
@click.option("--double-quant/--no-double-quant", default=None, help="Double quantization for qlora; on by default.")
@click.option("--device", default=None, help="Device for the step: cuda or cpu; by default, --gpu's device or cuda.")
@click.option("--gpu", default=None, help="Name of a GPU, such as 4090, 'a100 80' or '16 gb laptop'.")
@click.option("--gpu-gb", type=float, default=None, help="Memory of the GPU in GB, if you don't pass --gpu.")
@click.option("--num-labels", type=click.IntRange(1, 10**5), help="Number of classes in an encoder's head; default: 2.")
@click.option("--trace", is_flag=True, help="Trace this exact step without data, which takes seconds.")
@click.option("--inference", is_flag=True, help="Predict the memory for generation (weights and KV cache).")
@JSON
def memory(
    model: str, trace: bool, inference: bool, num_labels: int | None, gpu: str | None, gpu_gb: float | None,
    device: str | None, double_quant: bool | None, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Predict how much memory a training step of MODEL needs, term by term, and whether it fits on a GPU.

    MODEL is a known name (such as llama-2-70b), a folder, a config.json or a hub id in the local cache.
    """
    from lora_lab.accounting import gpus
    from lora_lab.accounting import memory as accountant
    from lora_lab.accounting.models import architecture_of, config_of, longest
    from lora_lab.accounting.setup import BYTES, Setup
    from lora_lab.accounting.units import GIB
    from lora_lab.methods.targets import QUANTIZED_BITS

    if gpu is not None and gpu_gb is not None:
        raise BadValue("pass --gpu or --gpu-gb, not both")
    if trace and inference:
        raise BadValue("--trace is for a training step: omit --trace or --inference")
    card = gpus.card(gpu) if gpu is not None else gpus.of_size(gpu_gb) if gpu_gb is not None else None
    architecture, method_name, dtype = architecture_of(model), options["method"], options["dtype"]
    if num_labels is not None and architecture.task != "encoder":
        raise BadValue(f"{architecture.name} is counted as a language model, not a classifier; omit --num-labels")
    if dtype in QUANTIZED_BITS:
        raise BadValue(f"dtype must be one of {', '.join(BYTES)}, not {dtype!r}: for a 4-bit base, use --method qlora")
    if method_name != "qlora" and double_quant is not None:
        raise BadValue(f"--double-quant is for --method qlora, not {method_name}: omit it")
    options["quantized"] = "none" if method_name != "qlora" else "nf4-single" if double_quant is False else "nf4"
    options |= {"device": device or (card.device if card else "cuda"), "num_labels": num_labels or 2}
    method = take_method(options, architecture)
    if options["seq"] is None:
        options["seq"] = min(Setup.seq, longest(config_of(model), method) or Setup.seq)
    setup = Setup(**{name: options[name] for name in Setup.__dataclass_fields__})

    def estimated(setup: Setup, trace: bool = False) -> accountant.Estimate:
        if inference:
            return accountant.inference(model, setup, method)
        return accountant.estimate(model, method, setup, trace=trace)

    estimate = estimated(setup, trace or accountant.rounded_up(setup))
    positions = architecture.positions
    notes, largest, available, seconds = [*estimate.notes], dict.fromkeys(("max_batch", "max_seq")), None, None
    if card:
        available = gpus.usable(card)
        for field, limit in (("batch", None), ("seq", longest(config_of(model), method))):
            try:
                largest[f"max_{field}"] = accountant.largest(field, setup, estimated, available, limit) or 0
            except LabError as reason:
                notes.append(f"the largest {field} is unknown: {reason}")
        notes.append(f"{available / GIB:.2f} of {card.memory / GIB:g} GiB are available for the step")
        if setup.dtype in card.lacks:
            notes.append(card.lacks[setup.dtype])
        if estimate.flops and card.peak(setup.dtype):
            seconds = gpus.seconds(estimate.flops, card, dtype=setup.dtype)
            peak = f"{gpus.UTILISATION:.0%} of the card's published peak"
            notes.append(f"the time assumes {peak}; this peak was not verified")
    elif setup.device == "cpu":
        notes.append("add about 0.5 GiB for Python with torch")
    trained_for = f"{architecture.name} was trained for"
    if positions and setup.seq > positions:
        notes.append(f"{setup.seq:,} tokens per row are more than the {positions:,} that {trained_for}")
    elif positions and (longest_row := largest["max_seq"] or 0) > positions:
        notes.append(f"memory would allow {longest_row:,} tokens per row, but {trained_for} {positions:,}")
    answer = {
        "model": architecture.name,
        "method": method_name,
        "settings": method.settings(),
        "setup": asdict(setup),
        "mode": estimate.mode,
        "peak_bytes": estimate.peak,
        "at": estimate.at,
        "categories": estimate.categories,
        "terms": [term._asdict() for term in estimate.terms],
        "moments": estimate.phases,
        "reserved_bytes": estimate.reserved,
        "card": card and card.name,
        "available_bytes": available,
        "fits": None if available is None else estimate.peak <= available,
        **largest,
        "flops": estimate.flops,
        "seconds": seconds,
        "notes": notes,
    }
    tell(answer if as_json else "\n".join(_step(answer)))


def _step(answer: dict[str, Any]) -> Iterator[str]:
    """Yield the answer as text: categories with terms, the peak of each phase, and whether the step fits on a card."""
    from lora_lab.accounting import gpus
    from lora_lab.accounting.memory import SHORT
    from lora_lab.accounting.units import binary

    setup, peak = answer["setup"], answer["peak_bytes"]
    training = [setup["optimizer"], "checkpointing" if setup["checkpointing"] else "", setup["shard"]]
    shape = f"{setup['batch']} x {setup['seq']} tokens"
    parts = [answer["model"], answer["method"], shape, setup["dtype"], *training * (answer["at"] != "generation")]
    yield f"{', '.join(filter(None, parts))}: {binary(peak)} during {answer['at']} ({answer['mode']})"
    yield ""
    for category, total in sorted(answer["categories"].items(), key=lambda pair: -pair[1]):
        yield f"{category:<34} {binary(total):>12}  {total / max(peak, 1):>4.0%}"
        terms = [term for term in answer["terms"] if term["category"] == category]
        for term in sorted(terms, key=lambda term: -term["bytes"]):
            formula = f"  = {term['formula']}" if term["formula"] else ""
            yield f"  {term['where'] or 'the loss':<46} {binary(term['bytes']):>12}{formula}"
    yield ""
    for phase, total in answer["moments"].items():
        mark = "  <- the peak" if total == max(answer["moments"].values()) else ""
        yield f"in {phase:<31} {binary(total):>12}{mark}"
    if answer["reserved_bytes"]:
        yield f"{'reserved by the caching allocator':<34} {binary(answer['reserved_bytes']):>12}"
    yield ""
    verdicts = {True: "fits", False: "does not fit"}
    if answer["card"]:
        limits = [f"{verdicts[answer['fits']]} on {answer['card']} ({binary(answer['available_bytes'])} usable)"]
        for name, low in (("batch", 1), ("seq", SHORT)):
            if (most := answer[f"max_{name}"]) is not None:
                limits.append(f"{name} at most {most:,}" if most else f"not even {name} {low} fits")
        yield "; ".join(limits)
    else:
        cards = [card for card in gpus.cards() if card.device == setup["device"]]
        for fits, verdict in verdicts.items():
            names = [card.name for card in cards if (peak <= gpus.usable(card)) is fits]
            yield f"{verdict}: {'; '.join(names) or 'no card that the lab knows'}"
    if answer["flops"]:
        seconds = f", {answer['seconds']:.3g} s on this card" if answer["seconds"] else ""
        yield f"a step takes {answer['flops'] / 1e12:,.3g} TFLOP{seconds}"
    yield from (f"note: {note}" for note in answer["notes"])
