"""How much arithmetic a training step is, and what that means in seconds.

A linear layer of N = d_in d_out numbers over T tokens is a product of 2 N T floating-point operations (FLOPs):

    forward     y  = W x          2 N T      always
    backward    dx = W' dy        2 N T      where something before it trains
                dW = dy x'        2 N T      where W itself trains
    LoRA        A x, B (A x), and backward the same twice over: dA, dB, and through B and A to x
                                  6 r (d_in + d_out) T

so full fine-tuning is three products a layer, 6 N T, and LoRA two and a little, 2 T (2 N + 3 r (d_in + d_out)): at most
1.5 times less. Attention's own products (scores, and their sum of values: 2 S d_q each a token, over all S tokens) do
not get cheaper: 4 S d_q forward, twice that backward, for either. With checkpointing the layers' forward is done twice;
torch stops the second at the last tensor that backward wants, which may spare a layer's last product of that.

Against this bound: "LoRA Without Regret" (Schulman 2025) states about 2/3 of the FLOPs; NeMo 24.07 measured 1.47, 1.44
and 1.44 times full fine-tuning's tokens per second on Llama-2 7B, 13B and 70B; Hu et al. 2021 report 43.1 against 32.5
tokens/s on GPT-3, 1.33 times.

Counted are the products that eager attention does, a causal mask's half included; fused kernels skip that half but make
the scores once more in backward. Norms, activations and the optimizer are not products and take a percent or two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache

from lora_lab.accounting.gpus import Card
from lora_lab.accounting.models import Architecture, Module, task_head
from lora_lab.accounting.plan import Adapter, LayerPlan, Plan
from lora_lab.accounting.setup import Setup
from lora_lab.errors import BadValue

UTILISATION = 0.40
"""Share of a card's peak that a well-run training reaches: 30 to 55 % is reported, less for small models."""

# In which order a token meets the matrices of a layer, by key; all others read the layer's input: 0. Attention proper
# follows stage 1.
UNFOLDED = {"q_b_proj": "q_a_proj", "kv_b_proj": "kv_a_proj_with_mqa"}  # DeepSeek's, and the squeeze that each reads
STAGES = {**dict.fromkeys(UNFOLDED, 1), "o": 2, "gate": 3, "up": 3, "gate+up": 3, "router": 3, "down": 4}
MAKERS = {  # whose adapters make a gradient of q, k or v wanted
    "q": {"q", "q_a_proj", "q_b_proj"},
    "k": {"k", "kv_a_proj_with_mqa", "kv_b_proj"},
    "v": {"v", "kv_a_proj_with_mqa", "kv_b_proj"},
}
Stages = tuple[tuple[tuple[Module, int], ...], ...]
MATRICES = ("linear", "conv1d")


@dataclass(frozen=True)
class Work:
    """FLOPs of one step by what they are for.

    forward    y = W x of the linear layers and the head
    inputs     dx of the same
    weights    dW of the same
    adapters   all products with A and B
    attention  scores and sums of values, forward and backward
    again      the layers' forward once more, with checkpointing
    """

    forward: int = 0
    inputs: int = 0
    weights: int = 0
    adapters: int = 0
    attention: int = 0
    again: int = 0

    @property
    def total(self) -> int:
        """FLOPs of the whole step."""
        return sum(getattr(self, f.name) for f in fields(self))

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, times: int) -> Work:
        return Work(*(getattr(self, f.name) * times for f in fields(self)))


def work(a: Architecture, plan: Plan, setup: Setup, *, labels: int = 2) -> Work:
    """The FLOPs of one training step on one device.

    An expert layer counts the experts that a token uses.
    Raises: BadValue for a method whose plan is unknown, for adapters outside the layers or in experts, and for a model
    with two stacks of layers or with DeBERTa's attention.
    """
    _check(a, plan)
    rows, seq = setup.batch, setup.seq + plan.prompt
    # Where embeddings, biases or a prompt train, a gradient is wanted from the first layer on; and transformers asks
    # for one when it checkpoints.
    flows = bool(plan.everything or plan.biases or plan.prompt or setup.checkpointing)
    total = Work()
    for number, layer in enumerate(plan.layers or ((),) * a.layers):
        one, flows = _layer(a, plan, layer, number, flows, seq)
        again = one.again if setup.checkpointing else 0
        total += Work(one.forward, one.inputs, one.weights, one.adapters, one.attention, again)
    return total * (rows * seq) + _head(a, plan, setup, labels, flows)


def _check(a: Architecture, plan: Plan) -> None:
    """Raises: as `work`."""
    if plan.unknown:
        raise BadValue(plan.unknown.replace("the memory of", "the arithmetic of"))
    if plan.outside:
        raise BadValue("the arithmetic of adapters on embeddings, the head or experts is not modelled")
    if a.task == "seq2seq":
        raise BadValue(f"the arithmetic of {a.name}'s two stacks of layers is not modelled; use a causal model")
    if a.model_type == "deberta-v2":
        raise BadValue(f"the arithmetic of {a.name}'s relative positions is not modelled; use roberta-large")


