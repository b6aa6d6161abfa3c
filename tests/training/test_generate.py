"""Answers: the same alone as beside others, ended where they end, by one beam as by hand; adapters take part once."""

from dataclasses import replace

import pytest
import torch

from lora_lab import LoRA, PromptTuning, load_model, load_task, load_tokenizer
from lora_lab.errors import BadValue
from lora_lab.methods.merge import disabled
from lora_lab.training.batches import collate, encode
from lora_lab.training.generate import Decoding, generate
from tests.conftest import randomise

PROMPTS = ["name[A]\n", "name[Quince], area[riverside]\n", "name[The Paper Heron]\n", "x"]
SHORT = Decoding(max_new_tokens=9)


@pytest.fixture
def causal(tiny_causal):
    model = load_model(tiny_causal)
    for parameter in model.parameters():
        parameter.data *= 4  # so that the likeliest token is likely
    return model, load_tokenizer(tiny_causal)


def by_hand(model, tokenizer, prompt: str, n: int) -> str:
    """One token after another, the whole text read anew each time."""
    ids = tokenizer(prompt)["input_ids"]
    new: list[int] = []
    for _ in range(n):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids + new]), attention_mask=torch.ones(1, len(ids + new))).logits
        new.append(int(logits[0, -1].argmax()))
        if new[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(new, skip_special_tokens=True).strip()


@pytest.mark.parametrize("method", [LoRA(rank=4, dropout=0.5), PromptTuning(tokens=3)], ids=str)
def test_greedy_answers_are_those_made_by_hand_without_dropout_and_the_model_keeps_its_mode(causal, method):
    model, tokenizer = causal
    base = generate(model, tokenizer, PROMPTS, SHORT)
    assert base == [by_hand(model, tokenizer, prompt, SHORT.max_new_tokens) for prompt in PROMPTS]
    torch.manual_seed(0)
    method.attach(model)
    randomise(model)
    model.train()
    answers = generate(model, tokenizer, PROMPTS, SHORT)
    assert model.training
    model.eval()
    assert answers == [by_hand(model, tokenizer, prompt, SHORT.max_new_tokens) for prompt in PROMPTS]
    assert answers != base
    with disabled(model):
        assert generate(model, tokenizer, PROMPTS, SHORT) == base


def test_an_answer_ends_at_the_end_of_text(causal):
    model, tokenizer = causal
    model.lm_head.register_forward_hook(lambda m, a, y: y.index_fill(-1, torch.tensor([tokenizer.eos_token_id]), 1e4))
    assert generate(model, tokenizer, PROMPTS, SHORT) == [""] * len(PROMPTS)


def test_beams_are_those_of_transformers(causal):
    model, tokenizer = causal
    asked = tokenizer(PROMPTS[1], return_tensors="pt")
    how = {"num_beams": 10, "length_penalty": 0.5, "max_new_tokens": 6, "do_sample": False}
    own = model.generate(asked["input_ids"], attention_mask=asked["attention_mask"], pad_token_id=0, **how)
    wanted = tokenizer.decode(own[0, asked["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert generate(model, tokenizer, [PROMPTS[1]], Decoding(10, length_penalty=0.5, max_new_tokens=6)) == [wanted]
    assert generate(model, tokenizer, [PROMPTS[1]], Decoding(max_new_tokens=6)) != [wanted]


def test_no_tokens_come_twice_in_an_answer_though_they_may_stand_in_the_prompt(causal):
    model, tokenizer = causal
    loop = tokenizer("ab")["input_ids"][-2:]
    cycle = {loop[0]: loop[1], loop[1]: loop[0]}

    def always_ab(module, args, kwargs, y):
        last = kwargs["input_ids"][:, -1].tolist()
        y.logits[:, -1] = 0
        for row, token in enumerate(last):
            y.logits[row, -1, cycle.get(token, loop[0])] = 9
        return y

    model.register_forward_hook(always_ab, with_kwargs=True)
    plain = generate(model, tokenizer, ["abab"], Decoding(max_new_tokens=8))[0]
    once = generate(model, tokenizer, ["abab"], Decoding(max_new_tokens=8, no_repeat_ngram=4))[0]
    assert plain == "abababab"
    assert once.startswith("abab")
    assert len({once[i : i + 4] for i in range(len(once) - 3)}) == len(once) - 3


def test_an_encoder_and_impossible_settings_are_refused(tiny_encoder):
    with pytest.raises(BadValue, match="BertModel does not predict the next token"):
        generate(load_model(tiny_encoder), load_tokenizer(tiny_encoder), PROMPTS)
    with pytest.raises(BadValue, match="beams must be at least 1, not 0"):
        Decoding(beams=0)


def test_only_answers_and_their_ends_are_learnt_and_a_prompt_must_leave_room_for_them(tiny_causal):
    task, tokenizer = load_task("restaurants", max_length=600), load_tokenizer(tiny_causal)
    rows = encode(task.test, task, tokenizer)[:3]
    batch = collate(rows, tokenizer.pad_token_id)
    for row, prompt, text, labels in zip(rows, task.test.prompts, task.test.texts, batch.labels, strict=False):
        learned = labels[labels != -100].tolist()
        assert learned[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(learned[:-1]).strip() == text
        assert tokenizer.decode(row.tokens[: row.prompt]).lstrip() == prompt
        assert list(row.tokens[: row.prompt]) == tokenizer(prompt)["input_ids"]
    with pytest.raises(BadValue, match="max_length 20 leaves no room for an answer after a prompt of"):
        encode(task.test, replace(task, max_length=20), tokenizer)
