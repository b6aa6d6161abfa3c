"""A chat is read as its model was trained to read it; only the answer and the end of its turn are learned."""

import pytest

from lora_lab import load_task, load_tokenizer
from lora_lab.errors import BadValue
from lora_lab.training.batches import encode
from lora_lab.training.chat import Chat, end_of_turn, prompt_ids


@pytest.fixture(scope="module")
def smollm2():
    return load_tokenizer("smollm2")


def test_prompt_and_answer_together_are_the_template_s_own_tokens(smollm2):
    task = load_task("captain")
    for row, asked, text in zip(encode(task.test, task, smollm2), task.test.prompts, task.test.texts, strict=True):
        messages = [{"role": "user", "content": str(asked)}, {"role": "assistant", "content": text}]
        whole = smollm2.apply_chat_template(messages, tokenize=False)
        assert smollm2.decode(row.tokens) + "\n" == whole
        assert smollm2(whole)["input_ids"][: len(row.tokens)] == row.tokens
        assert smollm2.decode(row.tokens[row.prompt :]) == f"{text}<|im_end|>"


def test_turns_that_a_template_refuses_are_named():
    strict = load_tokenizer("smollm2")
    strict.chat_template = "{{ raise_exception('System role not supported') }}"  # as Gemma's says it
    with pytest.raises(BadValue, match="does not accept the turns system, user: System role not supported"):
        prompt_ids(strict, [Chat((("system", "Be brief."), ("user", "Why?")))])


def test_the_end_of_a_turn_is_the_special_token_that_the_template_writes(smollm2):
    assert smollm2.decode([end_of_turn(smollm2)]) == "<|im_end|>"
    other = load_tokenizer("smollm2")
    other.chat_template = other.chat_template.replace("<|im_end|>", "<|endoftext|>")
    assert other.decode([end_of_turn(other)]) == "<|endoftext|>"  # though its end of text is <|im_end|>
    other.chat_template = "{% for m in messages %}{{ m['content'] }} over\n{% endfor %}"
    assert end_of_turn(other) == other.eos_token_id
