"""DoRA, PiSSA, LoRA+ and LoRA-FA: what each starts as, counts and saves, and that PEFT computes the same."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lora_lab import LoRA, Recipe, detach, disabled, load_adapter, memory, merge, params, save_adapter
from lora_lab.errors import BadValue
from lora_lab.layers import LoRALinear
from lora_lab.methods import method_from
from lora_lab.methods.attach import fingerprint
from lora_lab.methods.lora_layers import DoRALinear, PiSSALinear
from lora_lab.training.loop import Member
from lora_lab.training.pack import key
from tests.accounting.conftest import described, real_model, small_config
from tests.conftest import logits, lora_layers, randomise, snapshot, tiny
from tests.methods.test_peft_parity import CLOSE, TASK, assert_the_same, gradients, load_peft, peft_model, save_peft

WEIGHTS = "adapter_model.safetensors"
DORA, PISSA = LoRA(rank=4, dora=True), LoRA(rank=4, init="pissa")
FA, PLUS = LoRA(rank=4, freeze_a=True), LoRA(rank=4, lr_ratio=16)
VARIANTS = {
    "dora": DORA,
    "pissa": PISSA,
    "freeze_a": FA,
    "lr_ratio": PLUS,
    "pissa, freeze_a": LoRA(rank=3, init="pissa", freeze_a=True, rslora=True),
    "dora, freeze_a": LoRA(rank=3, dora=True, freeze_a=True),
}
each = pytest.mark.parametrize("method", VARIANTS.values(), ids=VARIANTS)


def whole(kind: str, **options) -> LoRA:
    """A method on layers of that tiny model which PEFT can adapt as they are."""
    fused = {"gpt2": ("c_attn", "c_proj"), "phi3": ("qkv_proj", "down")}
    return LoRA(**{"rank": 4, "alpha": 8, "targets": fused.get(kind, ("q", "v", "down")), **options})


# ---- what holds for all of them


def test_each_has_a_hash_of_its_own_and_recipes_without_them_keep_theirs():
    same = LoRA(dora=False, lr_ratio=1, freeze_a=False)
    assert Recipe("minilm", "rt").hash == Recipe("minilm", "rt", same).hash == "3c0110fb1204"
    assert not {"dora", "lr_ratio", "freeze_a"} & same.settings().keys()
    assert len({Recipe("minilm", "rt", method).hash for method in VARIANTS.values()}) == len(VARIANTS)
    for method in VARIANTS.values():
        assert method_from(json.loads(json.dumps(method.settings()))) == method


@each
@pytest.mark.parametrize("kind", ["roberta", "llama"])
def test_it_starts_as_the_base_trains_is_saved_and_goes_away(method, kind, tmp_path):
    model, base, again = tiny(kind), tiny(kind), tiny(kind)
    before, weights = logits(base), dict(base.named_parameters())
    report = method.attach(model)
    assert report.base_fingerprint == fingerprint(model) == fingerprint(base)
    torch.testing.assert_close(logits(model), before, **CLOSE)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # in the first step B is zero, and with it A's gradient
        (logits(model) ** 2).sum().backward()
        optimizer.step()
    assert not torch.allclose(logits(model), before, atol=1e-3)
    randomise(model)
    assert load_adapter(again, save_adapter(model, tmp_path)).method == method
    assert torch.equal(logits(again), logits(model))
    mine, other = gradients(model), gradients(again)
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    deltas = [layer.delta_weight() for layer in lora_layers(model)]
    merge(model)
    for layer, delta in zip(lora_layers(model), deltas, strict=True):
        torch.testing.assert_close(layer.delta_weight(), delta, rtol=1e-4, atol=1e-5)
    with disabled(model):
        assert torch.equal(logits(model), before)
    detach(model)
    assert torch.equal(logits(model), before)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name])


@each
def test_counted_reported_and_trained_agree(method, loaded):
    model = loaded("minilm", 2)
    report = method.attach(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    counted = params("minilm", method)
    assert counted.trainable == report.adapter_parameters == trained - report.head_parameters
    assert sum(row.trained for row in counted.modules) == counted.trainable
    one = 384 * method.rank * (1 if method.freeze_a else 2) + 384 * method.dora
    assert counted.trainable == 2 * 6 * one
    assert report.total == sum(p.numel() for p in model.parameters()) - report.head_parameters


@each
@pytest.mark.parametrize("kind", ["bert", "gpt2", "phi3", "llama tied"])
def test_the_file_is_as_large_as_counted(method, kind, tmp_path):
    config, labels = small_config(kind), 3 if kind == "bert" else None
    model = real_model(config, labels, device="cpu")
    if method.dora:
        method = replace(method, targets={"gpt2": ("c_attn",), "phi3": ("qkv_proj", "o")}.get(kind, ("q", "v")))
    method.attach(model)
    folder = save_adapter(model, tmp_path)
    assert params(described(config, labels), method).adapter_bytes == (folder / WEIGHTS).stat().st_size


@each
def test_a_variant_trains_alone(method):
    recipes = [Recipe("minilm", "rt", method, lr=lr) for lr in (1e-3, 2e-3)]
    assert key(recipes[0]) != key(recipes[1])
    assert LoRA().can_pack
    assert not method.can_pack


@pytest.mark.parametrize("method", [DORA, PISSA, FA], ids=["dora", "pissa", "freeze_a"])
def test_an_embedding_is_refused_before_anything_is_touched(method):
    model = tiny("llama")
    before = snapshot(model)
    with pytest.raises(BadValue, match=r"is for linear layers: leave the embedding model\.embed_tokens out"):
        replace(method, targets=("q", "embed")).attach(model)
    assert snapshot(model) == before


# ---- DoRA


@pytest.mark.parametrize("kind", ["roberta", "llama", "gpt2", "phi3"])
def test_dora_from_peft_has_the_same_outputs_and_gradients(kind, tmp_path):
    targets = {"gpt2": ["c_attn", "mlp.c_proj"], "phi3": ["qkv_proj"], "llama": ["q_proj", "down_proj"]}
    theirs = peft_model(tiny(kind), kind, targets.get(kind, ["query", "value"]), use_dora=True, use_rslora=True)
    ours = tiny(kind)
    report = load_adapter(ours, save_peft(theirs, tmp_path))
    assert isinstance(lora_layers(ours)[0], DoRALinear)
    assert report.adapter_parameters == sum(p.numel() for n, p in theirs.named_parameters() if "lora_" in n)
    assert_the_same(ours, theirs)


@pytest.mark.parametrize("kind", ["roberta", "llama", "gpt2", "phi3"])
def test_peft_reads_our_dora_and_writes_the_same_tensors(kind, tmp_path):
    ours = tiny(kind)
    whole(kind, dora=True).attach(ours)
    randomise(ours)
    theirs = load_peft(tiny(kind), save_adapter(ours, tmp_path / "ours"), is_trainable=True)
    assert_the_same(ours, theirs)
    save_peft(theirs, tmp_path / "theirs")
    mine, other = (load_file(tmp_path / who / WEIGHTS) for who in ("ours", "theirs"))
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    assert sum(name.endswith("lora_magnitude_vector") for name in mine) == len(lora_layers(ours))


def test_dora_drops_what_peft_drops(tmp_path):
    theirs = peft_model(tiny("llama"), "llama", ["q_proj", "v_proj"], use_dora=True, lora_dropout=0.3)
    ours = tiny("llama")
    load_adapter(ours, save_peft(theirs, tmp_path))
    for model in (ours, theirs):
        model.train()
    answers = []
    for model in (ours, theirs):
        torch.manual_seed(3)
        answers.append(logits(model))
    torch.testing.assert_close(*answers, **CLOSE)
    assert not torch.allclose(answers[0], logits(ours.eval()), atol=1e-3)


def test_dora_in_half_precision_starts_as_the_base():
    model, base = tiny("llama").bfloat16(), tiny("llama").bfloat16()
    DORA.attach(model)
    assert torch.equal(logits(model), logits(base))
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def test_dora_learns_the_length_of_a_row_alone():
    layer = DoRALinear(nn.Linear(6, 5), 2, 1.0)
    layer.lora_magnitude_vector.data[3] *= 2
    before, after = layer.frozen_weight(), layer.frozen_weight() + layer.delta_weight()
    torch.testing.assert_close(after[3], 2 * before[3])
    torch.testing.assert_close(after[:3], before[:3])


def test_dora_on_a_slice_of_a_fused_layer_says_what_to_name():
    model = tiny("gpt2")
    before = snapshot(model)
    with pytest.raises(BadValue, match="dora adapts a fused layer as a whole: use c_attn as a target, not q"):
        DORA.attach(model)
    assert snapshot(model) == before
    with pytest.raises(BadValue, match="adapts a fused layer as a whole"):
        params("gpt2", DORA)


# ---- PiSSA


def peft_pissa(kind: str, method: LoRA, modules: list[str]) -> peft.PeftModel:
    config = peft.LoraConfig(
        r=method.rank, lora_alpha=method.alpha, target_modules=modules, init_lora_weights="pissa",
        task_type=TASK.get(kind, "CAUSAL_LM"),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(tiny(kind), config).eval()


MODULES = {"roberta": ["query", "value", "output.dense"], "llama": ["q_proj", "v_proj", "down_proj"]}


@pytest.mark.parametrize("kind", MODULES)
def test_pissa_starts_and_learns_as_pefts_does(kind):
    method = whole(kind, init="pissa", targets=tuple(MODULES[kind]) if kind == "roberta" else ("q", "v", "down"))
    ours, theirs = tiny(kind), peft_pissa(kind, method, MODULES[kind])
    method.attach(ours)
    assert_the_same(ours, theirs)
    for model in (ours, theirs):
        optimizer = torch.optim.SGD(
            [p for n, p in model.named_parameters() if "lora_" in n], lr={"roberta": 30.0, "llama": 0.3}[kind]
        )
        for _ in range(3):
            out = logits(model)
            loss = (out if out.dim() == 2 else out[:, 4]).logsumexp(-1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.testing.assert_close(logits(ours), logits(theirs), **CLOSE)
    assert not torch.allclose(logits(ours), logits(tiny(kind)), atol=1e-3)


PISSAS = {
    "plain": PISSA,
    "rsLoRA": LoRA(rank=3, init="pissa", rslora=True),
    "patterns": LoRA(rank=4, init="pissa", rank_pattern={"v": 2}, alpha_pattern={"q": 3}),
}


@pytest.mark.parametrize("method", PISSAS.values(), ids=PISSAS)
@pytest.mark.parametrize("kind", ["roberta", "llama", "gpt2", "phi3"])
def test_pissas_file_is_a_lora_of_twice_the_rank_on_the_original_base(kind, method, tmp_path, monkeypatch):
    ours = tiny(kind)
    method.attach(ours)
    randomise(ours)
    theirs = load_peft(tiny(kind), save_adapter(ours, tmp_path))
    torch.testing.assert_close(logits(theirs), logits(ours), **CLOSE)
    plain = tiny(kind)
    tensors = load_file(tmp_path / WEIGHTS)
    save_file(tensors, tmp_path / WEIGHTS, {"format": "pt"})  # without our header it is an ordinary LoRA
    report = load_adapter(plain, tmp_path)
    assert {type(layer) for layer in lora_layers(plain)} == {LoRALinear}
    assert report.method.init == "kaiming"
    torch.testing.assert_close(logits(plain), logits(ours), **CLOSE)
    again = tiny(kind)
    monkeypatch.setattr(torch.linalg, "svd", lambda *_, **__: pytest.fail("loading must not decompose the weights"))
    assert load_adapter(again, save_adapter(ours, tmp_path)).method == method
    torch.testing.assert_close(logits(again), logits(ours), **CLOSE)


def test_pissa_takes_the_largest_part_of_the_weight():
    layer = PiSSALinear(nn.Linear(12, 9), 3, 2.0)
    values = torch.linalg.svdvals(layer.frozen_weight())
    residual = layer.frozen_weight() - 2.0 * layer.lora_B @ layer.lora_A
    torch.testing.assert_close(torch.linalg.svdvals(residual)[:6], values[3:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.lora_A.norm(dim=1), layer.lora_B.norm(dim=0))
    assert not layer.delta_weight().any()


def test_pissas_dropout_is_on_what_trains_alone():
    torch.manual_seed(0)
    layer = PiSSALinear(nn.Linear(12, 9), 3, 2.0, dropout=0.5)
    x = torch.randn(4, 12)
    torch.manual_seed(1)
    y = layer(x)
    torch.manual_seed(1)
    dropped = nn.functional.dropout(x, 0.5)
    wanted = layer.base_layer(x) + 2.0 * (dropped - x) @ (layer.lora_B @ layer.lora_A).t()
    torch.testing.assert_close(y, wanted)


def test_a_file_of_pefts_in_which_the_base_has_moved_is_refused(tmp_path):
    theirs = peft_pissa("roberta", PISSA, ["query", "value"])
    with pytest.raises(BadValue, match="changes the base weight too"):
        load_adapter(tiny("roberta"), save_peft(theirs, tmp_path))


# ---- LoRA+ and LoRA-FA


def test_b_moves_so_many_times_as_far():
    moved: dict[float, dict[str, float]] = {}
    for ratio in (1.0, 8.0):
        model = tiny("roberta")
        recipe = Recipe("tiny", "random", LoRA(rank=4, lr_ratio=ratio), lr=1e-3, warmup=0, clip=0)
        recipe.method.attach(model)
        nn.init.normal_(lora_layers(model)[0].lora_B)
        member, before = Member(recipe, model), {n: p.clone() for n, p in model.named_parameters() if p.requires_grad}
        loss = (logits(model) ** 2).sum()
        loss.backward()
        member.update(1, loss.item())
        after = dict(model.named_parameters())
        moved[ratio] = {name: (after[name] - p).abs().max().item() for name, p in before.items()}
        assert member.history.progress[0].lr == recipe.lr_at(1)
    for name, plain in moved[1.0].items():
        assert moved[8.0][name] == pytest.approx(plain * (8 if name.endswith("lora_B") else 1), rel=1e-3), name


def test_moments_come_back_whatever_the_groups():
    model = tiny("roberta")
    PLUS.attach(model)
    recipe = Recipe("tiny", "random", PLUS)
    member = Member(recipe, model)
    (logits(model) ** 2).sum().backward()
    member.update(1, 1.0)
    other = Member(recipe, model)
    other.set_state(member.state())
    kept, found = member.state(), other.state()
    assert all(torch.equal(a, b) for a, b in zip(found["exp_avg"], kept["exp_avg"], strict=True))
    assert found["step"] == kept["step"] == 1


def test_a_frozen_a_stays_as_it_was_drawn_and_keeps_no_input_for_backward(tmp_path):
    model = tiny("llama")
    FA.attach(model)
    drawn = [layer.lora_A.clone() for layer in lora_layers(model)]
    member = Member(Recipe("tiny", "random", FA, lr=0.1), model)
    kept: list[torch.Tensor] = []
    x = torch.randn(7, 32)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        lora_layers(model)[0](x)
    assert not [t for t in kept if t.data_ptr() == x.data_ptr()]
    (logits(model) ** 2).sum().backward()
    member.update(1, 1.0)
    for layer, a in zip(lora_layers(model), drawn, strict=True):
        assert torch.equal(layer.lora_A, a)
        assert layer.lora_B.any()
    assert sum(name.endswith("lora_A.weight") for name in load_file(save_adapter(model, tmp_path) / WEIGHTS)) == 4


# ---- memory


def test_a_frozen_a_saves_the_inputs_and_its_own_gradient_and_moments():
    setup = {"batch": 32, "seq": 128, "dtype": "fp32", "device": "cpu"}
    plain, frozen = (memory("minilm", LoRA(targets="all-linear", freeze_a=f), **setup) for f in (False, True))
    assert frozen.peak < 0.9 * plain.peak
    every, half = (params("minilm", LoRA(targets="all-linear", freeze_a=f)).trainable for f in (False, True))
    trained = every - half
    counters = 4 * 36  # AdamW's, one for each A
    assert plain.categories["optimizer"] - frozen.categories["optimizer"] == 2 * 4 * trained + counters
    assert plain.categories["weights"] == frozen.categories["weights"]
