"""Draws of a few training texts: balanced, nested, repeatable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab.errors import BadValue
from lora_lab.training.draws import drawn
from lora_lab.training.tasks import Split, Task, load_task


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
    with pytest.raises(BadValue, match="2 examples of made hold no 'c'"):
        drawn(made(0, 1, 2), 2)
