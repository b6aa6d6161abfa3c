import json
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import metamath
from benchmarks.estimators import followed
from lora_lab import BadValue, BitFit, Bottleneck, FullFineTuning, LoRA, PrefixTuning, PromptTuning, memory, params
from lora_lab.accounting import memory as accountant
from lora_lab.accounting import trace
from lora_lab.accounting.allocator import EMPTY_CACHE, reserved
from lora_lab.accounting.film import CATEGORIES, filmed, moments
from lora_lab.accounting.fit import Fit, NoFit, Regime, fit
from lora_lab.accounting.kernels import stand_ins
from lora_lab.accounting.memory import inference, largest, predicted, quick, traced
from lora_lab.accounting.models import config_of, longest
from lora_lab.accounting.setup import STEP, Setup
from lora_lab.accounting.trace import build, follow, forward_backward, prepare
from lora_lab.methods.base import Method
from lora_lab.methods.targets import bits_per_weight
from lora_lab.training.measure import measure
from tests.accounting.conftest import BERT, SMALL, real_model, small_config
from tests.conftest import assert_raises, tiny
from tests.methods.test_every_method import METHODS

warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*")
FULL, LORA, ALL = FullFineTuning(), LoRA(rank=8), LoRA(rank=4, targets="all-linear")
PROMPT, NO_CONFIG = PromptTuning(tokens=10), torch.nn.Sequential(torch.nn.Linear(4, 4))
MAMBA = {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 97, "state_size": 4}
LLAMA, SMALL_BERT, SMALL_GPT2 = map(small_config, ("llama", "bert", "gpt2"))
MISTRAL = small_config("mistral", num_hidden_layers=8, sliding_window=1024)
GEMMA3 = small_config("gemma3_text", num_hidden_layers=13, sliding_window=512)
DEEPSEEK = small_config("deepseek_v3", num_hidden_layers=12, first_k_dense_replace=3)
# With a rank_pattern, a fit holds for one rank and takes half the traces.
PATTERN = LoRA(rank=4, rank_pattern={"q": 3})
LATENT = LoRA(rank=4, targets=("q_b_proj", "kv_b_proj"), rank_pattern={"q_b_proj": 3})
DECODER = {"vocab_size": 97, "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
BART = {name.replace("decoder", side): size for name, size in DECODER.items() for side in ("encoder", "decoder")}
BART |= {"model_type": "bart"}
CASES = [
    (small_config("bert", num_hidden_layers=6), LoRA(rank=4, dropout=0.1), {"dtype": "fp32"}),  # extrapolated from 4
    (small_config("gpt2"), FULL, {"outputs_kept": True, "padded": True, "optimizer": "adamw-foreach"}),
    (LLAMA, PATTERN, {"adapter_dtype": "fp32", "device": "cpu"}),
    (LLAMA | {"num_hidden_layers": 6}, FULL, {"master_weights": True, "checkpointing": True}),
    (small_config("qwen3"), LoRA(rank=4, freeze_a=True), {"adapter_dtype": "bf16", "optimizer": "adamw-fused"}),
    (small_config("qwen2"), PrefixTuning(tokens=5), {"batch": 1}),
    (small_config("mistral"), PROMPT, {"optimizer": "adamw-8bit", "dtype": "fp16"}),
    *((MISTRAL, LORA, {"seq": seq}) for seq in (512, 1024, 2048)),  # below, at and above the window
    (MISTRAL, LORA, {"batch": 1, "seq": 320}),  # single rows have their own fit
    (MISTRAL, ALL, {"seq": 320, "padded": True, "optimizer": "adamw-foreach"}),
    *((GEMMA3, FULL, {"seq": seq}) for seq in (256, 1024)),  # layers alternate
    (small_config("gpt_oss", num_hidden_layers=12), FULL, {"seq": 256, "dtype": "fp32"}),  # and contain experts
    (DEEPSEEK, LATENT, {"seq": 128}),  # the first layers are dense
    (small_config("mixtral", num_hidden_layers=8), PATTERN, {"seq": 128, "quantized": "nf4"}),
]


def name_of(value) -> str:
    return value["model_type"] if isinstance(value, dict) and "model_type" in value else str(value)


@pytest.mark.parametrize(("fields", "method", "options"), CASES, ids=name_of)
def test_prediction_equals_the_trace(fields, method, options):
    setup = {"batch": 3, "seq": 160, **options}
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
        (SMALL_BERT, FULL, {"dropout": 0.1}),
        (small_config("llama tied"), PROMPT, {"seq": 8, "dtype": "bf16", "checkpointing": True}),  # as SmolLM2
        # With a single short row, the peak is in the optimizer's step.
        *((LLAMA, FULL, {"batch": 1, "seq": 8, "optimizer": o}) for o in ("adamw", "adamw-foreach", "sgd")),
        (LLAMA, ALL, {"batch": 1, "seq": 8}),
        *((SMALL_BERT, METHODS[m], {}) for m in ("probe", "bottleneck", "dora, freeze_a", "lora-xs")),
        *((SMALL_GPT2, METHODS[m], {"dtype": "bf16"}) for m in ("full", "lora", "ia3", "vera")),  # fused layers
        *((SMALL_GPT2, METHODS[m], {"dtype": "bf16", "padded": True}) for m in ("prefix", "ptuning")),
        (SMALL_BERT, METHODS["prefix"], {"padded": True}),
        (SMALL_BERT, METHODS["tinylora"], {"adapter_dtype": "bf16"}),
        *((small_config(kind), FULL, {}) for kind in ("biogpt", "modernbert-decoder")),  # biogpt makes its own mask
        *((small_config("bloom"), m, {"padded": True}) for m in (ALL, PROMPT)),
        (DECODER | {"model_type": "trocr"}, FULL, {}),  # parts that no step uses have no optimizer states
        (small_config("falcon") | {"alibi": True}, ALL, {"padded": True}),
        (small_config("deberta-v2 relative"), ALL, {"padded": True}),
        (SMALL_BERT | {"model_type": "nystromformer"}, ALL, {"padded": True}),
        (small_config("t5"), ALL, {"dtype": "fp16"}),  # its layers clamp in fp16 only
        ({**LLAMA, "hidden_size": 128, "intermediate_size": 192, "head_dim": 32}, ALL, {"quantized": "nf4"}),
    ],
    ids=name_of,
)
@pytest.mark.usefixtures("bitsandbytes")  # its kernel makes no temporary tensors
def test_trace_equals_a_real_step(model, method, options):
    setup = {"batch": 2, "seq": 32, "device": "cpu", "dtype": "fp32", **options}
    real, trace = measure(model, method, **setup), memory(model, method, trace=True, **setup)
    assert (trace.phases, trace.categories) == (real.phases, real.categories)


