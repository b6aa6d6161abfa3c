import json
import random

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AddedToken

from lora_lab import PrefixTuning, Probe, PromptTuning, load_model, load_task, load_tokenizer
from lora_lab.errors import BadValue, LabWarning
from lora_lab.training.batches import PAD_MULTIPLE, Row, collate, encode, scoring_batches
from lora_lab.training.chat import Chat, end_of_turn, prompt_ids
from lora_lab.training.evaluate import evaluate, logits_of
from lora_lab.training.member import features
from lora_lab.training.pack import Pack
from tests.conftest import assert_raises, make_model
from tests.training.conftest import rows, training_batches


@settings(max_examples=30)
@given(n=st.integers(1, 90), batch=st.integers(1, 17), epochs=st.integers(1, 3), seed=st.integers(0, 5))
def test_rows_occur_once_per_epoch_in_an_order_of_the_seed_and_are_scored_longest_first(n, batch, epochs, seed):
    def order(seed: int) -> list[tuple[int, ...]]:
        return [b.places for b in training_batches(rows(n), batch, steps * epochs, seed, pad=0)]

    steps = -(-n // batch)
    places = order(seed)
    for epoch in range(epochs):
        assert sorted(place for b in places[epoch * steps :][:steps] for place in b) == list(range(n))
    assert places == order(seed)
    if n > 20:
        assert places != order(seed + 1)
        assert epochs == 1 or places[:steps] != places[steps : 2 * steps]
    scored = list(scoring_batches(rows(n, longest=60), batch, pad=0))
    assert sorted(place for b in scored for place in b.places) == list(range(n))
    widths = [b.input_ids.shape[1] for b in scored]
    assert widths == sorted(widths, reverse=True)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_collate_pads_to_the_longest_row(lengths):
    batch = collate([Row([7] * length, None, place) for place, length in enumerate(lengths)], pad=3)
    assert batch.input_ids.shape[1] % PAD_MULTIPLE == 0
    assert max(lengths) <= batch.input_ids.shape[1] < max(lengths) + PAD_MULTIPLE
    assert batch.attention_mask.sum(1).tolist() == lengths
    is_text = batch.attention_mask == 1
    for tensor, padding in ((batch.input_ids, 3), (batch.labels, -100)):
        assert (tensor[~is_text] == padding).all()
        assert (tensor[is_text] == 7).all()


def test_pooling_by_length_saves_padding_but_shuffles_batches():
    data = rows(2000, longest=60)
    tokens = sum(len(row.tokens) for row in data)
    batches = list(training_batches(data, 16, 125, 0, pad=0))
    pooled = sum(b.input_ids.numel() for b in batches)
    shuffled = random.Random(0).sample(data, len(data))
    unpooled = sum(collate(shuffled[i : i + 16], pad=0).input_ids.numel() for i in range(0, 2000, 16))
    assert (pooled - tokens) < 0.3 * (unpooled - tokens)
    of_another_seed = training_batches(data, 16, 125, 1, pad=0)
    widths, others = ([b.input_ids.shape[1] for b in made] for made in (batches, of_another_seed))
    assert widths[:30] not in (sorted(widths[:30]), sorted(widths[:30], reverse=True))
    assert sum(map(max, widths, others)) < 1.1 * sum(widths)  # such runs train side by side


def test_encode_truncates_and_keeps_labels_and_places(opinions):
    task, tokenizer = load_task(opinions, max_length=8), load_tokenizer("minilm")
    encoded = encode(task.train, task, tokenizer)
    assert [row.place for row in encoded] == list(range(len(task.train)))
    assert [row.label for row in encoded] == list(task.train.labels)
    ids = [tokenizer(text)["input_ids"] for text in task.train.texts]
    assert [row.tokens for row in encoded] == [i if len(i) <= 8 else [*i[:7], i[-1]] for i in ids]  # [SEP] stays


def test_answers_without_room_for_their_end_are_cut_with_a_warning():
    task, tokenizer = load_task("captain", max_length=60), load_tokenizer("smollm2")
    with pytest.warns(LabWarning, match="captain: answers over max_length 60 are cut and lose their end token"):
        assert max(map(len, encode(task.test, task, tokenizer))) == 60


@pytest.fixture
def smollm2():
    return load_tokenizer("smollm2")


def test_encoded_chat_has_the_tokens_of_the_template(smollm2):
    task = load_task("captain")
    for row, prompt, text in zip(encode(task.test, task, smollm2), task.test.prompts, task.test.texts, strict=True):
        messages = [{"role": "user", "content": str(prompt)}, {"role": "assistant", "content": text}]
        expected = smollm2.apply_chat_template(messages, tokenize=False)
        assert smollm2.decode(row.tokens) + "\n" == expected
        assert smollm2(expected)["input_ids"][: len(row.tokens)] == row.tokens
        assert smollm2.decode(row.tokens[row.prompt :]) == f"{text}<|im_end|>"


def test_roles_refused_by_the_template_are_named(smollm2):
    smollm2.chat_template = "{{ raise_exception('System role not supported') }}"  # Gemma's message
    with pytest.raises(BadValue, match="does not accept the turns system, user: System role not supported"):
        prompt_ids(smollm2, [Chat((("system", "Be brief."), ("user", "Why?")))])
    smollm2.chat_template = "{{ messages + 1 }}"  # another kind of error
    assert_raises("does not accept the turns user", prompt_ids, smollm2, [Chat((("user", "Why?"),))])


def test_end_of_turn_is_read_from_the_template(smollm2):
    assert smollm2.decode([end_of_turn(smollm2)]) == "<|im_end|>"
    smollm2.chat_template = smollm2.chat_template.replace("<|im_end|>", "<|endoftext|>")
    assert smollm2.decode([end_of_turn(smollm2)]) == "<|endoftext|>"  # differs from the tokenizer's eos_token
    smollm2.add_tokens(AddedToken("<|end|>", special=True))  # as in Phi-3, special but without a name
    smollm2.chat_template = smollm2.chat_template.replace("<|endoftext|>", "<|end|>")
    assert smollm2.decode([end_of_turn(smollm2)]) == "<|end|>"
    smollm2.chat_template = "{% for m in messages %}{{ m['content'] }} over\n{% endfor %}"
    assert end_of_turn(smollm2) == smollm2.eos_token_id
    smollm2.eos_token = None
    assert_raises("eos_token", end_of_turn, smollm2)


# Pairs 2 and 3 have the same tokens but different token types.
PAIRS = [
    ("Ann ran.", "Ann moved."),
    ("It rained all day in the north.", "Dry."),
    ("a [SEP] b", "c"),
    ("a", "b [SEP] c"),
    ("One film.", "Two long films about the sea, with actors."),
]


@pytest.fixture
def pairs(tmp_path) -> str:
    rows = [json.dumps({"sentence1": a, "sentence2": b, "label": n % 2}) for n, (a, b) in enumerate(PAIRS)]
    for stem in ("train", "validation"):
        (tmp_path / f"{stem}.jsonl").write_text("\n".join(rows))
    return f"glue:rte:{tmp_path}"


@pytest.fixture
def inputs(tiny_encoder) -> dict[str, torch.Tensor]:
    firsts, seconds = map(list, zip(*PAIRS, strict=True))
    return dict(load_tokenizer(tiny_encoder)(firsts, seconds, padding=True, return_tensors="pt"))


@torch.no_grad()
def test_pairs_of_texts_match_transformers(tiny_encoder, pairs, inputs):
    task, tokenizer, model = load_task(pairs), load_tokenizer(tiny_encoder), load_model(tiny_encoder, 2)
    expected = model(**inputs).logits
    rows = encode(task.test, task, tokenizer)
    torch.testing.assert_close(logits_of(model, collate(rows, tokenizer.pad_token_id)), expected, atol=1e-6, rtol=1e-5)
    wrapped = peft.get_peft_model(load_model(tiny_encoder, 2), peft.LoraConfig(task_type="SEQ_CLS"))  # no effect yet
    wrapped.load_state_dict(model.state_dict(), strict=False)
    assert "token_type_ids" in collate(rows, tokenizer.pad_token_id).inputs(wrapped)
    assert evaluate(model, rows, tokenizer.pad_token_id).predictions.tolist() == expected.argmax(-1).tolist()
    Probe().attach(model)
    mask = inputs["attention_mask"].unsqueeze(-1)
    mean = (model.base_model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)
    actual = torch.from_numpy(features(model, rows, tokenizer.pad_token_id, "cpu")).float()
    torch.testing.assert_close(actual, mean, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_padding_does_not_change_the_scores_of_xlnet():
    """Its head reads the last position."""
    size = {"vocab_size": 96, "d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64}
    model, short = make_model("XLNetForSequenceClassification", size), Row([5, 6, 7, 3], 0, 0, types=[0, 0, 1, 2])
    padded = logits_of(model, collate([Row([*short.tokens, 8, 9], 1, 1), short], 0))[1:]
    torch.testing.assert_close(padded, logits_of(model, collate([short], 0)), atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("method", [PromptTuning(3), PrefixTuning(3)], ids=lambda m: m.name)
def test_packed_members_read_pairs_as_models_alone(recipe, pairs, inputs, method):
    pack = Pack([recipe(task=pairs, method=method, seed=seed, batch=2, max_length=64) for seed in (0, 1, 0)])
    for member in pack.members:
        for parameter in member.trained:
            parameter.normal_(std=0.1)
    rows = pack.rows_of("test")
    # In the second batch, the members have the same tokens but different types.
    for orders in ([[0, 1, 2, 3, 4]] * 3, [[2, 3], [3, 2], [2, 3]]):
        batch = collate([rows[n] for order in orders for n in order], pack.pad)
        outputs = logits_of(pack.model.eval(), batch).chunk(3)
        for member, actual, order in zip(pack.members, outputs, orders, strict=True):
            expected = member.model.eval()(**{name: tensor[order] for name, tensor in inputs.items()}).logits
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
