"""What was said before an answer, as the tokens that a chat model was trained to read.

A chat model knows one layout, its *template*, which comes with the tokenizer. SmolLM2's:

    <|im_start|>system
    You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>    its own, where we give none
    <|im_start|>user
    Why is the sky blue?<|im_end|>
    <|im_start|>assistant
    Air scatters blue light most.<|im_end|>             answer and end of turn are learned, the rest is read

A tokenizer without a template gets a plain one: "user: Why is the sky blue?" on a line, "assistant:" on the next.
Prompts that are plain text and no chat are tokenized as they stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lora_lab.errors import BadValue

ROLES = ("system", "user", "assistant")
MARK = "ANSWER"  # stands where an answer would, to see what the template puts behind it


@dataclass(frozen=True)
class Chat:
    """Turns before the answer, each a role of ROLES and what was said; the last is the user's."""

    turns: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return self.turns[-1][1]

    def __len__(self) -> int:
        """Characters, of all turns."""
        return sum(len(text) for _, text in self.turns)


Prompt = str | Chat


def question(text: str) -> Chat:
    """A chat that is one question."""
    return Chat((("user", text),))


def rendered(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str:
    """The chat as the model reads it, up to where its answer begins.

    Raises: BadValue for turns that the model's template does not take: some know no system, some no user twice running.
    """
    if not tokenizer.chat_template:
        return "".join(f"{role}: {text}\n" for role, text in chat.turns) + "assistant:\n"
    return _templated(tokenizer, chat.turns, answer_follows=True)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The tokens of each prompt. A template writes its own special tokens, so none are added to a chat."""
    return [
        tokenizer(rendered(tokenizer, prompt), add_special_tokens=not tokenizer.chat_template)["input_ids"]
        if isinstance(prompt, Chat)
        else tokenizer(prompt)["input_ids"]
        for prompt in prompts
    ]


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an answer: the special one that the template writes behind it, else the end of text.

    They differ in some families, and a model that is taught the wrong one never stops.
    """
    end = int(tokenizer.eos_token_id)
    if not tokenizer.chat_template:
        return end
    behind = _templated(tokenizer, (("user", "?"), ("assistant", MARK))).rpartition(MARK)[2]
    first = next(iter(tokenizer(behind, add_special_tokens=False)["input_ids"]), end)
    return int(first) if first in tokenizer.all_special_ids else end


def _templated(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[tuple[str, str]], *, answer_follows: bool = False
) -> str:
    messages = [{"role": role, "content": text} for role, text in turns]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer_follows))
    except TemplateError as error:
        roles = ", ".join(role for role, _ in turns)
        raise BadValue(f"this model's chat template does not take the turns {roles}: {error}") from error
