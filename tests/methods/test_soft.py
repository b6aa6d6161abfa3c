"""Prompts, P-tuning and prefixes: PEFT's answers and files, generation, padding, what goes wrong."""

from __future__ import annotations

import warnings
from pathlib import Path

import peft
import pytest
import torch
import transformers
from torch import nn

from lora_lab import PrefixTuning, PromptTuning, PTuning, load_adapter, memory, save_adapter
from lora_lab.accounting.params import params
from lora_lab.errors import BadValue
from lora_lab.methods.merge import detach
from lora_lab.methods.packed import share
from lora_lab.training.batches import Row, positions
from lora_lab.training.evaluate import evaluate
from lora_lab.training.measure import measure
from lora_lab.training.models import answer_at_first_token
from tests.conftest import logits, randomise, snapshot, tiny

METHODS = {"prompt": PromptTuning(tokens=5), "ptuning": PTuning(tokens=5, hidden=24), "prefix": PrefixTuning(tokens=5)}
PEERS = {
    "prompt": lambda **of: peft.PromptTuningConfig(num_virtual_tokens=5, **of),
    "ptuning": lambda **of: peft.PromptEncoderConfig(num_virtual_tokens=5, encoder_hidden_size=24, **of),
    "prefix": lambda **of: peft.PrefixTuningConfig(num_virtual_tokens=5, **of),
}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
every_method = pytest.mark.parametrize("name", METHODS)
causal = pytest.mark.parametrize("kind", ["gpt2", "llama"])


def bert() -> nn.Module:
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=96, max_position_embeddings=64, num_labels=3, **size)
    return transformers.BertForSequenceClassification(config).eval()


def made(kind: str) -> nn.Module:
    return bert() if kind == "bert" else tiny(kind)


def ours(kind: str, name: str, seed: int = 2) -> nn.Module:
    """A model with the method attached and random numbers in what trains."""
    model = made(kind)
    METHODS[name].attach(model)
    randomise(model, seed)
    return model


def theirs(kind: str, name: str, task: str) -> peft.PeftModel:
    adapted = peft.get_peft_model(made(kind), PEERS[name](task_type=task)).eval()
    randomise(adapted, 3)
    return adapted


@torch.no_grad()
def copied(peer: peft.PeftModel, kind: str, name: str) -> nn.Module:
    """Ours with PEFT's numbers, its encoder's among them."""
    model, encoder = ours(kind, name), peer.prompt_encoder["default"]
    if name == "prefix":
        layers, tokens, *layer = model.soft_prefix.keys_values.shape
        model.soft_prefix.keys_values.copy_(encoder.embedding.weight.view(tokens, layers, *layer).transpose(0, 1))
        return model
    model.soft_prompt.prompt.copy_(encoder.embedding.weight)
    if name == "ptuning":
        model.soft_prompt.encoder.load_state_dict(encoder.mlp_head.state_dict())
    return model


def given(rows: int = 2, tokens: int = 7) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 96, (rows, tokens), generator=torch.Generator().manual_seed(5))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@causal
@every_method
def test_a_causal_model_answers_and_learns_as_pefts_does(kind, name):
    peer = theirs(kind, name, "CAUSAL_LM")
    model = copied(peer, kind, name)
    mine, other = logits(model), logits(peer)
    torch.testing.assert_close(mine, other, **CLOSE)
    for out in (mine, other):
        out.square().mean().backward()
    norms = [sum(p.grad.square().sum() for p in m.parameters() if p.requires_grad) for m in (model, peer)]
    torch.testing.assert_close(*norms, **CLOSE)
    trained = [sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (model, peer)]
    assert trained[0] == trained[1] == params(made(kind), METHODS[name]).trainable


@pytest.mark.parametrize("name", ["prompt", "ptuning"])
def test_an_encoder_answers_as_pefts_does(name):
    peer = theirs("bert", name, "SEQ_CLS")
    model = copied(peer, "bert", name)
    model.classifier.trained.load_state_dict(peer.classifier.modules_to_save["default"].state_dict())
    torch.testing.assert_close(logits(model), logits(peer), **CLOSE)


@causal
@every_method
def test_files_go_both_ways(kind, name, tmp_path):
    model = ours(kind, name)
    save_adapter(model, tmp_path / "ours")
    torch.testing.assert_close(logits(_read_by_peft(kind, tmp_path / "ours")), logits(model), **CLOSE)
    peer = theirs(kind, name, "CAUSAL_LM")
    peer.save_pretrained(tmp_path / "theirs")
    loaded = made(kind)
    report = load_adapter(loaded, tmp_path / "theirs")
    torch.testing.assert_close(logits(loaded), logits(peer), **CLOSE)
    assert type(report.method) is type(METHODS[name])
    assert report.adapter_parameters == params(made(kind), METHODS[name]).trainable


