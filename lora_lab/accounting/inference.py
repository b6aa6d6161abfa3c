"""What answering takes: the weights, the keys and values of every token so far, and the logits of the next one.

cache = 2 · L · kv_heads · head_dim · b · B · S        a key and a value per layer, key head, row and token
"""

from __future__ import annotations

from lora_lab.accounting.architectures import Architecture
from lora_lab.accounting.estimates import Estimate, Term
from lora_lab.accounting.plan import Plan
from lora_lab.accounting.setup import BYTES, Setup
from lora_lab.accounting.states import states
from lora_lab.errors import BadValue

SLIDING = ("gemma2", "gemma3_text", "gpt_oss", "mistral")


def cache_bytes(a: Architecture, batch: int, seq: int, dtype: str = "bf16") -> int:
    """Bytes of the keys and values of `seq` tokens in `batch` rows, prompt and answer together.

    2 L kv_heads head_dim b B S: exact where every layer attends to all of the past.
    Raises: BadValue for a model that generates nothing, or whose cache holds a latent in their place.
    """
    check_generates(a)
    return 2 * a.layers * a.kv_heads * a.head_dim * BYTES[dtype] * batch * seq


def check_generates(a: Architecture) -> None:
    """Raises: BadValue unless the model answers token by token from a cache of keys and values."""
    if a.task != "causal":
        raise BadValue(f"{a.name} does not generate token by token; give a causal model such as llama-3-8b")
    if any(module.name.endswith(".kv_b_proj") for module in a.modules):
        raise BadValue(f"{a.name} keeps a latent, not keys and values, and its cache is not modelled; try llama-3-70b")


def inference(a: Architecture, setup: Setup, plan: Plan | None = None) -> Estimate:
    """Memory while the last token of `seq` is generated for `batch` rows; with a plan, its adapter is kept unmerged.

    The logits are those of one token: B V b, and in fp32 for choosing.
    Raises: BadValue for what `cache_bytes` refuses, and for sharding.
    """
    check_generates(a)
    if setup.shard:
        raise BadValue("generation is estimated on one device; leave out shard")
    terms = (*_weights(a, setup, plan), _cache(a, setup), *_logits(a, setup))
    kept = tuple(term for term in terms if term.bytes)
    peak = sum(term.bytes for term in kept)
    return Estimate("predicted", peak, "generation", kept, {"generation": peak}, _notes(a, setup))


def _weights(a: Architecture, setup: Setup, plan: Plan | None) -> tuple[Term, ...]:
    """Of the base and what was added to it, as in training; the optimizer is left out."""
    steady = states(a, plan or Plan(0, head=False), setup, labels=2).steady()
    return tuple(Term(*label, size) for label, size in steady.items() if label[0] == "weights")


def _cache(a: Architecture, setup: Setup) -> Term:
    size = cache_bytes(a, setup.batch, setup.seq, setup.dtype)
    return Term("cache", "keys and values", "2·L·kv_heads·head_dim·b·B·S", size)


def _logits(a: Architecture, setup: Setup) -> tuple[Term, ...]:
    numbers = setup.batch * a.vocabulary
    copy = Term("logits", "the next token's logits in fp32", "4·B·V", 4 * numbers * (setup.width != 4))
    return Term("logits", "the next token's logits", "B·V·b", setup.width * numbers), copy


def _notes(a: Architecture, setup: Setup) -> tuple[str, ...]:
    wide = setup.tokens * (3 * a.intermediate + a.hidden) * setup.width
    notes = [f"reading all {setup.tokens:,} tokens at once would take about {wide / 2**20:,.0f} MiB more for a moment"]
    if a.model_type in SLIDING:
        notes.append("layers with a sliding window keep less of a long past than is counted here")
    return tuple(notes)