def test_regression_and_fp16_are_traced():
    step = small_config("deberta-v2 relative"), ALL
    setup = {"batch": 2, "seq": 32, "device": "cpu", "dtype": "fp32", "num_labels": 1}
    assert memory(*step, trace=True, **setup).peak == measure(*step, **setup).peak
    sizes = [memory(BART, LORA, trace=True, dtype=dtype).phases for dtype in ("fp16", "bf16")]
    assert sizes[0] == sizes[1]


class MasterWeights(torch.optim.AdamW):
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
    assert memory("llama-3-8b", FULL, shard="fsdp:1").peak == whole.peak
    assert memory(LLAMA, FULL, shard="fsdp:8", seq=16, trace=True).reserved is None  # only simulated for a whole step
    assert zero1.categories["optimizer"] * 8 == pytest.approx(whole.categories["optimizer"], rel=1e-6)
    assert whole.peak > zero1.peak > zero2.peak > fsdp.peak
    outside = 2 * (2 * 128_256 * 4096 + 4096)  # everything outside the layers, in bytes
    layer = 218_112_000
    gathered = outside + 2 * layer
    assert fsdp.categories["weights"] == pytest.approx(whole.categories["weights"] / 8 + gathered, rel=1e-6)
    whole, fsdp = (memory("llama-3-8b", LORA, quantized="nf4", shard=shard) for shard in ("", "fsdp:8"))
    packed = outside + layer * bits_per_weight("nf4") / 8
    masters = [memory("llama-3-8b", FULL, master_weights=True, shard=shard) for shard in ("", "fsdp:8")]
    whole_step, own_step = (max(m.bytes["temporaries"] for m in step.timeline if m.phase == STEP) for step in masters)
    assert whole_step == pytest.approx(8 * own_step, rel=1e-6) != 0
    assert fsdp.categories["weights"] == pytest.approx(whole.categories["weights"] / 8 + packed, rel=1e-4)


