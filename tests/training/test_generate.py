from dataclasses import replace

import pytest
import torch

from lora_lab import BadValue, LoRA, PromptTuning, disabled, load_model, load_task, load_tokenizer
from lora_lab.training.batches import collate, encode
from lora_lab.training.generate import Decoding, generate
from tests.conftest import BART, assert_raises, make_model, randomise

PROMPTS = ["name[A]\n", "name[Quince], area[riverside]\n", "name[The Paper Heron]\n", "x"]
SHORT = Decoding(max_new_tokens=9)


@pytest.fixture
def causal(tiny_causal):
    model = load_model(tiny_causal)
    for parameter in model.parameters():
        parameter.data *= 4  # makes the logits differ clearly
    return model, load_tokenizer(tiny_causal)


def greedy(model, tokenizer) -> list[str]:
    """Answer each prompt alone, without padding or a cache."""
    answers = []
    for prompt in PROMPTS:
        ids, new = tokenizer(prompt)["input_ids"], list[int]()
        while len(new) < SHORT.max_new_tokens and tokenizer.eos_token_id not in new:
            with torch.inference_mode():
                inputs = torch.tensor([ids + new])
                logits = model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits
            new.append(int(logits[0, -1].argmax()))
        answers.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    return answers


@pytest.mark.parametrize("method", [LoRA(rank=4, dropout=0.5), PromptTuning(tokens=3)], ids=str)
def test_greedy_answers_match_token_by_token_decoding(causal, method, monkeypatch):
    model, tokenizer = causal
    base = generate(model, tokenizer, PROMPTS, SHORT)
    assert base == greedy(model, tokenizer)
    monkeypatch.setattr("lora_lab.training.generate.ROWS", 3)  # two batches, the longest prompts first
    assert generate(model, tokenizer, PROMPTS, SHORT) == base != [base[0]] * len(PROMPTS)
    torch.manual_seed(0)
    method.attach(model)
    randomise(model)
    model.train()
    answers = generate(model, tokenizer, PROMPTS, SHORT)
    assert model.training
    assert answers == greedy(model.eval(), tokenizer) != base
    with disabled(model):
        assert generate(model, tokenizer, PROMPTS, SHORT) == base


def test_beam_search_matches_transformers_and_ends_at_the_end_token(causal):
    model, tokenizer = causal
    inputs = tokenizer(PROMPTS[1], return_tensors="pt")
    settings = {"num_beams": 10, "length_penalty": 0.5, "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    ids = model.generate(**inputs, **settings)
    expected = tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert generate(model, tokenizer, [PROMPTS[1]], Decoding(10, length_penalty=0.5, max_new_tokens=6)) == [expected]
    assert generate(model, tokenizer, [PROMPTS[1]], Decoding(max_new_tokens=6)) != [expected]
    model.lm_head.register_forward_hook(lambda m, a, y: y.index_fill(-1, torch.tensor([tokenizer.eos_token_id]), 1e4))
    assert generate(model, tokenizer, PROMPTS, SHORT) == [""] * len(PROMPTS)
    assert_raises("prompt 1 is empty", generate, model, load_tokenizer("smollm2"), ["a", ""])


def test_answers_end_at_the_special_tokens_of_the_generation_config(causal):
    model, tokenizer = causal
    a, b = tokenizer("ab")["input_ids"][-2:]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<stop>"]})
    stop = tokenizer.convert_tokens_to_ids("<stop>")
    model.resize_token_embeddings(len(tokenizer))
    predict(model, {a: {stop: 9.0}, b: {b: 9.0}}, {a: 9.0})
    answers, model.generation_config.return_dict_in_generate = [], True
    model.generation_config.num_return_sequences = 2
    for ends in (None, [tokenizer.eos_token_id, stop], stop, b):
        model.generation_config.eos_token_id = ends
        answers += generate(model, tokenizer, ["x", "b"], SHORT)
    assert answers[:2] == ["aaaaa", "b" * 9]
    assert answers[2:6] == ["a", "b" * 9] * 2
    assert answers[6:] == answers[:2]  # an ordinary character doesn't end an answer


def predict(model, after: dict[int, dict[int, float]], otherwise: dict[int, float]) -> None:
    """Let the model's logits depend only on the last token; logits that aren't listed are -100."""

    def change(module, args, kwargs, output):
        output.logits[:, -1] = -100
        for row, token in enumerate(kwargs["input_ids"][:, -1].tolist()):
            for following, logit in after.get(token, otherwise).items():
                output.logits[row, -1, following] = logit
        return output

    model.register_forward_hook(change, with_kwargs=True)


def test_no_repeat_ngram_ignores_the_prompt(causal):
    model, tokenizer = causal
    a, b = tokenizer("ab")["input_ids"][-2:]
    predict(model, {a: {b: 9.0}}, {a: 9.0})
    assert generate(model, tokenizer, ["abab"], Decoding(max_new_tokens=8)) == ["abababab"]
    (answer,) = generate(model, tokenizer, ["abab"], Decoding(max_new_tokens=8, no_repeat_ngram=4))
    assert answer.startswith("abab")
    assert len({answer[i : i + 4] for i in range(len(answer) - 3)}) == len(answer) - 3


def test_low_length_penalty_favors_short_answers(causal):
    """The log-likelihood of "a" is -0.3, and that of "bbbbbbbb" is -1.3."""
    model, tokenizer = causal
    a, b = tokenizer("ab")["input_ids"][-2:]
    predict(model, {a: {tokenizer.eos_token_id: 0.0}, b: {b: 0.0}}, {a: 1.0, b: 0.0})
    for penalty, answer in ((0.0, "a"), (3.0, "b" * 8)):
        assert generate(model, tokenizer, ["x"], Decoding(2, length_penalty=penalty, max_new_tokens=8)) == [answer]


def test_encoders_and_invalid_settings_are_refused(tiny_encoder):
    with pytest.raises(BadValue, match="BertModel does not predict the next token"):
        generate(load_model(tiny_encoder), load_tokenizer(tiny_encoder), PROMPTS)
    for encoder in (make_model("BertLMHeadModel"), make_model("XLNetLMHeadModel", {**BART, "n_layer": 1, "n_head": 4})):
        with pytest.raises(BadValue, match="does not predict the next token"):  # they read the tokens on both sides
            generate(encoder, load_tokenizer(tiny_encoder), PROMPTS)
    for name, value in (("beams", 0), ("max_new_tokens", 2.5), ("length_penalty", float("nan"))):
        assert_raises(f"{name} must be", Decoding, **{name: value})


def test_only_the_answer_and_its_end_are_learned(tiny_causal):
    task, tokenizer = load_task("restaurants", max_length=600), load_tokenizer(tiny_causal)
    rows = encode(task.test, task, tokenizer)[:3]
    batch = collate(rows, tokenizer.pad_token_id)
    for row, prompt, text, labels in zip(rows, task.test.prompts, task.test.texts, batch.labels, strict=False):
        learned = labels[labels != -100].tolist()
        assert learned[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(learned[:-1]).strip() == text
        assert list(row.tokens[: row.prompt]) == tokenizer(prompt)["input_ids"]
    with pytest.raises(BadValue, match="max_length 20 leaves no room for an answer after a prompt of"):
        encode(task.test, replace(task, max_length=20), tokenizer)
