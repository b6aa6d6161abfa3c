"""Tests of memory: predictions against traces, traces against real steps, and both against published figures."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lora_lab import LoRA, params
from lora_lab.accounting import memory as accountant
from lora_lab.accounting.allocator import EMPTY_CACHE, Allocator, reserved
from lora_lab.accounting.fit import Fit, Regime
from lora_lab.accounting.memory import inference, memory, quick
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.trace import build, follow, forward_backward, prepare
from lora_lab.errors import BadValue
from lora_lab.methods.bitfit import BitFit
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.soft import PrefixTuning, PromptTuning
from lora_lab.training.measure import measure
from tests.accounting.conftest import real_model, small_config

warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*")
SIZE = {"layers": 3, "heads": 4, "kv_heads": 2, "head_dim": 32, "inner": 320, "vocabulary": 503}


def config(family: str, size: dict[str, int]) -> dict:
    """Return the config of a family; `size` has the keys of SIZE."""
    width, heads, layers, inner = size["heads"] * size["head_dim"], size["heads"], size["layers"], size["inner"]
    if family == "gpt2":
        own = {"n_embd": width, "n_layer": layers, "n_head": heads, "n_inner": inner, "n_positions": 512}
    else:
        own = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
        own |= {"intermediate_size": inner, "max_position_embeddings": 512}
    if family not in ("gpt2", "bert", "deberta-v2"):
        own |= {"num_key_value_heads": size["kv_heads"], "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    return {"model_type": family, "vocab_size": size["vocabulary"], **own}


FULL, LORA, ALL = FullFineTuning(), LoRA(rank=8), LoRA(rank=4, targets="all-linear")
PROMPT = PromptTuning(tokens=10)
LLAMA = config("llama", SIZE)
T5 = {"model_type": "t5", "d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48, "vocab_size": 97}
CASES = [  # layers: with 6, the fit is extrapolated from 4 and 5
    ("bert", 6, LoRA(rank=4, dropout=0.1), {"dtype": "fp32"}),
    ("gpt2", 2, FULL, {"outputs_kept": True, "padded": True, "optimizer": "adamw-foreach"}),
    ("llama", 2, LoRA(rank=4, rank_pattern={"q": 3}), {"adapter_dtype": "fp32", "device": "cpu"}),
    ("llama", 6, FULL, {"master_weights": True, "checkpointing": True}),
    ("qwen3", 2, LoRA(rank=4, freeze_a=True), {"adapter_dtype": "bf16", "optimizer": "adamw-fused"}),
    ("qwen2", 2, PrefixTuning(tokens=5), {"batch": 1}),
    ("mistral", 2, PROMPT, {"optimizer": "adamw-8bit", "dtype": "fp16"}),
]


@pytest.mark.parametrize(("family", "layers", "method", "options"), CASES, ids=str)
def test_prediction_equals_the_trace(family, layers, method, options):
    fields, setup = config(family, {**SIZE, "layers": layers}), {"batch": 3, "seq": 160, **options}
    prediction, trace = memory(fields, method, **setup), memory(fields, method, trace=True, **setup)
    assert (prediction.mode, trace.mode) == ("predicted", "traced")
    assert prediction.categories == trace.categories
    assert prediction.phases == trace.phases
    assert prediction.flops == trace.flops > 0
    assert trace.reserved > trace.peak
    assert max(sum(moment.bytes.values()) for moment in trace.timeline) == trace.peak


@pytest.mark.parametrize(
    ("model", "method", "options"),
    [
        ("minilm", FULL, {"dropout": 0.1}),
        ("gpt2", LORA, {"seq": 8, "dtype": "bf16"}),
        ("smollm2", PROMPT, {"seq": 8, "dtype": "bf16", "checkpointing": True}),
        # With a single short row, the optimizer's step makes the peak.
        *(
            (LLAMA, m, {"batch": 1, "seq": 8, "optimizer": o})
            for m in (FULL, ALL)
            for o in ("adamw", "adamw-foreach", "sgd")
        ),
    ],
    ids=str,
)
def test_trace_equals_a_real_step(model, method, options):
    """Other methods are in tests/methods/test_every_method.py."""
    setup = {"batch": 2, "seq": 32, "device": "cpu", "dtype": "fp32", **options}
    real, trace = measure(model, method, **setup), memory(model, method, trace=True, **setup)
    assert (trace.phases, trace.categories) == (real.phases, real.categories)


class MasterWeights(torch.optim.AdamW):
    """AdamW that steps fp32 copies of the weights with fp32 copies of their gradients."""

    def __init__(self, trained):
        self.pairs = [(p, p.detach().float()) for p in trained]
        super().__init__([copy for _, copy in self.pairs], foreach=True)

    def step(self):
        for p, copy in self.pairs:
            copy.grad = p.grad.float()
        super().step()
        for p, copy in self.pairs:
            p.data.copy_(copy)
            copy.grad = None
            self.state[copy]["copy"] = copy


def test_master_weights_equal_a_real_step_on_copies():
    setup = Setup(batch=1, seq=8, device="cpu", optimizer="adamw-foreach", master_weights=True)
    tracker = follow(build(LLAMA, setup), FULL, setup, MasterWeights)
    trace = accountant.estimate(LLAMA, FULL, setup, trace=True)
    assert trace.categories == accountant.of_moments(tracker.moments, "measured").categories


@pytest.mark.gpu
@pytest.mark.parametrize("method", [FULL, LORA, PROMPT], ids=lambda method: method.name)
@pytest.mark.parametrize("model", ["minilm", "gpt2", "smollm2"])
def test_trace_is_within_two_percent_of_cuda(model, method):
    setup = {"batch": 4, "seq": 256, "device": "cuda", "dtype": "bf16"}
    real, trace = measure(model, method, **setup), memory(model, method, trace=True, **setup)
    assert trace.peak == pytest.approx(real.peak, rel=0.02)
    assert real.reserved >= real.peak


@settings(max_examples=50)
@given(st.integers(1, 16), st.integers(16, 4096), st.integers(1, 64), st.booleans())
def test_more_rows_or_rank_need_no_less_memory(batch, seq, rank, checkpointing):
    setup = {"batch": batch, "seq": seq, "checkpointing": checkpointing}
    peak = memory("llama-3-8b", LoRA(rank=rank), **setup).peak
    assert peak <= memory("llama-3-8b", LoRA(rank=rank), **{**setup, "batch": batch + 1}).peak
    assert peak <= memory("llama-3-8b", LoRA(rank=rank + 1), **setup).peak


def test_8_bit_optimizer_keeps_small_tensors_in_fp32():
    head = 768 * 768 * (2 + 8 / 256) + (768 + 2 * 768 + 2) * 8
    adapters = 24 * 2 * 8 * 768 * (2 + 8 / 256)
    assert memory("roberta-base", LoRA(), optimizer="adamw-8bit").categories["optimizer"] == round(head + adapters)
    biases = memory("gpt2", BitFit(), optimizer="adamw-8bit").categories["optimizer"]
    assert biases == 8 * params("gpt2", BitFit()).trainable


def test_moment_that_peaks_only_when_sharded_is_kept():
    moments, labels = [("backward", "a"), ("backward", "b")], [("gradients", "a"), ("activations", "b")]
    coefficients = np.zeros((2, 2, 3))
    coefficients[0, 0, 0], coefficients[1, 1, 0] = 10, 9  # bytes
    assert Fit(Regime(True, 32, 0), labels, moments, coefficients, [], [0.0] * 3).pruned().moments == moments


def test_sharding_divides_the_states():
    whole, zero1, zero2, fsdp = (memory("llama-3-8b", FULL, shard=s) for s in ("", "zero1:8", "zero2:8", "fsdp:8"))
    assert zero1.categories["optimizer"] * 8 == pytest.approx(whole.categories["optimizer"], rel=1e-6)
    assert whole.peak > zero1.peak > zero2.peak > fsdp.peak
    gathered = 2 * (218_112_000 + 2 * 128_256 * 4096 + 4096)  # one layer, and everything outside the layers
    assert fsdp.categories["weights"] == pytest.approx(whole.categories["weights"] / 8 + gathered, rel=1e-6)


# ---- the allocator


def test_allocator_reserves_what_pytorch_would():
    """Segments have 2 MiB for small tensors, 20 MiB for those below 10 MiB, and their own size for larger ones."""
    mib = 2**20
    assert reserved([(0, 1)]) == 2 * mib
    assert reserved([(i, 512) for i in range(4096)]) == 2 * mib
    assert reserved([(i, 512) for i in range(4097)]) == 4 * mib
    assert reserved([(0, mib + 1)]) == 20 * mib
    assert reserved([(0, 11 * mib)]) == 12 * mib
    assert reserved([(0, 30 * mib), (0, 0), (1, 10 * mib), (2, 20 * mib)]) == 30 * mib
    # Freed neighbors are merged.
    assert reserved([(0, 9 * mib), (1, 9 * mib), (0, 0), (1, 0), (2, 20 * mib)]) == 20 * mib
    assert reserved([(0, 9 * mib), (1, 9 * mib), (1, 0), (0, 0), (2, 20 * mib)]) == 20 * mib
    # Emptying the cache keeps segments that are in use.
    assert reserved([(0, 30 * mib), (0, 0), EMPTY_CACHE, (1, 40 * mib)]) == 40 * mib
    assert reserved([(0, 9 * mib), (1, 9 * mib), (0, 0), EMPTY_CACHE, (2, 40 * mib)]) == 60 * mib


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40 * 2**20)), max_size=60))
def test_allocator_covers_live_tensors_and_reuses_free_memory(steps):
    allocator, live, smallest = Allocator(), [], 2**60
    for number, (frees, size) in enumerate(steps):
        if frees and live:
            allocator.free(live.pop(number % len(live))[0])
        else:
            live.append((allocator.malloc(size), size))
            smallest = min(smallest, size)
        assert allocator.reserved >= sum(size for _, size in live)
    for address, _ in live:
        allocator.free(address)
    total = allocator.reserved
    if total:
        allocator.malloc(smallest)
        assert allocator.reserved == total


# ---- refused steps


@pytest.mark.parametrize(
    ("ask", "model", "method", "options", "message"),
    [
        (memory, "minilm", LORA, {"batch": -1}, "batch"),
        (memory, "minilm", LORA, {"optimizer": "adam"}, "adamw"),
        (memory, "minilm", LORA, {"shard": "fsdp"}, "fsdp:8"),
        (memory, "minilm", LORA, {"dropout": 1.5}, "dropout"),
        (memory, "minilm", LORA, {"trace": True, "device": "mps"}, "Apple's kernels"),
        (memory, "llama-2-7b", BitFit(), {}, "no biases"),
        (memory, config("deberta-v2", SIZE), LORA, {"trace": True}, "deberta-v2 cannot be traced"),
        (memory, "gpt2", LORA, {"adapter_dtype": "fp32"}, "as a whole"),
        (measure, "minilm", LORA, {"optimizer": "adamw-8bit"}, "PyTorch's own optimizers"),
        (measure, "minilm", LORA, {"device": "cuda"}, "no cuda device"),
    ],
)
@pytest.mark.filterwarnings("ignore::lora_lab.errors.LabWarning")
def test_impossible_step_is_refused(ask, model, method, options, message, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(BadValue, match=message):
        ask(model, method, **options)


# ---- the source of an estimate


def test_model_without_a_fit_is_traced():
    assert memory(T5, LoRA(rank=2), batch=2, seq=32).mode == "traced"
    narrow = config("llama", {**SIZE, "heads": 2, "kv_heads": 1, "head_dim": 2})  # narrower than a fit's ranks
    assert memory(narrow, LoRA(rank=1, targets=("k",)), batch=2, seq=32).mode == "traced"
    with pytest.raises(BadValue, match="rank 3 is above"):
        memory(narrow, LoRA(rank=3, targets=("k",)), batch=2, seq=32)


def test_quick_estimate_is_an_upper_bound(own_cache):
    for family in ("bert", "llama"):
        fields = config(family, {**SIZE, "layers": 4})
        for method in (ALL, FULL):
            bound = quick(fields, method, Setup(batch=4, seq=128, dtype="fp32"))
            assert bound.mode == "bound"
            trace = memory(fields, method, batch=4, seq=128, dtype="fp32", trace=True)
            assert trace.peak <= bound.peak <= 2.5 * trace.peak, (family, method)


def test_fit_is_cached(own_cache, monkeypatch):
    first = memory(config("gpt2", SIZE), LoRA(rank=2), batch=2, seq=64)
    monkeypatch.setattr(accountant, "fit", None)
    assert memory(config("gpt2", SIZE), LoRA(rank=2), batch=2, seq=64).terms == first.terms
    assert memory(config("gpt2", SIZE), LoRA(rank=5, alpha=3), batch=7, seq=96).mode == "predicted"


# ---- FLOPs


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
@pytest.mark.parametrize(
    ("family", "method", "checkpointing"),
    [("bert", LoRA(rank=2, targets=("q", "up")), True), ("gpt2", ALL, False), ("qwen3", FULL, True)],
)
def test_flops_equal_pytorchs_counter(family, method, checkpointing):
    options = {"batch": 2, "seq": 24, "dtype": "fp32", "device": "cpu", "checkpointing": checkpointing}
    fields, setup = config(family, SIZE), Setup(**options)
    model = build(fields, setup)
    prepare(model, method, setup)
    # LoRA layers add in place, which PyTorch's counter ignores.
    in_place = {torch.ops.aten.addmm_: lambda _, x, y, **more: 2 * x[0] * x[1] * y[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        forward_backward(model, setup)
    assert memory(fields, method, trace=True, **options).flops == counter.get_total_flops()


def test_experts_count_once_per_token_that_uses_them():
    mixed = {**LLAMA, "model_type": "mixtral", "num_local_experts": 8}
    one, two = (memory(mixed | {"num_experts_per_tok": n}, FULL, trace=True, batch=1, seq=64).flops for n in (1, 2))
    assert two - one == pytest.approx(3 * 2 * 3 * 128 * 320 * SIZE["layers"] * 64, rel=0.01)


# ---- generation


@pytest.mark.parametrize("case", ["gpt2", "qwen3"])
def test_cache_size_equals_a_real_cache(case):
    config = small_config(case)
    model = real_model(config, device="cpu").eval()
    for rows, tokens in ((1, 7), (3, 5)):
        with torch.no_grad():
            cache = model(torch.ones(rows, tokens, dtype=torch.long), use_cache=True).past_key_values
        size = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
        assert inference(config, Setup(batch=rows, seq=tokens, dtype="fp32")).categories["cache"] == size


def test_unmerged_adapter_adds_weights_and_nf4_shrinks_them():
    plain, setup = inference("llama-2-7b", Setup()), Setup(quantised="nf4")
    assert inference("llama-2-7b", Setup(), LoRA()).peak - plain.peak == 4 * 4_194_304
    # LitGPT measured 4.26 GB for nf4-dq and 13.52 GB for bf16, including the cache of a short prompt.
    assert inference("llama-2-7b", setup).categories["weights"] / 1e9 == pytest.approx(4.26 - 0.3, abs=0.3)
    assert plain.peak / 1e9 == pytest.approx(13.52, abs=0.3)


def test_soft_prompt_is_in_the_cache():
    plain = inference("llama-3.2-1b", Setup(batch=3, seq=120))
    for method in (PromptTuning(20), PrefixTuning(20)):
        prompted = inference("llama-3.2-1b", Setup(batch=3, seq=100), method)
        assert prompted.categories["cache"] == plain.categories["cache"]


def test_model_without_a_plain_cache_is_refused_and_windows_are_noted():
    for name in ("bert-base", "t5-base", "deepseek-v3"):
        with pytest.raises(BadValue, match=name):
            inference(name, Setup())
    with pytest.raises(BadValue, match="one device"):
        inference("llama-2-7b", Setup(shard="fsdp:2"))
    assert any("sliding window" in note for note in inference("gemma-2-9b", Setup()).notes)