# ---- a layer, per token


def _layer(a: Architecture, plan: Plan, layer: LayerPlan, number: int, flows: bool, seq: int) -> tuple[Work, bool]:
    """One layer's FLOPs a token, its forward in `again`, and whether a gradient is wanted of its output."""
    adapters, stages, entering = dict(layer), _stages(a, number), flows
    total = _attention(a, stages, adapters, flows, seq)
    for modules in stages:
        for module, times in modules:
            squeeze = UNFOLDED.get(module.key)
            wanted = entering or squeeze in adapters if squeeze else flows
            total += _linear(module, _own(module, adapters), wanted, plan.everything) * times
        flows = flows or any(_own(module, adapters) for module, _ in modules)
    return total, flows


def _own(module: Module, adapters: dict[str, tuple[Adapter, ...]]) -> tuple[Adapter, ...]:
    """A module's adapters; an expert's stand outside the layers' plan, under a key that others have too."""
    return () if module.expert else adapters.get(module.key, ())


@lru_cache(maxsize=4096)
def _stages(a: Architecture, number: int) -> Stages:
    """The matrices of a layer in the order that a token meets them, and how often: an expert once per choice."""
    stages: tuple[list[tuple[Module, int]], ...] = ([], [], [], [], [])
    for module in a.modules:
        if number in module.numbers and (module.kind in MATRICES or module.role == "router"):
            stages[STAGES.get(module.key, 0)].append((module, a.experts_per_token if module.expert else 1))
    return tuple(tuple(stage) for stage in stages)


def _linear(module: Module, adapters: tuple[Adapter, ...], flows: bool, trains: bool) -> Work:
    """A linear layer a token: 2 N for each product, and its adapters'."""
    product = 2 * module.weight
    wanted = flows or any(adapter.rank for adapter in adapters)
    low_rank = sum(_adapter(adapter, flows) for adapter in adapters)
    forward = product + sum(2 * adapter.numbers for adapter in adapters)
    return Work(product, product * flows, product * trains * wanted, low_rank, 0, forward)


def _adapter(adapter: Adapter, flows: bool) -> int:
    """A x, B h; dB, dh, dA; and dx where something before trains: 6 r (in + out), or 2 r in less. No dA where A is
    frozen, and then dh only on the way to dx.
    """
    trains = not adapter.frozen
    return 2 * adapter.rank * ((2 + (trains or flows)) * adapter.rows + (1 + trains + flows) * adapter.in_features)


def _attention(
    a: Architecture, stages: Stages, adapters: dict[str, tuple[Adapter, ...]], flows: bool, seq: int
) -> Work:
    """Two products forward; backward those of the scores and of q, k and v as far as their gradients are wanted."""
    output = next(module for module, _ in stages[STAGES["o"]] if module.key == "o")
    scores = 2 * seq * a.heads * a.head_dim
    sums = 2 * seq * output.in_features  # a value may be narrower than a key, as DeepSeek's
    fused = flows or "q+k+v" in adapters
    q, k, v = (fused or bool(MAKERS[role] & adapters.keys()) for role in "qkv")
    return Work(attention=scores * (1 + q + k) + sums * (1 + (q or k) + v), again=scores + sums)


# ---- after the layers


def _head(a: Architecture, plan: Plan, setup: Setup, labels: int, flows: bool) -> Work:
    """The language head over every token, or pooler and classifier over every row."""
    tokens = setup.batch * (setup.seq + plan.prompt)
    total = Work()
    for module in _head_chain(a, labels):
        trains = plan.everything or module.in_task_head
        per_row = a.task == "encoder"
        total += _linear(module, (), flows, trains=False) * (setup.batch if per_row else tokens)
        total += Work(weights=2 * module.weight * trains) * (setup.batch if per_row else tokens)
        flows = flows or trains
    return Work(total.forward, total.inputs, total.weights)


def _head_chain(a: Architecture, labels: int) -> Iterator[Module]:
    """The matrices after the layers, in order."""
    roles = ("pooler",) if a.model_type not in ("roberta", "xlm-roberta") else ()
    yield from (m for m in a.modules if m.role in (*roles, "head") and not m.in_task_head)
    yield from task_head(a, labels)


# ---- seconds


def rate(card: Card, utilisation: float = UTILISATION, dtype: str = "bf16") -> float:
    """FLOP/s that a card does in training: its published peak in the dtype times the share that is reached.

    Raises: BadValue for a share outside (0, 1] and where the peak is not known.
    """
    if not 0 < utilisation <= 1:
        raise BadValue(f"utilisation is a share above 0 and at most 1, not {utilisation!r}")
    peak = card.peak(dtype)
    if not peak:
        raise BadValue(f"the peak of a {card.name} in {dtype} is not known; name another card, or measure its FLOP/s")
    return peak * utilisation


def run_seconds(step: Work, steps: int, flops_per_second: float) -> float:
    """Seconds of a run: FLOPs of its steps / FLOP/s. Loading, validation and waiting for data are not in it."""
    return steps * step.total / flops_per_second
