"""What answering takes: the weights, the keys and values of every token so far, and the logits of the next one.

cache = 2 · L · kv_heads · head_dim · b · B · S        a key and a value per layer, key head, row and token
"""

from __future__ import annotations

from lora_lab.accounting.estimates import NOTES, Estimate, Term
from lora_lab.accounting.models import Architecture
from lora_lab.accounting.plan import Plan
from lora_lab.accounting.setup import BYTES, Setup
from lora_lab.accounting.states import States
from lora_lab.errors import BadValue

SLIDING = ("gemma2", "gemma3_text", "gpt_oss", "mistral")


def cache_bytes(a: Architecture, batch: int, seq: int, dtype: str = "bf16") -> int:
    """Bytes of the keys and values of `seq` tokens in `batch` rows, prompt and answer together.

    2 L kv_heads head_dim b B S: exact where every layer attends to all of the past.
    Raises: BadValue for a model that generates nothing, or whose cache holds a latent in their place.
    """
    if a.task != "causal":
        raise BadValue(f"{a.name} does not generate token by token; give a causal model such as llama-3-8b")
    if any(module.name.endswith(".kv_b_proj") for module in a.modules):
        raise BadValue(f"{a.name} keeps a latent, not keys and values, and its cache is not modelled; try llama-3-70b")
    return 2 * a.layers * a.kv_heads * a.head_dim * BYTES[dtype] * batch * seq


def inference(a: Architecture, setup: Setup, plan: Plan | None = None) -> Estimate:
    """Memory while the last token of `seq` is generated for `batch` rows; with a plan, its adapter is kept unmerged.

    A soft prompt and a prefix stand in the cache before those tokens. The logits are those of one token: B V b, and in
    fp32 for choosing.
    Raises: BadValue for what `cache_bytes` refuses, and for sharding.
    """
    plan = plan or Plan(0)
    cache = cache_bytes(a, setup.batch, setup.seq + plan.prompt + plan.prefix, setup.dtype)
    if setup.shard:
        raise BadValue("generation is estimated on one device; leave out shard")
    numbers = setup.batch * a.vocabulary
    kept = States(a, plan, setup, labels=2).weights | {  # as in training
        ("cache", "keys and values", "2·L·kv_heads·head_dim·b·B·S"): cache,
        ("logits", "the next token's logits", "B·V·b"): setup.width * numbers,
        ("logits", "the next token's logits in fp32", "4·B·V"): 4 * numbers * (setup.width != 4),
    }
    terms = tuple(Term(*label, size) for label, size in kept.items() if size)
    peak = sum(kept.values())
    return Estimate("predicted", peak, "generation", terms, {"generation": peak}, _notes(a, setup))


def _notes(a: Architecture, setup: Setup) -> tuple[str, ...]:
    wide = setup.tokens * (3 * a.intermediate + a.hidden) * setup.width
    notes = [
        *NOTES,
        f"reading all {setup.tokens:,} tokens at once would take about {wide / 2**20:,.0f} MiB more for a moment",
    ]
    if a.model_type in SLIDING:
        notes.append("layers with a sliding window keep less of a long past than is counted here")
    return tuple(notes)