def _read_by_peft(kind: str, folder: Path) -> nn.Module:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected).*keys.*")
        return peft.PeftModel.from_pretrained(made(kind), str(folder)).eval()


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@every_method
def test_a_saved_encoder_answers_as_before_and_takes_its_head_along(kind, name, tmp_path):
    model, other = ours(kind, name), made(kind)
    load_adapter(other, save_adapter(model, tmp_path))
    torch.testing.assert_close(logits(other), logits(model), **CLOSE)
    if name != "prefix":
        torch.testing.assert_close(logits(_read_by_peft(kind, tmp_path)), logits(model), **CLOSE)
    again = made(kind)
    load_adapter(again, save_adapter(other, tmp_path / "again"))
    assert torch.equal(logits(again), logits(other))


def test_pefts_prefix_on_an_encoder_has_other_positions_and_is_refused(tmp_path):
    base = made("bert").bert  # with a head PEFT takes none
    adapted = peft.get_peft_model(base, PEERS["prefix"](task_type="FEATURE_EXTRACTION"))
    adapted.save_pretrained(tmp_path)
    plain = made("bert").bert
    before = snapshot(plain)
    with pytest.raises(BadValue, match="positions"):
        load_adapter(plain, tmp_path)
    assert snapshot(plain) == before


def test_a_file_for_a_prompt_of_another_length_leaves_the_model_as_it_was(tmp_path):
    save_adapter(ours("gpt2", "prompt"), tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(config.read_text().replace('"num_virtual_tokens": 5', '"num_virtual_tokens": 6'))
    model = tiny("gpt2")
    before = snapshot(model)
    with pytest.raises(BadValue, match="num_virtual_tokens"):
        load_adapter(model, tmp_path)
    assert snapshot(model) == before


def test_a_p_tuning_file_answers_and_says_that_it_cannot_be_trained_on(tmp_path):
    model = tiny("gpt2")
    load_adapter(model, save_adapter(ours("gpt2", "ptuning"), tmp_path))
    model.train()
    with pytest.raises(BadValue, match="train it anew"):
        model(**given())


@causal
@every_method
@pytest.mark.parametrize("cached", [True, False])
def test_generation_continues_as_the_forward_pass_says(kind, name, cached):
    """The prompt or prefix enters once: with a cache, the later steps only know of it."""
    model, call = ours(kind, name), given()
    expected = call["input_ids"]
    for _ in range(6):
        last = model(input_ids=expected, attention_mask=torch.ones_like(expected)).logits[:, -1]
        expected = torch.cat([expected, last.argmax(-1, keepdim=True)], dim=1)
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    found = model.generate(**call, use_cache=cached, **options)
    assert torch.equal(found, expected)


@causal
@every_method
def test_generation_from_rows_padded_at_the_left(kind, name):
    model, call = ours(kind, name), given(1)
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "num_beams": 2}
    alone = model.generate(**call, **options)
    padded = {key: nn.functional.pad(value, (3, 0)) for key, value in call.items()}
    assert torch.equal(model.generate(**padded, **options)[:, 3:], alone)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "roberta"])
@every_method
def test_padding_changes_no_answer_and_arguments_may_come_by_place(kind, name):
    model, call = ours(kind, name), given()
    ids, mask = (nn.functional.pad(value, (0, 3), value=one) for value, one in zip(call.values(), (1, 0), strict=True))
    wide, narrow = model(ids, attention_mask=mask).logits, model(**call).logits
    torch.testing.assert_close(wide if wide.dim() == 2 else wide[:, :-3], narrow, **CLOSE)


@every_method
def test_a_causal_classifier_reads_the_last_token_before_the_padding(name):
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0)
    config.eos_token_id = config.bos_token_id = 0
    model = transformers.GPT2ForSequenceClassification(config).eval()
    METHODS[name].attach(model)
    randomise(model)
    call = given()
    padded = {key: nn.functional.pad(value, (0, 3)) for key, value in call.items()}
    torch.testing.assert_close(model(**padded).logits, model(**call).logits, **CLOSE)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@every_method
def test_a_last_layer_that_works_for_one_token_gives_the_same(kind, attention, name):
    plain, short = made(kind), made(kind)
    for model in (plain, short):
        model.set_attn_implementation(attention)
    answer_at_first_token(short)
    for model in (plain, short):
        METHODS[name].attach(model)
        randomise(model)
        logits(model).square().sum().backward()
    torch.testing.assert_close(logits(short), logits(plain), **CLOSE)
    for mine, other in zip(short.parameters(), plain.parameters(), strict=True):
        if mine.requires_grad:
            torch.testing.assert_close(mine.grad, other.grad, **CLOSE)


