"""Layers that differ from Llama's in a part: Gemma's norms, attention written out, mixtures of experts, latents.

Experts run as one grouped product each: the rows of all tokens, `k` times over, sorted by expert. So what is kept does
not depend on who chose whom.
"""

from __future__ import annotations

from functools import partial

from lora_lab.accounting.blocks import ATTENTION_IN, DOWN_IN, HIDDEN, MLP, MLP_IN, QKV, Block, Layer, gated, llama
from lora_lab.accounting.operations import Operations
from lora_lab.accounting.tape import Label, Storage, Value

SCORES: Label = ("activations", "attention's scores and weights", "B·heads·S²")
ROUTED: Label = ("activations", "tokens of the experts", "T·k·d·b each")
ROUTER: Label = ("activations", "the router", "4·T·experts")


def gemma(on: Operations, x: Value, layer: Layer) -> Value:
    """A norm before and after attention, and before and after the MLP. Gemma 2 has no fused attention."""
    a = layer.architecture
    normed = on.gemma_norm(x, ATTENTION_IN)
    q, k, v = (layer.linear(on, normed, role, QKV) for role in "qkv")
    if a.qk_norm:
        q, k = on.gemma_norm(q, QKV, a.heads), on.gemma_norm(k, QKV, a.kv_heads)
    q, k = on.rotate(q), on.rotate(k)
    if a.model_type == "gemma2":
        y = written_out(on, q, k, v, a.heads, a.kv_heads, capped=True)
        on.early = [(n, [x, normed, *held]) for n, held in on.early]
    else:
        y = on.attention(q, k, v, a.heads, a.kv_heads)
    x = on.add(x, on.gemma_norm(layer.linear(on, y, "o", HIDDEN), HIDDEN), HIDDEN)
    y = layer.linear(on, gated(on, on.gemma_norm(x, MLP_IN), layer), "down", HIDDEN)
    return on.add(x, on.gemma_norm(y, HIDDEN), HIDDEN)