def test_allocator_reserves_what_pytorch_would():
    """A segment has 2 MiB for small tensors, 20 MiB for others below 10 MiB, and the tensor's size for larger ones."""
    mib = 2**20
    assert reserved([(0, 1)]) == 2 * mib
    assert reserved([(i, 512) for i in range(4096)]) == 2 * mib
    assert reserved([(i, 1) for i in range(4097)]) == 4 * mib
    sizes = (mib, mib + 1, 10 * mib, 11 * mib)
    assert [reserved([(0, size)]) for size in sizes] == [2 * mib, 20 * mib, 10 * mib, 12 * mib]
    assert reserved([(0, 30 * mib), (0, 0), (1, 10 * mib), (2, 20 * mib)]) == 30 * mib
    assert reserved([(0, 30 * mib), (0, 0), (0, 0), (1, 30 * mib)]) == 30 * mib
    # The smallest block that fits is used.
    freed = [(0, 30 * mib), (1, 12 * mib), (0, 0), (1, 0)]
    assert reserved([*freed, (2, 11 * mib), (3, 30 * mib)]) == 42 * mib
    # Freed neighbors are merged.
    assert reserved([(0, 9 * mib), (1, 9 * mib), (0, 0), (1, 0), (2, 20 * mib)]) == 20 * mib
    assert reserved([(0, 9 * mib), (1, 9 * mib), (1, 0), (0, 0), (2, 20 * mib)]) == 20 * mib
    # Emptying the cache keeps segments that are in use.
    assert reserved([(0, 30 * mib), (0, 0), EMPTY_CACHE, (1, 40 * mib)]) == 40 * mib
    assert reserved([(0, 9 * mib), (1, 9 * mib), (0, 0), EMPTY_CACHE, (2, 40 * mib)]) == 60 * mib


@pytest.mark.filterwarnings("error::lora_lab.errors.LabWarning")
def test_impossible_step_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    no_config = "a Sequential has no config .*: attach the method and read its report"
    assert_raises("batch", memory, "minilm", LORA, batch=-1)
    assert_raises("adamw", memory, "minilm", LORA, optimizer="adam")
    assert_raises("fsdp:8", memory, "minilm", LORA, shard="fsdp")
    assert_raises("fsdp:8", memory, "minilm", LORA, shard="fsdp:99999999999999999999")
    assert_raises("shard", memory, "minilm", LORA, shard=None)
    assert_raises("checkpointing", memory, "minilm", LORA, checkpointing="yes")
    small = {"model_type": "phi3", "vocab_size": 96, "hidden_size": 32}
    assert_raises("cannot build phi3", memory, small, LORA, seq=16)
    assert_raises("dropout", memory, "minilm", LORA, dropout=1.5)
    assert_raises("foo", memory, "minilm", LORA, foo=3)
    assert_raises("Apple's kernels", memory, "minilm", LORA, trace=True, device="mps")
    assert_raises("no biases", memory, "llama-2-7b", BitFit())
    assert_raises("led cannot be traced.*data", memory, DECODER | {"model_type": "led"}, LORA, trace=True)
    assert_raises("as a whole", memory, "gpt2", LORA, adapter_dtype="fp32")
    assert_raises("only plain LoRA", memory, "gpt2", BitFit(), adapter_dtype="fp32")
    assert_raises("of type 'vit'; only its parameters", memory, {"model_type": "vit"}, LORA)
    for ask, wrong in ((memory, "lora"), (params, LoRA)):
        assert_raises("method must be", ask, "minilm", wrong)
        assert_raises("has 1024, so use at most 1023", ask, "gpt2", PrefixTuning(tokens=5000))
        assert_raises(no_config, ask, NO_CONFIG, ALL)
    assert_raises("PyTorch's own optimizers", measure, "minilm", LORA, optimizer="adamw-8bit")
    assert_raises("no cuda device", measure, "minilm", LORA, device="cuda")


