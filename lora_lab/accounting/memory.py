"""How much memory a training step needs, and where in the step: the closed form, explained term by term.

What lives through the whole step is a sum: weights, gradients, optimizer states. What comes and goes is played on the
tape: forward, every layer keeps what its backward needs; backward, layer after layer gives it back and gradients grow.
As equal layers are equal, the peak is at the loss, in the last layer's backward, in the first one's, at the end of
backward, or in the optimizer's step; the largest of these is the peak.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lora_lab.accounting.blocks import ACTIVATIONS, BLOCKS, HIDDEN, Layer
from lora_lab.accounting.ends import ENCODERS, classification_head, embeddings, language_head
from lora_lab.accounting.estimates import NOTES, Estimate, Term
from lora_lab.accounting.kin import KIN
from lora_lab.accounting.models import Architecture
from lora_lab.accounting.operations import Operations
from lora_lab.accounting.plan import Adapter, LayerPlan, Plan
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.states import States
from lora_lab.accounting.tape import IN_FLIGHT, VARIABLES, Label, Parts, Profile, Storage, Value
from lora_lab.errors import BadValue, nearest


def estimate(a: Architecture, plan: Plan, setup: Setup, *, labels: int = 2) -> Estimate:
    """The closed form for one training step of eager PyTorch with transformers' models.

    Raises: BadValue for a family or method whose activations are not modelled, naming what is.
    """
    setup.check_modelled()
    if plan.unknown:
        raise BadValue(plan.unknown)
    if a.model_type not in MODELLED:
        known = nearest(a.model_type, MODELLED)
        raise BadValue(f"the activations of {a.model_type} are not modelled; nearest that are: {known}")
    if plan.outside and not any(plan.layers):
        raise BadValue(
            "the memory of adapters on embeddings, the head or experts alone is not modelled: trace it, or add q,v"
        )
    others = any(type(part) is not Adapter for layer in plan.layers for _, some in layer for part in some)
    if others and setup.adapter_dtype != "auto":
        raise BadValue("factors and bottlenecks train in fp32 beside any base: leave adapter_dtype out")
    if a.model_type in WRITTEN_OUT and setup.dropout:
        raise BadValue(f"dropout in the attention of {a.model_type} is not modelled: trace it, or leave dropout at 0")
    return _Step(a, plan, setup, labels).estimate()


MODELLED = BLOCKS | KIN
WRITTEN_OUT = ("gemma2", "gpt_oss")  # attention without a fused kernel
GATHERED: Label = ("weights", "gathered from the other devices", "both ends of the model and one layer")
LATER: Label = ("gradients", "weights of the later layers", "bytes that train there")
TIED: Label = ("gradients", "the tied embedding: the head's and the sum", "2·V·d·b")
OUTPUTS: Label = ("logits", "outputs that the loop still holds", "T·(V + 2·L·kv)·b")
ROTARY: Label = ("activations", "rotary tables", "2·S·head_dim·b")


@dataclass(frozen=True)
class Piece:
    """A piece of the model: what stays of it after forward, its backward, and what else lives when forward ends."""

    kept: Parts
    backward: Profile
    needs_grad: bool
    variables: Parts = field(default_factory=dict)
    keeps_input: bool = True


class _Step:
    """The pieces of one step, and when what lives."""

    def __init__(self, a: Architecture, plan: Plan, setup: Setup, labels: int) -> None:
        self.a, self.plan, self.setup, self.labels = a, plan, setup, labels
        self.encoder = a.model_type in ENCODERS
        self.tokens = setup.batch * (setup.seq + plan.prompt)
        self.states = States(a, plan, setup, labels)

    def estimate(self) -> Estimate:
        moments = self.moments()
        at = max(moments, key=lambda m: sum(moments[m].values()))
        terms = tuple(Term(*label, size) for label, size in moments[at].items() if size)
        totals = {name: sum(parts.values()) for name, parts in moments.items()}
        return Estimate("predicted", totals[at], at, terms, totals, self.notes())

    def notes(self) -> tuple[str, ...]:
        """What this figure leaves out."""
        notes = [*NOTES]
        if self.a.experts and self.setup.quantised != "none":
            notes.append(
                "experts count in 4 bits; check that your loader quantises them: transformers 5 keeps those of a layer "
                "in one tensor, and bitsandbytes only knows linear layers"
            )
        if self.setup.checkpointing and self.setup.adapter_dtype == "fp32" and self.setup.width != 4:
            notes.append("adapters multiplied in fp32 beside checkpointing: up to 6 % low on small models; trace it")
        if self.a.activation not in ACTIVATIONS:
            notes.append(f"{self.a.activation} counts as one operation; if it is several, up to 25 % low: trace it")
        if self.plan.outside:
            notes.append(
                "adapters on embeddings or the head count with their weights and states; what they keep does not"
            )
        return tuple(notes)

    # ---- the pieces

    def operations(self) -> Operations:
        plan = self.plan
        return Operations(self.setup, self.tokens, trains=plan.everything, biases=plan.biases, dropout=plan.dropout)

    def embeddings(self) -> Piece:
        on = self.operations()
        x = embeddings(on, self.a, self.plan.prompt, self.encoder)
        return Piece(on.kept(), on.backward(x), x.needs_grad)

    def layer(self, plan: LayerPlan, needs_grad: bool, number: int) -> Piece:
        """One layer: what it keeps and its backward; checkpointed, it keeps its input and runs again."""
        on = self.operations()
        x = self.hidden(needs_grad)
        y = MODELLED[self.a.model_type](on, x, Layer(self.a, plan, number))
        held = on.beside(on.variables)
        held[VARIABLES] = max(held[VARIABLES], on.earlier(x.storage) - sum(on.kept(x.storage).values()))
        if not y.needs_grad:
            return Piece({}, Profile({}, 0), False, held, keeps_input=False)
        if not self.setup.checkpointing:
            keeps_input = any(x.storage in node.kept for node in on.nodes)
            return Piece(on.kept(), on.backward(y), True, held, keeps_input)
        back, again = (
            on.backward(y, outside=x.storage),
            merged([on.kept(x.storage), on.beside(on.run_again, x.storage), {IN_FLIGHT: y.size}]),
        )
        early = {VARIABLES: on.earlier(x.storage), IN_FLIGHT: y.size}
        most = max(back.parts, again, early, key=lambda parts: sum(parts.values()))
        return Piece({HIDDEN: x.size}, Profile(merged([most, {HIDDEN: x.size}]), back.weights), True)

    def head(self, needs_grad: bool) -> Piece:
        on = self.operations()
        x = self.hidden(needs_grad)
        if self.encoder:
            loss = classification_head(on, x, self.a, self.labels)
        else:
            loss = language_head(on, x, self.a, self.plan.prompt)
        return Piece(on.kept(), on.backward(loss), True)

    def hidden(self, needs_grad: bool) -> Value:
        size = self.tokens * self.a.hidden * self.setup.width
        return Value(size, needs_grad, Storage(size, HIDDEN))

    # ---- the moments

    def moments(self) -> dict[str, Parts]:
        """What lives at each moment that may be the peak, by label."""
        first = self.embeddings()
        layers = self.layers(first.needs_grad)
        head, top = self.head(layers[-1].needs_grad), self.a.layers
        steady = merged([self.states.steady(), self.outputs()])
        always = merged([steady, self.gathered(), self.tables(), first.kept])
        kept = merged([always, *several(piece.kept for piece in layers)])
        moments = {"the loss's backward": merged([kept, head.backward.parts])}
        if any(layers[-1].variables.values()):
            held = {VARIABLES: self.held(layers[0])}
            moments[f"layer {top}'s forward"] = merged([kept, layers[-1].variables, held])
        after = head.backward.weights  # gradients made so far
        grown = [after := after + piece.backward.weights for piece in reversed(layers)]
        for number in sorted({top, 2, 1} & set(range(1, top + 1)), reverse=True):
            so_far = {LATER: self.states.spread([head.backward.weights, *grown][top - number])}
            below = several(piece.kept for piece in layers[: number - 1])
            moments[f"layer {number}'s backward"] = merged([always, *below, so_far, layers[number - 1].backward.parts])
        if self.plan.everything:
            tied = head.backward.weights if self.a.tied and not self.encoder else 0
            last = {LATER: self.states.spread(grown[-1] - tied), TIED: 2 * tied}
            moments["the embeddings' backward"] = merged([steady, last, first.backward.parts])
        moments["the optimizer's step"] = merged([steady, self.states.stepping()])
        return moments

    def layers(self, needs_grad: bool) -> list[Piece]:
        """The piece of each layer; equal ones are played once."""
        pieces: dict[tuple[int, bool, bool], Piece] = {}
        mixed = {n for m in self.a.modules if m.expert for n in m.numbers}
        found = []
        for number, plan in enumerate(self.plan.layers or ((),) * self.a.layers):
            key = (id(plan), needs_grad, number in mixed)  # a method gives equal layers the same plan
            if key not in pieces:
                pieces[key] = self.layer(plan, needs_grad, number)
            found.append(pieces[key])
            needs_grad = needs_grad or pieces[key].needs_grad
        return found

    def gathered(self) -> Parts:
        """The weights that are whole on each device though they are sharded: both ends of the model, and one layer."""
        if not self.states.all_divided:
            return {}
        numbers = sum(m.parameters * m.each for m in self.a.modules if not m.numbers or self.a.layers - 1 in m.numbers)
        return {GATHERED: numbers * self.setup.width}

    def held(self, first: Piece) -> int:
        """The model's own variables in the last layer's forward: the embeddings, where no layer keeps them anyway."""
        embedded = self.hidden(True).size
        again = 0 if first.keeps_input or self.a.layers == 1 else embedded
        if self.encoder:
            return embedded * (self.plan.prompt > 0) + again
        return embedded if self.a.model_type in ("gpt2", "gpt3") else again

    def outputs(self) -> Parts:
        """What the training loop's variables hold until the next step."""
        if not self.setup.outputs_kept or self.encoder:
            return {}
        a, b = self.a, self.setup.width
        cache = 2 * a.layers * a.kv_heads * a.head_dim * self.setup.padded  # without a mask attention keeps them anyway
        return {OUTPUTS: self.tokens * (a.vocabulary + cache) * b}

    def tables(self) -> Parts:
        """Token numbers and labels in int64, and the tables of rotary positions, which all layers share."""
        ids = 8 * self.tokens * (1 if self.encoder else 3)
        rotary = not self.encoder and self.a.model_type not in ("gpt2", "gpt3")
        tables = 2 * (self.setup.seq + self.plan.prompt) * self.a.head_dim * self.setup.width * rotary
        mask = self.tokens * (self.setup.seq + self.plan.prompt) * self.setup.padded
        return {("activations", "token numbers, labels, mask", "8·T each, T·S"): ids + mask, ROTARY: tables}


def several(parts: Iterable[Parts]) -> list[Parts]:
    """The same sums in fewer parts: those of equal layers are one object, and are multiplied."""
    times: dict[int, list[Any]] = {}
    for one in parts:
        times.setdefault(id(one), [one, 0])[1] += 1
    return [{label: size * n for label, size in one.items()} for one, n in times.values()]


def merged(parts: Iterable[Parts]) -> Parts:
    """The sums by label."""
    total: Parts = {}
    for one in parts:
        for label, size in one.items():
            total[label] = total.get(label, 0) + size
    return total