def written_out(
    on: Operations,
    q: Value,
    k: Value,
    v: Value,
    heads: int,
    kv_heads: int,
    *,
    capped: bool = False,
    sinks: bool = False,
) -> Value:
    """Attention without a fused kernel: the scores of each pair of tokens are kept, in several forms."""
    scores, held = on.tokens * on.seq * heads * on.b, [q, k, v]
    if heads > kv_heads:  # a single head is repeated as a view, and copied by the product
        k, v = (on.op(x.size * (heads // kv_heads), [x], label=QKV) for x in (k, v))
    w = on.scale(on.op(scores, [q, k], [q, k]))
    if capped:
        w = on.scale(on.pointwise(on.scale(w), SCORES))
    w = on.op(scores, [w], alias=True)  # plus the mask
    if sinks:
        masked = w
        w = on.op(scores, [on.op(scores, [w])], alias=True)  # beside a column for the sink, minus the largest
        weights = on.pointwise(w, SCORES)
        on.early = [(len(on.nodes), [*held, k, v, masked, w, weights])]
    else:
        out = Storage(2 * scores if on.b == 2 else scores, SCORES)
        wide = on.cast(w, out.size)
        soft = on.op(out.size, [wide], [out], inside=out)
        on.early = [(len(on.nodes), [*held, k, v, w, wide, soft])]
        weights = on.op(scores, [soft], label=SCORES) if on.b == 2 else soft
    y = on.op(q.size, [weights, v], [weights, v])
    return on.scale(y, ("activations", "attention's output", "T·q·b"))  # its rows are put in another order


def mixture(on: Operations, x: Value, layer: Layer) -> Value:
    """Llama's layer with experts in the place of its MLP, where this layer has them."""
    sinking = partial(written_out, on, sinks=True) if layer.architecture.model_type == "gpt_oss" else None
    y = llama(on, x, layer, sinking, experts)
    on.early = [(n, [x, *held]) for n, held in on.early]
    return y


def experts(on: Operations, x: Value, layer: Layer, reads: Value | None = None) -> Value:
    """Each token's k experts, weighted and summed; the router's choice is made in fp32, from `reads` or from x."""
    a = layer.architecture
    d, width, k, b, t = a.hidden, layer.expert_width, a.experts_per_token, on.b, on.tokens
    reads = reads or x
    gain = a.experts * b if on.trains else 0  # bytes of a gradient for each pair of numbers of all experts
    chosen = on.op(t * k * 4, [on.op(t * a.experts * 4, [reads], [reads] if on.trains else [], weights=gain * d)],
                   [Storage(t * (a.experts * 4 + k * 12), ROUTER)])  # fmt: skip
    rows = on.op(t * k * d * b, [x], [Storage(16 * t * k, ROUTER)], label=ROUTED)
    wide = on.op(2 * t * k * width * b, [rows], [rows] if on.trains else [], weights=2 * gain * d * width, label=MLP)
    gate, up = on.split(wide, [wide.size // 2] * 2)
    combine = limited if a.model_type == "gpt_oss" else plainly
    inner = combine(on, gate, up)
    biases = on.op(wide.size, []) if a.model_type == "gpt_oss" else rows  # one for each row, from those of all experts
    on.run_again = [[*(v for moment in on.run_again for v in moment), x, rows, biases, inner]]
    on.early = [(n, [*held, x, rows, biases]) for n, held in on.early]
    y = on.op(t * k * d * b, [inner], [inner] if on.trains else [], weights=gain * d * width, label=ROUTED)
    wide_sum = t * k * d * max(b, 4 if a.model_type == "mixtral" else b)
    y = on.op(wide_sum, [y, chosen], [y, chosen])
    return on.op(t * d * b, [on.op(wide_sum, [y])])


def latent(on: Operations, x: Value, layer: Layer) -> Value:
    """DeepSeek's layer: q, k and v unfolded from small latents; experts beside a shared one, or a plain MLP."""
    a = layer.architecture
    y = latent_attention(on, on.rms_norm(x, ATTENTION_IN), layer)
    x = on.add(x, layer.linear(on, y, "o", HIDDEN), HIDDEN)
    normed = on.rms_norm(x, MLP_IN)
    y = layer.linear(on, gated(on, normed, layer), "down", HIDDEN)
    if layer.expert_width:
        fp32 = on.cast(normed, on.tokens * a.hidden * 4, ROUTER)  # the router reads in fp32
        y = on.add(experts(on, normed, layer, reads=fp32), y, HIDDEN)
    return on.add(x, y, HIDDEN)


def latent_attention(on: Operations, x: Value, layer: Layer) -> Value:
    """q and k are put together from a part without positions and a rotated one; v is a part of what kv_b makes."""
    a, m = layer.architecture, layer.modules
    if "q" in m:
        q = layer.linear(on, x, "q", QKV)
    else:
        q = layer.linear(on, on.rms_norm(layer.linear(on, x, "q_a_proj", QKV), QKV), "q_b_proj", QKV)
    small = layer.linear(on, x, "kv_a_proj_with_mqa", QKV)
    latent_width = m["kv_b_proj"].in_features
    narrow, rotary = on.split(
        small, [on.tokens * n * on.b for n in (latent_width, small.size // (on.tokens * on.b) - latent_width)]
    )
    kv = layer.linear(on, on.rms_norm(narrow, QKV), "kv_b_proj", QKV)
    value = on.tokens * m["o"].in_features * on.b
    k, v = on.split(kv, [kv.size - value, value])
    q, k = on.op(q.size, [q], label=QKV), on.op(q.size, [k, on.rotate(rotary)], label=QKV)
    if value == q.size:
        y = on.attention(q, k, v, a.heads, a.heads)
        return on.scale(y, ("activations", "attention's output", "T·q·b")) if on.flash else y
    return on.attention(q, k, v, a.heads, a.heads, width=value)


def plainly(on: Operations, gate: Value, up: Value) -> Value:
    """act(gate) up."""
    return on.multiply(on.pointwise_of(gate, MLP), up, DOWN_IN)


def limited(on: Operations, gate: Value, up: Value) -> Value:
    """gpt-oss: both cut off at a limit, then (up + 1) gate sigmoid(1.702 gate), operation by operation."""
    wide = gate
    gate, cut = on.pointwise_of(gate, MLP), on.pointwise_of(up, MLP)
    glu = on.multiply(gate, on.pointwise(on.scale(gate), MLP), MLP)
    up, on.run_again = on.op(up.size, [cut], alias=True, label=MLP), [[cut]]
    out = on.multiply(up, glu, DOWN_IN)
    on.early.append((len(on.nodes), [wide, gate, cut, glu, up, out]))
    return out


KIN: dict[str, Block] = {
    "gemma2": gemma,
    "gemma3_text": gemma,
    "mixtral": mixture,
    "qwen3_moe": mixture,
    "gpt_oss": mixture,
    "deepseek_v3": latent,
}