def test_model_without_a_fit_is_traced():
    assert memory(small_config("t5"), LoRA(rank=2), batch=2, seq=32).mode == "traced"
    assert memory({"model_type": "gemma3", "text_config": GEMMA3}, LORA, batch=2, seq=32).mode == "traced"
    with pytest.raises(BadValue, match="cannot be interpolated"):
        largest("seq", Setup(), lambda setup: accountant.estimate(small_config("t5"), LORA, setup), 2**30)
    gated = {f"linear_{name}": 2 for name in ("num_value_heads", "num_key_heads", "key_head_dim", "value_head_dim")}
    next_ = small_config("qwen3_moe", model_type="qwen3_next", shared_expert_intermediate_size=32, **gated)
    assert memory(next_, LORA, seq=96).mode == "traced"  # its number of operations depends on the length
    strict = small_config("olmo2", model_type="flex_olmo")  # its config accepts no integer as a dropout
    assert memory(strict, LORA, trace=True, batch=1, seq=16, dropout=0).peak > 0
    narrow = small_config("llama", head_dim=2, num_key_value_heads=1)  # narrower than a fit's ranks
    assert memory(narrow, LoRA(rank=1, targets=("k",)), batch=2, seq=32).mode == "traced"
    assert_raises("rank 3 is above", memory, narrow, LoRA(rank=3, targets=("k",)), batch=2, seq=32)
    assert memory(LLAMA, ALL, batch=2, seq=160).mode == "predicted"
    with pytest.raises(BadValue, match="rank 41 is above"):  # although the fit is valid for any rank
        memory(LLAMA, LoRA(rank=41, targets="all-linear"), batch=2, seq=160)


def test_quick_estimate_is_an_upper_bound(own_cache):
    wide = BERT | {"model_type": "bert", "hidden_size": 360}  # the bottlenecks have a third of the base's parameters
    cases = [(small_config(family, num_hidden_layers=4), m, {}) for family in ("bert", "llama") for m in (ALL, FULL)]
    cases += [(small_config("bloom", n_layer=4), ALL, {"seq": 512}), ({"model_type": "t5"}, LORA, {})]
    cases += [(wide, Bottleneck(size=300), {"batch": 1, "seq": 8})]
    for fields, method, changes in cases:
        setup = {"batch": 4, "seq": 128, "dtype": "fp32", **changes}
        bound, trace = quick(fields, method, Setup(**setup)), memory(fields, method, trace=True, **setup)
        assert bound.mode == "bound"
        assert trace.peak <= bound.peak <= 2.5 * trace.peak, (fields, method)


def test_fits_and_films_are_cached(own_cache, tmp_path, monkeypatch):
    gpt2 = small_config("gpt2")
    first, film = memory(gpt2, LoRA(rank=2), batch=2, seq=64), filmed(gpt2, LoRA(rank=2), Setup(batch=2, seq=64))
    with monkeypatch.context() as patched:
        for module in ("memory", "film"):
            patched.setattr(f"lora_lab.accounting.{module}.fit", None)
        assert filmed(gpt2, LoRA(rank=16), Setup(batch=1, seq=99, optimizer="sgd")) == film
        assert memory(gpt2, LoRA(rank=2), batch=np.int64(2), seq=np.int64(64)).terms == first.terms
        assert memory(gpt2, LoRA(rank=5, alpha=3), batch=7, seq=96).mode == "predicted"
    for file in tmp_path.rglob("*.json"):
        file.write_text(file.read_text()[:50])  # damaged fits are computed again
    assert memory(gpt2, LoRA(rank=2), batch=2, seq=64).terms == first.terms


def test_a_changed_method_of_the_users_own_is_traced_again(own_cache):
    def peak(part):
        @dataclass(frozen=True)
        class Own(Method):
            name, trains_base = "own", True

            def insert(self, model, to_fill):
                for name, p in model.named_parameters():
                    p.requires_grad_(name.endswith(part))

        step, again = (memory(small_config("gpt2"), Own(), batch=2, seq=64) for _ in range(2))
        assert step.mode == "predicted"
        assert step.terms == again.terms
        return step.peak

    assert peak("bias") < peak("weight")


