"""Small models with real tokenizers and a small task, for tests that train."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers

from lora_lab import Recipe, load_tokenizer
from lora_lab.training.batches import Batch, Row, collate, training_rows

PLAIN = {"dtype": "fp32", "attention": "eager", "device": "cpu"}  # nothing to measure


def rows(n: int, *, labels: int | None = 3, longest: int = 12, seed: int = 0) -> list[Row]:
    """Random rows of random lengths for the tiny models."""
    rng = random.Random(seed)
    lengths = [rng.randint(2, longest) for _ in range(n)]
    return [
        Row([rng.randint(1, 95) for _ in range(length)], None if labels is None else rng.randrange(labels), place)
        for place, length in enumerate(lengths)
    ]


def training_batches(rows: Sequence[Row], batch: int, steps: int, seed: int, pad: int) -> Iterator[Batch]:
    """The batches of a run as tensors."""
    return (collate(part, pad) for part in training_rows(rows, batch, steps, seed))


@pytest.fixture(scope="module", autouse=True)
def tiny_models(one_thread):
    """All of them on one thread."""


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> str:
    """The folder of a random BERT of width 32 with MiniLM's tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = load_tokenizer("minilm")
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.BertConfig(**size, vocab_size=len(tokenizer), max_position_embeddings=128)
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory) -> str:
    """The folder of a random Llama of width 32 whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("causal")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<end>", *alphabet])}
    letters = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    letters.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    letters.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.LlamaConfig(**size, vocab_size=len(vocabulary), bos_token_id=0, eos_token_id=0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def opinions(tmp_path_factory) -> str:
    """A CSV of 80 short opinions, whose label is plain from one word."""
    rng = random.Random(0)
    words = ["the", "film", "was", "long", "and", "its", "actors", "walked", "through", "rain", "to", "a", "house"]
    lines = ["text,label"]
    for n in range(80):
        label = ("bad", "good")[n % 2]
        text = " ".join(rng.sample(words, rng.randint(3, 9)))
        lines.append(f"{text} {n} {'awful' if label == 'bad' else 'lovely'},{label}")
    file = tmp_path_factory.mktemp("task") / "opinions.csv"
    file.write_text("\n".join(lines))
    return str(file)


@pytest.fixture
def recipe(tiny_encoder, opinions):
    """`recipe(steps=3)`: a run on the tiny encoder that takes a moment."""

    def make(**changes) -> Recipe:
        return Recipe(
            **{"model": tiny_encoder, "task": opinions, "steps": 4, "batch": 8, "validations": 2, **PLAIN, **changes}
        )

    return make


@pytest.fixture
def empty_home(tmp_path, monkeypatch) -> Path:
    """A LORA_LAB_HOME in which nothing is."""
    monkeypatch.setenv("LORA_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
