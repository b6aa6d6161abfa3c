"""An answer of `lora-lab memory`: what was asked, what came of it, as JSON and as a table. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from lora_lab.accounting import gpus
from lora_lab.accounting.gpus import Card, cards, seconds, usable
from lora_lab.accounting.memory import SHORT, Estimate, estimate, inference, largest, longest, prompt_of
from lora_lab.accounting.models import Architecture, architecture_of, config_of
from lora_lab.accounting.setup import BYTES, Setup
from lora_lab.accounting.units import GIB, binary
from lora_lab.cli.method import take_method
from lora_lab.errors import BadValue, LabError
from lora_lab.methods.targets import QUANTISED_BITS

SETUP = [name for name in Setup.__dataclass_fields__ if name not in ("device", "quantised")]


@dataclass(frozen=True)
class Question:
    """What was asked: a model, a method by the name given, and the conditions. `card` is None when no GPU was named."""

    name: str
    model: str
    architecture: Architecture
    method: Any
    setup: Setup
    labels: int
    card: Card | None

    @property
    def available(self) -> int | None:
        """Bytes that the card leaves for the step."""
        return usable(self.card) if self.card else None

    def largest(self, field: str, estimated: Callable[[Setup], Estimate]) -> int | None:
        """The most rows or tokens that fit the card, 0 when nothing does; None without a card."""
        if self.available is None:
            return None
        most = longest(config_of(self.model)) if field == "seq" else None
        limit = most - prompt_of(self.method) if most else None
        with suppress(LabError):
            return largest(field, self.setup, estimated, self.available, limit) or 0
        return None


@dataclass(frozen=True)
class Answer:
    """An estimate with what follows from it for a card."""

    question: Question
    estimate: Estimate
    max_batch: int | None
    max_seq: int | None
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool | None:
        """Whether the card has room; None without a card."""
        available = self.question.available
        return None if available is None else self.estimate.peak <= available

    @property
    def seconds(self) -> float | None:
        """Seconds a step on the card at 40 % of its peak; None where the peak or the FLOPs are not known."""
        card, dtype = self.question.card, self.question.setup.dtype
        known = card is not None and card.peak(dtype) and self.estimate.flops
        return seconds(self.estimate.flops or 0, card, dtype=dtype) if card and known else None

    def to_json(self) -> dict[str, Any]:
        """The contract's keys, and some more. Units: bytes, seconds, FLOPs."""
        estimate, question = self.estimate, self.question
        return {
            "model": question.architecture.name,
            "method": question.name,
            "settings": question.method.settings(),
            "setup": asdict(question.setup),
            "mode": estimate.mode,
            "peak_bytes": estimate.peak,
            "at": estimate.at,
            "categories": estimate.categories,
            "terms": [asdict(term) for term in estimate.terms],
            "moments": estimate.phases,
            "reserved_bytes": estimate.reserved,
            "card": question.card and question.card.name,
            "available_bytes": question.available,
            "fits": self.fits,
            "max_batch": self.max_batch,
            "max_seq": self.max_seq,
            "flops": estimate.flops,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


def answer_of(model: str, options: dict[str, Any]) -> Answer:
    """The answer to a command's options. Raises: BadValue, NotFound for what cannot be asked."""
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
    own = {name: options.pop(name) for name in SETUP}
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


def describe(answer: Answer) -> str:
    """The answer for reading. Units: GiB, or MiB below a tenth of one."""
    question, estimate = answer.question, answer.estimate
    setup = question.setup
    where = f"{setup.batch} x {setup.seq} tokens, {setup.dtype}"
    how = ", ".join(
        [setup.optimizer, *(["checkpointing"] if setup.checkpointing else []), *filter(None, [setup.shard])]
    )
    asked = where if estimate.at == "generation" else f"{where}, {how}"
    return "\n".join(
        [
            f"{question.architecture.name}, {question.name}, {asked}: {binary(estimate.peak)} during {estimate.at} "
            f"({estimate.mode})",
            "",
            *_parts(estimate),
            "",
            *_moments(estimate),
            "",
            *_room(answer),
            *(f"note: {note}" for note in answer.notes),
        ]
    )


def _parts(estimate: Estimate) -> Iterator[str]:
    """Each category, and under it its terms with their formulas, the largest first."""
    for category, total in sorted(estimate.categories.items(), key=lambda pair: -pair[1]):
        yield f"{category:<34} {binary(total):>12}  {total / max(estimate.peak, 1):>4.0%}"
        terms = [term for term in estimate.terms if term.category == category]
        for term in sorted(terms, key=lambda term: -term.bytes):
            formula = f"  = {term.formula}" if term.formula else ""
            yield f"  {term.where or 'the loss':<46} {binary(term.bytes):>12}{formula}"


def _moments(estimate: Estimate) -> Iterator[str]:
    """The peak of each phase, and what PyTorch's allocator takes for the whole where a trace has simulated it."""
    top = max(estimate.phases.values(), default=0)
    for phase, total in estimate.phases.items():
        mark = "  <- the peak" if total == top else ""
        yield f"in {phase:<31} {binary(total):>12}{mark}"
    if estimate.reserved:
        yield f"{'reserved by the caching allocator':<34} {binary(estimate.reserved):>12}"


def _room(answer: Answer) -> Iterator[str]:
    """Whether the card named has room; without one, which cards have."""
    question = answer.question
    if question.card is not None:
        yield _verdict(answer, question.card)
    else:
        same = [card for card in cards() if card.device == question.setup.device]
        for words, wanted in (("fits", True), ("does not fit", False)):
            named = [card.name for card in same if (answer.estimate.peak <= usable(card)) is wanted]
            yield f"{words}: {'; '.join(named) or 'no card of the table'}"
    if answer.estimate.flops:
        seconds = f", {answer.seconds:.3g} s on this card" if answer.seconds else ""
        yield f"a step is {answer.estimate.flops / 1e12:,.3g} TFLOP{seconds}"


def _verdict(answer: Answer, card: Card) -> str:
    found = "fits" if answer.fits else "does not fit"
    most = [
        f"{what} at most {most:,}" if most else f"not even {what} {least}"
        for what, most, least in (("batch", answer.max_batch, 1), ("seq", answer.max_seq, SHORT))
        if most is not None
    ]
    room = binary(answer.question.available or 0)
    return "; ".join([f"{found} on {card.name} ({room} to use)", *most])
