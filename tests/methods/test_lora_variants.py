"""DoRA, PiSSA, LoRA+ and LoRA-FA: PEFT computes the same. Their contract is in test_every_method.py."""

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lora_lab import LoRA, Recipe, load_adapter, save_adapter
from lora_lab.layers import LoRALinear
from lora_lab.methods.lora_layers import PiSSALinear
from lora_lab.training.loop import Member
from tests.conftest import logits, lora_layers, tiny
from tests.methods.conftest import with_adapter
from tests.methods.test_peft_parity import CLOSE, assert_the_same, load_peft, lora, peft_model, save_peft

WEIGHTS = "adapter_model.safetensors"
FA = LoRA(rank=4, freeze_a=True)


# ---- DoRA


def test_dora_drops_what_peft_drops(tmp_path):
    theirs = peft_model(tiny("llama"), lora("llama", ["q_proj", "v_proj"], use_dora=True, lora_dropout=0.3))
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


# ---- PiSSA


MODULES = {"roberta": ["query", "value", "output.dense"], "llama": ["q_proj", "v_proj", "down_proj"]}


@pytest.mark.parametrize("kind", MODULES)
def test_pissa_starts_and_learns_as_pefts_does(kind):
    method = LoRA(rank=4, alpha=8, targets=tuple(MODULES[kind]), init="pissa")
    ours, theirs = tiny(kind), peft.get_peft_model(tiny(kind), lora(kind, MODULES[kind], init_lora_weights="pissa"))
    theirs.eval()
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
    "rsLoRA": LoRA(rank=3, init="pissa", rslora=True),
    "patterns": LoRA(rank=4, init="pissa", rank_pattern={"v": 2}, alpha_pattern={"q": 3}),
}


@pytest.mark.parametrize("method", PISSAS.values(), ids=PISSAS)
def test_pissas_file_is_a_lora_of_twice_the_rank_on_the_original_base(method, tmp_path, monkeypatch):
    ours, plain, again = with_adapter("gpt2", method), tiny("gpt2"), tiny("gpt2")
    torch.testing.assert_close(logits(load_peft(tiny("gpt2"), save_adapter(ours, tmp_path))), logits(ours), **CLOSE)
    tensors = load_file(tmp_path / WEIGHTS)
    save_file(tensors, tmp_path / WEIGHTS, {"format": "pt"})  # without our header it is an ordinary LoRA
    report = load_adapter(plain, tmp_path)
    assert {type(layer) for layer in lora_layers(plain)} == {LoRALinear}
    assert report.method.init == "kaiming"
    torch.testing.assert_close(logits(plain), logits(ours), **CLOSE)
    monkeypatch.setattr(torch.linalg, "svd", lambda *_, **__: pytest.fail("loading must not decompose the weights"))
    assert load_adapter(again, save_adapter(ours, tmp_path)).method == method
    torch.testing.assert_close(logits(again), logits(ours), **CLOSE)


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
        member.update(1, loss.item(), member.clip().item())
        after = dict(model.named_parameters())
        moved[ratio] = {name: (after[name] - p).abs().max().item() for name, p in before.items()}
        assert member.history["lr"][0] == recipe.lr_at(1)
    for name, plain in moved[1.0].items():
        assert moved[8.0][name] == pytest.approx(plain * (8 if name.endswith("lora_B") else 1), rel=1e-3), name


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
    member.update(1, 1.0, member.clip().item())
    for layer, a in zip(lora_layers(model), drawn, strict=True):
        assert torch.equal(layer.lora_A, a)
        assert layer.lora_B.any()
    assert sum(name.endswith("lora_A.weight") for name in load_file(save_adapter(model, tmp_path) / WEIGHTS)) == 4
