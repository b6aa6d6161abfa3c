"""The operations of a transformer on the tape: what each keeps for backward, and what its backward needs for a moment.

T = batch x seq tokens, b = bytes of an activation. The rules are those of eager PyTorch; the trace checks them.
"""

from __future__ import annotations

from collections.abc import Sequence

from lora_lab.accounting.plan import Adapter, Factor, Funnel
from lora_lab.accounting.setup import BYTES, QUANTISED_BITS, Setup
from lora_lab.accounting.tape import IN_FLIGHT, Label, Storage, Tape, Value
from lora_lab.errors import BadValue

MASK = 1  # bytes of a number in a dropout mask on a GPU
BLOCK, NESTED = 64, 256  # NF4: weights to one absmax, absmaxes to one fp32 scale


class Operations(Tape):
    """A tape for one piece of a model under a set-up; `trains` says whether the base's own weights do."""

    def __init__(self, setup: Setup, tokens: int, *, trains: bool, biases: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.setup, self.tokens, self.trains, self.biases = setup, tokens, trains, trains or biases
        self.b, self.p, self.adapter_dropout = setup.width, setup.dropout, dropout
        self.seq = tokens // setup.batch

    @property
    def flash(self) -> bool:
        """Whether attention runs in the flash kernel: on a GPU, in half precision, without a mask."""
        return self.setup.device == "cuda" and self.b == 2 and not self.setup.padded

    # ---- linear layers and their adapters

    def linear(
        self,
        x: Value,
        in_features: int,
        out_features: int,
        label: Label,
        *,
        bias: bool = False,
        adapters: Sequence[Adapter] = (),
        conv1d: bool = False,
        quantised: bool = True,
    ) -> Value:
        """y = W x (+ b), then each adapter's s B A x. W's gradient keeps x, and so does A's; a frozen W nothing."""
        for part in adapters:
            x = self._scaled(x, part) if isinstance(part, Factor) and part.on_input else x
        b, weight = self.b, in_features * out_features * self.b
        dequantised = weight if quantised and self.setup.quantised != "none" else 0
        trained = weight * self.trains + self._bias(out_features) * bias
        keeps = [x] if self.trains else []
        size = self.tokens * out_features * b
        y = self.op(size, [x], keeps, weights=trained, temporary=dequantised, label=label)
        for adapter in adapters:
            y = self._changed(x, y, adapter, conv1d)
        return y

    def _changed(self, x: Value, y: Value, part: Adapter, conv1d: bool) -> Value:
        if isinstance(part, Factor):
            return y if part.on_input else self._scaled(y, part)
        return self._funnel(y, part) if isinstance(part, Funnel) else self._adapter(x, y, part, conv1d)

    def _scaled(self, x: Value, part: Factor) -> Value:
        """x times a trained factor for each number: x is kept; the factor's gradient is as large as x until summed."""
        (numbers,) = part.tensors
        copied = ("activations", "factors in the base's dtype", "width·b")
        factor = self.op(numbers * self.b, [], weights=numbers * self.setup.own_width, label=copied)
        keeps = [x, factor] if x.needs_grad and self.setup.own_width != self.b else [x]
        return self.op(x.size, [x, factor], keeps, temporary=x.size, label=x.storage.label)

    def _funnel(self, y: Value, part: Funnel) -> Value:
        """y plus a bottleneck's answer to it: what goes down is kept, and both sides of the nonlinearity."""
        label = ("activations", "inside the bottlenecks", "T·r·b each")
        *_, down, down_bias, up, up_bias = part.tensors
        x = self._normed(y, part.rows) if part.norm else y
        h = self._thin(x, down + down_bias, self.tokens * part.rank * self.b, "down")
        h = self.pointwise_of(h, label)
        return self.add(y, self._thin(h, up + up_bias, y.size, "up"))

    def _normed(self, y: Value, d: int) -> Value:
        """A norm that trains in fp32 beside a base of any dtype: its input is kept in fp32.

        Its backward holds two more copies: the lanes' gradients are put together again, and one beside them. Traced:
        with both the peak is right to 3 %, without them up to 7 % low where the layer's inner width is small.
        """
        label = ("activations", "inputs of the bottlenecks, normed", "T·d·b")
        wide = self.cast(y, 4 * self.tokens * d, ("activations", "inputs of norms in fp32", "4·T·d"))
        stats = Storage(8 * self.tokens, ("activations", "statistics of norms", "8·T"))
        own = 2 * d * self.setup.own_width
        normed = self.op(wide.size, [wide], [wide, stats], weights=own, temporary=2 * wide.size, label=label)
        return self.cast(normed, y.size, label)

    def _adapter(self, x: Value, y: Value, adapter: Adapter, conv1d: bool) -> Value:
        if self.setup.adapter_dtype == "fp32" and self.b != 4:
            return self._adapter_in_fp32(x, y, adapter)
        x = self._adapter_dropout(x)
        a = adapter.rank * adapter.in_features
        h = self._thin(x, a, self.tokens * adapter.rank * self.b, "A", frozen=adapter.frozen)
        if adapter.sliced:  # written into a slice of y: backward copies the whole gradient, then the slice's
            grown = self._thin(h, adapter.rank * adapter.rows, self.tokens * adapter.rows * self.b, "B")
            return self.op(y.size, [y, grown], inside=y.storage)
        out = Storage(y.size) if conv1d else y.storage  # Conv1D's output is a view, and a view is not added to in place
        grown = self._thin(h, adapter.rank * adapter.rows, y.size, "B", inside=out)
        return self.op(y.size, [y, grown], alias=True, inside=out) if y.needs_grad else grown

    def _thin(
        self,
        x: Value,
        numbers: int,
        size: int,
        which: str,
        inside: Storage | None = None,
        *,
        frozen: bool = False,
    ) -> Value:
        """x times A or B of `numbers` numbers: x is kept, and where their dtype is not the base's, a copy in that.

        A frozen matrix wants no gradient, so x is not kept for it.
        """
        label = ("activations", f"{which} x of the adapters", "T·r·b")
        weights, inputs = (0, []) if frozen else (numbers * self.setup.own_width, [x])
        if self.setup.own_width == self.b:
            return self.op(size, [x], inputs, weights=weights, label=label, inside=inside)
        copied = ("activations", f"{which} in the base's dtype", "r·width·b")
        matrix = self.op(numbers * self.b, [], weights=weights, label=copied)
        keeps = [*inputs, matrix] if x.needs_grad else inputs
        return self.op(size, [x, matrix], keeps, label=label, inside=inside)

    def _adapter_in_fp32(self, x: Value, y: Value, adapter: Adapter) -> Value:
        """PEFT's way beside a half-precision base: x copied to fp32, both products in fp32, the sum cast back."""
        if adapter.sliced:
            raise BadValue(
                "PEFT adapts a fused layer as a whole: name it (c_attn, qkv_proj), or leave adapter_dtype out"
            )
        t, r, i, o = self.tokens, adapter.rank, adapter.in_features, adapter.rows
        x = self._adapter_dropout(self.cast(x, t * i * 4, ("activations", "inputs of adapters in fp32", "4·T·d_in")))
        a, inputs = (0, []) if adapter.frozen else (r * i * 4, [x])
        h = self.op(t * r * 4, [x], inputs, weights=a, label=("activations", "A x of the adapters", "4·T·r"))
        product = self.op(t * o * 4, [h], [h], weights=r * o * 4)
        scaled = self.op(t * o * 4, [product])
        both = self.op(t * o * 4, [self.cast(y, t * o * 4), scaled], alias=True)
        return self.cast(both, y.size)

    def _adapter_dropout(self, x: Value) -> Value:
        if not self.adapter_dropout:
            return x
        return self.dropout(x, self.adapter_dropout, ("activations", "inputs of adapters after dropout", "T·d_in·b"))

    # ---- what stands between them

    def cast(self, x: Value, size: int, label: Label = IN_FLIGHT) -> Value:
        """To another dtype; the same tensor when that is its own already. Nothing is kept."""
        return x if size == x.size else self.op(size, [x], label=label)

    def add(self, x: Value, y: Value, label: Label = IN_FLIGHT) -> Value:
        """x + y: the gradient goes to both as it is."""
        return self.op(x.size, [x, y], alias=True, label=label)

    def scale(self, x: Value, label: Label = IN_FLIGHT) -> Value:
        """x times a constant, or plus one: nothing of x is kept."""
        return self.op(x.size, [x], label=label)

    def multiply(self, x: Value, y: Value, label: Label = IN_FLIGHT) -> Value:
        """x * y, each kept for the other's gradient."""
        return self.op(x.size, [x, y], [*([y] if x.needs_grad else []), *([x] if y.needs_grad else [])], label=label)

    def pointwise_of(self, x: Value, label: Label) -> Value:
        """A function of each number whose gradient is made from its input: GELU, SiLU."""
        return self.op(x.size, [x], [x], label=label)

    def pointwise(self, x: Value, label: Label) -> Value:
        """A function of each number whose gradient is made from its output: tanh."""
        out = Storage(x.size, label)
        return self.op(x.size, [x], [out], inside=out)

    def dropout(self, x: Value, p: float, label: Label = IN_FLIGHT) -> Value:
        """A mask of a byte a number is kept; without dropout nothing happens."""
        if not p:
            return x
        numbers = x.size // self.b
        return self.op(x.size, [x], [Storage(numbers * MASK, ("activations", "dropout masks", "T·d"))], label=label)

    def layer_norm(self, x: Value, label: Label) -> Value:
        """LayerNorm keeps its input, and a mean and a deviation per token in fp32."""
        d = x.size // (self.tokens * self.b)
        stats = Storage(8 * self.tokens, ("activations", "statistics of norms", "8·T"))
        return self.op(x.size, [x], [x, stats], weights=2 * d * self.b if self.trains else self._bias(d), label=label)

    def rms_norm(self, x: Value, label: Label, rows: int = 1) -> Value:
        """RMSNorm computes in fp32: the input in fp32 is kept, 1/rms per row, and the normed one where the gain trains.

        rows   norms per token: 1, or the number of heads where each head is normed
        """
        normed_label = ("activations", "normed inputs", "T·d·b")
        normed = self.cast(self._divided_by_rms(x, rows, normed_label), x.size, normed_label)
        if not self.trains:
            return self.scale(normed, label)
        gain = x.size // (self.tokens * rows)
        return self.op(x.size, [normed], [normed], weights=gain, temporary=x.size, label=label)

    def gemma_norm(self, x: Value, label: Label, rows: int = 1) -> Value:
        """Gemma's RMSNorm: the gain, 1 + w, is applied in fp32 as well, and only the result cast back."""
        normed = self._divided_by_rms(x, rows, ("activations", "normed inputs in fp32", "4·T·d"))
        gain = x.size // (self.tokens * rows)
        small = Storage(gain // self.b * 4, ("activations", "gains of norms", "4·d"))
        keeps: list[Value | Storage] = [small, normed] if self.trains else [small]
        temporary, weights = (normed.size, gain) if self.trains else (0, 0)
        scaled = self.op(normed.size, [normed], keeps, weights=weights, temporary=temporary, label=label)
        return self.cast(scaled, x.size, label)

    def _divided_by_rms(self, x: Value, rows: int, label: Label) -> Value:
        """x / rms(x) in fp32, as every RMSNorm begins."""
        size32, per_row = x.size // self.b * 4, 4 * self.tokens * rows
        x32 = self.cast(x, size32, ("activations", "inputs of norms in fp32", "4·T·d"))
        squares = self.op(size32, [x32], [x32], temporary=2 * size32)
        stats = Storage(per_row, ("activations", "statistics of norms", "4·T"))
        rstd = self.op(per_row, [self.op(per_row, [squares])], [stats], inside=stats)
        return self.op(size32, [x32, rstd], [x32, rstd], temporary=size32, label=label)

    def rotate(self, x: Value) -> Value:
        """Rotary positions: x cos + (x with halves swapped) sin; only the tables are kept, once for all layers."""
        straight = self.op(x.size, [x])
        first, second = self.op(x.size // 2, [x], temporary=x.size), self.op(x.size // 2, [x], temporary=x.size)
        swapped = self.op(x.size, [self.op(x.size // 2, [second]), first], alias=True)
        label = ("activations", "q, k, v", "T·(q + 2·kv)·b")
        return self.add(straight, self.op(x.size, [swapped]), label)

    def attention(self, q: Value, k: Value, v: Value, heads: int, kv_heads: int, width: int | None = None) -> Value:
        """One fused kernel, which keeps q, k, v, its output and a logarithm per head and token.

        On a GPU in fp32, or with a mask, the kernel is the memory-efficient one: it wants as many key heads as query
        heads, so that k and v are copied for each group, and it pads the logarithms to 32 tokens. A mask of true and
        false is turned into numbers to add, once in each layer. `width`: the output's bytes, where v is narrower.
        """
        setup, seq, groups = self.setup, self.seq, heads // kv_heads
        if setup.device == "cpu" and self.p:
            raise BadValue("attention with dropout on a CPU is not modelled: use trace, or dropout 0")
        efficient = setup.device == "cuda" and (not self.flash or width is not None)
        log = 4 * setup.batch * heads * (-(-seq // 32) * 32 if efficient else seq)
        keeps = [Storage(log, ("activations", "attention's logarithms", "4·T·heads"))]
        one_for_all = setup.padded and kv_heads == 1  # transformers repeats a single head as a view
        if groups > 1 and (efficient or setup.padded) and not one_for_all:
            label = ("activations", "k, v repeated for each query head", "2·T·q·b")
            k, v = (self.op(x.size * groups, [x], label=label) for x in (k, v))
        if setup.padded:
            keeps.append(Storage(self.tokens * seq * self.b, ("activations", "attention's masks", "T·S·b")))
        out = Storage(width or q.size, ("activations", "attention's output", "T·q·b"))
        return self.op(out.size, [q, k, v], [q, k, v, out, *keeps], inside=out)

    def _bias(self, d: int) -> int:
        """Bytes of a bias's gradient: one that trains beside the frozen one is in fp32."""
        return d * (self.b if self.trains else self.setup.own_width) if self.biases else 0


def bytes_per_weight(setup: Setup) -> float:
    """Of a frozen linear weight: NF4 takes 4 bits and, a block of 64, an absmax: fp32, or itself 8 bits.

    4 + 32/64 = 4.5 bits; with double quantisation 4 + 8/64 + 32/(64 x 256) = 4.127. Dettmers et al. 2023.
    """
    if setup.quantised == "none":
        return BYTES[setup.dtype]
    absmax = 32 / BLOCK if setup.quantised.endswith("-single") else 8 / BLOCK + 32 / (BLOCK * NESTED)
    return (QUANTISED_BITS[setup.quantised] + absmax) / 8
