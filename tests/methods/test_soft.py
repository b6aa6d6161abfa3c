"""Prompts, P-tuning and prefixes: PEFT's answers and files, generation, padding, what goes wrong."""

from __future__ import annotations

from dataclasses import replace

import peft
import pytest
import torch
import transformers
from torch import nn

from lora_lab import PrefixTuning, PromptTuning, PTuning, load_adapter, memory, save_adapter
from lora_lab.accounting.params import params
from lora_lab.errors import BadValue
from lora_lab.methods.merge import detach
from lora_lab.training.batches import check_fits
from lora_lab.training.measure import measure
from lora_lab.training.models import take_shortcuts
from lora_lab.training.tasks import Split, Task
from tests.conftest import logits, randomise, tiny
from tests.methods.conftest import refused, with_adapter
from tests.methods.test_peft_parity import load_peft

METHODS = {"prompt": PromptTuning(tokens=5), "ptuning": PTuning(tokens=5, hidden=24), "prefix": PrefixTuning(tokens=5)}
PEERS = {
    "prompt": lambda **of: peft.PromptTuningConfig(num_virtual_tokens=5, **of),
    "ptuning": lambda **of: peft.PromptEncoderConfig(num_virtual_tokens=5, encoder_hidden_size=24, **of),
    "prefix": lambda **of: peft.PrefixTuningConfig(num_virtual_tokens=5, **of),
}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
GREEDY = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
causal = pytest.mark.parametrize(("kind", "name"), [*(("gpt2", name) for name in METHODS), ("llama", "prefix")])


def ours(kind: str, name: str) -> nn.Module:
    return with_adapter(kind, METHODS[name])


def theirs(kind: str, name: str, task: str) -> peft.PeftModel:
    adapted = peft.get_peft_model(tiny(kind), PEERS[name](task_type=task)).eval()
    randomise(adapted, 3)
    return adapted


@torch.no_grad()
def copied(peer: peft.PeftModel, kind: str, name: str) -> nn.Module:
    """Ours with PEFT's numbers, its encoder's among them."""
    model, of = ours(kind, name), peer.prompt_encoder["default"]
    ahead = model.soft_prefix if name == "prefix" else model.soft_prompt
    ahead.prompt.copy_(of.embedding.weight)
    if name == "ptuning":
        ahead.encoder.load_state_dict(of.mlp_head.state_dict())
    return model


def given(rows: int = 2, tokens: int = 7) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 96, (rows, tokens), generator=torch.Generator().manual_seed(5))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


# ---- as PEFT has them


@causal
def test_a_causal_model_is_pefts_and_files_go_both_ways(kind, name, tmp_path):
    peer = theirs(kind, name, "CAUSAL_LM")
    model, loaded = copied(peer, kind, name), tiny(kind)
    mine, other = logits(model), logits(peer)
    torch.testing.assert_close(mine, other, **CLOSE)
    for out in (mine, other):
        out.square().mean().backward()
    norms = [sum(p.grad.square().sum() for p in m.parameters() if p.requires_grad) for m in (model, peer)]
    torch.testing.assert_close(*norms, **CLOSE)
    trained = [sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (model, peer)]
    assert trained[0] == trained[1] == params(tiny(kind), METHODS[name]).trainable
    torch.testing.assert_close(logits(load_peft(tiny(kind), save_adapter(model, tmp_path / "ours"))), mine, **CLOSE)
    peer.save_pretrained(tmp_path / "theirs")
    report = load_adapter(loaded, tmp_path / "theirs")
    torch.testing.assert_close(logits(loaded), other, **CLOSE)
    assert type(report.method) is type(METHODS[name])
    assert report.adapter_parameters == trained[0]


@pytest.mark.parametrize("name", ["prompt", "ptuning"])
def test_an_encoder_answers_as_pefts_does(name):
    peer = theirs("bert", name, "SEQ_CLS")
    model = copied(peer, "bert", name)
    model.classifier.trained.load_state_dict(peer.classifier.modules_to_save["default"].state_dict())
    torch.testing.assert_close(logits(model), logits(peer), **CLOSE)


