"""Draws of a few training texts: balanced, nested, repeatable."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import LoRA, Recipe, train
from lora_lab.errors import BadValue
from lora_lab.training.tasks import Split, Task, drawn, load_task
from tests.training.conftest import PLAIN


def made(*labels: int) -> Task:
    """A task with these labels on its training texts."""
    some = Split(tuple(f"text {n}" for n in range(len(labels))), labels)
    return Task("made", ("a", "b", "c"), 8, some, some, some)


@given(st.lists(st.integers(0, 2), min_size=30, max_size=60), st.integers(3, 30), st.integers(0, 5))
def test_a_draw_is_balanced_as_the_data_are_and_holds_every_smaller_one(labels, examples, subset):
    task = made(*labels, *[0, 1, 2] * 10)
    places = drawn(task, examples + 12, subset)
    assert len(set(places)) == examples + 12
    assert places == sorted(places)
    for label in range(3):
        expected = (examples + 12) * task.train.labels.count(label) / len(task.train)
        assert abs(sum(task.train.labels[place] == label for place in places) - expected) <= 1.5
    assert set(drawn(task, examples + 9, subset)) < set(places)


def test_a_draw_is_the_same_whenever_it_is_made_and_others_differ():
    task = made(*[0, 1] * 100)
    assert drawn(task, 50) == drawn(task, 50, 0)
    assert len({tuple(drawn(task, 50, subset)) for subset in range(20)}) == 20
    assert drawn(task, 0) == drawn(task, 200, 3) == list(range(200))
    assert task.train.at([2, 5]) == Split(("text 2", "text 5"), (0, 1))
    assert len(drawn(load_task("kjv"), 10)) == 10  # text without labels


def test_a_draw_that_cannot_be_says_why():
    with pytest.raises(BadValue, match="has 4 training texts, not 5"):
        drawn(made(0, 1, 0, 1), 5)
    with pytest.raises(BadValue, match="2 examples of made contain no 'c'"):
        drawn(made(0, 1, 2), 2)


def rare(folder: Path, split: str) -> str:
    """A CSV of 40 texts with a column `split`, one of whose labels only a text of this split has."""
    rows = [f"text {n},{'ab'[n % 2]},{'train' if n < 20 else 'validation' if n < 30 else 'test'}" for n in range(40)]
    file = folder / "own.csv"
    file.write_text("\n".join(["text,label,split", *rows, f"a rare text,odd,{split}"]))
    return str(file)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_no_training_text_has_is_refused_before_a_model_is_loaded(split, tmp_path):
    recipe = Recipe("there is no such model", rare(tmp_path, split), LoRA(rank=1), **PLAIN)
    with pytest.raises(BadValue, match=f"'odd' of a {split} text: .*'split'"):
        train(recipe)
    assert len(load_task(recipe.task).labels) == 3  # it can be scored


def test_a_label_that_training_texts_have_alone_is_none_of_them(tmp_path):
    task = load_task(rare(tmp_path, "train"))
    assert len(drawn(task, 0)) == 21
