"""Prompts, P-tuning and prefixes: files, generation, padding, where they start, what goes wrong."""

from dataclasses import replace

import peft
import pytest
import torch
import transformers
from torch import nn

from lora_lab import PrefixTuning, PromptTuning, PTuning, load_adapter, save_adapter
from lora_lab.errors import BadValue
from lora_lab.methods.merge import detach
from lora_lab.training.batches import check_fits
from lora_lab.training.tasks import Split, Task
from tests.conftest import logits, tiny
from tests.methods.conftest import refused, with_adapter
from tests.methods.test_peft_parity import load_peft, peft_model

METHODS = {"prompt": PromptTuning(tokens=5), "ptuning": PTuning(tokens=5, hidden=24), "prefix": PrefixTuning(tokens=5)}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
GREEDY = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
causal = pytest.mark.parametrize(("kind", "name"), [*(("gpt2", name) for name in METHODS), ("llama", "prefix")])


def ours(kind: str, name: str) -> nn.Module:
    return with_adapter(kind, METHODS[name])


def given(rows: int = 2, tokens: int = 7) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 96, (rows, tokens), generator=torch.Generator().manual_seed(5))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


# ---- as PEFT has them


@pytest.mark.parametrize(("kind", "task"), [("gpt2", "CAUSAL_LM"), ("bert", "SEQ_CLS")])
def test_p_tunings_encoder_is_pefts_and_so_is_the_file_that_it_leaves(kind, task, tmp_path):
    """A file holds what the encoder put out, and nothing to learn with. For the others see test_peft_parity."""
    config = peft.PromptEncoderConfig(num_virtual_tokens=5, encoder_hidden_size=24, task_type=task)
    peer, model, loaded, again = peft_model(tiny(kind), config), ours(kind, "ptuning"), tiny(kind), tiny(kind)
    of = peer.prompt_encoder["default"]
    model.soft_prompt.prompt.data.copy_(of.embedding.weight)
    model.soft_prompt.encoder.load_state_dict(of.mlp_head.state_dict())
    if kind == "bert":
        model.classifier.trained.load_state_dict(peer.classifier.modules_to_save["default"].state_dict())
    mine, other = logits(model), logits(peer)
    torch.testing.assert_close(mine, other, **CLOSE)
    for out in (mine, other):
        out.square().mean().backward()
    norms = [sum(p.grad.square().sum() for p in m.parameters() if p.requires_grad) for m in (model, peer)]
    torch.testing.assert_close(*norms, **CLOSE)
    torch.testing.assert_close(logits(load_peft(tiny(kind), save_adapter(model, tmp_path / "ours"))), mine, **CLOSE)
    peer.save_pretrained(tmp_path / "theirs")
    assert type(load_adapter(loaded, tmp_path / "theirs").method) is PTuning
    torch.testing.assert_close(logits(loaded), other, **CLOSE)
    load_adapter(again, save_adapter(loaded, tmp_path / "again"))
    assert torch.equal(logits(again), logits(loaded))


def test_pefts_prefix_on_an_encoder_has_other_positions_and_is_refused(tmp_path):
    config = peft.PrefixTuningConfig(num_virtual_tokens=5, task_type="FEATURE_EXTRACTION")
    peft.get_peft_model(tiny("bert").bert, config).save_pretrained(tmp_path)
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


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable")  # it has another name in later releases
def test_a_prefix_and_checkpointing_are_refused_together():
    model = ours("gpt2", "prefix")
    model.train().gradient_checkpointing_enable()
    with pytest.raises(BadValue, match="turn checkpointing off"):
        model(**given())
