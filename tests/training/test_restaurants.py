"""The restaurants: the same everywhere, unseen where they are held out, each with several references."""

from __future__ import annotations

import random
from hashlib import sha256
from itertools import combinations

import pytest

from lora_lab import load_task
from lora_lab.training import restaurants
from lora_lab.training.assets import shipped
from lora_lab.training.meanings import SLOTS, parse
from lora_lab.training.restaurants import SIZES, Example, profile

TRAIN = "4c39075d461797ea6152a2e4d9991e278dc8ecc826b25092962605a6da79cb65"


@pytest.fixture(scope="module")
def made() -> dict[str, list[Example]]:
    return {split: restaurants.make(split) for split in SIZES}


def test_the_grammar_writes_the_files_that_ship(tmp_path):
    restaurants.write(tmp_path)
    for split in ("validation", "test"):
        assert (tmp_path / f"{split}.jsonl").read_bytes() == shipped(f"data/restaurants/{split}.jsonl").read_bytes()


def test_training_is_the_same_on_every_machine(made):
    lines = "\n".join(example.line() for example in made["train"])
    assert sha256(lines.encode()).hexdigest() == TRAIN


def test_other_draws_of_random_numbers_change_nothing(made):
    random.seed(99)
    assert restaurants.make("validation") == made["validation"]


def test_every_split_has_its_size_and_every_meaning_its_references(made):
    for split, examples in made.items():
        assert len({example.meaning for example in examples}) == len(examples) == SIZES[split]
        for example in examples:
            assert 3 <= len(set(example.references)) == len(example.references) <= 5
            assert 3 <= len(example.meaning) <= 8


def test_what_is_held_out_is_not_met_in_training_nor_in_the_other_split(made):
    profiles = {split: {profile(example.meaning) for example in examples} for split, examples in made.items()}
    texts = {split: {text for e in examples for text in e.references} for split, examples in made.items()}
    for one, other in combinations(made, 2):
        assert not profiles[one] & profiles[other]
        assert not texts[one] & texts[other]


def test_every_value_is_met_in_training(made):
    """The combinations are new, not the words."""
    held_out = {slot for split in ("validation", "test") for e in made[split] for slot in e.meaning.slots}
    assert held_out <= {slot for example in made["train"] for slot in example.meaning.slots}
    assert {slot for slot, _ in held_out} == set(SLOTS)


def test_references_are_plain_sentences(made):
    for example in made["train"]:
        for text in example.references:
            assert text[0].isupper() or text[0].isdigit()
            assert text.endswith(".")
            assert "  " not in text
            assert example.meaning["name"] in text
            assert (example.meaning.get("near") or "") in text


def test_as_a_task_a_meaning_is_the_prompt_and_a_reference_the_answer(made):
    task = load_task("restaurants")
    assert (task.num_labels, task.metric, task.generates) == (None, "perplexity", True)
    assert len(task.train) == sum(len(example.references) for example in made["train"])
    assert (len(task.validation), len(task.test)) == (100, 200)
    for split in (task.train, task.validation, task.test):
        assert len(split.texts) == len(split.prompts) == len(split.references)
        assert all(text in known for text, known in zip(split.texts, split.references, strict=True))
    assert [parse(prompt) for prompt in task.test.prompts] == [example.meaning for example in made["test"]]
