"""Transformer layers, written down as transformers 5 computes them, on the tape: BERT's, GPT-2's and Llama's kin.

Each function runs one layer forward and returns its output; what the layer keeps and needs is then on the tape.
"""

from __future__ import annotations

from collections.abc import Callable

from lora_lab.accounting.models import Architecture, Module
from lora_lab.accounting.operations import Operations
from lora_lab.accounting.plan import Adapter, LayerPlan
from lora_lab.accounting.tape import Label, Storage, Value

HIDDEN: Label = ("activations", "the layers' inputs", "T·d·b")
NORM_INPUT: Label = ("activations", "inputs of norms", "T·d·b")
QKV: Label = ("activations", "q, k, v", "T·(q + 2·kv)·b")
ATTENTION_IN: Label = ("activations", "inputs of q, k, v", "T·d·b")
MLP_IN: Label = ("activations", "inputs of the MLP", "T·d·b")
MLP: Label = ("activations", "inside the MLP", "T·f·b each")
DOWN_IN: Label = ("activations", "inputs of down", "T·f·b")

ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "silu", "swish", "relu", "gelu_new")  # which are modelled as they are

Block = Callable[[Operations, Value, "Layer"], Value]
Attention = Callable[[Value, Value, Value, int, int], Value]


class Layer:
    """One layer of an architecture with its adapters: its matrices by role."""

    def __init__(self, architecture: Architecture, plan: LayerPlan, number: int) -> None:
        self.architecture = architecture
        self.adapters: dict[str, tuple[Adapter, ...]] = dict(plan)
        self.modules = matrices(architecture, number)
        inside = (m for m in architecture.modules if m.expert and m.role == "gate" and number in m.numbers)
        self.expert_width = next((m.out_features for m in inside), 0)  # 0 where the layer has no experts

    def linear(self, on: Operations, x: Value, role: str, label: Label) -> Value:
        """The matrix with that role, and what is adapted on it."""
        m = self.modules[role]
        return on.linear(
            x,
            m.in_features,
            m.out_features,
            label,
            bias=m.bias,
            adapters=self.adapters.get(role, ()),
            conv1d=m.kind == "conv1d",
        )

    def unpacked(self, on: Operations, role: str) -> Value:
        """A matrix of 4 bits as it is made for its product; nothing where it is not quantised."""
        size = self.modules[role].weight * on.b if on.setup.quantised != "none" else 0
        return Value(size, False, Storage(size))

    def as_far_as_down(self, on: Operations) -> list[list[Value]]:
        """What variables hold where a layer that runs again goes on into `down`, which keeps its 4-bit weight.

        Of 16 bits and frozen it keeps nothing: the run ends before it.
        """
        return on.variables if on.setup.quantised != "none" else []


def matrices(architecture: Architecture, number: int) -> dict[str, Module]:
    """The linear layers of one layer, by their keys; in a layer of experts gate, up and down are the shared ones."""
    return {
        m.key: m
        for m in architecture.modules
        if number in m.numbers and m.kind in ("linear", "conv1d") and not m.expert
    }


def bert(on: Operations, x: Value, layer: Layer) -> Value:
    """Attention, add, norm; MLP, add, norm."""
    heads = layer.architecture.heads
    q, k, v = (layer.linear(on, x, role, QKV) for role in "qkv")
    y = layer.linear(on, on.attention(q, k, v, heads, heads), "o", NORM_INPUT)
    before, x = x, on.layer_norm(on.add(on.dropout(y, on.p), x, NORM_INPUT), MLP_IN)
    up = layer.linear(on, x, "up", MLP)
    inner = activated(on, up, layer, DOWN_IN)
    y = on.dropout(layer.linear(on, inner, "down", NORM_INPUT), on.p)
    out = on.layer_norm(on.add(y, x, NORM_INPUT), ATTENTION_IN)
    on.run_again = [[before, x, inner, y, out], [before, x, inner, layer.unpacked(on, "down")]]
    on.variables = [*on.run_again, [before, x, up, inner]]
    return out


