"""The closed form is held to the trace, the trace to a real step, and both to figures measured elsewhere."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lora_lab import LoRA, params
from lora_lab.accounting.memory import estimate
from lora_lab.accounting.setup import OPTIMIZERS, Setup
from lora_lab.accounting.trace import trace
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods.bitfit import BitFit
from lora_lab.methods.full import FullFineTuning, HeadOnly
from lora_lab.methods.memory import memory
from lora_lab.methods.prefix import PrefixTuning
from lora_lab.methods.prompt import PromptTuning
from lora_lab.training.measure import measure
from tests.accounting.conftest import described

warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*")
LLAMAS = ("llama", "mistral", "qwen2", "qwen3")
MIXED = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 64},
    "deepseek_v3": {
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 128,
        "first_k_dense_replace": 1,
        "q_lora_rank": 96,
        "kv_lora_rank": 64,
        "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 32,
        "v_head_dim": 64,
        "num_key_value_heads": 4,
        "n_group": 2,
        "topk_group": 1,
    },
}
METHODS = ("full", "lora", "qlora", "prompt")


def config(family: str, size: dict[str, int], tied: bool = False) -> dict:
    """A config of a family; `size` in plain words."""
    d, heads = size["heads"] * size["head_dim"], size["heads"]
    if family == "gpt2":
        gpt2 = {"n_embd": d, "n_layer": size["layers"], "n_head": heads, "n_inner": size["inner"]}
        return {"model_type": family, "vocab_size": size["vocabulary"], "n_positions": 512, **gpt2}
    common = {
        "model_type": family,
        "hidden_size": d,
        "num_hidden_layers": size["layers"],
        "num_attention_heads": heads,
        "intermediate_size": size["inner"],
        "vocab_size": size["vocabulary"],
        "max_position_embeddings": 512,
    }
    if family in ("bert", "roberta"):
        return common
    if family.startswith("gemma"):
        common |= {"head_dim": size["head_dim"]}
    ends = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    grouped = {"num_key_value_heads": size["kv_heads"], "tie_word_embeddings": tied}
    return common | ends | grouped | MIXED.get(family, {})


@st.composite
def sizes(draw: st.DrawFn) -> dict[str, int]:
    """Dimensions of a small model of the usual proportions."""
    heads = draw(st.sampled_from([2, 4, 8]))
    head_dim = draw(st.sampled_from([32, 64]))
    return {
        "layers": draw(st.integers(2, 5)),
        "heads": heads,
        "kv_heads": draw(st.sampled_from([k for k in (1, 2, 4, 8) if heads % k == 0])),
        "head_dim": head_dim,
        "inner": draw(st.integers(2, 4)) * heads * head_dim,
        "vocabulary": draw(st.sampled_from([512, 5003, 32000])),
    }


# Where q and k are normed right after their layers, and backward through a layer is the peak: 2.5 % off once.
NORMED_HEADS = {"layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 32, "inner": 128, "vocabulary": 512}

# A 4-bit layer keeps its weight for backward, so a checkpointed layer runs again as far as its last: 6.7 % off once.
RUN_TO_THE_LAST = {"layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 64, "inner": 256, "vocabulary": 512}


def method_of(name: str, rank: int, targets: tuple[str, ...] | str):
    """A method by its name in these tests."""
    lora = LoRA(rank=rank, targets=targets)
    return {"full": FullFineTuning(), "prompt": PromptTuning(tokens=10)}.get(name, lora)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["bert", "roberta", "gpt2", *LLAMAS]),
    sizes(),
    st.booleans(),
    st.sampled_from(METHODS),
    st.sampled_from([1, 4, 16]),
    st.sampled_from([("q", "v"), "all-linear", ("v", "down")]),
    st.integers(1, 4),
    st.integers(64, 256),
    st.booleans(),
    st.sampled_from(["fp32", "bf16"]),
)
@example("qwen3", NORMED_HEADS, False, "lora", 1, ("q", "v"), 1, 64, True, "bf16")
@example("gpt2", RUN_TO_THE_LAST, False, "qlora", 8, ("q", "v"), 1, 64, True, "fp32")
def test_closed_form_within_one_percent_of_the_trace(
    family, size, tied, name, rank, targets, batch, seq, checkpointing, dtype
):
    fields, method = config(family, size, tied), method_of(name, rank, targets)
    quantised = "nf4" if name == "qlora" else "none"
    setup = Setup(batch=batch, seq=seq, dtype=dtype, checkpointing=checkpointing, quantised=quantised)
    architecture = described(fields)
    predicted = estimate(architecture, method.plan(architecture), setup)
    assert predicted.peak == pytest.approx(trace(fields, method, setup).peak, rel=0.01)


SIZE = {"heads": 4, "kv_heads": 2, "head_dim": 32, "layers": 2, "inner": 320, "vocabulary": 500}


@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_an_activation_keeps_what_its_operations_keep(family, activation):
    fields = {**config(family, SIZE), "hidden_act": activation}
    method, setup = LoRA(rank=4, targets="all-linear"), Setup(batch=2, seq=64, dtype="fp32")
    architecture = described(fields)
    predicted = estimate(architecture, method.plan(architecture), setup)
    assert predicted.peak == pytest.approx(trace(fields, method, setup).peak, rel=0.01)
    assert not any(activation in note for note in predicted.notes)


def test_an_activation_that_may_be_several_operations_is_named_in_a_note():
    architecture = described({**config("bert", SIZE), "hidden_act": "quick_gelu"})
    predicted = estimate(architecture, LoRA().plan(architecture), Setup())
    assert any("quick_gelu counts as one operation" in note and "trace it" in note for note in predicted.notes)


GRID = [
    ("phi3", "full", {}),
    ("phi3", "lora", {"padded": True}),
    ("qwen2", "bitfit", {}),
    ("bert", "bitfit", {"checkpointing": True}),
    ("gpt2", "bitfit", {}),
    ("bert", "head", {}),
    ("llama", "lora", {"padded": True, "outputs_kept": True}),
    ("gpt2", "full", {"padded": True, "outputs_kept": True}),
    ("llama", "lora", {"adapter_dtype": "fp32"}),
    ("bert", "lora", {"adapter_dtype": "bf16"}),
    ("bert", "lora", {"adapter_dtype": "fp32"}),
    ("gpt2", "lora", {"dropout": 0.1}),
    ("bert", "full", {"dropout": 0.1, "checkpointing": True}),
    ("llama", "lora-dropout", {}),
    ("llama", "frozen a", {}),
    ("bert", "frozen a", {"dtype": "fp32"}),
    ("gpt2", "frozen a", {"checkpointing": True}),
    ("phi3", "frozen a", {"padded": True}),
    ("roberta", "frozen a", {"adapter_dtype": "bf16"}),
    ("llama", "frozen a", {"adapter_dtype": "fp32"}),
    ("qwen2", "frozen a", {"quantised": "nf4"}),
    ("llama", "frozen a, dropout", {}),
    ("roberta", "lora-dropout", {"checkpointing": True}),
    ("llama", "qlora", {"quantised": "nf4-single"}),
    *((f, m, {"checkpointing": c}) for f in MIXED for m in ("full", "lora") for c in (False, True)),
    *((f, m, {"dtype": d}) for f in ("gemma2", "gemma3_text") for m in ("full", "lora") for d in ("fp32", "bf16")),
    ("gemma2", "lora", {"checkpointing": True}),
    ("gemma2", "top", {}),
    ("gpt_oss", "prompt", {}),
    ("gpt_oss", "o", {}),
    ("gpt_oss", "lora", {"padded": True}),
    ("phi3", "full", {"outputs_kept": True, "optimizer": "sgd"}),
    ("roberta", "head", {}),
    ("roberta", "lora", {"checkpointing": True, "batch": 1, "seq": 17}),
    ("gemma3_text", "prompt", {"quantised": "nf4"}),
    *(("gpt2", "full", {"optimizer": name}) for name in OPTIMIZERS if name != "adamw-8bit"),
    *(("llama", "full", {"optimizer": name}) for name in OPTIMIZERS if name != "adamw-8bit"),
]


@pytest.mark.parametrize(("family", "name", "options"), GRID)
def test_other_methods_and_options_within_three_percent(family, name, options):
    size = {"layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 64, "inner": 768, "vocabulary": 2000}
    fields, setup = config(family, size), Setup(**{"batch": 2, "seq": 192, **options})
    architecture = described(fields)
    special = {"bitfit": BitFit(), "head": HeadOnly(), "lora-dropout": LoRA(rank=4, dropout=0.1)}
    special |= {"frozen a, dropout": LoRA(rank=4, freeze_a=True, dropout=0.1)}
    special |= {"frozen a": LoRA(rank=8, freeze_a=True, targets="all-linear")}
    special |= {"o": LoRA(targets="o"), "top": LoRA(targets="model.layers.3.mlp.up_proj")}
    targets = "all-linear" if options.get("adapter_dtype") else ("q", "v")
    method = special.get(name) or method_of(name, 8, targets)
    if family == "deepseek_v3" and name == "lora":
        method = LoRA(targets=("q_b_proj", "kv_b_proj"))
    predicted = estimate(architecture, method.plan(architecture), setup)
    assert predicted.peak == pytest.approx(trace(fields, method, setup).peak, rel=0.03)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["full", "lora", "prompt"])
@pytest.mark.parametrize("model", ["minilm", "gpt2", "smollm2"])
def test_a_trace_equals_a_real_step_to_the_byte(model, name, checkpointing, one_thread):
    method = method_of(name, 8, ("q", "v"))
    setup = {"batch": 2, "seq": 32, "device": "cpu", "dtype": "bf16", "checkpointing": checkpointing}
    setup["dropout"] = 0.1 if checkpointing else 0.0
    if model == "minilm":
        setup["dtype"] = "fp32"
    real = measure(model, method, **setup)
    traced = memory(model, method, trace=True, **setup)
    assert traced.peak == real.peak
    assert traced.categories == real.categories
    assert real.process > real.peak / 4


@pytest.mark.parametrize(("rank", "options"), [(8, {"checkpointing": True}), (64, {"adapter_dtype": "bf16"})], ids=str)
def test_bert_with_lora_is_no_longer_low(rank, options):
    setup = {"batch": 8, "seq": 128, "dtype": "fp32", **options}
    predicted, traced = (memory("minilm", LoRA(rank=rank), trace=t, **setup).peak for t in (False, True))
    assert predicted == pytest.approx(traced, rel=0.002)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["full", "lora", "prompt"])
@pytest.mark.parametrize("model", ["minilm", "gpt2", "smollm2"])
def test_a_trace_is_within_two_percent_of_cuda(model, name):
    setup = {"batch": 4, "seq": 256, "device": "cuda", "dtype": "bf16"}
    method = method_of(name, 8, ("q", "v"))
    real, traced = measure(model, method, **setup), memory(model, method, trace=True, **setup)
    assert traced.peak == pytest.approx(real.peak, rel=0.02)
    assert real.reserved >= real.peak


def test_terms_sum_to_the_peak_and_every_one_is_explained():
    e = memory("llama-3-8b", LoRA(targets="all-linear"), batch=2, seq=1024)
    assert sum(term.bytes for term in e.terms) == e.peak == max(e.moments.values()) == e.moments[e.at]
    assert sum(e.categories.values()) == e.peak
    assert all(term.formula and term.symbol and term.bytes > 0 for term in e.terms)


@settings(deadline=None)
@given(st.integers(1, 16), st.integers(16, 4096), st.sampled_from(METHODS), st.booleans())
def test_more_tokens_never_need_less(batch, seq, name, checkpointing):
    method = method_of(name, 8, ("q", "v"))
    setup = {"checkpointing": checkpointing, "quantised": "nf4" if name == "qlora" else "none"}
    less, more = (memory("llama-3.2-1b", method, batch=b, seq=seq, **setup).peak for b in (batch, batch + 1))
    assert less <= more


def test_four_bits_and_double_quantisation():
    four, single, sixteen = (
        memory("llama-2-7b", LoRA(), quantised=q).categories["weights"] for q in ("nf4", "nf4-single", "none")
    )
    linear = 6_476_005_376  # numbers in the linear layers; embeddings and head stay in 16 bits
    assert sixteen - four == pytest.approx(linear * (16 - 4.126953125) / 8, abs=8)
    assert sixteen - single == pytest.approx(linear * (16 - 4.5) / 8, abs=8)


def test_the_trained_head_is_the_largest_tensor_of_a_small_step():
    """RoBERTa's head is d x d in fp32, and AdamW's arithmetic is as large as the largest tensor."""
    setup = {"batch": 1, "seq": 16}
    predicted, traced = (memory("roberta-base", LoRA(), trace=t, **setup).moments for t in (False, True))
    counters = 4 * (24 * 2 + 4)  # of AdamW: one for each tensor that trains, 4 bytes
    assert predicted["the optimizer's step"] + counters == traced["the optimizer's step"]


def test_eight_bit_moments_are_rounded_up_where_tensors_are_small():
    head = 768 * 768 * (2 + 8 / 256) + (768 + 2 * 768 + 2) * 8
    adapters = 24 * 2 * 8 * 768 * (2 + 8 / 256)
    assert memory("roberta-base", LoRA(), optimizer="adamw-8bit").categories["optimizer"] == round(head + adapters)
    biases = memory("gpt2", BitFit(), optimizer="adamw-8bit").categories["optimizer"]
    assert biases == 8 * params("gpt2", BitFit()).trainable


def test_sharding_divides_the_states():
    whole, zero1, zero2, fsdp = (
        memory("llama-3-8b", FullFineTuning(), shard=s) for s in ("", "zero1:8", "zero2:8", "fsdp:8")
    )
    assert zero1.categories["optimizer"] * 8 == pytest.approx(whole.categories["optimizer"], rel=1e-6)
    assert whole.peak > zero1.peak > zero2.peak > fsdp.peak


@pytest.mark.parametrize(
    ("setup", "says"),
    [
        ({"batch": -1}, "batch"),
        ({"seq": 0}, "seq"),
        ({"dtype": "int3"}, "dtype"),
        ({"optimizer": "adam"}, "adamw"),
        ({"shard": "fsdp"}, "fsdp:8"),
        ({"dropout": 1.5}, "dropout"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_impossible_conditions_are_named(setup, says):
    with pytest.raises(BadValue, match=says):
        memory("minilm", LoRA(), **setup)


def test_bitfit_needs_biases():
    with pytest.raises(BadValue, match="no biases"):
        memory("llama-2-7b", BitFit())


def test_what_is_not_modelled_is_refused_not_guessed():
    with pytest.raises(BadValue, match="not modelled"):
        memory("t5-base", LoRA())
    with pytest.raises(BadValue, match="not modelled yet; trace follows it"):
        memory("minilm", PrefixTuning())
    for targets in ("embed", "lm_head"):
        with pytest.raises(BadValue, match="alone is not modelled"):
            memory("smollm2", LoRA(targets=targets))
    for family in ("gemma-2-2b", "gpt-oss-20b"):
        with pytest.raises(BadValue, match="leave dropout at 0"):
            memory(family, LoRA(), dropout=0.1)
    with pytest.raises(BadValue, match="no head of a task"):
        memory("gpt2", HeadOnly())
    for family in ("deberta-v2-xxlarge", "t5-base"):
        with pytest.raises(BadValue, match="cannot be traced"):
            memory(family, LoRA(), trace=True)
    with pytest.raises(BadValue, match="bf16 alone"):
        memory("gpt-oss-20b", LoRA(), trace=True, dtype="fp16")
    with pytest.raises(BadValue, match="bf16 alone"):
        memory("mixtral-8x7b", LoRA(), trace=True, dtype="fp32")
    with pytest.raises(BadValue, match="CPU is not modelled"):
        memory("minilm", LoRA(), device="cpu", dropout=0.1)
    with pytest.raises(BadValue, match="one device"):
        memory("minilm", LoRA(), trace=True, shard="fsdp:8")
    with pytest.raises(BadValue, match="as a whole"):
        memory("gpt2", LoRA(), adapter_dtype="fp32")
    with pytest.raises(BadValue, match="PyTorch's own optimizers"):
        measure("minilm", LoRA(), device="cpu", optimizer="adamw-8bit")
    for traced in (False, True):
        with pytest.raises(BadValue, match="Apple's kernels"):
            memory("minilm", LoRA(), trace=traced, device="mps")
    with pytest.raises(NotFound, match="nearest"):
        memory("lama-2-7b", LoRA())


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_step_is_not_measured_on_a_device_that_is_not_there(device, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(BadValue, match=f"no {device} device here"):
        measure("minilm", LoRA(), device=device)


def test_a_model_with_more_than_its_adapters_can_hold_is_refused():
    with pytest.raises(BadValue, match="rank"):
        memory("minilm", LoRA(rank=500))


def test_adapters_on_an_embedding_or_head_are_marked_or_counted():
    e = memory("smollm2", LoRA(targets=("embed", "q")))
    assert e.peak > memory("smollm2", LoRA(targets=("q",))).peak