def test_a_loaded_classifier_keeps_its_number_of_labels():
    model, options = tiny("bert"), {"trace": True, "batch": 2, "seq": 32}  # with 3 labels
    expected = memory(model.config.to_dict(), LORA, num_labels=3, **options)
    assert memory(model, LORA, **options).peak == expected.peak > memory(model, LORA, num_labels=2, **options).peak


@pytest.mark.usefixtures("own_cache")  # only shipped fits
@pytest.mark.parametrize(("name", "method"), [("minilm", FULL), ("llama-3-8b", LORA)])
def test_shipped_fit_agrees_with_a_new_trace(name, method):
    """If it doesn't, `python docs/presets.py` must write the fits again."""
    case = config_of(name), method, Setup(batch=2, seq=64)
    assert predicted(*case, make=False).categories == pytest.approx(traced(*case).categories, rel=0.001)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
@pytest.mark.parametrize(
    ("family", "method", "checkpointing"),
    [("bert", LoRA(rank=2, targets=("q", "up")), True), ("gpt2", ALL, False), ("qwen3", FULL, True)],
)
def test_flops_equal_pytorchs_counter(family, method, checkpointing):
    options = {"batch": 2, "seq": 24, "dtype": "fp32", "device": "cpu", "checkpointing": checkpointing}
    fields, setup = small_config(family), Setup(**options)
    model = build(fields, setup)
    prepare(model, method, setup)
    # LoRA layers add in place, which PyTorch's counter ignores.
    in_place = {torch.ops.aten.addmm_: lambda _, x, y, **more: 2 * x[0] * x[1] * y[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        forward_backward(model, setup)
    pairs = fields.get("num_hidden_layers", fields.get("n_layer")) * 2 * 24 * 24  # attention, which isn't counted
    width = fields.get("head_dim", 0) * 4 or fields.get("hidden_size", fields.get("n_embd"))
    attended = pairs * width * (14 + 4 * checkpointing)  # 4 forward, 10 backward, and forward again
    assert memory(fields, method, trace=True, **options).flops == counter.get_total_flops() + attended


def test_experts_count_once_per_token_that_uses_them():
    mixed = {**LLAMA, "model_type": "mixtral", "num_local_experts": 8}
    one, two = (memory(mixed | {"num_experts_per_tok": n}, FULL, trace=True, batch=1, seq=64).flops for n in (1, 2))
    assert two - one == pytest.approx(3 * 2 * 3 * 40 * 50 * 3 * 64, rel=0.01)


CACHED = [small_config(case) for case in ("gpt2", "qwen3", "falcon")]
CACHED += [small_config("gemma2", sliding_window=6), small_config("deepseek_v3", moe_intermediate_size=28)]


@pytest.mark.parametrize("config", CACHED, ids=name_of)
def test_cache_size_equals_a_real_cache(config):
    model = real_model(config, device="cpu").eval()
    for rows, tokens in ((1, 7), (3, 5)):
        with torch.no_grad():
            cache = model(torch.ones(rows, tokens - 1, dtype=torch.long), use_cache=True).past_key_values
            model(torch.ones(rows, 1, dtype=torch.long), past_key_values=cache)
        size = sum(t.untyped_storage().nbytes() for layer in cache.layers for t in (layer.keys, layer.values))
        assert inference(config, Setup(batch=rows, seq=tokens, dtype="fp32")).categories["cache"] == size


def test_unmerged_adapter_adds_weights_nf4_shrinks_them_and_a_soft_prompt_is_in_the_cache():
    plain, setup = inference("llama-2-7b", Setup()), Setup(quantized="nf4")
    assert inference("llama-2-7b", Setup(), LoRA()).peak - plain.peak == 4 * 4_194_304
    # LitGPT measured 4.26 GB for nf4-dq and 13.52 GB for bf16, including the cache of a short prompt.
    assert inference("llama-2-7b", setup).categories["weights"] / 1e9 == pytest.approx(4.26 - 0.3, abs=0.3)
    assert plain.peak / 1e9 == pytest.approx(13.52, abs=0.3)
    plain = inference("llama-3.2-1b", Setup(batch=3, seq=120))
    for method in (PromptTuning(20), PrefixTuning(20)):
        prompted = inference("llama-3.2-1b", Setup(batch=3, seq=100), method)
        assert prompted.categories["cache"] == plain.categories["cache"]
        assert any(term.formula and term.formula.endswith("· B·(S + 20)") for term in prompted.terms)


def test_generation_without_a_plain_cache_or_with_an_option_of_training_is_refused():
    for model in ("bert-base", "t5-base", MAMBA):
        assert_raises(name_of(model), inference, model, Setup())
    options = {"shard": "fsdp:2", "checkpointing": True, "dropout": 0.1, "padded": True, "optimizer": "sgd"}
    for name, value in options.items():
        assert_raises(f"{name} has no effect on generation", inference, "llama-2-7b", Setup(**{name: value}))


@pytest.mark.parametrize("name", [metamath.FITTED, *metamath.FAMILY])
def test_lora_runs_match_the_reserved_gpu_memory(name):
    run, tolerance = metamath.runs()[name], 0.0005 if name == metamath.FITTED else 0.02
    assert run.method is None or params(metamath.model(), run.method).trainable == run.trainable
    trace, prediction = followed(run), metamath.predicted(run)  # DoRA has no prediction
    assert trace.reserved == pytest.approx(run.reserved, rel=tolerance)
    assert 0.95 < trace.allocated / run.reserved < 1
    assert prediction is None or 0.95 < prediction / run.reserved < 1


def packed_step() -> list[torch.Tensor]:
    """Return the gradients of a step with dropout and fused attention on two texts per row."""
    model = tiny("gpt2").train()
    model.set_attn_implementation("sdpa")
    torch.manual_seed(1)
    ids, positions = torch.arange(24).view(2, 12), torch.tensor([[*range(5), *range(7)]] * 2)
    model(input_ids=ids, position_ids=positions, labels=ids, use_cache=False).loss.backward()
    return [p.grad for p in model.parameters()]


def test_only_the_tracing_thread_uses_gpu_kernels():
    expected, q = packed_step(), torch.empty(1, 2, 8, 16, device="meta", requires_grad=True)
    with ThreadPoolExecutor(1) as executor, stand_ins(cuda=True):
        grad_fn = torch.nn.functional.scaled_dot_product_attention(q, q, q).grad_fn
        actual = executor.submit(packed_step).result(timeout=60)
    assert "Efficient" in grad_fn.name()
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_padded_rows_between_multiples_of_32_are_within_a_tenth_of_a_percent():
    setup = Setup(batch=3, seq=333, padded=True)
    assert predicted(MISTRAL, ALL, setup).peak == pytest.approx(traced(MISTRAL, ALL, setup).peak, rel=0.001)
    setup = Setup(batch=64, seq=65, padded=True)  # an interpolation between multiples of 32 would be 0.15% too low
    assert memory("minilm", ALL, batch=64, seq=65, padded=True).peak == traced(config_of("minilm"), ALL, setup).peak


def test_fit_with_a_false_assumption_is_rejected(monkeypatch):
    for config, seq, low, assumed in (
        (MISTRAL, 992, 992, {}),  # across the window
        (DEEPSEEK, 64, 32, {"irregular": 0}),  # the dense layers are counted as regular
        (GEMMA3, 1024, 512, {"period": 1}),  # all layers are counted as equal
    ):
        actual = dict(zip(("layers", "irregular", "period"), trace.depth_of(config, FULL), strict=True))
        assert all(actual[name] > value for name, value in assumed.items())
        with monkeypatch.context() as patch:
            patch.setattr(trace, "depth_of", lambda *_, depth=actual | assumed: tuple(depth.values()))
            with pytest.raises(NoFit):
                fit(config, FULL, Setup(batch=2, seq=seq), Regime(False, low, 0))


def test_step_is_traced_and_its_film_fixed_if_its_shallow_model_cannot_be_built():
    config = {"model_type": "gpt_neo", "hidden_size": 32, "num_heads": 4, "num_layers": 8, "vocab_size": 97}
    config["attention_types"] = [[["global", "local"], 4]]
    step, film = memory(config, FULL, seq=64), filmed(config, FULL, Setup(seq=64))
    assert (step.mode, film["fixed"]) == ("traced", [1, 64])
    assert max(sum(moment.bytes.values()) for moment in moments(film, 4, Setup(seq=64))) == step.peak
    text = small_config("mixtral", num_hidden_layers=6, cross_attention_layers=[3])
    images_too = {"model_type": "mllama", "text_config": text, "vision_config": BERT}
    assert all(memory(images_too, method, seq=64).mode == "traced" for method in (FULL, LoRA(rank=2)))


SETUPS = [
    {}, {"checkpointing": True}, {"padded": True}, {"quantized": "nf4"}, {"dtype": "fp32"}, {"dropout": 0.1},
    {"optimizer": "adamw-foreach"}, {"optimizer": "adamw-8bit"}, {"optimizer": "sgd", "device": "cpu", "dtype": "fp32"},
    {"outputs_kept": True}, {"shard": "fsdp:4"},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_drawn_cases_are_predicted_to_the_byte():
    """Draw models with up to 12 layers, and lengths on either side of a window. Takes about eight minutes on a core."""
    refused = 0
    for seed in range(200):
        rng = random.Random(seed)
        kind = rng.choice([kind for kind in SMALL if kind[:2] not in ("t5", "de")])  # T5 has two stacks of layers
        fields = small_config(kind)
        if kind in ("mistral", "gemma2", "gemma3_text", "gpt_oss"):
            fields["sliding_window"] = rng.choice([128, 512])
        fields |= dict.fromkeys(fields.keys() & {"num_hidden_layers", "n_layer"}, rng.randint(2, 12))
        method = rng.choice([LoRA(rank=5, targets="all-linear"), LoRA(rank=1, targets="all-linear"), FULL])
        options = dict(rng.choice(SETUPS))
        if method is FULL:
            options.pop("quantized", None)
        lengths = [n for n in (64, 160, 224, 480, 608) if n <= (longest(fields) or n)]
        case = fields, method, Setup(batch=rng.choice([1, 2, 7]), seq=rng.choice(lengths), **options)
        try:
            prediction = predicted(*case)
        except (NoFit, BadValue) as error:  # BadValue: the rank exceeds the size of a small layer
            refused += isinstance(error, NoFit)
            continue
        trace = traced(*case)
        assert (prediction.peak, prediction.categories) == (trace.peak, trace.categories), (seed, case)
    assert refused <= 40


def bytes_by_category(timeline):
    """List the bytes at each moment of each phase, without moments that only move bytes between modules."""
    phases = []
    for phase in ("forward", "backward"):
        rows = [[m.bytes.get(category, 0) for category in CATEGORIES] for m in timeline if m.phase == phase]
        phases.append([row for i, row in enumerate(rows) if not i or row != rows[i - 1]])
    return phases


@pytest.mark.parametrize(("method", "checkpointing"), [(LoRA(rank=4), False), (FULL, True)])
def test_film_equals_the_trace_at_every_moment(method, checkpointing):
    gpt2 = small_config("gpt2", n_layer=6)
    film = filmed(gpt2, method, Setup(batch=2, seq=64, checkpointing=checkpointing))
    assert json.loads(json.dumps(film)) == film
    assert len(json.dumps(film["moments"])) < 1_000  # repeats are folded
    timeline = moments(film, 4, Setup(batch=5, seq=131, checkpointing=checkpointing))
    trace = memory(gpt2, method, trace=True, batch=5, seq=131, checkpointing=checkpointing)
    assert bytes_by_category(timeline) == bytes_by_category(trace.timeline)
    assert max(sum(m.bytes.values()) for m in timeline) == trace.peak


SHORT_CHUNKS = {
    "model_type": "mamba2", "hidden_size": 32, "num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1,
    "num_hidden_layers": 8, "vocab_size": 97, "chunk_size": 128,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "method", "seq"),
    [
        (small_config("llama", num_hidden_layers=16), LoRA(rank=2, targets=("*.[0-7].*.q_proj",)), 32),
        (small_config("llama", num_hidden_layers=16), LoRA(rank=2, targets=("*.1*.q_proj",)), 32),
        (SHORT_CHUNKS, FULL, 300),  # three chunks
        ({"model_type": "canine", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 8}, FULL, 300),
        (small_config("llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}), FULL, 32),
    ],
)
def test_what_changes_only_in_deeper_layers_or_longer_rows_is_counted(config, method, seq):
    assert memory(config, method, batch=2, seq=seq).peak == memory(config, method, batch=2, seq=seq, trace=True).peak
