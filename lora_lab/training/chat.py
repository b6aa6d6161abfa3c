"""Tokenize chats in the layout that the model was trained on.

The layout, called the *template*, comes with the tokenizer. SmolLM2 has this template:

    <|im_start|>system
    You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>    # the default system turn
    <|im_start|>user
    Why is the sky blue?<|im_end|>
    <|im_start|>assistant
    Air scatters blue light most.<|im_end|>      # only the answer and its end token count toward the loss

A tokenizer without a template gets a plain layout: a line "user: Why is the sky blue?" and then a line "assistant:".
Prompts of plain text are tokenized as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from lora_lab.errors import BadValue

ROLES = ("system", "user", "assistant")
MARK = "ANSWER"  # a placeholder that shows what the template puts after an answer


@dataclass(frozen=True)
class Chat:
    """The turns before the answer, as (role, text) pairs. The last turn is from the user."""

    turns: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return self.turns[-1][1]

    def __len__(self) -> int:
        """The number of characters in all turns."""
        return sum(len(text) for _, text in self.turns)


Prompt = str | Chat


def question(text: str) -> Chat:
    return Chat((("user", text),))


def rendered(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str:
    """Return the chat as the model reads it, up to the answer. Raises: BadValue for turns that the template rejects."""
    if not tokenizer.chat_template:
        return "".join(f"{role}: {text}\n" for role, text in chat.turns) + "assistant:\n"
    return _templated(tokenizer, chat, answer_follows=True)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Tokenize each prompt. A template already contains its special tokens, so the tokenizer adds none."""
    return [
        tokenizer(rendered(tokenizer, prompt), add_special_tokens=not tokenizer.chat_template)["input_ids"]
        if isinstance(prompt, Chat)
        else tokenizer(prompt)["input_ids"]
        for prompt in prompts
    ]


def end_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that ends a text. Raises: BadValue if the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise BadValue("this model's tokenizer has no token that ends an answer: set tokenizer.eos_token and save it")
    return int(tokenizer.eos_token_id)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that ends an answer: the special token that follows the answer in the template, or end-of-text.

    In some model families, these two tokens differ, and a model that is trained with the wrong token never stops.
    """
    end = end_of_text(tokenizer)
    if not tokenizer.chat_template:
        return end
    rest = _templated(tokenizer, Chat((("user", "?"), ("assistant", MARK)))).rpartition(MARK)[2]
    first = next(iter(tokenizer(rest, add_special_tokens=False)["input_ids"]), end)
    return int(first) if is_special(tokenizer, first) else end


def is_special(tokenizer: PreTrainedTokenizerBase, token: int | None) -> bool:
    """Return whether a token is special. Some special tokens have no name, such as Phi-3's <|end|>."""
    return token in tokenizer.all_special_ids or getattr(tokenizer.added_tokens_decoder.get(token), "special", False)


def _templated(tokenizer: PreTrainedTokenizerBase, chat: Chat, *, answer_follows: bool = False) -> str:
    messages = [{"role": role, "content": text} for role, text in chat.turns]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer_follows))
    except Exception as error:  # a template can raise any error
        roles = ", ".join(role for role, _ in chat.turns)
        raise BadValue(f"this model's chat template does not accept the turns {roles}: {error}") from error
