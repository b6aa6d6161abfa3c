"""Batches: every row in its turn, little padding, and the same order for the same seed."""

import random
from collections import Counter
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lab import load_task, load_tokenizer
from lora_lab.training.batches import STEP, Row, collate, encode, scoring_batches
from tests.training.conftest import rows, training_batches


@settings(max_examples=30)
@given(n=st.integers(1, 90), batch=st.integers(1, 17), epochs=st.integers(1, 3), seed=st.integers(0, 5))
def test_every_row_comes_once_an_epoch(n, batch, epochs, seed):
    data = rows(n, seed=seed)
    steps = -(-n // batch)  # an epoch
    batches = training_batches(data, batch, steps * epochs, seed, pad=0)
    for _ in range(epochs):
        assert sorted([place for b in islice(batches, steps) for place in b.places]) == list(range(n))


def test_scoring_visits_every_row_once_the_longest_first():
    batches = list(scoring_batches(rows(50, longest=60), 8, pad=0))
    assert sorted(place for b in batches for place in b.places) == list(range(50))
    widths = [b.input_ids.shape[1] for b in batches]
    assert widths == sorted(widths, reverse=True)


def test_a_seed_fixes_the_order_and_another_changes_it():
    def order(seed: int) -> list[tuple[int, ...]]:
        return [b.places for b in training_batches(rows(100), 8, 30, seed, pad=0)]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1)[:13] != order(1)[13:26]  # nor do two epochs repeat each other


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_a_batch_is_as_wide_as_its_longest_row_in_whole_steps(lengths):
    batch = collate([Row([7] * length, 0, place) for place, length in enumerate(lengths)], pad=3)
    assert batch.input_ids.shape[1] % STEP == 0
    assert max(lengths) <= batch.input_ids.shape[1] < max(lengths) + STEP
    assert batch.attention_mask.sum(1).tolist() == lengths
    assert (batch.input_ids[batch.attention_mask == 0] == 3).all()
    assert (batch.input_ids[batch.attention_mask == 1] == 7).all()


def test_labels_are_the_rows_or_the_tokens_themselves():
    assert collate([Row([5, 6], 1, 0), Row([5], 0, 1)], pad=0).labels.tolist() == [1, 0]
    labels = collate([Row([5, 6, 7], None, 0), Row([5], None, 1)], pad=0).labels
    assert labels.tolist() == [[5, 6, 7, -100], [5, -100, -100, -100]]


def test_sorting_by_length_saves_most_of_the_padding_and_lengths_come_in_no_order():
    data = rows(2000, longest=60)
    tokens = sum(len(row.tokens) for row in data)
    batches = list(training_batches(data, 16, 125, 0, pad=0))
    sorted_ = sum(b.input_ids.numel() for b in batches)
    shuffled = random.Random(0).sample(data, len(data))
    unsorted = sum(collate(shuffled[i : i + 16], pad=0).input_ids.numel() for i in range(0, 2000, 16))
    assert (sorted_ - tokens) < 0.3 * (unsorted - tokens)
    widths = [b.input_ids.shape[1] for b in batches[:30]]  # within a pool the lengths come in no order
    assert widths not in (sorted(widths), sorted(widths, reverse=True))


def test_encoding_cuts_to_the_tasks_length_and_keeps_labels_and_places(opinions):
    task, tokenizer = load_task(opinions, max_length=8), load_tokenizer("minilm")
    encoded = encode(task.train, task, tokenizer)
    assert [row.place for row in encoded] == list(range(len(task.train)))
    assert [row.label for row in encoded] == list(task.train.labels)
    longest = Counter(min(len(tokenizer(text)["input_ids"]), 8) for text in task.train.texts)
    assert Counter(len(row.tokens) for row in encoded) == longest