def test_an_encoders_text_keeps_its_positions_beside_a_prefix():
    """As long as the table of positions, where a causal model has to count the prefix in."""
    model = ours("bert", "prefix")
    model(**given(1, 64))
    with pytest.raises((IndexError, RuntimeError)):
        ours("bert", "prompt")(**given(1, 64))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("padded", [False, True])
@every_method
def test_a_trace_is_a_real_step_to_the_byte(kind, padded, name):
    setup = {"batch": 2, "seq": 16, "device": "cpu", "dtype": "fp32" if kind == "bert" else "bf16", "padded": padded}
    real, traced = measure(made(kind), METHODS[name], **setup), memory(made(kind), METHODS[name], trace=True, **setup)
    assert (traced.peak, traced.categories) == (real.peak, real.categories)


@causal
@every_method
def test_a_language_model_is_scored_on_its_own_tokens(kind, name):
    model, row = ours(kind, name), tuple(range(1, 12))
    score = evaluate(model, [Row(row, None, 0)], pad=0)
    ids, labels = torch.tensor([row]), torch.tensor([(-100, *row[1:])])  # nothing of the row's own foretells its first
    assert score.metrics["loss"] == pytest.approx(model(input_ids=ids, labels=labels).loss.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "name", "most"),
    [("bert", "prompt", 58), ("bert", "ptuning", 58), ("bert", "prefix", 64), ("roberta", "prompt", 58)],
)
def test_prompt_and_text_together_fit_the_table_of_positions(kind, name, most):
    assert positions(made(kind), METHODS[name]) == most
    ours(kind, name)(**given(1, most))


@pytest.mark.parametrize("kind", ["llama", "gemma2"])  # whose layer scales its table
def test_a_prompt_starts_as_real_tokens_or_as_large_as_they_are(kind):
    model = tiny(kind)
    table = model.get_input_embeddings()(torch.arange(96))
    PromptTuning(tokens=5).attach(model)
    assert all((vector == table).all(1).any() for vector in model.soft_prompt.prompt)
    detach(model)
    PromptTuning(tokens=50, init="random").attach(model)
    assert model.soft_prompt.prompt.std().item() == pytest.approx(table.std().item(), rel=0.2)


def test_a_prefix_moves_the_answers_a_little_at_the_start():
    model = bert()
    before = logits(model)
    PrefixTuning(tokens=5).attach(model)
    assert 0 < (logits(model) - before).abs().max() < 0.01


@pytest.mark.filterwarnings("error::FutureWarning")
def test_training_a_prefix_asks_nothing_that_transformers_gives_up():
    model = tiny("gpt2")
    PrefixTuning(tokens=2).attach(model)
    logits(model.train()).sum().backward()
    assert model.soft_prefix.keys_values.grad.any()


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable")  # it has another name in later releases
def test_what_a_prefix_does_not_fit_is_said_in_one_sentence():
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    deberta = transformers.DebertaV2ForSequenceClassification(transformers.DebertaV2Config(vocab_size=96, **size))
    before = snapshot(deberta)
    with pytest.raises(BadValue, match="takes no keys and values from outside; use prompt tuning there"):
        PrefixTuning().attach(deberta)
    assert snapshot(deberta) == before
    model = tiny("gpt2")
    PrefixTuning(tokens=3).attach(model)
    model.train().gradient_checkpointing_enable()
    with pytest.raises(BadValue, match="leave checkpointing out"):
        model(**given())


@every_method
def test_a_model_that_reads_no_tokens_is_refused_in_one_sentence(name):
    for model in (nn.Sequential(nn.Linear(4, 4)), transformers.ViTModel(PICTURES)):
        before = snapshot(model)
        with pytest.raises(BadValue, match=r"for a transformers model that reads tokens, and .* is none; use lora"):
            METHODS[name].attach(model)
        assert snapshot(model) == before


PICTURES = transformers.ViTConfig(
    hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=4, patch_size=2
)


def test_a_prefix_has_one_key_and_value_where_all_heads_share_it():
    size = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.FalconForCausalLM(transformers.FalconConfig(**size, eos_token_id=2, bos_token_id=1)).eval()
    before = logits(model)
    assert PrefixTuning(tokens=3).attach(model).adapter_parameters == 2 * 3 * 2 * 1 * 8
    assert not torch.equal(logits(model), before)


def test_a_model_without_heads_of_attention_takes_a_prompt_and_no_prefix(tmp_path):
    made = transformers.MambaConfig(vocab_size=96, hidden_size=16, num_hidden_layers=1, state_size=4)
    model = transformers.MambaForCausalLM(made).eval()
    with pytest.raises(BadValue, match="takes no keys and values from outside"):
        PrefixTuning(tokens=3).attach(model)
    fresh = share(model)
    PromptTuning(tokens=3).attach(model)
    load_adapter(fresh, save_adapter(model, tmp_path))
    assert torch.equal(fresh.soft_prompt.prompt, model.soft_prompt.prompt)