def gpt2(on: Operations, x: Value, layer: Layer) -> Value:
    """Norm, attention, add; norm, MLP with the tanh approximation written out in eight operations, add."""
    y = on.layer_norm(x, ATTENTION_IN)
    qkv = layer.linear(on, y, "q+k+v", QKV)
    q, k, v = on.split(qkv, [qkv.size // 3] * 3)
    if on.setup.outputs_kept and not on.setup.padded:  # the cache puts k and v into tensors of its own
        k, v = (on.op(part.size, [part], label=QKV) for part in (k, v))
    heads = layer.architecture.heads
    attended = on.dropout(layer.linear(on, on.attention(q, k, v, heads, heads), "o", HIDDEN), on.p)
    before, x = x, on.add(attended, x, NORM_INPUT)
    normed = on.layer_norm(x, MLP_IN)
    inner = layer.linear(on, normed, "up", MLP)
    inner = activated(on, inner, layer, DOWN_IN)
    y = layer.linear(on, inner, "down", HIDDEN)
    on.variables = [[before, x, normed, inner, y, layer.unpacked(on, "down")]]
    on.run_again = [[*moment, attended] for moment in layer.as_far_as_down(on)]
    return on.add(x, on.dropout(y, on.p), NORM_INPUT)


def activated(on: Operations, x: Value, layer: Layer, label: Label) -> Value:
    """The MLP's activation of x: one operation, but for the one that transformers writes out."""
    name = layer.architecture.activation
    if name == "gelu_new":
        return gelu_new(on, x, label)
    return on.pointwise(x, label) if name == "relu" else on.pointwise_of(x, label)


def gelu_new(on: Operations, x: Value, label: Label) -> Value:
    """0.5 x (1 + tanh(c (x + 0.044715 x^3))), operation by operation."""
    half = on.scale(x, MLP)
    cube = on.op(x.size, [x], [x], temporary=2 * x.size)
    inner = on.scale(on.add(x, on.scale(cube)))
    tanh = on.pointwise(inner, MLP)
    return on.multiply(half, on.op(x.size, [tanh], alias=True, label=MLP), label)


def llama(
    on: Operations, x: Value, layer: Layer, attention: Attention | None = None, experts: Block | None = None
) -> Value:
    """Norm, attention with rotary positions and shared key heads, add; norm, gated MLP or experts, add."""
    a = layer.architecture
    y = on.rms_norm(x, ATTENTION_IN)
    q, k, v = _queries_keys_values(on, y, layer)
    y = (attention or on.attention)(on.rotate(q), on.rotate(k), v, a.heads, a.kv_heads)
    if "q+k+v" in layer.modules and on.flash:  # q comes out of a concatenation; in its layout the output is copied
        y = on.scale(y, ("activations", "attention's output", "T·q·b"))
    before, x = x, on.add(x, layer.linear(on, y, "o", HIDDEN), HIDDEN)
    normed = on.rms_norm(x, MLP_IN)
    if experts and layer.expert_width:
        return on.add(x, experts(on, normed, layer), HIDDEN)
    inner = gated(on, normed, layer)
    y = layer.linear(on, inner, "down", HIDDEN)
    on.variables = [[before, x, normed, inner, y, layer.unpacked(on, "down")]]
    on.run_again = layer.as_far_as_down(on)
    return on.add(x, y, HIDDEN)


def _normed(on: Operations, x: Value, a: Architecture, heads: int) -> Value:
    """Each head's queries or keys, normed right after their layer where the family does so: backward asks the order."""
    return on.rms_norm(x, QKV, heads) if a.qk_norm else x


def _queries_keys_values(on: Operations, x: Value, layer: Layer) -> tuple[Value, Value, Value]:
    a = layer.architecture
    if "q+k+v" not in layer.modules:
        q = _normed(on, layer.linear(on, x, "q", QKV), a, a.heads)
        k = _normed(on, layer.linear(on, x, "k", QKV), a, a.kv_heads)
        return q, k, layer.linear(on, x, "v", QKV)
    fused = layer.linear(on, x, "q+k+v", QKV)
    one = fused.size // (a.heads + 2 * a.kv_heads)
    q, k, v = on.split(fused, [one * a.heads, one * a.kv_heads, one * a.kv_heads])
    if on.setup.outputs_kept:  # the cache puts v into a tensor of its own
        v = on.op(v.size, [v], label=QKV)
    return q, k, v


def gated(on: Operations, x: Value, layer: Layer) -> Value:
    """act(gate x) * (up x)."""
    if "gate+up" in layer.modules:
        fused = layer.linear(on, x, "gate+up", MLP)
        gate, up = on.split(fused, [fused.size // 2] * 2)
        return on.multiply(up, activated(on, gate, layer, MLP), DOWN_IN)
    gate = activated(on, layer.linear(on, x, "gate", MLP), layer, MLP)
    return on.multiply(gate, layer.linear(on, x, "up", MLP), DOWN_IN)


BLOCKS: dict[str, Block] = {
    "bert": bert,
    "roberta": bert,
    "xlm-roberta": bert,
    "gpt2": gpt2,
    "gpt3": gpt2,
    "llama": llama,
    "mistral": llama,
    "qwen2": llama,
    "qwen3": llama,
    "phi3": llama,
}