def test_peft_reads_our_file_of_an_encoder_and_its_head(tmp_path):
    model, again, third = ours("roberta", "ptuning"), tiny("roberta"), tiny("roberta")
    peer = load_peft(tiny("roberta"), save_adapter(model, tmp_path))
    torch.testing.assert_close(logits(peer), logits(model), **CLOSE)
    load_adapter(again, tmp_path)
    load_adapter(third, save_adapter(again, tmp_path / "again"))
    assert torch.equal(logits(third), logits(again))


def test_pefts_prefix_on_an_encoder_has_other_positions_and_is_refused(tmp_path):
    peft.get_peft_model(tiny("bert").bert, PEERS["prefix"](task_type="FEATURE_EXTRACTION")).save_pretrained(tmp_path)
    plain = tiny("bert").bert  # with a head PEFT takes none
    with refused(plain, "positions"):
        load_adapter(plain, tmp_path)


def test_a_file_for_a_prompt_of_another_length_leaves_the_model_as_it_was(tmp_path):
    save_adapter(ours("gpt2", "prompt"), tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(config.read_text().replace('"num_virtual_tokens": 5', '"num_virtual_tokens": 6'))
    model = tiny("gpt2")
    with refused(model, "num_virtual_tokens"):
        load_adapter(model, tmp_path)


def test_a_p_tuning_file_answers_and_says_that_it_cannot_be_trained_on(tmp_path):
    model = tiny("gpt2")
    load_adapter(model, save_adapter(ours("gpt2", "ptuning"), tmp_path))
    model.train()
    with pytest.raises(BadValue, match="train a new one"):
        model(**given())


# ---- what stands ahead enters once, and padding changes nothing


@causal
def test_generation_continues_as_the_forward_pass_says_with_and_without_a_cache(kind, name):
    model, call = ours(kind, name), given()
    expected = call["input_ids"]
    for _ in range(6):
        last = model(input_ids=expected, attention_mask=torch.ones_like(expected)).logits[:, -1]
        expected = torch.cat([expected, last.argmax(-1, keepdim=True)], dim=1)
    for cached in (True, False):
        assert torch.equal(model.generate(**call, use_cache=cached, **GREEDY), expected)
    padded = {key: nn.functional.pad(value, (3, 0)) for key, value in call.items()}
    alone = model.generate(**call, num_beams=2, **GREEDY)
    assert torch.equal(model.generate(**padded, num_beams=2, **GREEDY)[:, 3:], alone)


@pytest.mark.parametrize(("kind", "name"), [*(("roberta", name) for name in METHODS), ("llama", "prefix")])
def test_padding_changes_no_answer_and_arguments_may_come_by_place(kind, name):
    model, call = ours(kind, name), given()
    ids, mask = (nn.functional.pad(value, (0, 3), value=one) for value, one in zip(call.values(), (1, 0), strict=True))
    wide, narrow = model(ids, attention_mask=mask).logits, model(**call).logits
    torch.testing.assert_close(wide if wide.dim() == 2 else wide[:, :-3], narrow, **CLOSE)


@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_a_causal_classifier_reads_the_last_token_before_the_padding(name):
    torch.manual_seed(0)
    config = tiny("gpt2").config
    config.pad_token_id = 0
    model = with_adapter(transformers.GPT2ForSequenceClassification(config).eval(), METHODS[name])
    call = given()
    padded = {key: nn.functional.pad(value, (0, 3)) for key, value in call.items()}
    torch.testing.assert_close(model(**padded).logits, model(**call).logits, **CLOSE)


@pytest.mark.parametrize(
    ("kind", "attention", "name"),
    [("bert", "eager", "prefix"), ("roberta", "sdpa", "prefix"), ("bert", "sdpa", "prompt")],
)
def test_a_last_layer_that_works_for_one_token_gives_the_same(kind, attention, name):
    plain, short = tiny(kind), tiny(kind)
    for model in (plain, short):
        model.set_attn_implementation(attention)
    take_shortcuts(short, METHODS[name])
    for model in (plain, short):
        with_adapter(model, METHODS[name])
        logits(model).square().sum().backward()
    torch.testing.assert_close(logits(short), logits(plain), **CLOSE)
    for mine, other in zip(short.parameters(), plain.parameters(), strict=True):
        if mine.requires_grad:
            torch.testing.assert_close(mine.grad, other.grad, **CLOSE)


@pytest.mark.parametrize(
    ("kind", "name", "most"),
    [("bert", "ptuning", 60), ("bert", "prefix", 66), ("roberta", "prompt", 58)],
)
def test_prompt_and_text_together_fit_the_table_of_positions(kind, name, most):
    """An encoder's text keeps its positions beside a prefix, so it may be as long as the table."""
    ours(kind, name)(**given(1, most))
    fits = Task("made", ("no", "yes"), most, *[Split(())] * 3)
    check_fits(tiny(kind), fits, METHODS[name])
    with pytest.raises(BadValue, match=f"exceeds the {most} tokens"):
        check_fits(tiny(kind), replace(fits, max_length=most + 1), METHODS[name])


@pytest.mark.parametrize(
    ("kind", "dtype", "name"), [("gpt2", "bf16", "prefix"), ("bert", "fp32", "prefix"), ("gpt2", "bf16", "ptuning")]
)
def test_a_trace_of_padded_rows_is_a_real_step_to_the_byte(kind, dtype, name):
    setup = {"batch": 2, "seq": 16, "device": "cpu", "dtype": dtype, "padded": True}
    real, traced = measure(tiny(kind), METHODS[name], **setup), memory(tiny(kind), METHODS[name], trace=True, **setup)
    assert (traced.peak, traced.categories) == (real.peak, real.categories)


# ---- where they start, and what they do not fit


@pytest.mark.parametrize("kind", ["llama", "gemma2"])  # whose layer scales its table
def test_a_prompt_starts_as_real_tokens_or_as_large_as_they_are(kind):
    model = tiny(kind)
    table = model.get_input_embeddings()(torch.arange(96))
    PromptTuning(tokens=5).attach(model)
    assert all((vector == table).all(1).any() for vector in model.soft_prompt.prompt)
    detach(model)
    PromptTuning(tokens=50, init="random").attach(model)
    assert model.soft_prompt.prompt.std().item() == pytest.approx(table.std().item(), rel=0.2)


@pytest.mark.filterwarnings("error::FutureWarning")  # training a prefix asks nothing that transformers gives up
@pytest.mark.parametrize(("kind", "most"), [("bert", 0.01), ("gpt2", 1)])  # of a causal model positions move as well
def test_a_prefix_moves_the_answers_a_little_at_the_start_and_learns(kind, most):
    model, before = tiny(kind), logits(tiny(kind))
    PrefixTuning(tokens=5).attach(model)
    assert 0 < (logits(model) - before).abs().max() < most
    logits(model.train()).square().sum().backward()
    assert model.soft_prefix.prompt.grad.any()


PICTURES = transformers.ViTConfig(
    hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=4, patch_size=2
)
MAMBA = transformers.MambaConfig(vocab_size=96, hidden_size=16, num_hidden_layers=1, state_size=4)


@pytest.mark.parametrize(
    ("made", "names", "says"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 4)), METHODS, "reads tokens, which Sequential does not; use lora"),
        (lambda: transformers.ViTModel(PICTURES), METHODS, "reads tokens, which ViTModel does not; use lora"),
        (lambda: transformers.MambaForCausalLM(MAMBA), ["prefix"], "does not accept keys and values"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(made, names, says):
    model = made()
    for name in names:
        with refused(model, says):
            METHODS[name].attach(model)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable")  # it has another name in later releases
def test_a_prefix_and_checkpointing_are_refused_together():
    model = ours("gpt2", "prefix")
    model.train().gradient_checkpointing_enable()
    with pytest.raises(BadValue, match="turn checkpointing off"):
        model(**given())
