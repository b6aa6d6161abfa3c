"""Answers: the same alone as beside others, ended where they end, by one beam as by hand; adapters take part once."""

from __future__ import annotations

import pytest
import torch

from lora_course.panels.stream import side_by_side
from lora_lab import LoRA, PromptTuning, load_model, load_task, load_tokenizer
from lora_lab.errors import BadValue
from lora_lab.methods.merge import disabled
from lora_lab.training.batches import collate, encode
from lora_lab.training.evaluate import evaluate
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


@pytest.mark.parametrize("method", [None, LoRA(rank=4, targets=("q", "v")), PromptTuning(tokens=3)], ids=str)
def test_greedy_answers_are_those_made_by_hand_one_prompt_at_a_time(causal, method):
    model, tokenizer = causal
    torch.manual_seed(0)
    if method:
        base = generate(model, tokenizer, PROMPTS, SHORT)
        method.attach(model)
        randomise(model)
    answers = generate(model, tokenizer, PROMPTS, SHORT)
    assert answers == [by_hand(model, tokenizer, prompt, SHORT.max_new_tokens) for prompt in PROMPTS]
    assert answers == generate(model, tokenizer, PROMPTS, SHORT)
    if method:
        assert answers != base
        with disabled(model):
            assert generate(model, tokenizer, PROMPTS, SHORT) == base


def test_answers_side_by_side_are_without_dropout_and_leave_the_model_in_its_mode(causal):
    model, tokenizer = causal
    model.eval()
    wanted = list(side_by_side(model, tokenizer, PROMPTS, 5))
    LoRA(rank=4, targets=("q", "v"), dropout=0.9).attach(model)
    model.train().lm_head.eval()
    modes = [module.training for module in model.modules()]
    for texts, same in zip(side_by_side(model, tokenizer, PROMPTS, 5), wanted, strict=True):
        assert texts == same
        assert [module.training for module in model.modules()] == modes


def test_an_answer_ends_at_the_end_of_text(causal):
    model, tokenizer = causal
    model.lm_head.register_forward_hook(lambda m, a, y: y.index_fill(-1, torch.tensor([tokenizer.eos_token_id]), 1e4))
    assert generate(model, tokenizer, PROMPTS, SHORT) == [""] * len(PROMPTS)


def test_one_beam_is_greedy_and_ten_find_no_less_likely_answers(causal):
    model, tokenizer = causal

    letters = tokenizer("abcdefgh")["input_ids"][1:]
    others = [token for token in range(model.config.vocab_size) if token not in letters]
    model.lm_head.register_forward_hook(lambda m, a, y: y.index_fill(-1, torch.tensor(others), -1e4))

    def likelihood(answer: str) -> float:
        ids = tokenizer(PROMPTS[1])["input_ids"]
        both = torch.tensor([ids + tokenizer(answer)["input_ids"][1:]])
        with torch.inference_mode():
            logs = model(input_ids=both).logits.log_softmax(-1)[0, len(ids) - 1 : -1]
        return float(logs.gather(1, both[0, len(ids) :, None]).sum())

    assert generate(model, tokenizer, PROMPTS, Decoding(beams=1, max_new_tokens=4)) == generate(
        model, tokenizer, PROMPTS, Decoding(max_new_tokens=4)
    )
    greedy, beams = (generate(model, tokenizer, [PROMPTS[1]], Decoding(beams=n, max_new_tokens=4))[0] for n in (1, 10))
    assert len(greedy) == len(beams) == 4
    assert likelihood(beams) >= likelihood(greedy) - 1e-4


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


def test_the_model_is_left_in_its_mode_even_where_an_answer_is_broken_off(causal):
    model, tokenizer = causal
    model.train()
    generate(model, tokenizer, PROMPTS[:1], SHORT)
    assert all(module.training for module in model.modules())

    def interrupted(*_):
        raise KeyboardInterrupt

    model.lm_head.register_forward_hook(interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(model, tokenizer, PROMPTS[:1], SHORT)
    assert all(module.training for module in model.modules())


def test_an_encoder_and_impossible_settings_are_refused(tiny_encoder):
    with pytest.raises(BadValue, match="BertModel does not predict the next token"):
        generate(load_model(tiny_encoder), load_tokenizer(tiny_encoder), PROMPTS)
    with pytest.raises(BadValue, match="beams must be at least 1, not 0"):
        Decoding(beams=0)


# ---- what is learned


def test_only_answers_and_their_ends_are_learnt(tiny_causal):
    task, tokenizer = load_task("restaurants", max_length=600), load_tokenizer(tiny_causal)
    rows = encode(task.test, task, tokenizer)[:3]
    batch = collate(rows, tokenizer.pad_token_id)
    for row, prompt, text, labels in zip(rows, task.test.prompts, task.test.texts, batch.labels, strict=False):
        learned = labels[labels != -100].tolist()
        assert learned[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(learned[:-1]).strip() == text
        assert tokenizer.decode(row.tokens[: row.prompt]).lstrip() == prompt
        assert list(row.tokens[: row.prompt]) == tokenizer(prompt)["input_ids"]


def test_the_prompts_own_loss_does_not_count(tiny_causal):
    task, tokenizer, model = (
        load_task("restaurants", max_length=600),
        load_tokenizer(tiny_causal),
        load_model(tiny_causal),
    )
    row = encode(task.test, task, tokenizer)[0]
    score = evaluate(model, [row], tokenizer.pad_token_id)
    with torch.inference_mode():
        logs = model(input_ids=torch.tensor([row.tokens])).logits.log_softmax(-1)[0, row.prompt - 1 : -1]
    answer = torch.tensor(row.tokens[row.prompt :])
    assert score.metrics["loss"] == pytest.approx(-float(logs.gather(1, answer[:, None]).mean()), rel=1e-4)


def test_a_prompt_that_leaves_no_room_is_refused(tiny_causal):
    task = load_task("restaurants", max_length=20)
    with pytest.raises(BadValue, match="max_length 20 leaves no room for an answer after a prompt of"):
        encode(task.test, task, load_tokenizer(tiny_causal))
